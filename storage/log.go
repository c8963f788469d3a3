package storage

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cairnmq/index"
	"cairnmq/segment"
)

// Log is an open log with its index.
type Log struct {
	dir  string
	o    Options
	id   [16]byte
	boot uint16
	// opened is the instant that the monotonic clock of this boot counts from.
	opened time.Time
	log    *slog.Logger
	// unlock lets go of the directory.
	unlock func() error
	set    *segment.Set
	index  *index.Index
	rules  rules

	// recoveredEnd: records before it were written by an earlier boot and
	// are verified when they are read.
	recoveredEnd Pos
	earlier      earlier

	// head is the position behind the last record; committed the position
	// up to which readers may look. Written under seq.
	head      atomic.Uint64
	committed atomic.Uint64
	failed    atomic.Pointer[error]
	dead      chan struct{} // closed by the first failure

	// seq serialises appends and guards what follows. It is held for the
	// length of a copy, never for a system call but the rare creation of a
	// segment that the keeper has not prepared.
	seq struct {
		sync.Mutex
		active *segment.Segment
		next   *segment.Segment // prepared, empty, its base follows active
		// unsynced are the segments that hold records behind synced.
		unsynced []*segment.Segment
		synced   Pos
		// firstAlways is a lower bound of the unsynced records of class
		// always, zero if there is none; lastAlways is the last one.
		firstAlways, lastAlways Pos
		dirty                   bool // an interval-class record waits for a sync
		closed                  bool
		sinceCheckpoint         int64
		records, bytes          uint64 // appended and not yet in stats
		checkpoint              Pos
		room                    chan struct{} // closed when room may have come
		full                    bool
		// What appenders ask of the keeper: room for a record of this size;
		// attempted wakes them when attempts has grown.
		wanted        int
		wantedByEvent int // the same for events alone
		attempts      int
		refused       refusal // the last attempt that failed for its size
		// A segment beyond the budget is for events only.
		activeForEvents, nextForEvents bool
		attempted                      *sync.Cond
	}

	syncer syncer
	view   view
	keeper keeper
	gate   gate

	sources sources

	damage damageBook
	stats  Stats
}

// Stats counts since the log was opened.
type Stats struct {
	Records, Messages, AppendedBytes, PayloadBytes atomic.Uint64
	Syncs, SyncedBytes                             atomic.Uint64
	Losses                                         atomic.Uint64
}

// ID identifies the log: with a position it names one record for ever.
func (l *Log) ID() [16]byte { return l.id }

// Dir is the data directory.
func (l *Log) Dir() string { return l.dir }

// Head is the position behind the last record appended.
func (l *Log) Head() Pos { return Pos(l.head.Load()) }

// Committed is the position behind the last record that readers may see.
func (l *Log) Committed() Pos { return Pos(l.committed.Load()) }

// Oldest is the position of the oldest record kept.
func (l *Log) Oldest() Pos { return l.set.Oldest() }

// Stats are live counters.
func (l *Log) Stats() *Stats { return &l.stats }

// SessionClass is the durability class of session events.
func (l *Log) SessionClass() Class { return *l.o.SessionClass }

// Failed is closed when the log has failed for good; Err says why.
func (l *Log) Failed() <-chan struct{} { return l.dead }

// Err is the failure, if any.
func (l *Log) Err() error {
	if e := l.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// fail ends the log: a failed sync may have dropped dirty pages, and a later
// one that succeeds would prove nothing. The caller does not hold seq.
func (l *Log) fail(err error) {
	if l.failed.CompareAndSwap(nil, &err) {
		l.log.Error("the log has failed; nothing is acknowledged any more", "error", err)
		close(l.dead)
		l.seq.Lock()
		l.seq.attempted.Broadcast()
		l.seq.Unlock()
		l.syncer.wake()
	}
}

// now stamps records: wall clock and this boot's monotonic clock.
func (l *Log) now() segment.Head {
	t := l.o.Now()
	return segment.Head{Wall: t.UnixNano(), Boot: l.boot, Mono: max(t.Sub(l.opened).Milliseconds(), 0)}
}

// Age is how long ago a record was appended, by the monotonic clock if this
// boot appended it, else by the wall clock, and never negative: a clock that
// was set back makes nothing older.
func (l *Log) Age(h *segment.Head, now time.Time) time.Duration {
	if h.Boot == l.boot {
		return max(now.Sub(l.opened)-time.Duration(h.Mono)*time.Millisecond, 0)
	}
	return max(now.Sub(h.WallTime()), 0)
}

// Wait returns when the records before end meet class, or with the error that
// ended the log. It is the only way from "appended" to "acknowledged".
func (l *Log) Wait(end Pos, class Class) error {
	if class == ClassAlways {
		return l.syncer.wait(l, end)
	}
	return l.Err()
}

// WaitRoom returns when there may be room again after ErrFull.
func (l *Log) WaitRoom(ctx context.Context) error {
	l.seq.Lock()
	room := l.seq.room
	full := l.seq.full
	l.seq.Unlock()
	if !full {
		return nil
	}
	select {
	case <-room:
		return nil
	case <-l.dead:
		return l.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
