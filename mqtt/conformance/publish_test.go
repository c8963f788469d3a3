package conformance

import (
	"fmt"
	"slices"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.3 PUBLISH, 3.4 to 3.7 its acknowledgements, 4.3 quality of service and 4.6 order.

func TestEachQoSHasItsAnswerAndItsDelivery(t *testing.T) {
	proves(t, "MQTT-3.3.4-1 MQTT-3.3.2-3 MQTT-3.8.4-8 MQTT-2.2.1-5 MQTT-4.3.1-1 MQTT-4.3.2-2 MQTT-4.3.2-4 MQTT-4.3.3-2 MQTT-4.3.3-4 MQTT-4.3.3-8 MQTT-4.3.3-11 MQTT-3.3.1-2",
		"MQTT311-3.3.4-1 MQTT311-3.3.2-3 MQTT311-3.8.4-6 MQTT311-2.3.1-6 MQTT311-4.3.1-1 MQTT311-4.3.2-1 MQTT311-4.3.2-2 MQTT311-4.3.3-1 MQTT311-4.3.3-2 MQTT311-3.3.1-2",
		"MQTT-3.3.1-12 MQTT311-3.3.1-9")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		p := s.connect(t, v, "p")
		for granted := range byte(3) {
			c := s.connect(t, v, "c")
			c.Subscribe(granted, "a/+")
			for qos := range byte(3) {
				publish(p, message("a/b", fmt.Sprint(qos), qos), message("a", "not asked for", qos))
				m := c.Receive("a/b", fmt.Sprint(qos), min(qos, granted))
				if m.Dup || m.Retain || (m.PacketID != 0) != (m.QoS > 0) {
					t.Errorf("got %s", mqtttest.Words(m))
				}
			}
			silent(c)
			c.Disconnect()
		}
	})
}

func TestDUPIsNotPassedOn(t *testing.T) {
	proves(t, "MQTT-3.3.1-3 MQTT-4.3.2-5 MQTT311-3.3.1-3 MQTT311-4.3.2-2")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		for _, qos := range []byte{1, 2} {
			for range 2 { // behind its acknowledgement the identifier means a new message
				m := numbered(5, message("a", "x", qos))
				m.Dup = true
				publish(p, m)
				if c.Receive("a", "x", qos).Dup {
					t.Error("DUP was passed on")
				}
			}
		}
	})
}

func TestAQoS2MessageIsDeliveredOnce(t *testing.T) {
	proves(t, "MQTT-4.3.3-10 MQTT-4.3.3-12 MQTT311-4.3.3-2 MQTT311-2.3.1-2")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		first, again := numbered(1, message("a", "first", 2)), numbered(1, message("a", "first", 2))
		again.Dup = true
		p.Send(first, again, again)
		p.Expect(ack(packet.PUBREC, 1), ack(packet.PUBREC, 1), ack(packet.PUBREC, 1))
		p.Send(ack(packet.PUBREL, 1))
		p.Expect(ack(packet.PUBCOMP, 1))
		c.Receive("a", "first", 2)
		silent(c)
		publish(p, numbered(1, message("a", "second", 2)))
		c.Receive("a", "second", 2)
		p.Send(ack(packet.PUBREL, 1)) // once more: it is answered
		if a := mqtttest.Expect[*packet.Ack](p); a.Type != packet.PUBCOMP || a.PacketID != 1 {
			t.Errorf("got %s", mqtttest.Words(a))
		}
		silent(c)
	})
}

// A message that expires while its handshake is under way does not break it.
func TestExpiryDoesNotStopTheHandshake(t *testing.T) {
	proves(t, "MQTT-4.3.3-13 MQTT-4.3.3-7")
	s := start(t)
	c := s.resume(t, v5, "c")
	c.Subscribe(2, "a")
	p := s.connect(t, v5, "p")
	m := with(numbered(1, message("a", "short", 2)), packet.Properties{MessageExpiry: ptr[uint32](0)})
	p.Send(m) // has expired on arrival
	if a := mqtttest.Expect[*packet.Ack](p); a.Type != packet.PUBREC || a.Code.IsError() {
		t.Fatalf("got %s", mqtttest.Words(a))
	}
	p.Send(ack(packet.PUBREL, 1))
	p.Expect(ack(packet.PUBCOMP, 1))
	silent(c)
}

func TestIdentifiersInFlightAreDifferent(t *testing.T) {
	proves(t, "MQTT-2.2.1-4 MQTT-4.3.2-1 MQTT-4.3.3-1 MQTT311-2.3.1-4 MQTT311-4.3.2-1 MQTT311-4.3.3-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		used := make(map[uint16]*packet.Publish)
		for i := range 16 {
			publish(p, message("a", fmt.Sprint(i), byte(1+i%2)))
			m := mqtttest.Expect[*packet.Publish](c)
			if used[m.PacketID] != nil {
				t.Fatalf("identifier %d is in use", m.PacketID)
			}
			used[m.PacketID] = m
			if i%3 == 0 && m.QoS == 1 {
				c.Send(ack(packet.PUBACK, m.PacketID))
				delete(used, m.PacketID)
			}
		}
	})
}

// Client identifiers and server identifiers are two sets.
func TestBothSidesUseTheSameIdentifier(t *testing.T) {
	proves(t, "MQTT-2.2.1-4 MQTT311-2.3.1-4")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "a")
		publish(s.connect(t, v, "p"), message("a", "from the server", 2))
		m := mqtttest.Expect[*packet.Publish](c)
		id := m.PacketID
		publish(c, numbered(id, message("b", "from the client", 2)), numbered(id, message("b", "and again", 1)))
		c.Acknowledge(m)
		c.Ping()
	})
}

func TestEverySubscriberGetsTheMessage(t *testing.T) {
	proves(t, "MQTT-4.5.0-1 MQTT311-4.5.0-1")
	s := start(t)
	const n = 30
	var all []*client
	for i := range n {
		v := versions[i%3]
		c := s.resume(t, v, fmt.Sprint("c", i))
		c.Subscribe(byte(i%3), []string{"a/b", "a/+", "#"}[i/3%3])
		if i%5 == 0 {
			c.Disconnect()
			continue
		}
		all = append(all, c)
	}
	p := s.connect(t, v5, "p")
	publish(p, message("a/b", "to all", 2))
	for i := range n {
		if i%5 == 0 && i%3 > 0 { // whether QoS 0 waits is the server's choice
			all = append(all, s.resume(t, versions[i%3], fmt.Sprint("c", i)))
		}
	}
	for _, c := range all {
		m := mqtttest.Expect[*packet.Publish](c)
		if string(m.Payload) != "to all" || m.Dup {
			t.Errorf("%s: got %s", c.ID, mqtttest.Words(m))
		}
		c.Acknowledge(m)
	}
}

func TestMessagesKeepTheirOrder(t *testing.T) {
	proves(t, "MQTT-4.6.0-5 MQTT-4.6.0-6 MQTT311-4.6.0-5 MQTT311-4.6.0-6")
	s := start(t)
	const n = 300
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Subscribe(2, "a")
		away := s.resume(t, v, id+"away")
		away.Subscribe(2, "a")
		away.Disconnect()
		p := s.connect(t, v, "p")
		var all packs
		for i := range n {
			all = append(all, numbered(uint16(i+1), message("a", fmt.Sprint(i), byte(i%3))))
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			p.Send(all...)
		}()
		// Within each QoS the order is that of sending; CairnMQ keeps it among them, too.
		check := func(got []*packet.Publish) {
			t.Helper()
			next := [3]int{0, 1, 2}
			for _, m := range got {
				if string(m.Payload) != fmt.Sprint(next[m.QoS]) {
					t.Fatalf("got %s, want %d", mqtttest.Words(m), next[m.QoS])
				}
				next[m.QoS] += 3
			}
		}
		check(receive(c, n))
		<-sent
		for pubacks := 0; pubacks < 2*n/3; pubacks++ {
			if _, ok := p.Next().(*packet.Ack); !ok {
				t.Fatal("not an acknowledgement")
			}
		}
		away = s.resume(t, v, id+"away")
		var got []*packet.Publish
		for len(got) < 2*n/3 {
			for _, m := range receive(away, 1) {
				if m.QoS > 0 {
					got = append(got, m)
				}
			}
		}
		check(got)
	})
}

// PUBACKs and PUBRECs come in the order of the messages, PUBRELs in that of the PUBRECs.
func TestAcknowledgementsKeepTheirOrder(t *testing.T) {
	proves(t, "MQTT-4.6.0-2 MQTT-4.6.0-3 MQTT-4.6.0-4 MQTT311-4.6.0-2 MQTT311-4.6.0-3 MQTT311-4.6.0-4")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		p := s.connect(t, v, "p")
		var send, want, rels, comps packs
		for _, id := range []uint16{9, 3, 7, 1, 5, 8, 2, 6} {
			qos := byte(1 + id%2)
			send = append(send, numbered(id, message("a", "x", qos)))
			if qos == 1 {
				want = append(want, ack(packet.PUBACK, id))
			} else {
				want = append(want, ack(packet.PUBREC, id))
				rels, comps = append(rels, ack(packet.PUBREL, id)), append(comps, ack(packet.PUBCOMP, id))
			}
		}
		s.connect(t, v, "somebody").Subscribe(0, "a")
		p.Send(send...)
		var got packs
		for range want {
			got = append(got, mqtttest.Expect[*packet.Ack](p))
		}
		for _, typ := range []packet.Type{packet.PUBACK, packet.PUBREC} {
			if g, w := idsOf(got, typ), idsOf(want, typ); !slices.Equal(g, w) {
				t.Errorf("%v: %d, want %d", typ, g, w)
			}
		}
		p.Send(rels...)
		p.Expect(comps...)
		// The other way.
		c := s.connect(t, v, "c")
		c.Subscribe(2, "b")
		var recs packs
		for range 5 {
			publish(p, message("b", "x", 2))
			recs = append(recs, ack(packet.PUBREC, mqtttest.Expect[*packet.Publish](c).PacketID))
		}
		slices.Reverse(recs)
		c.Send(recs...)
		for _, r := range recs {
			c.Expect(ack(packet.PUBREL, r.(*packet.Ack).PacketID))
		}
	})
}

func idsOf(list packs, typ packet.Type) (ids []uint16) {
	for _, p := range list {
		if a := p.(*packet.Ack); a.Type == typ {
			ids = append(ids, a.PacketID)
		}
	}
	return ids
}

func TestPropertiesTravelAsTheyCame(t *testing.T) {
	proves(t, "MQTT-3.3.2-4 MQTT-3.3.2-15 MQTT-3.3.2-16 MQTT-3.3.2-17 MQTT-3.3.2-18 MQTT-3.3.2-20 MQTT-3.3.2-7")
	s := start(t)
	user := []packet.UserProperty{{Name: "z", Value: "1"}, {Name: "a", Value: "2"}, {Name: "z", Value: "1"}, {Name: "", Value: ""}, {Name: "\u00e9", Value: "\ufeff"}}
	all := packet.Properties{PayloadFormat: ptr[byte](1), ContentType: ptr("a/b"), ResponseTopic: ptr("re/ply"), CorrelationData: []byte("\x00\xff\x00"), User: user}
	c := s.connect(t, v5, "c")
	c.Subscribe(2, "a")
	away := s.resume(t, v5, "away")
	away.Subscribe(2, "a")
	away.Disconnect()
	p := s.connect(t, v5, "p")
	for qos := range byte(3) {
		m := with(message("a", "x", qos), all)
		m.Retain = true
		publish(p, m)
		check := func(c *client, want byte) {
			t.Helper()
			got := properties(t, c.Receive("a", "x", want))
			if *got.PayloadFormat != 1 || *got.ContentType != "a/b" || *got.ResponseTopic != "re/ply" || string(got.CorrelationData) != "\x00\xff\x00" || got.TopicAlias != nil || got.MessageExpiry != nil {
				t.Errorf("got %+v", got)
			}
			sameUser(t, got.User, user)
		}
		check(c, qos)
		late := s.connect(t, v5, "late")
		late.Subscribe(2, "a")
		check(late, qos)
		late.Disconnect()
		if qos > 0 {
			away := s.resume(t, v5, "away")
			if qos == 1 { // the server may have kept the one of QoS 0, too
				if m := mqtttest.Expect[*packet.Publish](away); m.QoS == 1 {
					away.Acknowledge(m)
				} else {
					check(away, 1)
				}
			} else {
				check(away, 2)
			}
			away.Disconnect()
		}
	}
	// None at all, and empty ones.
	publish(p, message("a", "plain", 1))
	if m := c.Receive("a", "plain", 1); len(m.Props) > 0 {
		t.Errorf("got %s", mqtttest.Words(m))
	}
	publish(p, with(message("a", "empty", 1), packet.Properties{PayloadFormat: ptr[byte](0), ContentType: ptr(""), CorrelationData: []byte{}}))
	got := properties(t, c.Receive("a", "empty", 1))
	if got.PayloadFormat == nil || got.ContentType == nil || *got.ContentType != "" || got.CorrelationData == nil {
		t.Errorf("got %+v", got)
	}
}

func TestRequestAndResponse(t *testing.T) {
	proves(t, "MQTT-3.3.2-15 MQTT-3.3.2-16")
	s := start(t)
	asks, answers := s.connect(t, v5, "asks"), s.connect(t, v5, "answers")
	answers.Subscribe(1, "service")
	asks.Subscribe(1, "answers/asks")
	publish(asks, with(message("service", "question", 1), packet.Properties{ResponseTopic: ptr("answers/asks"), CorrelationData: []byte("7")}))
	q := properties(t, answers.Receive("service", "question", 1))
	publish(answers, with(message(*q.ResponseTopic, "answer", 1), packet.Properties{CorrelationData: q.CorrelationData}))
	if a := properties(t, asks.Receive("answers/asks", "answer", 1)); string(a.CorrelationData) != "7" {
		t.Errorf("got %+v", a)
	}
}

// What is left of the interval goes out with the message, and it never grows.
func TestTheExpiryIntervalGoesOutWithTheMessage(t *testing.T) {
	proves(t, "MQTT-3.3.2-6 MQTT-3.3.2-5")
	s := start(t)
	c := s.connect(t, v5, "c")
	c.Subscribe(1, "a")
	p := s.connect(t, v5, "p")
	m := with(message("a", "x", 1), packet.Properties{MessageExpiry: ptr[uint32](1000)})
	m.Retain = true
	publish(p, m)
	for _, c := range []*client{c, s.connect(t, v5, "late")} {
		if c.ID == "late" {
			c.Subscribe(1, "a")
		}
		if m := c.Receive("a", "x", 1); !m.HasExpiry || m.Expiry > 1000 || m.Expiry < 900 {
			t.Errorf("got %s", mqtttest.Words(m))
		}
	}
	// One that has expired when it comes is delivered to nobody who was not there.
	away := s.resume(t, v5, "away")
	away.Subscribe(1, "b")
	away.Disconnect()
	publish(p, with(message("b", "gone", 1), packet.Properties{MessageExpiry: ptr[uint32](0)}), message("b", "stays", 1))
	away = s.resume(t, v5, "away")
	away.Receive("b", "stays", 1)
}

func TestTopicAliasesOfTheClient(t *testing.T) {
	proves(t, "MQTT-3.3.2-7 MQTT-3.3.2-9 MQTT-3.3.2-12 MQTT-3.2.2-17 MQTT-3.2.2-18")
	s := start(t)
	c := s.connect(t, v5, "c")
	c.Subscribe(1, "#")
	p := s.dial(t, v5)
	announced := p.Connect("p").Props.TopicAliasMaximum
	if announced == nil {
		t.Fatal("no topic alias maximum")
	}
	limit := *announced
	alias := func(topic string, n uint16, payload string, qos byte) *packet.Publish {
		return with(message(topic, payload, qos), packet.Properties{TopicAlias: &n})
	}
	for n := uint16(1); n <= limit; n++ { // every one of them
		p.Send(alias(fmt.Sprint("t/", n), n, "set", 0))
		c.Receive(fmt.Sprint("t/", n), "set", 0)
	}
	for _, n := range []uint16{1, limit/2 + 1, limit} {
		for qos := range byte(3) {
			publish(p, alias("", n, "used", qos))
			c.Receive(fmt.Sprint("t/", n), "used", min(qos, 1))
		}
	}
	publish(p, alias("other", limit, "changed", 1), alias("", limit, "used", 1))
	c.Receive("other", "changed", 1)
	if m := c.Receive("other", "used", 1); properties(t, m).TopicAlias != nil {
		t.Errorf("an alias was passed on: %s", mqtttest.Words(m))
	}
	other := s.connect(t, v5, "another connection")
	other.Send(alias("", 1, "not set here", 0))
	refused(other, protocolError, packet.TopicAliasInvalid)
	p = s.connect(t, v5, "p") // nor on a later connection of the same client
	p.Send(alias("", 1, "not set any more", 0))
	refused(p, protocolError, packet.TopicAliasInvalid)
	p = s.connect(t, v5, "p")
	p.Send(alias("a", limit+1, "above", 0))
	refused(p, packet.TopicAliasInvalid)
	silent(c)
}

func TestNoAliasesWhereNoneAreAnnounced(t *testing.T) {
	proves(t, "MQTT-3.2.2-18")
	s := start(t, func(c *config.Config) { c.Limits.MaxTopicAlias = 0 })
	c := s.dial(t, v5)
	if a := c.Connect("c"); a.Props.TopicAliasMaximum != nil {
		t.Errorf("CONNACK %+v", a)
	}
	c.Send(with(message("a", "x", 0), packet.Properties{TopicAlias: ptr[uint16](1)}))
	refused(c, packet.TopicAliasInvalid)
}

// A topic that is the server's: what a client sends there is acknowledged and goes nowhere.
func TestAMessageThatIsNotPermittedIsAnswered(t *testing.T) {
	proves(t, "MQTT311-3.3.5-2 MQTT-4.3.3-9")
	ourChoice(t)
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "$SYS/mine")
		no := packet.Success
		if v == v5 {
			no = packet.NotAuthorized
		}
		c.Send(message("$SYS/mine", "x", 0), numbered(1, message("$SYS/mine", "x", 1)), numbered(2, message("$SYS/mine", "x", 2)))
		c.Expect(ack(packet.PUBACK, 1, no), ack(packet.PUBREC, 2, no))
		if v == v5 { // the identifier is free again at once
			c.Send(numbered(2, message("a", "x", 2)))
			c.Expect(ack(packet.PUBREC, 2))
		}
		silent(c)
	})
}

// Whether a server uses aliases is its choice; those it uses are within what the client takes, and mean what they say.
func TestTopicAliasesOfTheServer(t *testing.T) {
	proves(t, "MQTT-3.1.2-26 MQTT-3.1.2-27 MQTT-3.3.2-11 MQTT-3.3.2-7")
	s := start(t)
	p := s.connect(t, v5, "p")
	for _, most := range []uint16{0, 1, 3} {
		for connection := range 2 { // aliases of the first say nothing on the second
			c := s.resume(t, v5, "c", func(p *packet.Connect) {
				if most > 0 {
					p.Props.TopicAliasMaximum = &most
				}
			})
			if connection == 0 {
				c.Subscribe(1, "a/long/topic/that/an/alias/would/save/#")
			}
			known := make(map[uint16]string)
			for i := range 60 {
				topic := fmt.Sprint("a/long/topic/that/an/alias/would/save/", i%5)
				publish(p, message(topic, topic, byte(i%2)))
				m := mqtttest.Expect[*packet.Publish](c)
				if m.QoS > 0 {
					c.Acknowledge(m)
				}
				got := string(m.Topic)
				if a := properties(t, m).TopicAlias; a != nil {
					if *a == 0 || *a > most {
						t.Fatalf("alias %d, the maximum is %d", *a, most)
					}
					if got == "" {
						got = known[*a]
					}
					known[*a] = got
				}
				if got != topic || string(m.Payload) != topic {
					t.Fatalf("got %s, want topic %q", mqtttest.Words(m), topic)
				}
			}
			c.Disconnect()
		}
	}
}
