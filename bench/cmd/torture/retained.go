//go:build linux

package main

import (
	"fmt"
	"sync"
	"time"

	"cairnmq/bench/wire"
)

// shelf is the retained messages of one topic, in the order in which they were
// sent, one after the other.
type shelf struct {
	mu    sync.Mutex
	empty []bool // those that clear the topic
	acked int    // the last one acknowledged, -1: none
}

// between returns the last one acknowledged and the last one sent.
func (s *shelf) between() (from, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, len(s.empty) - 1
}

// none: nothing has come.
const none = -1

// judge compares what a new subscriber got, or none, with what it may
// get: the last one that was acknowledged before it asked, or a later one.
func (s *shelf) judge(got, from, to int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got != none {
		if got < from || got > to || s.empty[got] {
			return fmt.Errorf("number %d, want one from %d to %d", got, from, to)
		}
		return nil
	}
	for n := from; n <= to; n++ {
		if n < 0 || s.empty[n] {
			return nil
		}
	}
	return fmt.Errorf("nothing, want a number from %d to %d", from, to)
}

func shelfTopic(n int) string { return fmt.Sprintf("r/v/%d", n) }

// shelfSource makes retained messages. The publisher's window is one message.
func (c *campaign) shelfSource(n int, x *publisher) func() (message, bool) {
	s := c.shelves[n]
	return func() (message, bool) {
		if c.draining() {
			return message{}, false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		number := len(s.empty)
		m := message{Publish: wire.Publish{Topic: shelfTopic(n), Payload: fmt.Appendf(nil, "%d %d", n, number), QoS: byte(1 + x.rng.IntN(2)), Retain: true}}
		if x.rng.IntN(6) == 0 {
			m.Payload = nil
		}
		s.empty = append(s.empty, m.Payload == nil)
		m.done = func(refused bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !refused {
				s.acked = number
			}
		}
		return m, true
	}
}

// visitor subscribes anew to all retained messages, again and again.
type visitor struct {
	client
	n int
}

func (x *visitor) run() error {
	for {
		c, _, err := x.connect(nil)
		if err != nil {
			return err
		}
		err = x.look(c)
		_ = c.send(wire.AppendDisconnect(nil))
		c.close()
		x.release(c)
		if x.failed() {
			return err
		}
		if err == nil && x.draining() {
			return errOver
		}
		if err := x.pause(time.Duration(x.rng.IntN(20)) * time.Millisecond); err != nil {
			return err
		}
	}
}

// look subscribes and compares. A message to itself, sent after the
// subscription, comes behind all that the subscription brings.
func (x *visitor) look(c *conn) error {
	nothing := func(*wire.Packet) error { return nil }
	mark := "r/m/" + x.id
	if err := x.subscribe(c, mark, 0, nothing); err != nil {
		return err
	}
	x.n++
	nonce := fmt.Sprint(x.n)
	var from []int
	for _, s := range x.shelves {
		f, _ := s.between()
		from = append(from, f)
	}
	got := make([]int, len(from))
	for i := range got {
		got[i] = none
	}
	take := func(p *wire.Packet) error { return x.take(c, p, got) }
	if err := x.subscribe(c, "r/v/#", 1, take); err != nil {
		return err
	}
	if err := c.send((&wire.Publish{Topic: mark, Payload: []byte(nonce)}).Append(nil, x.version)); err != nil {
		return err
	}
	var p wire.Packet
	for marked := false; !marked || x.waiting(got, from); {
		if err := x.next(c, &p); err != nil {
			return err
		}
		if p.Type == wire.TypePublish && string(p.Topic) == mark && string(p.Payload) == nonce {
			marked = true
		} else if err := take(&p); err != nil {
			return err
		}
	}
	for i, s := range x.shelves {
		_, to := s.between()
		if err := s.judge(got[i], from[i], to); err != nil {
			return x.fail("%s: retained on %s: %w", x.id, shelfTopic(i), err)
		}
	}
	x.lookups.Add(1)
	return nil
}

// waiting: of a topic nothing has come, so it must have been published to
// since, and that comes as to any subscriber.
func (x *visitor) waiting(got, from []int) bool {
	for i, s := range x.shelves {
		_, to := s.between()
		if got[i] == none && s.judge(none, from[i], to) != nil {
			return true
		}
	}
	return false
}

func (x *visitor) take(c *conn, p *wire.Packet, got []int) error {
	if p.Type != wire.TypePublish {
		return nil
	}
	if p.QoS == 1 {
		if err := c.send(wire.AppendAck(nil, wire.TypePuback, p.ID)); err != nil {
			return err
		}
	}
	var shelf, number int
	if !p.Retain { // published since, and told to all subscribers
		if _, err := fmt.Sscan(string(p.Payload), &shelf, &number); err == nil && got[shelf] == none {
			got[shelf] = number
		}
		return nil
	}
	if _, err := fmt.Sscan(string(p.Payload), &shelf, &number); err != nil || shelf < 0 || shelf >= len(got) || string(p.Topic) != shelfTopic(shelf) {
		return x.fail("%s: retained %.40q on %q is nobody's", x.id, p.Payload, p.Topic)
	}
	if got[shelf] != none {
		return x.fail("%s: two retained messages on %q", x.id, p.Topic)
	}
	got[shelf] = number
	return nil
}
