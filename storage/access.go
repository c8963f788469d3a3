package storage

import "cairnmq/segment"

// Routed is the position behind the last message that the sink was told of.
func (l *Log) Routed() Pos { return Pos(l.view.routed.Load()) }

// Clock is what a record appended now would carry as its times.
func (l *Log) Clock() segment.Head { return l.now() }

// KeepDue takes over the due time under which the index holds old, so that
// storing r replaces that entry.
func (r *SessionRow) KeepDue(old *SessionRow) { r.due = old.due }
