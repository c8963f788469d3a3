package storage

import (
	"fmt"
	"sync"
	"time"

	"cairnmq/index"
)

// Source is a session that is open: its state is in memory, and the log asks
// for it at a checkpoint and before data is dropped.
type Source interface {
	// Snapshot returns the session's state with AsOf set to the log's head
	// at an instant when no event of the session was being appended. persist
	// says whether the row belongs into the index. With onlyDirty it may
	// return nil if nothing has changed since the last call with onlyDirty;
	// a call without asks for a look and changes nothing.
	//
	// It is called by the keeper, with the index held: nobody may append to
	// the log or write to the index while holding a lock that it takes.
	Snapshot(onlyDirty bool) (row *SessionRow, persist bool)
}

// sources are the open sessions by client id.
type sources struct {
	mu   sync.Mutex
	open map[string]Source
	// groups are those with members online, by name.
	groups map[string]GroupSource
}

func (s *sources) snapshot() []Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Source, 0, len(s.open))
	for _, src := range s.open {
		out = append(out, src)
	}
	return out
}

// gate keeps the index from knowing more than the disk: whoever writes to the
// index holds it for reading, a checkpoint holds it from the sync of the log
// to the flush of the index.
type gate struct {
	sync.RWMutex
	// failed: the last checkpoint did not come to its end.
	failed bool
}

// LoadSession reads a session's row from the index. ok is false if there is
// no such session.
func (l *Log) LoadSession(id string) (row *SessionRow, ok bool, err error) {
	b, ok, err := l.index.Session(id)
	if err != nil || !ok {
		return nil, false, err
	}
	row, ok = decodeRow(id, b)
	if !ok {
		return nil, false, fmt.Errorf("session %q: %w", id, index.ErrDamaged)
	}
	return row, true, nil
}

// AttachSession registers an open session.
func (l *Log) AttachSession(id string, src Source) {
	l.sources.mu.Lock()
	defer l.sources.mu.Unlock()
	l.sources.open[id] = src
}

// DetachSession ends what AttachSession began.
func (l *Log) DetachSession(id string) {
	l.sources.mu.Lock()
	defer l.sources.mu.Unlock()
	delete(l.sources.open, id)
}

// StoreSession writes a row to the index. The events that led to it are in
// the log, so it need not be durable. It ends what AttachSession began: from
// here on the row says what the session is, and a checkpoint must not put an
// older one in its place.
func (l *Log) StoreSession(row *SessionRow) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	l.DetachSession(row.ID)
	b := l.index.NewBatch()
	putSession(b, row)
	return l.applied(b.Apply())
}

// DeleteSession removes a row from the index. It ends what AttachSession
// began, or a checkpoint would bring the row back.
func (l *Log) DeleteSession(row *SessionRow) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	l.DetachSession(row.ID)
	b := l.index.NewBatch()
	dropSession(b, row)
	return l.applied(b.Apply())
}

// checkpointPending is how much the index may collect before a checkpoint is
// wanted: Pebble must not get to the point where it flushes by itself.
const checkpointPending = index.DefaultMemTableBytes / 4

// apply writes a batch to the index.
func (l *Log) apply(b *index.Batch) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	return l.applied(b.Apply())
}

// applied asks for a checkpoint when the index has collected a lot.
func (l *Log) applied(err error) error {
	if l.index.Pending() >= checkpointPending {
		l.keeper.poke(&l.keeper.checkpointDue)
	}
	return err
}

func putSession(b *index.Batch, row *SessionRow) {
	if row.due != 0 {
		b.DeleteDue(row.due, row.ID)
		row.due = 0
	}
	if at, ok := row.Due(); ok {
		row.due = at.UnixMilli()
		b.SetDue(row.due, row.ID)
	}
	if row.Online {
		b.SetOnline(row.ID)
	} else {
		b.ClearOnline(row.ID)
	}
	b.SetSession(row.ID, row.encode(nil))
}

func dropSession(b *index.Batch, row *SessionRow) {
	if row.due != 0 {
		b.DeleteDue(row.due, row.ID)
	}
	b.ClearOnline(row.ID)
	b.DeleteSession(row.ID)
}

// DueSessions lists closed sessions for which something is due.
func (l *Log) DueSessions(now time.Time) (ids []string, err error) {
	err = l.index.Due(now.UnixMilli(), func(_ int64, id string) error {
		ids = append(ids, id)
		return nil
	})
	return ids, err
}

// NextDue is the time of the next due session.
func (l *Log) NextDue() (at time.Time, ok bool, err error) {
	err = l.index.Due(1<<62, func(ms int64, _ string) error {
		at, ok = time.UnixMilli(ms), true
		return errStop
	})
	if err == errStop {
		err = nil
	}
	return at, ok, err
}

// Sessions calls fn for every session in the index, open ones included as
// they were at the last checkpoint.
func (l *Log) Sessions(fn func(row *SessionRow) error) error {
	return l.index.Sessions(func(id string, b []byte) error {
		if row, ok := decodeRow(id, b); ok {
			return fn(row)
		}
		return nil
	})
}

// CountSessions counts the sessions in the index.
func (l *Log) CountSessions() (n int, err error) {
	err = l.index.Sessions(func(string, []byte) error { n++; return nil })
	return n, err
}
