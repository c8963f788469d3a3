package broker

import (
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// strict adds a server with limits of its own beside the one called main.
func strict(edit func(*config.Server)) func(*config.Config) {
	return func(c *config.Config) {
		s := c.Servers[0]
		s.Name = "strict"
		edit(&s)
		c.Servers = append(c.Servers, s)
	}
}

// on opens a connection to the server of that name.
func (r *rig) on(server string, v packet.Version) *mqtttest.Client {
	r.t.Helper()
	return mqtttest.Dial(r.t, r.Addr(server).String(), v)
}

// The limits of a server hold for who comes to it, and for nobody else.
func TestEachServerHasItsOwnLimits(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Limits.MaxKeepAlive = config.Duration(100 * time.Second) }, strict(func(s *config.Server) {
		s.ReceiveMaximum, s.MaxPacketSize, s.MaxKeepAlive = 3, 2000, config.Duration(20*time.Second)
	}))
	for _, row := range []struct {
		server        string
		receive, keep uint16
		packet        uint32
	}{{"main", 1000, 100, 16 << 20}, {"strict", 3, 20, 2000}} {
		c := r.on(row.server, packet.V5)
		p := c.Connect("c").Props                                       // with keep alive 0, which is more than any
		if p.ServerKeepAlive == nil || *p.ServerKeepAlive != row.keep { // [MQTT-3.2.2-22]
			t.Errorf("%s: Server Keep Alive %v, want %d", row.server, p.ServerKeepAlive, row.keep)
		}
		if *p.ReceiveMaximum != row.receive || *p.MaximumPacketSize != row.packet {
			t.Errorf("%s: Receive Maximum %d, Maximum Packet Size %d", row.server, *p.ReceiveMaximum, *p.MaximumPacketSize)
		}
		if s := r.clients.get("c"); s.keepAlive != time.Duration(row.keep)*time.Second {
			t.Errorf("%s: enforces a keep alive of %v", row.server, s.keepAlive)
		}
		for id := uint16(1); id <= 3; id++ {
			m := mqtttest.Message("a", "x", 2)
			m.PacketID = id
			c.Send(m)
			c.Expect(ack(packet.PUBREC, id))
		}
		m := mqtttest.Message("a", "x", 2)
		m.PacketID = 4
		c.Send(m)
		if row.receive == 3 {
			c.ExpectDisconnect(packet.ReceiveMaximumExceeded) // [MQTT-3.3.4-7]
			continue
		}
		c.Expect(ack(packet.PUBREC, 4))
	}
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		c := r.on("strict", v)
		c.Connect("old", mqtttest.KeepAlive(60))
		if s := r.clients.get("old"); s.keepAlive != time.Minute {
			t.Errorf("%v cannot be told of another keep alive, and is held to %v", v, s.keepAlive)
		}
		c.Disconnect()
	}
}

// Only the server with a write timeout puts out who takes nothing.
func TestTheWriteTimeoutOfAServer(t *testing.T) {
	r := start(t, strict(func(s *config.Server) { s.WriteTimeout = config.Duration(300 * time.Millisecond) }))
	patient, stopped, p := r.connect(packet.V5, "patient"), r.on("strict", packet.V5), r.connect(packet.V5, "p")
	stopped.Connect("stopped")
	patient.Subscribe(0, "#")
	stopped.Subscribe(0, "#")
	large := strings.Repeat("x", 400<<10)
	const n = 40 // more than the kernel keeps for a connection
	for range n {
		p.Publish(mqtttest.Message("a", large, 1))
	}
	r.away("stopped")
	for range n {
		patient.Receive("a", large, 0)
	}
}
