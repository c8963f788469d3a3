package conformance

import (
	"fmt"
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapter 3.3.1.3: retained messages.

func TestRetainedMessagesAreKeptReplacedAndRemoved(t *testing.T) {
	proves(t, "MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-7 MQTT-3.3.1-8 MQTT-3.3.1-12",
		"MQTT311-3.3.1-5 MQTT311-3.3.1-6 MQTT311-3.3.1-7 MQTT311-3.3.1-8 MQTT311-3.3.1-9 MQTT311-3.3.1-10 MQTT311-3.3.1-11 MQTT311-3.3.1-12")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		top := "r" + v.String()
		p, live := s.connect(t, v, "p"), s.connect(t, v, "live")
		live.Subscribe(2, top+"/#")
		expect := func(want ...*packet.Publish) {
			t.Helper()
			c := s.connect(t, v, "late")
			c.Subscribe(2, top+"/#", top+"/none")
			got := receive(c, len(want))
			for _, w := range want {
				found := false
				for _, m := range got {
					found = found || string(m.Topic) == string(w.Topic) && string(m.Payload) == string(w.Payload) && m.QoS == w.QoS && m.Retain && !m.Dup
				}
				if !found {
					t.Errorf("no %s among what came", mqtttest.Words(w))
				}
			}
			silent(c)
			c.Disconnect()
		}
		send := func(m *packet.Publish) {
			t.Helper()
			publish(p, m)
			got := live.Receive(string(m.Topic), string(m.Payload), m.QoS)
			if got.Retain {
				t.Errorf("the flag on the way to a subscription that was there: %s", mqtttest.Words(got))
			}
		}
		a, b := top+"/a", top+"/b/c"
		send(retained(a, "one", 1))
		send(retained(b, "deep", 2))
		expect(retained(a, "one", 1), retained(b, "deep", 2))
		send(retained(a, "two", 0)) // of a lower QoS
		send(message(a, "not retained", 1))
		send(message(a, "", 1)) // nor is this: it removes nothing
		expect(retained(a, "two", 0), retained(b, "deep", 2))
		send(retained(a, "", 1))
		expect(retained(b, "deep", 2))
		send(retained(a, "", 1)) // there is nothing to remove
		send(retained(a, "again", 2))
		expect(retained(a, "again", 2), retained(b, "deep", 2))
		send(retained(a, "", 0))
		send(retained(b, "", 0))
		expect()
	})
}

func TestEverySubscribeBringsTheRetainedMessages(t *testing.T) {
	proves(t, "MQTT-3.3.1-9 MQTT-3.8.4-4 MQTT-3.8.4-3", "MQTT311-3.8.4-3 MQTT311-3.3.1-8")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		topic := "r" + v.String()
		p := s.connect(t, v, "p")
		publish(p, retained(topic, "x", 2))
		c := s.connect(t, v, "c")
		for _, qos := range []byte{0, 2, 1} {
			c.Subscribe(qos, topic)
			if !c.Receive(topic, "x", qos).Retain {
				t.Error("no retain flag")
			}
			silent(c)
		}
		publish(p, message(topic, "live", 2)) // it has replaced and not added
		c.Receive(topic, "live", 1)
		silent(c)
	})
}

func TestRetainHandling(t *testing.T) {
	proves(t, "MQTT-3.3.1-9 MQTT-3.3.1-10 MQTT-3.3.1-11")
	s := start(t)
	publish(s.connect(t, v5, "p"), retained("a/b", "x", 1))
	c := s.resume(t, v5, "c")
	for handling, want := range []int{3, 1, 0} {
		filter := []string{"a/b", "a/+", "a/#"}[handling]
		for i := range 3 {
			if code := c.SubscribeWith(0, packet.Subscription{Filter: filter, QoS: 1, RetainHandling: byte(handling)}); code != 1 {
				t.Fatalf("SUBACK %v", code)
			}
			if i < want {
				c.Receive("a/b", "x", 1)
			}
			silent(c)
			if i == 0 { // a session that goes on still has its subscription
				c.Disconnect()
				c = s.resume(t, v5, "c")
			}
		}
		c.Send(&packet.Unsubscribe{PacketID: 999, Filters: []string{filter}})
		mqtttest.Expect[*packet.Unsuback](c)
		if handling == 1 { // it is new again
			c.SubscribeWith(0, packet.Subscription{Filter: filter, QoS: 1, RetainHandling: 1})
			c.Receive("a/b", "x", 1)
		}
	}
}

func TestRetainAsPublished(t *testing.T) {
	proves(t, "MQTT-3.3.1-12 MQTT-3.3.1-13")
	s := start(t)
	kept, cleared := s.connect(t, v5, "kept"), s.connect(t, v5, "cleared")
	kept.SubscribeWith(0, packet.Subscription{Filter: "a", QoS: 1, RetainAsPublished: true})
	cleared.SubscribeWith(0, packet.Subscription{Filter: "a", QoS: 1})
	for _, v := range versions {
		p := s.connect(t, v, "p")
		for i, m := range []*packet.Publish{retained("a", "x", 1), message("a", "y", 1), retained("a", "", 1)} {
			flag := m.Retain
			publish(p, m)
			if got := kept.Receive("a", string(m.Payload), 1); got.Retain != flag {
				t.Errorf("%d: got %s", i, mqtttest.Words(got))
			}
			if got := cleared.Receive("a", string(m.Payload), 1); got.Retain {
				t.Errorf("%d: got %s", i, mqtttest.Words(got))
			}
		}
	}
}

// A retained message comes for every filter that wants it, at most with the QoS granted.
func TestManyRetainedMessages(t *testing.T) {
	proves(t, "MQTT311-3.3.1-6 MQTT-3.3.1-9")
	s := start(t)
	p := s.connect(t, v5, "p")
	const n = 200
	for i := range n {
		publish(p, retained(fmt.Sprintf("r/%d/x", i), fmt.Sprint(i), byte(i%3)))
	}
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(1, "r/+/x")
		seen := make(map[string]bool)
		for _, m := range receive(c, n) {
			if seen[string(m.Topic)] || !m.Retain || m.QoS > 1 {
				t.Errorf("got %s", mqtttest.Words(m))
			}
			seen[string(m.Topic)] = true
		}
		silent(c)
	})
}
