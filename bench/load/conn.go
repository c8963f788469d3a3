//go:build linux

package load

import (
	"fmt"
	"slices"
	"time"

	"cairnmq/bench/wire"
)

// handshakeLimit is how long the broker may take to answer a CONNECT or
// SUBSCRIBE. After a start with a long log it may be busy for a while.
const handshakeLimit = 60 * time.Second

// conn is one client's connection.
type conn struct {
	fd       int
	slot     int
	clientID string
	version  wire.Version
	role     role

	out     []byte // gathered to be written
	written int    // of out
	dirty   bool   // in the loop's list of those with something to write
	blocked bool   // the socket was full; the loop is told when it has room
	rest    []byte // the start of a packet whose end has not come
	leaving bool   // DISCONNECT was sent; the broker may close

	connected      bool // CONNACK came
	sessionPresent bool
	receiveMaximum uint16
	granted        int // QoS granted by the last SUBACK, -1 before
	asked          int // filters in the last SUBSCRIBE

	paused   bool    // not read from until resumeAt
	resumeAt int64   // by the loop's clock
	slowRate float64 // bytes a second that are read at most; 0 is no limit
}

// role is what a client does once it is connected.
type role interface {
	receive(c *conn, p *wire.Packet, now int64) error
}

// receive handles what belongs to the connection and gives the rest to the
// client's role.
func (c *conn) receive(p *wire.Packet, now int64) error {
	switch p.Type {
	case wire.TypePublish, wire.TypePuback, wire.TypePubrec, wire.TypePubrel, wire.TypePubcomp:
		if c.role == nil {
			return fmt.Errorf("packet type %d for an idle client", p.Type)
		}
		return c.role.receive(c, p, now)
	case wire.TypeConnack:
		if p.Code != 0 {
			return fmt.Errorf("connection refused with code %#x", p.Code)
		}
		c.connected = true
		c.sessionPresent = p.SessionPresent
		c.receiveMaximum = p.ReceiveMaximum
	case wire.TypeSuback:
		if len(p.Codes) != c.asked {
			return fmt.Errorf("SUBACK with %d codes for %d filters", len(p.Codes), c.asked)
		}
		if worst := slices.Max(p.Codes); worst > 2 {
			return fmt.Errorf("subscription refused with code %#x", worst)
		}
		c.granted = int(slices.Min(p.Codes))
	case wire.TypeDisconnect:
		return fmt.Errorf("the broker disconnected with code %#x", p.Code)
	}
	return nil
}

// client says how to connect one client.
type client struct {
	id      string
	clean   bool
	filters []string // subscribed to once connected
	qos     byte
	role    role
	// slowRate is that of conn: the first byte may be too much already.
	slowRate float64
}

// connect connects clients, in groups no larger than the usual listen queue,
// and returns when all their subscriptions are granted.
func (l *Loop) connect(t Target, v wire.Version, clients []client) ([]*conn, error) {
	const group = 64
	var conns []*conn
	for len(clients) > 0 {
		now := clients[:min(group, len(clients))]
		clients = clients[len(now):]
		opened, err := l.connectGroup(t, v, now)
		if err != nil {
			return nil, err
		}
		conns = append(conns, opened...)
	}
	return conns, nil
}

func (l *Loop) connectGroup(t Target, v wire.Version, clients []client) ([]*conn, error) {
	conns := make([]*conn, len(clients))
	for i, cl := range clients {
		c, err := l.dial(t)
		if err != nil {
			return nil, err
		}
		c.clientID, c.version, c.role = cl.id, v, cl.role
		if cl.slowRate > 0 {
			l.slowDown(c, cl.slowRate)
		}
		c.out = wire.AppendConnect(c.out, wire.Connect{
			Version: v, ClientID: cl.id, Clean: cl.clean, KeepAlive: t.KeepAlive, User: t.User, Password: t.Password,
		})
		l.mark(c)
		conns[i] = c
	}
	if err := l.run(handshakeLimit, "connect", allOf(conns, func(c *conn) bool { return c.connected })); err != nil {
		return nil, err
	}
	for i, cl := range clients {
		if err := l.subscribe(conns[i], cl); err != nil {
			return nil, err
		}
	}
	if err := l.run(handshakeLimit, "subscribe", allOf(conns, func(c *conn) bool { return c.granted >= 0 })); err != nil {
		return nil, err
	}
	for i, cl := range clients {
		if conns[i].granted != int(cl.qos) {
			return nil, fmt.Errorf("client %s: asked for QoS %d, granted %d", cl.id, cl.qos, conns[i].granted)
		}
	}
	return conns, nil
}

// subscribe asks for the filters of a client. If they are many, all but the
// last packet of them are granted when it returns.
func (l *Loop) subscribe(c *conn, cl client) error {
	const perPacket = 100
	filters := cl.filters
	if len(filters) == 0 {
		c.granted = int(cl.qos)
	}
	for id := uint16(1); len(filters) > 0; id++ {
		now := filters[:min(perPacket, len(filters))]
		filters = filters[len(now):]
		c.granted, c.asked = -1, len(now)
		c.out = wire.AppendSubscribe(c.out, c.version, id, cl.qos, now...)
		l.mark(c)
		if len(filters) == 0 {
			break
		}
		if err := l.run(handshakeLimit, "subscribe", func() bool { return c.granted >= 0 }); err != nil {
			return err
		}
		if c.granted != int(cl.qos) {
			return fmt.Errorf("client %s: asked for QoS %d, granted %d", cl.id, cl.qos, c.granted)
		}
	}
	return nil
}

// disconnect says goodbye for clients and waits until the broker has closed.
func (l *Loop) disconnect(conns []*conn) error {
	for _, c := range conns {
		c.leaving = true
		c.out = wire.AppendDisconnect(c.out)
		l.mark(c)
	}
	return l.run(handshakeLimit, "disconnect", allOf(conns, func(c *conn) bool { return l.conns[c.slot] != c }))
}

// allOf returns a condition that holds once it held for each of conns. It
// looks at each only until then.
func allOf(conns []*conn, holds func(*conn) bool) func() bool {
	i := 0
	return func() bool {
		for i < len(conns) && holds(conns[i]) {
			i++
		}
		return i == len(conns)
	}
}
