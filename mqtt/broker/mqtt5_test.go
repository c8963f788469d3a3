package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

func topicAliases(n uint16) mqtttest.Option {
	return func(p *packet.Connect) { p.Props.TopicAliasMaximum = &n }
}

// reader resolves topic aliases as a client does.
type reader struct {
	*mqtttest.Client
	max     uint16
	aliases map[uint16]string
	saved   int // packets without a topic
}

func (c *reader) receive(topic, payload string) {
	c.T.Helper()
	p := mqtttest.Expect[*packet.Publish](c.Client)
	if p.HasTopicAlias && (p.TopicAlias == 0 || p.TopicAlias > c.max) { // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
		c.T.Fatalf("alias %d is above the maximum of %d", p.TopicAlias, c.max)
	}
	name := string(p.Topic)
	switch {
	case name == "":
		c.saved++
		name = c.aliases[p.TopicAlias]
	case p.HasTopicAlias:
		c.aliases[p.TopicAlias] = name
	}
	if name != topic || string(p.Payload) != payload {
		c.T.Fatalf("got %s, which is of %q, want %q of %q", mqtttest.Words(p), name, payload, topic)
	}
	c.Acknowledge(p)
}

func (r *rig) reader(id string, max uint16, options ...mqtttest.Option) *reader {
	r.t.Helper()
	if max > 0 {
		options = append(options, topicAliases(max))
	}
	c := &reader{Client: r.connect(packet.V5, id, options...), max: max, aliases: make(map[uint16]string)}
	return c
}

// A client that takes topic aliases gets them, as many as it takes; others get the topic each time.
func TestTopicAliasesTowardsTheClient(t *testing.T) {
	mqtttest.Proves(t, "MQTT-3.1.2-26 MQTT-3.1.2-27 MQTT-3.3.2-11")
	r := start(t, func(c *config.Config) { c.Limits.MaxTopicAliasOut = 8 })
	p := r.connect(packet.V5, "p")
	readers := map[*reader]int{}
	for max, least := range map[uint16]int{0: 0, 1: 1, 3: 1, 8: 1, 65535: 1} {
		c := r.reader(fmt.Sprint("c", max), max)
		c.max = min(max, 8) // no more than the configuration allows
		c.Subscribe(2, "sensors/#", "s")
		readers[c] = least
	}
	old := r.connect(packet.V311, "old")
	old.Subscribe(0, "sensors/#")
	for i := range 60 {
		qos := byte(i % 3)
		name := "sensors/kitchen/temperature"
		if i%5 == 4 {
			name = fmt.Sprint("sensors/once/", i)
		}
		p.Publish(mqtttest.Message(name, fmt.Sprint(i), qos))
		old.Receive(name, fmt.Sprint(i), 0)
		for c := range readers {
			c.receive(name, fmt.Sprint(i))
		}
		p.Publish(mqtttest.Message("s", "short", 0))
		for c := range readers {
			c.receive("s", "short")
		}
	}
	for c, least := range readers {
		if c.saved < 10*least || least == 0 && c.saved > 0 {
			t.Errorf("%s: %d topics were left out", c.ID, c.saved)
		}
		for _, name := range c.aliases {
			if name == "s" {
				t.Errorf("%s: an alias for a topic that is as short", c.ID)
			}
		}
	}
}

// The packet that sets an alias up is larger by three bytes; one that would be too large by them goes without.
func TestATopicAliasDoesNotMakeAPacketTooLarge(t *testing.T) { // [MQTT-3.1.2-24]
	r := start(t)
	name, payload := "sensors/a", "12345"
	size := (&packet.Delivery{Topic: []byte(name), Payload: []byte(payload)}).Size(packet.V5)
	p := r.connect(packet.V5, "p")
	c := r.reader("c", 10, mqtttest.MaximumPacketSize(uint32(size)))
	c.Subscribe(0, "#")
	for range 4 {
		p.Publish(mqtttest.Message(name, payload, 0))
		c.receive(name, payload)
	}
	if c.saved > 0 || len(c.aliases) > 0 {
		t.Errorf("%d without a topic, aliases %v", c.saved, c.aliases)
	}
	for range 4 { // a smaller one may set it up
		p.Publish(mqtttest.Message(name, "1", 0))
		c.receive(name, "1")
	}
	if c.saved == 0 {
		t.Error("no alias is used")
	}
}

// After a reconnect nothing is left of the aliases, neither for what is repeated.
func TestTopicAliasesEndWithTheConnection(t *testing.T) {
	r := start(t)
	p := r.connect(packet.V5, "p")
	resume := func() *reader {
		c := &reader{max: 10, aliases: make(map[uint16]string)}
		c.Client, _ = r.resume(packet.V5, "c", topicAliases(10))
		return c
	}
	c := resume()
	c.Subscribe(1, "#")
	for range 3 {
		p.Publish(mqtttest.Message("sensors/a", "x", 1))
		c.receive("sensors/a", "x")
	}
	if c.saved == 0 {
		t.Error("no alias is used")
	}
	p.Publish(mqtttest.Message("sensors/a", "unacknowledged", 1))
	mqtttest.Expect[*packet.Publish](c.Client)
	r.drop(c.Client)
	p.Publish(mqtttest.Message("sensors/a", "while away", 1))
	c = resume()
	c.receive("sensors/a", "unacknowledged")
	c.receive("sensors/a", "while away")
}

// Topics that come in turns and share an alias do not drive out each other, and one that comes often takes the place of
// one that no longer does.
func TestWhoGetsAnAlias(t *testing.T) {
	a := newOutAliases(1)
	send := func(name string) (withTopic bool, alias uint16) {
		d := packet.Delivery{Topic: []byte(name)}
		a.apply(&d, packet.MaxPacketSize)
		return len(d.Topic) > 0, d.Alias
	}
	for i, step := range []struct {
		topic     string
		withTopic bool
		alias     uint16
	}{
		{"topic/a", true, 0}, {"topic/a", true, 1}, {"topic/a", false, 1},
		{"topic/b", true, 0}, {"topic/a", false, 1}, {"topic/b", true, 0}, {"topic/a", false, 1},
		{"topic/b", true, 0}, {"topic/b", true, 1}, {"topic/b", false, 1}, {"topic/a", true, 0},
		{"abcd", true, 0}, {"abcd", true, 0}, {"topic/b", false, 1},
		{strings.Repeat("x", maxAliased+1), true, 0}, {strings.Repeat("x", maxAliased+1), true, 0},
	} {
		if withTopic, alias := send(step.topic); withTopic != step.withTopic || alias != step.alias {
			t.Errorf("step %d, %.10s: topic %v, alias %d", i, step.topic, withTopic, alias)
		}
	}
	d, name := packet.Delivery{}, []byte("topic/a")
	if n := testing.AllocsPerRun(1000, func() {
		for _, name[6] = range []byte("aabbab") {
			d.Topic = name
			a.apply(&d, packet.MaxPacketSize)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if newOutAliases(0) != nil {
		t.Error("aliases for who wants none")
	}
}

func TestResponseInformation(t *testing.T) {
	mqtttest.Proves(t, "MQTT-3.1.2-28")
	yes, no := true, false
	asks := func(want *bool) mqtttest.Option {
		return func(p *packet.Connect) { p.Props.RequestResponseInfo = want }
	}
	r := start(t, withUsers(t, "anna secret"), func(c *config.Config) { c.Sessions.ResponseInformation = "reply/%u/%c" })
	for _, row := range []struct {
		id   string
		asks *bool
		want string
	}{{"a", &yes, "reply/anna/a"}, {"a", &no, ""}, {"a", nil, ""}, {"a/#", &yes, ""}, {"+", &yes, ""}} {
		got := ""
		c := r.dial(packet.V5)
		if info := c.Connect(row.id, as("anna", "secret"), asks(row.asks)).Props.ResponseInfo; info != nil {
			got = *info
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.id, got, row.want)
		}
	}
	r = start(t)
	if info := r.dial(packet.V5).Connect("a", asks(&yes)).Props.ResponseInfo; info != nil {
		t.Errorf("%q, and none is configured", *info)
	}
}

// A payload that says it is text is refused if it is not, where that is asked for.
func TestThePayloadFormatIsChecked(t *testing.T) {
	message := func(payload string, format, qos byte) *packet.Publish {
		m := mqtttest.Message("a", payload, qos)
		m.Props = (&packet.Properties{PayloadFormat: &format}).AppendPublish(nil)
		return m
	}
	for _, check := range []bool{true, false} {
		r := start(t, func(c *config.Config) { c.Limits.CheckPayloadFormat = check })
		s, p := r.connect(packet.V5, "s"), r.connect(packet.V5, "p")
		s.Subscribe(0, "a")
		for payload, text := range map[string]bool{"gr\u00fcn": true, "": true, "a\x00b": true, "\xff": false, "\xed\xa0\x80": false, "\xc3": false} {
			for qos := range byte(3) {
				for format := range byte(2) {
					m := message(payload, format, qos)
					code := packet.Success
					if check && format == 1 && !text {
						code = packet.PayloadFormatInvalid
					}
					if qos == 0 || code == packet.Success {
						p.Publish(m)
					} else {
						m.PacketID = p.NextID()
						p.Send(m)
						if a := mqtttest.Expect[*packet.Ack](p); a.Code != code || a.PacketID != m.PacketID {
							t.Errorf("%q: %s", payload, mqtttest.Words(a))
						}
					}
					if code == packet.Success {
						s.Receive("a", payload, 0)
					}
				}
			}
		}
		s.ExpectNothing()
		one := byte(1)
		will := mqtttest.Will(packet.Will{Topic: "a", Payload: []byte{0xff}, Props: packet.Properties{PayloadFormat: &one}})
		if check {
			r.refused(packet.V5, packet.PayloadFormatInvalid, will)
		} else {
			r.connect(packet.V5, "w", will).Ping()
		}
	}
}

func TestClientsAreSentElsewhere(t *testing.T) {
	for code, reason := range map[config.RedirectCode]packet.ReasonCode{config.UseAnotherServer: packet.UseAnotherServer, config.ServerMoved: packet.ServerMoved} {
		r := start(t, func(c *config.Config) { c.Redirect = config.Redirect{Server: "other:1883", Connect: code} })
		c := r.dial(packet.V5)
		c.Send(mqtttest.ConnectPacket("c", packet.V5))
		if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != reason || ack.Props.ServerReference == nil || *ack.Props.ServerReference != "other:1883" {
			t.Errorf("got %s", mqtttest.Words(ack))
		}
		c.ExpectClosed()
		r.refused(packet.V311, packet.ServerUnavailable)
		r.refused(packet.V31, packet.ServerUnavailable)
	}
	r := start(t, func(c *config.Config) { c.Redirect = config.Redirect{Server: "other:1883", Shutdown: true} })
	c := r.connect(packet.V5, "c")
	r.close()
	if d := mqtttest.Expect[*packet.Disconnect](c); d.Code != packet.UseAnotherServer || d.Props.ServerReference == nil || *d.Props.ServerReference != "other:1883" {
		t.Errorf("got %s", mqtttest.Words(d))
	}
}

// Whoever is put out is told why, with words if it wants them.
func TestEveryDisconnectSaysWhy(t *testing.T) {
	publish := func(p packet.Publish) func(*rig, *mqtttest.Client) {
		return func(_ *rig, c *mqtttest.Client) { c.Send(&p) }
	}
	raw := func(b ...byte) func(*rig, *mqtttest.Client) {
		return func(_ *rig, c *mqtttest.Client) { c.SendRaw(b) }
	}
	for name, row := range map[string]struct {
		do   func(*rig, *mqtttest.Client)
		code packet.ReasonCode
	}{
		"taken over":    {func(r *rig, c *mqtttest.Client) { r.connect(packet.V5, "c") }, packet.SessionTakenOver}, // [MQTT-3.1.4-3]
		"shutting down": {func(r *rig, c *mqtttest.Client) { r.close() }, packet.ServerShuttingDown},
		"silent": {func(r *rig, _ *mqtttest.Client) {
			r.clients.get("c").c.lastRead.Store(instant() - int64(time.Hour))
			r.checkKeepAlives(r.clients.all())
		}, packet.KeepAliveTimeout}, // [MQTT-3.1.2-22]
		"malformed":      {raw(0x36, 0), packet.MalformedPacket}, // [MQTT-4.13.1-1]
		"too large":      {raw(0x30, 0xff, 0xff, 0xff, 0x7f), packet.PacketTooLarge},
		"second CONNECT": {func(_ *rig, c *mqtttest.Client) { c.Send(mqtttest.ConnectPacket("c", packet.V5)) }, packet.ProtocolError}, // [MQTT-3.1.0-2]
		"AUTH":           {raw(0xf0, 0), packet.ProtocolError},
		"too many": {func(_ *rig, c *mqtttest.Client) {
			for id := range uint16(3) {
				m := mqtttest.Message("a", "", 2)
				m.PacketID = id + 1
				c.Send(m)
			}
			c.Expect(ack(packet.PUBREC, 1), ack(packet.PUBREC, 2))
		}, packet.ReceiveMaximumExceeded}, // [MQTT-3.3.4-7]
		"alias":         {publish(packet.Publish{Topic: []byte("a"), Props: []byte{0x23, 0xff, 0xff}}), packet.TopicAliasInvalid}, // [MQTT-3.3.2-9]
		"alias not set": {publish(packet.Publish{Props: []byte{0x23, 0, 1}}), packet.ProtocolError},
		"wildcard":      {publish(packet.Publish{Topic: []byte("a/#")}), packet.TopicNameInvalid}, // [MQTT-3.3.2-2]
		"expiry from zero": {func(_ *rig, c *mqtttest.Client) {
			n := uint32(1)
			c.Send(&packet.Disconnect{Props: packet.Properties{SessionExpiry: &n}})
		}, packet.ProtocolError},
	} {
		for _, words := range []bool{true, false} {
			r := start(t, func(c *config.Config) { c.Sessions.ReceiveMaximum = 2 })
			c := r.dial(packet.V5)
			c.Connect("c", mqtttest.KeepAlive(60), func(p *packet.Connect) {
				if !words {
					p.Props.RequestProblemInfo = &words // [MQTT-3.1.2-29]
				}
			})
			row.do(r, c)
			d := mqtttest.Expect[*packet.Disconnect](c)
			if d.Code != row.code || (d.Props.ReasonString != nil) != words {
				t.Errorf("%s: got %v, reason string %v", name, d.Code, d.Props.ReasonString)
			}
			c.ExpectClosed()
		}
	}
}
