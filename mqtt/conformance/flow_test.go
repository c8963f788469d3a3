package conformance

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.1.2.11, 3.2.2.3 and 4.9: limits and flow control.

func TestTheServerKeepsToTheReceiveMaximumOfTheClient(t *testing.T) {
	proves(t, "MQTT-3.3.4-9 MQTT-3.3.4-10 MQTT-4.9.0-1 MQTT-4.9.0-2 MQTT-4.9.0-3 MQTT-4.4.0-2 MQTT-4.3.3-4")
	s := start(t)
	p := s.connect(t, v5, "p")
	for _, most := range []uint16{1, 2, 7} {
		t.Run(fmt.Sprint("receive maximum ", most), func(t *testing.T) {
			c := s.connect(t, v5, "c", mqtttest.ReceiveMaximum(most))
			c.Subscribe(2, "a")
			const n = 20
			for i := range n {
				publish(p, message("a", fmt.Sprint(i), byte(1+i%2)))
			}
			var open []*packet.Publish
			for i := 0; i < n; {
				for len(open) < int(most) && i < n {
					m := mqtttest.Expect[*packet.Publish](c)
					if string(m.Payload) != fmt.Sprint(i) {
						t.Fatalf("got %s, want %d", mqtttest.Words(m), i)
					}
					open, i = append(open, m), i+1
				}
				// The quota is used up: no message, but answers to everything else.
				c.Ping()
				c.Subscribe(0, "other")
				c.Send(&packet.Unsubscribe{PacketID: c.NextID(), Filters: []string{"other"}})
				mqtttest.Expect[*packet.Unsuback](c)
				publish(c, message("to nobody", "x", 2))
				c.ExpectNothing()
				m := open[0]
				open = open[1:]
				switch {
				case m.QoS == 1 && i%5 == 0:
					c.Send(ack(packet.PUBACK, m.PacketID, packet.UnspecifiedError)) // a refusal frees as well
				case m.QoS == 1:
					c.Send(ack(packet.PUBACK, m.PacketID))
				case i%4 == 0:
					c.Send(ack(packet.PUBREC, m.PacketID, packet.QuotaExceeded))
				default:
					c.Send(ack(packet.PUBREC, m.PacketID))
					c.Expect(ack(packet.PUBREL, m.PacketID))
					c.ExpectNothing() // not before PUBCOMP
					c.Send(ack(packet.PUBCOMP, m.PacketID))
				}
			}
		})
	}
}

func TestTheClientIsHeldToTheReceiveMaximumOfTheServer(t *testing.T) {
	proves(t, "MQTT-3.3.4-7 MQTT-3.3.4-8 MQTT-4.9.0-3")
	s := start(t, func(c *config.Config) { c.Sessions.ReceiveMaximum = 5 })
	c := s.dial(t, v5)
	if a := c.Connect("c"); a.Props.ReceiveMaximum == nil || *a.Props.ReceiveMaximum != 5 {
		t.Fatalf("CONNACK %+v", a)
	}
	for id := uint16(1); id <= 5; id++ {
		c.Send(numbered(id, message("a", "x", 2)))
		c.Expect(ack(packet.PUBREC, id))
	}
	c.Ping() // everything else goes on
	c.Subscribe(1, "b")
	c.Send(message("b", "qos 0", 0))
	c.Receive("b", "qos 0", 0)
	c.Send(ack(packet.PUBREL, 3)) // one is done, one may come
	c.Expect(ack(packet.PUBCOMP, 3))
	c.Send(numbered(9, message("b", "fits", 1)))
	got := packs{c.Next(), c.Next()}
	for _, p := range got {
		if m, ok := p.(*packet.Publish); ok {
			c.Acknowledge(m)
		}
	}
	c.Send(numbered(10, message("a", "x", 2)))
	c.Expect(ack(packet.PUBREC, 10))
	c.Send(numbered(11, message("a", "one too many", 1)))
	refused(c, packet.ReceiveMaximumExceeded)
}

func TestNoPacketIsLargerThanTheClientTakes(t *testing.T) {
	proves(t, "MQTT-3.1.2-24 MQTT-3.1.2-25")
	s := start(t)
	p := s.connect(t, v5, "p")
	c := s.resume(t, v5, "c", mqtttest.MaximumPacketSize(100))
	c.Subscribe(2, "a")
	for qos := range byte(3) {
		overhead := 2 + 2 + 1 + 1 // header, topic, properties
		if qos > 0 {
			overhead += 2
		}
		fits := strings.Repeat("x", 100-overhead)
		publish(p, message("a", fits+"y", qos), message("a", fits, qos), message("a", strings.Repeat("z", 5000), qos))
		c.Receive("a", fits, qos)
		publish(p, with(message("a", "the properties are too much", qos), packet.Properties{ContentType: ptr(strings.Repeat("c", 90))}))
		publish(p, message("a", "small", qos))
		c.Receive("a", "small", qos)
		c.ExpectNothing()
	}
	c.Disconnect() // what was dropped does not come later
	c = s.resume(t, v5, "c")
	publish(p, message("a", strings.Repeat("z", 5000), 1))
	c.Receive("a", strings.Repeat("z", 5000), 1)
	// Not even a CONNACK.
	c = s.dial(t, v5)
	limit := uint32(4)
	c.Send(mqtttest.ConnectPacket("", v5, func(p *packet.Connect) { p.Props.MaximumPacketSize = &limit }))
	c.ExpectClosed()
}

func TestAPacketAboveTheServersLimitEndsTheConnection(t *testing.T) {
	proves(t, "MQTT-3.2.2-15 MQTT-4.13.1-1 MQTT311-4.8.0-1")
	const limit = 2000
	s := start(t, func(c *config.Config) { c.Limits.MaxPacketSize = limit })
	each(t, func(t *testing.T, v packet.Version) {
		c := s.dial(t, v)
		a := c.Connect("c")
		if v == v5 && (a.Props.MaximumPacketSize == nil || *a.Props.MaximumPacketSize != limit) {
			t.Fatalf("CONNACK %+v", a)
		}
		c.Subscribe(0, "a")
		room := limit - 3 - 3
		if v == v5 {
			room--
		}
		exact := strings.Repeat("x", room)
		c.Send(message("a", exact, 0))
		c.Receive("a", exact, 0)
		c.SendRaw([]byte{0x30, 0xce, 0x0f}) // 1,998 bytes follow: one too many. They need not come.
		refused(c, packet.PacketTooLarge)
	})
	c := s.dial(t, v5)
	c.SendRaw([]byte{0x10, 0xce, 0x0f}) // a CONNECT no less
	notAccepted(c)
}

// heap is what the process holds.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a client announces costs nothing; what it has sent costs about as much as that.
func TestMemoryGrowsWithWhatHasComeAndNotWithWhatWasAnnounced(t *testing.T) {
	const most = 256 * config.MiB
	ourChoice(t)
	s := start(t, func(c *config.Config) {
		c.Storage.SegmentSize, c.Storage.MaxBytes, c.Limits.MaxPacketSize = 512*config.MiB, 4*512*config.MiB, most
	})
	const clients = 20
	header := func(first byte) []byte { return append([]byte{first}, 0xff, 0xff, 0xff, 0x7f) } // 256 MiB
	for _, row := range []struct {
		name string
		// dial opens a connection that has announced 256 MiB and sent a few bytes.
		dial func(i int) *client
	}{
		{"CONNECT", func(int) *client {
			c := s.dial(t, v5)
			c.SendRaw(append(header(0x10), 0, 4, 'M', 'Q', 'T', 'T', 5, 2))
			return c
		}},
		{"CONNECT with a will of 64 KiB that does not come", func(int) *client {
			c := s.dial(t, v5)
			c.SendRaw(append(header(0x10), 0, 4, 'M', 'Q', 'T', 'T', 5, 6, 0, 0, 0, 0, 1, 'c', 0, 0, 1, 't', 0xff, 0xff))
			return c
		}},
		{"PUBLISH", func(i int) *client {
			c := s.connect(t, v5, fmt.Sprint("p", i))
			c.SendRaw(append(header(0x32), 0, 1, 'a', 0, 1, 0))
			return c
		}},
		{"PUBLISH with properties of 256 MiB", func(i int) *client {
			c := s.connect(t, v5, fmt.Sprint("q", i))
			c.SendRaw(append(header(0x32), 0, 1, 'a', 0, 1, 0xf0, 0xff, 0xff, 0x7f))
			return c
		}},
		{"SUBSCRIBE", func(i int) *client {
			c := s.connect(t, v5, fmt.Sprint("s", i))
			c.SendRaw(append(header(0x82), 0, 1, 0, 0xff, 0xff))
			return c
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.connect(t, v5, "barrier").Disconnect()
			before := heap()
			var all []*client
			for i := range clients {
				all = append(all, row.dial(i))
			}
			drip(s, t, all, nil)
			// A pooled read buffer for each, and what the tests themselves need.
			if grown := heap() - before; grown > clients*256<<10 {
				t.Errorf("%d announcements of 256 MiB took %d bytes", clients, grown)
			}
			// 20 bytes at a time, 200 KB in all: about as much may be held, and
			// not the next power of two of what was announced.
			piece := bytes.Repeat([]byte{'x'}, 20<<10)
			for range 10 {
				drip(s, t, all, piece)
			}
			if grown := heap() - before; grown > clients*1<<20 {
				t.Errorf("%d times 200 KB of 256 MiB took %d bytes", clients, grown)
			}
			for _, c := range all {
				c.Drop()
			}
		})
	}
}

// drip sends a piece on each connection. The broker has had time to look at it when it has served another client from
// connecting to the end.
func drip(s *server, t *testing.T, all []*client, piece []byte) {
	t.Helper()
	for _, c := range all {
		if _, err := c.Conn.Write(piece); err != nil && len(piece) > 0 {
			return // it may have been enough for the broker
		}
	}
	s.connect(t, v5, "barrier").Disconnect()
}
