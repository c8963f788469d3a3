//go:build linux

package main

import (
	"fmt"
	"sync"
	"time"

	"cairnmq/bench/wire"
)

// will is one connection's will: how often it may come, and how often it did.
type will struct {
	key      string
	min, max int
	count    int
}

// wills are those of a campaign.
type wills struct {
	mu  sync.Mutex
	all map[string]*will
}

// open notes a CONNECT with a will that is about to be sent: whether the
// session opens is not known.
func (b *wills) open(key string) *will {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &will{key: key, max: 1}
	b.all[key] = w
	return w
}

func (b *wills) expect(w *will, min, max int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.min, w.max = min, max
}

func (b *wills) deliver(payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.all[string(payload)]
	switch {
	case w == nil:
		return fmt.Errorf("will %.40q is nobody's", payload)
	case w.count == 1:
		return fmt.Errorf("will %q came twice", payload)
	case w.max == 0:
		return fmt.Errorf("will %q came though it was not due", payload)
	}
	w.count++
	return nil
}

// missing counts those that are due and have not come.
func (b *wills) missing() (n int, example string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.all {
		if w.count < w.min {
			n++
			example = w.key
		}
	}
	return n, example
}

// wrong finds a will that came and must not have.
func (b *wills) wrong() (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.all {
		if w.count > w.max {
			return w.key, true
		}
	}
	return "", false
}

func (b *wills) fired() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.all {
		n += w.count
	}
	return n
}

// mortal is a client that connects with a will and ends in one way or another.
type mortal struct {
	client
	delay uint32 // of its wills; never over within a campaign

	n    int
	last *will // of the connection before, if what became of it is open
	how  ending
	at   int64 // epoch of that connection
}

// ending is how a connection ended.
type ending int

const (
	lost     ending = iota // without a word
	parted                 // DISCONNECT
	withWill               // DISCONNECT with will, of MQTT 5
)

func (x *mortal) run() error {
	for {
		var w *will
		c, present, err := x.connect(func() *wire.Will {
			x.n++
			w = x.wills.open(fmt.Sprintf("%s connection %d", x.id, x.n))
			return &wire.Will{Topic: "w/" + x.id, Payload: []byte(w.key), QoS: 2, Delay: x.delay}
		})
		if err != nil {
			return err
		}
		x.settle(present)
		err = x.die(c, w)
		c.close()
		x.release(c)
		if err != nil {
			return err
		}
	}
}

// settle says what must have become of the will before, now that the client is
// connected again.
func (x *mortal) settle(present bool) {
	w := x.last
	if w == nil {
		return
	}
	switch {
	case x.how == parted && x.epoch == x.at:
		x.wills.expect(w, 0, 0) // [MQTT-3.1.2-10]
	case x.how == parted:
		// The broker may have been killed before it knew of the DISCONNECT.
	case x.delay > 0 && present:
		x.wills.expect(w, 0, 0) // [MQTT-3.1.3-9]
	default:
		x.wills.expect(w, 1, 1) // [MQTT-3.1.2-8]
	}
}

// die ends the connection. A will without delay is due from here on.
func (x *mortal) die(c *conn, w *will) error {
	x.last, x.at = w, x.epoch
	wait := make(chan error, 1)
	go func() { // ends with the connection
		var p wire.Packet
		for {
			if err := c.next(&p); err != nil {
				wait <- err
				return
			}
		}
	}()
	x.how = lost
	kind := x.rng.IntN(6)
	if x.draining() {
		kind = 5
	}
	err := x.pause(time.Duration(x.rng.IntN(60)) * time.Millisecond)
	switch {
	case kind == 0: // whatever comes: a kill, most likely
		x.mayWait(wait)
	case kind <= 2:
	case kind == 3 && x.version == wire.V5:
		x.how = withWill
		_ = c.send(wire.AppendDisconnectWithWill(nil))
		<-wait
		wait <- nil
	default:
		x.how = parted
		_ = c.send(wire.AppendDisconnect(nil))
		<-wait
		wait <- nil
	}
	if x.how != parted && x.delay == 0 {
		x.wills.expect(w, 1, 1)
	}
	c.close()
	<-wait
	if x.draining() && err == nil {
		err = errOver
	}
	return err
}

// mayWait waits for the end of the connection, for a while.
func (x *mortal) mayWait(wait chan error) {
	t := time.NewTimer(400 * time.Millisecond)
	defer t.Stop()
	select {
	case err := <-wait:
		wait <- err
	case <-t.C:
	case <-x.ctx.Done():
	}
}
