//go:build linux

package main

import (
	"fmt"
	"time"

	"cairnmq/bench/wire"
)

const changerFilters = 6

// changer changes its subscriptions, and finds out by messages to itself which
// it has.
type changer struct {
	client
	have [changerFilters]int // QoS, -1: none; what was acknowledged
	// pending is the change that was not acknowledged, and what it leads to.
	pending, toQoS int
	marked         bool // subscribed to the mark
	n              int
}

func (x *changer) run() error {
	x.pending = -1
	for i := range x.have {
		x.have[i] = -1
	}
	for {
		c, _, err := x.connect(nil)
		if err != nil {
			return err
		}
		err = x.live(c)
		c.close()
		x.release(c)
		if err == errOver || x.failed() {
			return err
		}
	}
}

func (x *changer) filter(i int) string { return fmt.Sprintf("c/%s/%d", x.id, i) }
func (x *changer) mark() string        { return fmt.Sprintf("c/%s/mark", x.id) }

func (x *changer) live(c *conn) error {
	take := func(p *wire.Packet) error { return x.take(c, p) }
	if !x.marked {
		if err := x.subscribe(c, x.mark(), 1, take); err != nil {
			return err
		}
		x.marked = true
	}
	for {
		if err := x.probe(c); err != nil {
			return err
		}
		if x.draining() {
			return errOver
		}
		for range 1 + x.rng.IntN(4) {
			if err := x.change(c, take); err != nil {
				return err
			}
		}
		if err := x.pause(time.Duration(x.rng.IntN(10)) * time.Millisecond); err != nil {
			return err
		}
	}
}

// change adds, replaces or removes one subscription.
func (x *changer) change(c *conn, take func(*wire.Packet) error) error {
	i := x.rng.IntN(changerFilters)
	x.pending, x.toQoS = i, x.rng.IntN(4)-1
	if x.toQoS >= 0 {
		if err := x.subscribe(c, x.filter(i), byte(x.toQoS), take); err != nil {
			return err
		}
	} else {
		if err := x.unsubscribe(c, i, take); err != nil {
			return err
		}
	}
	x.have[i], x.pending = x.toQoS, -1
	x.changes.Add(1)
	return nil
}

func (x *changer) unsubscribe(c *conn, i int, take func(*wire.Packet) error) error {
	id := x.nextID()
	if err := c.send(wire.AppendUnsubscribe(nil, x.version, id, x.filter(i))); err != nil {
		return err
	}
	var p wire.Packet
	for {
		if err := x.next(c, &p); err != nil {
			return err
		}
		if p.Type != wire.TypeUnsuback || p.ID != id {
			if err := take(&p); err != nil {
				return err
			}
			continue
		}
		if x.version == wire.V5 && (p.Code == 0x11) != (x.have[i] < 0) { // [MQTT-3.11.3-1]
			return x.fail("%s: UNSUBACK with %#x, the subscription to %s was at %d", x.id, p.Code, x.filter(i), x.have[i])
		}
		return nil
	}
}

func (x *changer) take(c *conn, p *wire.Packet) error {
	if p.Type == wire.TypePublish && p.QoS == 1 {
		return c.send(wire.AppendAck(nil, wire.TypePuback, p.ID))
	}
	return nil
}

// probe publishes to every filter and at last to the mark, and compares what
// comes back with the subscriptions.
func (x *changer) probe(c *conn) error {
	x.n++
	nonce := fmt.Sprint(x.n)
	var b []byte
	for i := range changerFilters + 1 {
		topic := x.mark()
		if i < changerFilters {
			topic = x.filter(i)
		}
		b = (&wire.Publish{Topic: topic, Payload: []byte(nonce), QoS: 1, ID: x.nextID()}).Append(b, x.version)
	}
	if err := c.send(b); err != nil {
		return err
	}
	got := [changerFilters]int{-1, -1, -1, -1, -1, -1}
	var p wire.Packet
	for {
		if err := x.next(c, &p); err != nil {
			return err
		}
		if err := x.take(c, &p); err != nil {
			return err
		}
		if p.Type != wire.TypePublish || string(p.Payload) != nonce {
			continue
		}
		if string(p.Topic) == x.mark() {
			break
		}
		for i := range got {
			if string(p.Topic) == x.filter(i) {
				got[i] = int(p.QoS)
			}
		}
	}
	for i := range got {
		want := min(x.have[i], 1)
		if got[i] != want && (i != x.pending || got[i] != min(x.toQoS, 1)) {
			return x.fail("%s: subscription to %s is at %d, want %d", x.id, x.filter(i), got[i], want)
		}
		if i == x.pending && got[i] != want {
			x.have[i] = x.toQoS
		}
	}
	x.pending = -1
	return nil
}
