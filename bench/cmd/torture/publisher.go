//go:build linux

package main

import (
	"slices"
	"sync"
	"time"

	"cairnmq/bench/wire"
)

// message is something to publish.
type message struct {
	wire.Publish
	// done is called when the broker has taken it or refused it.
	done func(refused bool)
}

// outgoing is a QoS 1 or 2 message whose handshake is not complete.
type outgoing struct {
	message
	released bool // PUBREC has come
}

// publisher publishes what make gives it. It keeps its session: what was not
// acknowledged when the connection was lost is sent again on the next one.
type publisher struct {
	client
	window int
	make   func() (message, bool) // false: nothing at the moment

	mu   sync.Mutex
	cond *sync.Cond // open or dead has changed
	open []*outgoing
	dead bool // the connection
}

func (x *publisher) run() error {
	x.cond = sync.NewCond(&x.mu)
	for {
		c, present, err := x.connect(nil)
		if err != nil {
			return err
		}
		x.mu.Lock()
		x.dead = false
		x.mu.Unlock()
		read := make(chan error, 1)
		go func() { // ends with the connection
			err := x.read(c)
			x.mu.Lock()
			x.dead = true
			x.cond.Broadcast()
			x.mu.Unlock()
			c.close()
			read <- err
		}()
		err = x.write(c, present)
		c.close()
		if e := <-read; err == nil || e != nil && x.failed() {
			err = e
		}
		x.release(c)
		if x.failed() || err == errOver {
			return err
		}
	}
}

// write sends again what must be, then publishes until the connection ends.
func (x *publisher) write(c *conn, present bool) error {
	x.mu.Lock()
	again := slices.Clone(x.open)
	x.mu.Unlock()
	for _, o := range again {
		x.mu.Lock()
		released := o.released
		x.mu.Unlock()
		var b []byte
		if released && present {
			b = wire.AppendAck(nil, wire.TypePubrel, o.ID)
		} else {
			o.Dup = true
			b = o.Append(nil, x.version)
		}
		if err := c.send(b); err != nil {
			return nil
		}
	}
	for {
		if x.draining() && x.idle() {
			return errOver
		}
		if !x.await() {
			return nil
		}
		for range 1 + x.rng.IntN(x.window) {
			m, ok := x.take()
			if !ok {
				break
			}
			if c.send(m.Append(nil, x.version)) != nil {
				return nil
			}
		}
		if err := x.pause(time.Duration(x.rng.IntN(2500)) * time.Microsecond); err != nil {
			return err
		}
	}
}

// take makes the next message, if there is room in the window.
func (x *publisher) take() (*message, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.open) >= x.window || x.dead {
		return nil, false
	}
	m, ok := x.make()
	if !ok {
		return nil, false
	}
	if m.QoS > 0 {
		m.ID = x.nextID()
		x.open = append(x.open, &outgoing{message: m})
	}
	return &m, true
}

// await waits for room in the window. It reports false when the connection has
// ended.
func (x *publisher) await() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.open) >= x.window && !x.dead {
		x.cond.Wait()
	}
	return !x.dead
}

func (x *publisher) idle() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.open) == 0
}

// read takes the acknowledgements.
func (x *publisher) read(c *conn) error {
	var p wire.Packet
	for {
		if err := x.next(c, &p); err != nil {
			return err
		}
		switch p.Type {
		case wire.TypePuback, wire.TypePubrec, wire.TypePubcomp:
			if err := x.acknowledged(c, &p); err != nil {
				return err
			}
		case wire.TypeDisconnect:
			if p.Code != 0x8B && p.Code != 0x8E { // about to end; an earlier attempt to connect came late
				return x.fail("%s: DISCONNECT with %#x", x.id, p.Code)
			}
		default:
			return x.fail("%s: a publisher gets packet type %d", x.id, p.Type)
		}
	}
}

func (x *publisher) acknowledged(c *conn, p *wire.Packet) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.open, func(o *outgoing) bool { return o.ID == p.ID })
	if i < 0 {
		return x.fail("%s: packet type %d for identifier %d, which is not in use", x.id, p.Type, p.ID)
	}
	o := x.open[i]
	refused := p.Code >= 0x80
	switch {
	case (p.Type == wire.TypePuback) != (o.QoS == 1):
		return x.fail("%s: packet type %d for a message of QoS %d", x.id, p.Type, o.QoS)
	case refused && p.Code != 0x97 && p.Type != wire.TypePubcomp:
		return x.fail("%s: refused with %#x", x.id, p.Code)
	case p.Type == wire.TypePubcomp && !o.released:
		return x.fail("%s: PUBCOMP for identifier %d before its PUBREL", x.id, p.ID)
	}
	if p.Type != wire.TypePubcomp && !o.released {
		// PUBREC says that the message is kept, as PUBACK does.
		o.done(refused)
		x.acks.Add(1)
	}
	if p.Type == wire.TypePubrec && !refused {
		o.released = true
		_ = c.send(wire.AppendAck(nil, wire.TypePubrel, p.ID)) // if it fails, the next connection sends it
		return nil
	}
	x.open = slices.Delete(x.open, i, i+1)
	x.cond.Broadcast()
	return nil
}

// streamSource makes the messages of a publisher of streams.
func (c *campaign) streamSource(n int, x *publisher) func() (message, bool) {
	return func() (message, bool) {
		if c.draining() || c.quota.Add(-1) < 0 {
			return message{}, false
		}
		l := label{publisher: n, topic: x.rng.IntN(topicCount), qos: byte(x.rng.IntN(3))}
		if l.topic == topicExact {
			l.qos = 2
		}
		s := c.book.stream(l)
		l = s.next()
		m := message{Publish: wire.Publish{Topic: topicName(l.publisher, l.topic), Payload: l.payload(), QoS: l.qos}}
		switch {
		case l.topic == topicExpiring:
			m.Expiry = 1
		case l.seq%5 == 0:
			m.Expiry = 36000
		}
		m.done = func(refused bool) { s.acknowledge(l.seq, refused) }
		return m, true
	}
}
