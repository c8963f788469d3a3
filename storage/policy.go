package storage

import (
	"sync/atomic"
	"time"

	"cairnmq/segment"
	"cairnmq/storage/filter"
)

// rules are the durability classes and retention rules by topic filter.
type rules struct {
	def       Class
	classes   []ClassRule
	retention []*ruleState
}

// ruleState is a retention rule with what it has used.
type ruleState struct {
	RetentionRule
	// bytes is what matching records take in the log.
	bytes atomic.Int64
	// floor: matching records before it are no longer delivered.
	floor atomic.Uint64
	// held is set while the log is full and records of this rule that a
	// reader still needs keep the oldest segment from being dropped.
	held atomic.Bool
}

func newRules(o *Options) rules {
	r := rules{def: *o.DefaultClass, classes: o.ClassRules}
	for _, rule := range o.Retention {
		r.retention = append(r.retention, &ruleState{RetentionRule: rule})
	}
	return r
}

// classify finds the class and the retention rule of a topic: in both lists
// the first filter that matches counts. No allocation: the topic is only
// looked at.
func (r *rules) classify(topic []byte) (Class, *ruleState) {
	c := r.def
	if len(r.classes) == 0 && len(r.retention) == 0 {
		return c, nil
	}
	name := viewString(topic)
	for i := range r.classes {
		if filter.Match(r.classes[i].Filter, name) {
			c = r.classes[i].Class
			break
		}
	}
	return c, r.rule(name)
}

func (r *rules) rule(name string) *ruleState {
	for _, s := range r.retention {
		if filter.Match(s.Filter, name) {
			return s
		}
	}
	return nil
}

// detail is how the ledger names the rule; the floor is read back from there.
func (s *ruleState) detail() string { return "retention rule for " + s.Filter }

// count adds what a segment holds of each rule, or with sign -1 takes it away,
// but for what lies below the rule's floor and is not counted any more.
func (r *rules) count(list []ruleBytes, seg *segment.Segment, sign int64) {
	for _, x := range list {
		for _, s := range r.retention {
			if s.Filter == x.filter && uint64(seg.Limit()) > s.floor.Load() {
				s.bytes.Add(sign * x.bytes)
			}
		}
	}
}

// refuses reports whether new messages of the rule are refused.
func (s *ruleState) refuses() bool {
	return s.RejectNew && (s.held.Load() || s.MaxBytes > 0 && s.bytes.Load() >= s.MaxBytes)
}

// Dropped reports whether retention rules have taken the message at pos on
// topic out of what is delivered.
func (l *Log) Dropped(topic []byte, pos Pos) bool {
	if len(l.rules.retention) == 0 {
		return false
	}
	s := l.rules.rule(viewString(topic))
	return s != nil && uint64(pos) < s.floor.Load()
}

// ClassFor is the durability class of a topic.
func (l *Log) ClassFor(topic string) Class {
	c, _ := l.rules.classify([]byte(topic))
	return c
}

// LossWindow is what a power cut can cost in a class.
func (l *Log) LossWindow(c Class) string {
	switch c {
	case ClassAlways:
		return "nothing"
	case ClassInterval:
		return "at most the last " + l.o.SyncInterval.Round(time.Millisecond).String() + " and what came during one sync"
	}
	return "what the kernel has not written"
}
