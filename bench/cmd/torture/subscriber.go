//go:build linux

package main

import (
	"sync"
	"time"

	"cairnmq/bench/wire"
)

// subscriber receives streams and judges them.
type subscriber struct {
	client
	filter string
	qos    byte
	// seldom: it is away for most of the time. slow: it stops reading now and
	// then.
	seldom, slow bool

	mu    sync.Mutex
	judge *judge // nil: deliver is something else's
	// deliver takes what is delivered, once for each QoS 2 message.
	deliver func(topic string, payload []byte, qos byte) error
	// held are the QoS 2 messages received whose PUBREL has not come, as any
	// receiver keeps them with its session.
	held       map[uint16]string
	subscribed bool
	open       map[uint16]bool // in flight on this connection
}

func (x *subscriber) run() error {
	x.held = map[uint16]string{}
	for {
		if x.seldom && x.known && !x.draining() {
			if err := x.pause(time.Duration(x.rng.IntN(1500)) * time.Millisecond); err != nil {
				return err
			}
		}
		c, present, err := x.connect(nil)
		if err != nil {
			return err
		}
		x.open = map[uint16]bool{}
		if !present {
			x.mu.Lock()
			clear(x.held)
			if x.clean && x.judge != nil {
				x.judge.views = map[*stream]*view{}
			}
			x.mu.Unlock()
		}
		err = x.listen(c)
		c.close()
		x.release(c)
		if err == errOver || x.failed() {
			return err
		}
	}
}

// listen receives until the connection ends.
func (x *subscriber) listen(c *conn) error {
	if x.clean || !x.subscribed {
		if err := x.subscribe(c, x.filter, x.qos, func(p *wire.Packet) error { return x.take(c, p) }); err != nil {
			return err
		}
		if !x.subscribed {
			x.absent.Add(-1)
		}
		x.subscribed = true
	}
	leave := -1
	if x.seldom {
		leave = x.rng.IntN(2000)
	}
	var p wire.Packet
	for n := 0; ; n++ {
		if err := x.next(c, &p); err != nil {
			return err
		}
		if err := x.take(c, &p); err != nil {
			return err
		}
		if n == leave && !x.draining() {
			return nil
		}
		if x.slow && !x.draining() && x.rng.IntN(400) == 0 {
			if err := x.pause(time.Duration(x.rng.IntN(150)) * time.Millisecond); err != nil {
				return err
			}
		}
	}
}

func (x *subscriber) take(c *conn, p *wire.Packet) error {
	switch p.Type {
	case wire.TypePublish:
		return x.publish(c, p)
	case wire.TypePubrel:
		x.mu.Lock()
		delete(x.held, p.ID)
		x.mu.Unlock()
		delete(x.open, p.ID)
		return c.send(wire.AppendAck(nil, wire.TypePubcomp, p.ID))
	case wire.TypeDisconnect:
		if p.Code != 0x8B && p.Code != 0x8E { // about to end; an earlier attempt to connect came late
			return x.fail("%s: DISCONNECT with %#x", x.id, p.Code)
		}
	case wire.TypeSuback: // of an earlier attempt
	default:
		return x.fail("%s: a subscriber gets packet type %d", x.id, p.Type)
	}
	return nil
}

func (x *subscriber) publish(c *conn, p *wire.Packet) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deliveries.Add(1)
	if p.Retain && p.Topic[0] != 'r' {
		return x.fail("%s: %.40q with the retain flag", x.id, p.Payload)
	}
	if p.QoS > 0 {
		if x.open[p.ID] = true; x.receiveMaximum > 0 && len(x.open) > int(x.receiveMaximum) {
			return x.fail("%s: %d messages in flight, the receive maximum is %d", x.id, len(x.open), x.receiveMaximum)
		}
	}
	if was, ok := x.held[p.ID]; p.QoS == 2 && ok {
		if !p.Dup || was != string(p.Payload) {
			return x.fail("%s: identifier %d, dup %v, is used for %.40q while %.40q is not released", x.id, p.ID, p.Dup, p.Payload, was)
		}
		return c.send(wire.AppendAck(nil, wire.TypePubrec, p.ID))
	}
	if err := x.deliver(string(p.Topic), p.Payload, p.QoS); err != nil {
		return x.fail("%s: %w", x.id, err)
	}
	switch p.QoS {
	case 1:
		delete(x.open, p.ID)
		return c.send(wire.AppendAck(nil, wire.TypePuback, p.ID))
	case 2:
		x.held[p.ID] = string(p.Payload)
		return c.send(wire.AppendAck(nil, wire.TypePubrec, p.ID))
	}
	return nil
}
