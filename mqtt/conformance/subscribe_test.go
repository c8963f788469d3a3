package conformance

import (
	"fmt"
	"slices"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.8 to 3.11 SUBSCRIBE and UNSUBSCRIBE, 4.7 topics.

func TestSubscribeAndUnsubscribeAreAnswered(t *testing.T) {
	proves(t, "MQTT-3.8.4-1 MQTT-3.8.4-2 MQTT-3.8.4-5 MQTT-3.8.4-6 MQTT-3.8.4-7 MQTT-3.9.3-1 MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-4 MQTT-3.10.4-5 MQTT-3.10.4-6 MQTT-3.11.3-1 MQTT-2.2.1-6",
		"MQTT311-3.8.4-1 MQTT311-3.8.4-2 MQTT311-3.8.4-4 MQTT311-3.8.4-5 MQTT311-3.9.3-1 MQTT311-3.10.4-1 MQTT311-3.10.4-2 MQTT311-3.10.4-4 MQTT311-3.10.4-5 MQTT311-3.10.4-6 MQTT311-2.3.1-7")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		var subs []packet.Subscription
		var codes []packet.ReasonCode
		for i := range 30 {
			subs = append(subs, packet.Subscription{Filter: fmt.Sprint("t/", i), QoS: byte(i % 3)})
			codes = append(codes, packet.ReasonCode(i%3))
		}
		c.Send(&packet.Subscribe{PacketID: 65535, Subscriptions: subs})
		c.Expect(&packet.Suback{PacketID: 65535, Codes: codes})
		p := s.connect(t, v, "p")
		for i := range 30 {
			publish(p, message(fmt.Sprint("t/", i), "x", 2))
			c.Receive(fmt.Sprint("t/", i), "x", byte(i%3))
		}
		no := packet.NoSubscriptionExisted
		c.Send(&packet.Unsubscribe{PacketID: 1, Filters: []string{"t/1", "t/+", "t/#", "T/2", "t/3", "t/3", "t/31"}})
		c.Expect(&packet.Unsuback{PacketID: 1, Codes: []packet.ReasonCode{0, no, no, no, 0, no, no}})
		for _, i := range []int{1, 2, 3, 4} {
			publish(p, message(fmt.Sprint("t/", i), "y", 2))
		}
		for i, m := range receive(c, 2) {
			if want := []string{"t/2", "t/4"}[i]; string(m.Topic) != want {
				t.Errorf("got %s, want %s", mqtttest.Words(m), want)
			}
		}
		silent(c)
	})
}

// One filter that cannot be granted does not spoil the others.
func TestAFailureIsOneOfManyCodes(t *testing.T) {
	proves(t, "MQTT-3.8.4-6 MQTT-3.8.4-7 MQTT-3.9.3-1 MQTT-3.9.3-2 MQTT-4.7.1-1 MQTT-4.7.1-2 MQTT-4.7.3-1 MQTT-4.8.2-1 MQTT-4.8.2-2",
		"MQTT311-3.8.4-5 MQTT311-3.9.3-1 MQTT311-3.9.3-2 MQTT311-4.7.1-2 MQTT311-4.7.1-3 MQTT311-4.7.3-1")
	ourChoice(t) // another may close the connection
	s := start(t, func(c *config.Config) { c.Sessions.MaxSubscriptions = 8 })
	bad := []string{"a/#/b", "#/", "a#", "#a", "a/b#", "+a", "a+", "a/+b/c", "a/b+", "", "$share/", "$share//a", "$share/g", "$share/g+/a", "$share/#/a", "$share/g/"}
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		want := func(code packet.ReasonCode) packet.ReasonCode {
			if v != v5 {
				return packet.UnspecifiedError
			}
			return code
		}
		subs := []packet.Subscription{{Filter: "a", QoS: 2}}
		codes := []packet.ReasonCode{2}
		for _, f := range bad {
			subs, codes = append(subs, packet.Subscription{Filter: f}), append(codes, want(packet.TopicFilterInvalid))
		}
		for i := range 7 {
			subs, codes = append(subs, packet.Subscription{Filter: fmt.Sprint(i), QoS: 1}), append(codes, 1)
		}
		subs, codes = append(subs, packet.Subscription{Filter: "one too many"}), append(codes, want(packet.QuotaExceeded))
		c.Send(&packet.Subscribe{PacketID: 7, Subscriptions: subs})
		c.Expect(&packet.Suback{PacketID: 7, Codes: codes})
		c.Send(message("a", "x", 0), message("6", "y", 0))
		c.Receive("a", "x", 0)
		c.Receive("6", "y", 0)
	})
}

func TestFiltersMatchLevelByLevel(t *testing.T) {
	proves(t, "MQTT-4.7.1-1 MQTT-4.7.1-2 MQTT-4.7.2-1 MQTT-4.7.3-4 MQTT-3.3.2-3",
		"MQTT311-4.7.1-2 MQTT311-4.7.1-3 MQTT311-4.7.2-1 MQTT311-4.7.3-4 MQTT311-3.3.2-3")
	s := start(t)
	topics := []string{"a", "a/b", "a/b/c", "/", "/a", "a/", "a//b", "//", "b", "A", "a/b/", "$x", "$x/a", "$x/a/b", "a/$x", "ab", " ", "a b", "sport/tennis/player1"}
	rows := []struct {
		filter string
		match  []string
	}{
		{"#", []string{"a", "a/b", "a/b/c", "/", "/a", "a/", "a//b", "//", "b", "A", "a/b/", "a/$x", "ab", " ", "a b", "sport/tennis/player1"}},
		{"+", []string{"a", "b", "A", "ab", " ", "a b"}},
		{"/+", []string{"/", "/a"}},
		{"+/+", []string{"a/b", "/", "/a", "a/", "a/$x"}},
		{"+/", []string{"/", "a/"}},
		{"a/#", []string{"a", "a/b", "a/b/c", "a/", "a//b", "a/b/", "a/$x"}},
		{"a/+", []string{"a/b", "a/", "a/$x"}},
		{"a/+/c", []string{"a/b/c"}},
		{"a/+/b", []string{"a//b"}},
		{"+/b/#", []string{"a/b", "a/b/c", "a/b/"}},
		{"a/b/#", []string{"a/b", "a/b/c", "a/b/"}},
		{"/#", []string{"/", "/a", "//"}},
		{"//#", []string{"/", "//"}},
		{"+/a", []string{"/a"}},
		{"+/a/b", nil},
		{"+/tennis/#", []string{"sport/tennis/player1"}},
		{"a/b", []string{"a/b"}},
		{"A", []string{"A"}},
	}
	each(t, func(t *testing.T, v packet.Version) {
		for _, row := range rows {
			c := s.connect(t, v, "c")
			c.Subscribe(0, row.filter)
			for _, topic := range topics {
				c.Send(message(topic, topic, 0))
			}
			for _, topic := range row.match {
				c.Receive(topic, topic, 0)
			}
			silent(c)
			c.Disconnect()
		}
	})
}

// What the server says of itself is for those who ask for it by name.
func TestWildcardsDoNotMatchTheServersTopics(t *testing.T) {
	proves(t, "MQTT-4.7.2-1 MQTT311-4.7.2-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(1, "#", "+/#", "+/broker/version", "+/+/version", "+")
		silent(c)
		c.Subscribe(0, "$SYS/broker/version")
		if m := mqtttest.Expect[*packet.Publish](c); string(m.Topic) != "$SYS/broker/version" || !m.Retain {
			t.Errorf("got %s", mqtttest.Words(m))
		}
		c.Disconnect()
		c = s.connect(t, v, "c")
		c.Subscribe(0, "$SYS/+/version")
		if m := mqtttest.Expect[*packet.Publish](c); string(m.Topic) != "$SYS/broker/version" {
			t.Errorf("got %s", mqtttest.Words(m))
		}
	})
}

// Where filters overlap, there is one copy or one for each; CairnMQ sends one.
func TestOverlappingSubscriptions(t *testing.T) {
	proves(t, "MQTT-3.3.4-2 MQTT-3.3.4-3 MQTT-3.3.4-4 MQTT311-3.3.5-1")
	ourChoice(t)
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		id := func(n uint32) uint32 {
			if v == v5 {
				return n
			}
			return 0
		}
		c.SubscribeWith(id(1), packet.Subscription{Filter: "a/#", QoS: 0})
		c.SubscribeWith(id(268435455), packet.Subscription{Filter: "a/+", QoS: 2})
		c.SubscribeWith(id(128), packet.Subscription{Filter: "+/b", QoS: 1})
		c.SubscribeWith(0, packet.Subscription{Filter: "#", QoS: 1})
		p := s.connect(t, v, "p")
		for qos := range byte(3) {
			publish(p, message("a/b", "x", qos))
			m := c.Receive("a/b", "x", qos)
			slices.Sort(m.SubscriptionIDs)
			if want := []uint32{1, 128, 268435455}; v == v5 && !slices.Equal(m.SubscriptionIDs, want) {
				t.Errorf("identifiers %d, want %d", m.SubscriptionIDs, want)
			}
		}
		publish(p, message("c/b", "y", 2))
		if m := c.Receive("c/b", "y", 1); v == v5 && !slices.Equal(m.SubscriptionIDs, []uint32{128}) {
			t.Errorf("identifiers %d", m.SubscriptionIDs)
		}
		publish(p, message("x/y", "z", 2))
		if m := c.Receive("x/y", "z", 1); len(m.SubscriptionIDs) > 0 {
			t.Errorf("identifiers %d", m.SubscriptionIDs)
		}
		silent(c)
	})
}

// The identifier belongs to the subscription: it is replaced with it, lasts with the session, and comes with retained
// messages as well.
func TestSubscriptionIdentifiers(t *testing.T) {
	proves(t, "MQTT-3.3.4-3 MQTT-3.8.4-3 MQTT-4.1.0-1")
	s := start(t)
	p := s.connect(t, v5, "p")
	publish(p, retained("a", "kept", 1))
	c := s.resume(t, v5, "c")
	expect := func(payload string, want ...uint32) {
		t.Helper()
		if m := c.Receive("a", payload, 1); !slices.Equal(m.SubscriptionIDs, want) {
			t.Errorf("%s: identifiers %d, want %d", payload, m.SubscriptionIDs, want)
		}
	}
	a := packet.Subscription{Filter: "a", QoS: 1}
	c.SubscribeWith(5, a)
	expect("kept", 5)
	publish(p, message("a", "live", 1))
	expect("live", 5)
	c.Disconnect()
	publish(p, message("a", "away", 1))
	c = s.resume(t, v5, "c")
	expect("away", 5)
	c.SubscribeWith(6, a)
	expect("kept", 6)
	publish(p, message("a", "replaced", 1))
	expect("replaced", 6)
	c.SubscribeWith(0, a)
	expect("kept")
	publish(p, message("a", "without", 1))
	expect("without")
	// One SUBSCRIBE gives its identifier to all its filters.
	both := &packet.Subscribe{PacketID: 500, Subscriptions: []packet.Subscription{{Filter: "x"}, {Filter: "y"}}}
	both.Props.SubscriptionIDs = []uint32{9}
	c.Send(both)
	c.Expect(&packet.Suback{PacketID: 500, Codes: []packet.ReasonCode{0, 0}})
	for _, topic := range []string{"x", "y"} {
		c.Send(message(topic, "", 0))
		if m := c.Receive(topic, "", 0); !slices.Equal(m.SubscriptionIDs, []uint32{9}) {
			t.Errorf("identifiers %d", m.SubscriptionIDs)
		}
	}
}

// Replacing a subscription loses nothing that is published meanwhile.
func TestReplacingASubscriptionLosesNothing(t *testing.T) {
	proves(t, "MQTT-3.8.4-3 MQTT-3.8.4-4 MQTT311-3.8.4-3")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		const n = 100
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range n {
				p.Send(message("a", fmt.Sprint(i), 0))
			}
		}()
		for i, next := 0, 0; next < n; i++ {
			c.Send(&packet.Subscribe{PacketID: uint16(i%1000 + 1), Subscriptions: []packet.Subscription{{Filter: "a", QoS: byte(i % 3)}}})
			for answered := false; !answered; {
				switch p := c.Next().(type) {
				case *packet.Suback:
					answered = true
				case *packet.Publish:
					if string(p.Payload) != fmt.Sprint(next) {
						t.Fatalf("got %s, want %d", mqtttest.Words(p), next)
					}
					next++
				}
			}
		}
		<-sent
	})
}

func TestNoLocalKeepsAClientsMessagesFromItself(t *testing.T) {
	proves(t, "MQTT-3.8.3-3")
	s := start(t)
	c := s.resume(t, v5, "c")
	c.SubscribeWith(0, packet.Subscription{Filter: "a", QoS: 2, NoLocal: true})
	other, watch := s.connect(t, v5, "other"), s.connect(t, v5, "watch")
	watch.Subscribe(2, "a")
	for qos := range byte(3) {
		publish(c, message("a", "own", qos))
		watch.Receive("a", "own", qos)
		publish(other, message("a", "other's", qos))
		watch.Receive("a", "other's", qos)
		c.Receive("a", "other's", qos)
	}
	c.Disconnect() // the client is the same on its next connection
	c = s.resume(t, v5, "c")
	publish(c, message("a", "own", 1))
	silent(c)
	c.SubscribeWith(0, packet.Subscription{Filter: "a", QoS: 2})
	publish(c, message("a", "now", 0))
	c.Receive("a", "now", 0)
}

func TestDeliveriesThatHaveBegunAreFinishedAfterUnsubscribe(t *testing.T) {
	proves(t, "MQTT-3.10.4-3 MQTT-3.10.4-2 MQTT311-3.10.4-3 MQTT311-3.10.4-2")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Subscribe(2, "a")
		p := s.connect(t, v, "p")
		publish(p, message("a", "one", 1), message("a", "two", 2))
		one, two := mqtttest.Expect[*packet.Publish](c), mqtttest.Expect[*packet.Publish](c)
		c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{"a"}})
		c.Expect(&packet.Unsuback{PacketID: 9, Codes: []packet.ReasonCode{0}})
		publish(p, message("a", "three", 1))
		c.Send(ack(packet.PUBREC, two.PacketID))
		c.Expect(ack(packet.PUBREL, two.PacketID))
		c.Disconnect()
		c = s.resume(t, v, id)
		var got packs
		got = append(got, c.Next(), c.Next())
		one.Dup = true
		for _, w := range []packet.Packet{one, ack(packet.PUBREL, two.PacketID)} {
			if !slices.ContainsFunc(got, func(p packet.Packet) bool { return string(p.Append(nil, v)) == string(w.Append(nil, v)) }) {
				t.Errorf("no %s among what came", mqtttest.Words(w))
			}
		}
		silent(c)
	})
}
