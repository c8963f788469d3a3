package broker

import (
	"errors"
	"os"
	"runtime/debug"
	"time"
)

// A connection that says nothing for parkAfter is parked: the goroutine that
// read from it ends, and its stack, the larger half of what an idle connection
// takes, goes back. Bytes, the end of the connection or a lack of them (keep
// alive) bring a new one. What is sent to the client needs none.
const parkAfter = 5 * time.Second

// errParked ends the read loop of a connection that is parked; it is not the
// end of the connection.
var errParked = errors.New("parked")

// parking is the part of a conn that is about being parked; conn.deadlines
// guards it.
type parking struct {
	asked  bool   // the read deadline has passed so that the reader parks
	id     uint64 // in the lot; zero when not parked
	lot    *lot
	resume func() // goes on with the connection; on a goroutine of its own
}

// askPark makes the reader look whether it can park.
func (c *conn) askPark() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	p := &c.deadlines.parking
	if c.raw == nil || c.deadlines.leaving || p.asked || p.id != 0 {
		return
	}
	p.asked = c.nc.SetReadDeadline(time.Unix(1, 0)) == nil
}

// asked reports whether err, of a read, means that the connection is asked to
// park, and makes it readable again.
func (c *conn) parkAsked(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.deadlines.parking.asked || c.deadlines.leaving {
		return false
	}
	c.deadlines.parking.asked = false
	return c.nc.SetReadDeadline(time.Time{}) == nil
}

// park reports whether the connection is parked now: then somebody else may
// already be going on with it. A packet of which a part has come, or an end
// that is under way, keep it from being.
func (c *conn) park(l *lot, resume func()) bool {
	if l == nil || c.w > c.r {
		return false
	}
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.deadlines.leaving {
		return false
	}
	p := &c.deadlines.parking
	id, err := l.add(c)
	if err != nil {
		return false
	}
	p.id, p.lot, p.resume = id, l, resume
	return true
}

// unpark goes on with a connection that is parked as id, or, with zero, as
// anything.
func (c *conn) unpark(id uint64) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.unparkLocked(id)
}

func (c *conn) unparkLocked(id uint64) {
	p := &c.deadlines.parking
	if p.id == 0 || id != 0 && id != p.id {
		return
	}
	p.lot.remove(c, p.id)
	p.id = 0
	go p.resume()
}

// Giving memory back costs a collection, so many connections must have been
// parked for it, and it is not done often.
const (
	parkedWorth = 256
	giveBack    = time.Minute
)

// parkIdle asks the silent ones among the sessions to park. When there were
// many, and there are no more, what they took goes back to the system: the
// runtime alone would take minutes.
func (b *Broker) parkIdle(sessions []*session) {
	if b.lot == nil {
		return
	}
	n := 0
	for _, s := range sessions {
		if s.c.silence() > parkAfter && s.c.wouldPark() {
			s.c.askPark()
			n++
		}
	}
	if b.unused += n; n == 0 && b.unused >= parkedWorth && instant() >= b.giveBackAt {
		b.unused, b.giveBackAt = 0, instant()+int64(giveBack)
		debug.FreeOSMemory()
	}
}

// wouldPark: it is not parked yet, and could be.
func (c *conn) wouldPark() bool {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	return c.raw != nil && c.deadlines.parking.id == 0 && !c.deadlines.parking.asked && !c.deadlines.leaving
}
