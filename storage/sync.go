package storage

import (
	"fmt"
	"sync"
	"time"

	"cairnmq/segment"
)

// syncer is the one goroutine that syncs. One sync answers everybody who
// waits: while it runs, others append and wait, and the next one covers them
// all (group commit).
type syncer struct {
	mu     sync.Mutex
	cond   *sync.Cond // synced moved, or the log failed
	synced Pos
	ended  bool // nobody syncs any more

	kick  chan struct{} // capacity 1
	timer *time.Timer   // interval class
	quit  chan struct{}
	done  chan struct{}
}

func (s *syncer) init() {
	s.cond = sync.NewCond(&s.mu)
	s.kick = make(chan struct{}, 1)
	s.quit = make(chan struct{})
	s.done = make(chan struct{})
	s.timer = time.NewTimer(time.Hour)
	s.timer.Stop()
}

// arm starts the interval of a record that was just appended.
func (s *syncer) arm(d time.Duration) { s.timer.Reset(d) }

// ask makes the syncer run, once more if it is running.
func (s *syncer) ask() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *syncer) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cond.Broadcast()
}

// wait blocks until everything before end is on stable storage.
func (s *syncer) wait(l *Log, end Pos) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.synced < end {
		if err := l.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrFailed, err)
		}
		if s.ended {
			return ErrClosed
		}
		s.ask()
		s.cond.Wait()
	}
	return nil
}

// run is the goroutine. It ends when quit is closed.
func (s *syncer) run(l *Log) {
	defer close(s.done)
	defer s.end()
	for {
		select {
		case <-s.kick:
		case <-s.timer.C:
		case <-s.quit:
			return
		}
		if err := l.syncNow(); err != nil {
			l.fail(err)
			return
		}
	}
}

// end releases those who wait for a sync that will not come.
func (s *syncer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.cond.Broadcast()
}

// syncNow puts everything appended so far on stable storage. Only the syncer
// calls it, so that syncs never overlap.
func (l *Log) syncNow() error {
	l.seq.Lock()
	from, to := l.seq.synced, l.Head()
	segs := append([]*segment.Segment(nil), l.seq.unsynced...)
	l.seq.dirty = false
	l.seq.Unlock()
	if from >= to {
		return nil // asked for twice
	}

	for _, s := range segs {
		if s.Base >= to || s.End() <= from {
			continue
		}
		if !l.set.PinUnsealed(s) {
			continue
		}
		err := s.Flush(from, to)
		s.Unpin()
		if err != nil {
			return err
		}
	}
	// What is synced counts only as long as nothing is lost.
	if l.Err() != nil {
		return l.Err()
	}
	l.stats.Syncs.Add(1)
	l.stats.SyncedBytes.Add(uint64(to - from))

	l.seq.Lock()
	l.seq.synced = to
	if l.seq.lastAlways < to {
		l.seq.firstAlways = 0
	} else if l.seq.firstAlways < to {
		l.seq.firstAlways = to // a record boundary at or before the next such record
	}
	l.commitTo()
	l.view.follow()
	// The active segment stays; the older ones are whole on disk.
	for len(l.seq.unsynced) > 1 && l.seq.unsynced[0].End() <= to && l.seq.unsynced[0] != l.seq.active {
		l.seq.unsynced = l.seq.unsynced[1:]
	}
	l.seq.Unlock()

	l.syncer.mu.Lock()
	l.syncer.synced = to
	l.syncer.cond.Broadcast()
	l.syncer.mu.Unlock()
	return nil
}

// Sync waits until everything appended before the call is on stable storage.
func (l *Log) Sync() error { return l.syncer.wait(l, l.Head()) }
