//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"cairnmq/bench/wire"
)

// client is one MQTT client with its session, over many connections.
type client struct {
	*campaign
	id      string
	version wire.Version
	clean   bool
	uncut   bool // its connections are not cut by others
	rng     *rand.Rand
	// receiveMaximum is named in CONNECT if it is not zero.
	receiveMaximum uint16

	tried bool // a CONNECT was sent: there may be a session
	known bool // a CONNACK has come: there must be one
	epoch int64
	ids   uint16
}

// conn is one connection. Writing is for everybody, reading for one.
type conn struct {
	nc      net.Conn
	version wire.Version
	buf     []byte
	r, w    int

	mu sync.Mutex
	// cuttable: its owner can do with a cut at any time.
	cuttable bool
}

// sendLimit is how long a broker that runs may not read. It is stopped now and
// then, and on a busy machine everything is slow.
const sendLimit = time.Minute

func (c *conn) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.nc.SetWriteDeadline(time.Now().Add(sendLimit))
	_, err := c.nc.Write(b)
	return err
}

func (c *conn) close() { _ = c.nc.Close() }

// next reads a packet. Its slices are good until the next call.
func (c *conn) next(p *wire.Packet) error {
	for {
		n, err := wire.Decode(c.buf[c.r:c.w], c.version, p)
		if err != nil {
			return err
		}
		if n > 0 {
			c.r += n
			return nil
		}
		if c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		}
		if c.w == len(c.buf) {
			c.buf = append(c.buf, make([]byte, max(4096, len(c.buf)))...)
		}
		n, err = c.nc.Read(c.buf[c.w:])
		if c.w += n; n == 0 && err != nil {
			return err
		}
	}
}

// errOver: the campaign has ended, or does not need this client any more.
var errOver = errors.New("over")

// retryPause is how long a client waits before it tries to connect again.
const retryPause = 3 * time.Millisecond

// connect tries until there is a connection, and compares the session present
// flag with what must be.
func (x *client) connect(will func() *wire.Will) (c *conn, present bool, err error) {
	for {
		if err := x.pause(retryPause); err != nil {
			return nil, false, err
		}
		var w *wire.Will
		if will != nil {
			w = will()
		}
		c, p, err := x.tryConnect(w)
		if err != nil {
			if errors.Is(err, wire.ErrMalformed) {
				return nil, false, x.fail("%s: the answer to CONNECT: %v", x.id, err)
			}
			continue // not there, or gone again
		}
		switch {
		case p.Code == 3 && x.version == wire.V311 || p.Code == 0x88 || p.Code == 0x8B: // about to end
			c.close()
			x.release(c)
			continue
		case p.Code != 0:
			return nil, false, x.fail("%s: CONNACK with code %#x", x.id, p.Code)
		case p.SessionPresent && x.clean:
			return nil, false, x.fail("%s: a session is present after a clean start", x.id)
		case p.SessionPresent && !x.tried:
			return nil, false, x.fail("%s: a session is present before the first connection", x.id)
		case !p.SessionPresent && x.known && !x.clean:
			return nil, false, x.fail("%s: the session is not present", x.id)
		}
		x.tried = true
		x.known = !x.clean
		x.connections.Add(1)
		return c, p.SessionPresent, nil
	}
}

func (x *client) tryConnect(will *wire.Will) (*conn, *wire.Packet, error) {
	x.epoch = x.currentEpoch()
	nc, err := x.dial(x.rng.IntN(3) == 0)
	if err != nil {
		return nil, nil, err
	}
	c := &conn{nc: nc, version: x.version, cuttable: !x.uncut}
	x.hold(c)
	hello := wire.Connect{Version: x.version, ClientID: x.id, Clean: x.clean, Will: will}
	if x.version == wire.V5 {
		hello.ReceiveMaximum = x.receiveMaximum
	}
	var p wire.Packet
	if err = c.send(wire.AppendConnect(nil, hello)); err == nil {
		err = c.next(&p)
	}
	if err == nil && p.Type != wire.TypeConnack {
		err = fmt.Errorf("%w: packet type %d before CONNACK", wire.ErrMalformed, p.Type)
	}
	if err != nil {
		// It may have been opened all the same.
		x.tried = true
		x.release(c)
		return nil, nil, err
	}
	return c, &p, nil
}

// next reads a packet. One that is not well-formed is a failure, the end of
// the connection is not.
func (x *client) next(c *conn, p *wire.Packet) error {
	err := c.next(p)
	if errors.Is(err, wire.ErrMalformed) {
		return x.fail("%s: %w", x.id, err)
	}
	return err
}

// nextID is a packet identifier, 1 to 60,000, used long ago.
func (x *client) nextID() uint16 {
	x.ids = x.ids%60000 + 1
	return x.ids
}

// subscribe sends one SUBSCRIBE on a connection that only this goroutine
// reads, and hands what else comes to other until the SUBACK is there.
func (x *client) subscribe(c *conn, filter string, qos byte, other func(*wire.Packet) error) error {
	id := x.nextID()
	if err := c.send(wire.AppendSubscribe(nil, x.version, id, qos, filter)); err != nil {
		return err
	}
	var p wire.Packet
	for {
		if err := x.next(c, &p); err != nil {
			return err
		}
		if p.Type == wire.TypeSuback && p.ID == id {
			if len(p.Codes) != 1 || p.Codes[0] != qos {
				return x.fail("%s: SUBACK with % x for %s at QoS %d", x.id, p.Codes, filter, qos)
			}
			return nil
		}
		if err := other(&p); err != nil {
			return err
		}
	}
}
