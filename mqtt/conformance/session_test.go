package conformance

import (
	"fmt"
	"slices"
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.1.2.4 clean start, 4.1 session state and 4.4 delivery retry.

func TestASessionGoesOnWhereItStopped(t *testing.T) {
	proves(t, "MQTT-3.1.2-5 MQTT-3.1.2-6 MQTT-3.1.3-2 MQTT-3.2.2-3 MQTT-4.1.0-1 MQTT-3.1.2-23", "MQTT-4.5.0-1",
		"MQTT311-3.1.2-4 MQTT311-3.1.2-5 MQTT311-3.1.3-2 MQTT311-3.2.2-2 MQTT311-3.2.2-3 MQTT311-4.1.0-1 MQTT311-4.5.0-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		present := func(want bool, options ...mqtttest.Option) *client {
			t.Helper()
			c := s.dial(t, v)
			// 3.1 has no session present.
			if a := c.Connect(id, options...); a.SessionPresent != (want && v != v31) {
				t.Fatalf("session present: %v", a.SessionPresent)
			}
			return c
		}
		c := present(false, kept(v)...)
		c.Subscribe(2, "a/#")
		c.Disconnect()
		p := s.connect(t, v, "p")
		for i := range 6 {
			publish(p, message("a/b", fmt.Sprint(i), byte(1+i%2)))
		}
		c = present(true, kept(v)...)
		for i, m := range receive(c, 6) {
			if string(m.Payload) != fmt.Sprint(i) || m.QoS != byte(1+i%2) || m.Dup || m.Retain {
				t.Errorf("got %s", mqtttest.Words(m))
			}
		}
		c.Send(&packet.Unsubscribe{PacketID: 99, Filters: []string{"a/#"}})
		mqtttest.Expect[*packet.Unsuback](c)
		c.Disconnect()
		publish(p, message("a/b", "not wanted any more", 1))
		c = present(true, kept(v)...)
		silent(c)
		other := s.dial(t, v) // another identifier has another session
		if other.Connect(id+"x", kept(v)...).SessionPresent {
			t.Error("another client got the session")
		}
	})
}

func TestACleanStartForgetsEverything(t *testing.T) {
	proves(t, "MQTT-3.1.2-4 MQTT-3.1.4-4 MQTT-3.2.2-2", "MQTT311-3.1.2-6 MQTT311-3.1.2-7 MQTT311-3.1.4-3 MQTT311-3.2.2-1", "MQTT311-4.1.0-2", "MQTT-4.1.0-2")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		p := s.connect(t, v, "p")
		publish(p, retained("r/"+id, "retained", 1))
		c := s.resume(t, v, id)
		c.Subscribe(2, "a")
		publish(p, message("a", "in flight", 2))
		mqtttest.Expect[*packet.Publish](c)
		c.Send(numbered(7, message("x", "half done", 2)))
		c.Expect(ack(packet.PUBREC, 7))
		c.Disconnect()
		publish(p, message("a", "waiting", 1))

		c = s.dial(t, v)
		if c.Connect(id).SessionPresent {
			t.Error("session present after a clean start")
		}
		publish(p, message("a", "nobody", 1))
		silent(c) // nothing in flight, nothing waiting, no subscription
		c.Send(ack(packet.PUBREL, 7))
		c.Expect(ack(packet.PUBCOMP, 7, packet.PacketIdentifierNotFound)) // and no identifier in use
		c.Subscribe(1, "b", "r/"+id)
		c.Receive("r/"+id, "retained", 1) // which is not the session's
		c.Disconnect()

		// And ends with its connection.
		publish(p, message("b", "nobody", 1))
		c = s.dial(t, v)
		if c.Connect(id, kept(v)...).SessionPresent {
			t.Error("a clean session was kept")
		}
		silent(c)
	})
}

// The expiry interval of MQTT 5 decides and not clean start; DISCONNECT may change it.
func TestTheExpiryIntervalDecidesWhetherASessionStays(t *testing.T) {
	proves(t, "MQTT-3.1.2-23 MQTT-4.1.0-2 MQTT-3.2.2-2 MQTT-3.2.2-3")
	s := start(t)
	for i, row := range []struct {
		name    string
		connect []mqtttest.Option
		leave   *uint32
		stays   bool
	}{
		{"clean start with an interval", []mqtttest.Option{mqtttest.Expiry(100)}, nil, true},
		{"no interval", []mqtttest.Option{mqtttest.Resume}, nil, false},
		{"interval 0", []mqtttest.Option{mqtttest.Expiry(0)}, nil, false},
		{"never", []mqtttest.Option{mqtttest.Expiry(0xffffffff)}, nil, true},
		{"taken back", []mqtttest.Option{mqtttest.Expiry(100)}, new(uint32), false},
		{"changed", []mqtttest.Option{mqtttest.Expiry(1)}, ptr[uint32](100), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			id := fmt.Sprint("c", i)
			c := s.connect(t, v5, id, row.connect...)
			c.Subscribe(1, id)
			d := &packet.Disconnect{}
			d.Props.SessionExpiry = row.leave
			c.Send(d)
			c.ExpectClosed()
			publish(s.connect(t, v5, "p"), message(id, "x", 1))
			c = s.dial(t, v5)
			if a := c.Connect(id, mqtttest.Resume); a.SessionPresent != row.stays {
				t.Fatalf("session present: %v", a.SessionPresent)
			}
			if row.stays {
				c.Receive(id, "x", 1)
			}
			silent(c)
		})
	}
	c := s.connect(t, v5, "late")
	d := &packet.Disconnect{}
	d.Props.SessionExpiry = ptr[uint32](100)
	c.Send(d) // what was 0 at CONNECT stays 0
	refused(c, protocolError)
}

func ptr[T any](x T) *T { return &x }

func TestWhatIsInFlightIsRepeatedWhenTheSessionGoesOn(t *testing.T) {
	proves(t, "MQTT-4.4.0-1 MQTT-3.3.1-1 MQTT-4.6.0-1 MQTT-4.3.2-3 MQTT-4.3.3-3 MQTT-4.3.3-5 MQTT-4.3.3-6",
		"MQTT311-4.4.0-1 MQTT311-3.3.1-1 MQTT311-4.6.0-1 MQTT311-4.3.2-1 MQTT311-4.3.3-1 MQTT311-2.3.1-3 MQTT311-2.3.1-4")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		var first []*packet.Publish
		for i := range 5 {
			publish(p, message("a", fmt.Sprint(i), byte(1+i%2)))
			first = append(first, mqtttest.Expect[*packet.Publish](c))
		}
		// 0 and 4 are not acknowledged, 1 is half done, 2 is done, 3 is untouched.
		c.Send(ack(packet.PUBACK, first[2].PacketID), ack(packet.PUBREC, first[1].PacketID))
		c.Expect(ack(packet.PUBREL, first[1].PacketID))
		c.Ping() // nothing is repeated on a connection that stands
		c.Disconnect()
		for range 2 { // however often
			c = s.resume(t, v, id)
			var got packs
			for range 4 {
				got = append(got, c.Next())
			}
			// The PUBREL may stand before or behind the messages.
			i := slices.IndexFunc(got, func(p packet.Packet) bool { a, ok := p.(*packet.Ack); return ok && a.Type == packet.PUBREL })
			if i < 0 || got[i].(*packet.Ack).PacketID != first[1].PacketID {
				t.Fatalf("no PUBREL among %v", got)
			}
			got = slices.Delete(got, i, i+1)
			for j, k := range []int{0, 3, 4} {
				m, ok := got[j].(*packet.Publish)
				if !ok || !m.Dup || m.PacketID != first[k].PacketID || string(m.Payload) != fmt.Sprint(k) || m.QoS != byte(1+k%2) {
					t.Fatalf("got %s, want message %d again", mqtttest.Words(got[j]), k)
				}
			}
			c.Ping()
			c.Disconnect()
		}
	})
}

// Between connections the receiving half is kept, too.
func TestAQoS2MessageIsTakenOnceOverConnections(t *testing.T) {
	proves(t, "MQTT-4.3.3-10 MQTT-4.3.3-11 MQTT-4.3.3-12 MQTT-4.1.0-1", "MQTT311-4.3.3-2 MQTT311-4.1.0-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		watch := s.connect(t, v, "watch")
		watch.Subscribe(2, "a")
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Send(numbered(9, message("a", "once", 2)))
		c.Expect(ack(packet.PUBREC, 9))
		c.Disconnect()
		c = s.resume(t, v, id)
		again := numbered(9, message("a", "once", 2))
		again.Dup = true
		c.Send(again, again)
		c.Expect(ack(packet.PUBREC, 9), ack(packet.PUBREC, 9))
		c.Send(ack(packet.PUBREL, 9))
		c.Expect(ack(packet.PUBCOMP, 9))
		watch.Receive("a", "once", 2)
		silent(watch)
		publish(c, numbered(9, message("a", "another", 2))) // the identifier is free
		watch.Receive("a", "another", 2)
	})
}

// A connection that is taken over hands its session on: what was in flight there goes on here.
func TestATakeoverGoesOnWithTheSession(t *testing.T) {
	proves(t, "MQTT-3.1.4-3 MQTT-4.4.0-1", "MQTT311-3.1.4-2 MQTT311-4.4.0-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Subscribe(1, "a")
		p := s.connect(t, v, "p")
		publish(p, message("a", "unanswered", 1))
		m := mqtttest.Expect[*packet.Publish](c)
		d := s.resume(t, v, id)
		c.ExpectDisconnect(packet.SessionTakenOver)
		m.Dup = true
		d.Expect(m)
		d.Acknowledge(m)
		publish(p, message("a", "next", 1))
		d.Receive("a", "next", 1)
	})
}

// The session belongs to the client and not to a version of MQTT.
func TestASessionGoesOnInAnotherVersion(t *testing.T) {
	proves(t, "MQTT-3.1.3-2 MQTT311-3.1.3-2")
	ourChoice(t)
	s := start(t)
	c := s.resume(t, v311, "c")
	c.Subscribe(2, "a")
	p := s.connect(t, v5, "p")
	for i, v := range []packet.Version{v5, v31, v311, v5, v311} {
		c.Disconnect()
		publish(p, message("a", fmt.Sprint(i), 2))
		c = s.resume(t, v, "c")
		c.Receive("a", fmt.Sprint(i), 2)
		c.Ping()
	}
}
