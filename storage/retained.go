package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
// What cannot be written stays in memory and is tried again.
func (l *Log) writeRetainedLocked() error {
	v := &l.view
	if len(v.retained) == 0 {
		return nil
	}
	b := l.index.NewBatch()
	putRetained(b, v.retained)
	if err := l.apply(b); err != nil {
		return fmt.Errorf("write the retained table: %w", err)
	}
	clear(v.retained)
	return nil
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
	if limit <= 0 {
		return nil, nil
	}
	prefix, exact := filter.Literal(f)
	if exact {
		l.view.Lock()
		p, changed := l.view.retained[f]
		l.view.Unlock()
		if !changed {
			var v uint64
			v, _, err = l.index.Retained(f)
			p = Pos(v)
		}
		if p != 0 && after == "" && p < before {
			list = append(list, RetainedMessage{f, p})
		}
		return list, err
	}
	m := retainedMerge{changes: l.retainedChanges(f, after), before: before, limit: limit}
	err = l.index.RetainedAfter(prefix, after, func(topic []byte, pos uint64) error {
		if !filter.Match(f, viewString(topic)) {
			return nil
		}
		return m.stored(string(topic), Pos(pos))
	})
	if err == nil {
		err = m.upTo("")
	}
	if errors.Is(err, errStop) {
		err = nil
	}
	return m.list, err
}

// retainedChanges are the changes in memory that match the filter and come
// after the topic after, sorted.
func (l *Log) retainedChanges(f, after string) (list []RetainedMessage) {
	l.view.Lock()
	for topic, pos := range l.view.retained {
		if topic > after && filter.Match(f, topic) {
			list = append(list, RetainedMessage{topic, pos})
		}
	}
	l.view.Unlock()
	slices.SortFunc(list, func(a, b RetainedMessage) int { return strings.Compare(a.Topic, b.Topic) })
	return list
}

// retainedMerge lays the changes in memory over what the index has, in the
// order of the topics. Writing them to the index first would be simpler, and
// would hold up all routing for as long as a checkpoint takes.
type retainedMerge struct {
	changes []RetainedMessage
	before  Pos
	limit   int
	list    []RetainedMessage
}

// stored takes a row of the index.
func (m *retainedMerge) stored(topic string, pos Pos) error {
	if err := m.upTo(topic); err != nil {
		return err
	}
	if len(m.changes) > 0 && m.changes[0].Topic == topic {
		return nil // superseded
	}
	return m.add(RetainedMessage{topic, pos})
}

// upTo takes the changes of the topics before the given one, or of all.
func (m *retainedMerge) upTo(topic string) error {
	for len(m.changes) > 0 && (topic == "" || m.changes[0].Topic < topic) {
		x := m.changes[0]
		m.changes = m.changes[1:]
		if err := m.add(x); err != nil {
			return err
		}
	}
	return nil
}

func (m *retainedMerge) add(x RetainedMessage) error {
	if x.Pos == 0 || x.Pos >= m.before {
		return nil
	}
	m.list = append(m.list, x)
	if len(m.list) >= m.limit {
		return errStop
	}
	return nil
}
