package storage

import (
	"errors"

	"cairnmq/storage/filter"
)

// errStop ends an iteration early.
var errStop = errors.New("stop")

// retainedLocked is the position of the retained message of a topic, or zero;
// the view is locked.
func (l *Log) retainedLocked(topic string) Pos {
	if p, ok := l.view.retained[topic]; ok {
		return p
	}
	p, _, err := l.index.Retained(topic)
	if err != nil {
		l.indexTrouble(err)
	}
	return Pos(p)
}

// writeRetainedLocked moves the changes into the index; the view is locked.
func (l *Log) writeRetainedLocked() {
	v := &l.view
	if len(v.retained) == 0 {
		return
	}
	l.gate.RLock()
	defer l.gate.RUnlock()
	b := l.index.NewBatch()
	putRetained(b, v.retained)
	if err := l.applied(b.Apply()); err != nil {
		l.indexTrouble(err)
		return // kept in memory, tried again at the next checkpoint
	}
	clear(v.retained)
}

// RetainedMessage names the retained message of one topic.
type RetainedMessage struct {
	Topic string
	Pos   Pos
}

// Retained lists up to limit topics that match the filter, come after the
// topic after in byte order ("" to begin), and whose retained message lies
// before the position before. Fewer than limit means that there are no more.
func (l *Log) Retained(f, after string, before Pos, limit int) (list []RetainedMessage, err error) {
	l.view.Lock()
	l.writeRetainedLocked()
	l.view.Unlock()
	prefix, exact := filter.Literal(f)
	if exact {
		p, ok, err := l.index.Retained(f)
		if ok && after == "" && Pos(p) < before {
			list = append(list, RetainedMessage{f, Pos(p)})
		}
		return list, err
	}
	err = l.index.RetainedAfter(prefix, after, func(topic []byte, pos uint64) error {
		if Pos(pos) >= before || !filter.Match(f, viewString(topic)) {
			return nil
		}
		list = append(list, RetainedMessage{string(topic), Pos(pos)})
		if len(list) == limit {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return list, err
}
