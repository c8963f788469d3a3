package storage

import (
	"errors"
	"sync"

	"cairnmq/segment"
)

// Counts are figures about what is stored. To find them out the index is read,
// so they are for now and then.
type Counts struct {
	Segments    int
	Messages    uint64 // in the log; without those of a segment that is just being sealed
	Retained    uint64 // topics with a retained message
	Losses      uint64 // rows of the ledger
	Lost        uint64 // messages in them
	Checkpoint  Pos    // where recovery would begin
	SessionRows int    // in the index, open ones included
}

// Count counts.
func (l *Log) Count() (c Counts, err error) {
	c.Segments = len(l.set.Snapshot())
	meta, _, err := l.index.Meta()
	if err != nil {
		return c, err
	}
	c.Checkpoint = Pos(meta.Checkpoint)
	err = l.index.Segments(func(_ uint64, b []byte) error {
		if row, ok := decodeSegmentRow(b); ok {
			c.Messages += row.Messages
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if c.Retained, err = l.countRetained(); err != nil {
		return c, err
	}
	if c.SessionRows, err = l.CountSessions(); err != nil {
		return c, err
	}
	l.view.Lock()
	active, now := l.view.seg, l.view.tally.messages
	l.view.Unlock()
	c.Messages += now + l.countBefore(active)
	return c, l.Losses(0, func(x Loss) error {
		c.Losses++
		c.Lost += x.Count
		return nil
	})
}

// earlier are the messages that a segment held before this boot began to
// count; it stays the same, so it is found out once.
type earlier struct {
	sync.Mutex
	seg      *segment.Segment
	messages uint64
}

func (l *Log) countBefore(seg *segment.Segment) uint64 {
	e := &l.earlier
	e.Lock()
	defer e.Unlock()
	if e.seg == seg {
		return e.messages
	}
	e.seg, e.messages = seg, 0
	if seg.First() >= l.recoveredEnd || l.set.PinSegment(seg) != nil {
		return 0
	}
	defer seg.Unpin()
	for pos := seg.First(); pos < l.recoveredEnd; {
		rec, next, err := seg.At(pos, true)
		var damage *segment.Damage
		switch {
		case errors.As(err, &damage):
			next = damage.To
		case err != nil:
			return e.messages
		case rec.Kind == KindMessage:
			e.messages++
		}
		pos = next
	}
	return e.messages
}

// countRetained lays the changes in memory over what the index has.
func (l *Log) countRetained() (n uint64, err error) {
	changed := make(map[string]bool)
	l.view.Lock()
	for topic, pos := range l.view.retained {
		changed[topic] = true
		if pos != 0 {
			n++
		}
	}
	l.view.Unlock()
	err = l.index.RetainedAfter("", "", func(topic []byte, _ uint64) error {
		if !changed[viewString(topic)] {
			n++
		}
		return nil
	})
	return n, err
}
