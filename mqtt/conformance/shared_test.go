package conformance

import (
	"fmt"
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapter 4.8.2: shared subscriptions.

// group is a filter that is shared.
const group = "$share/group/a/#"

func TestAMessageGoesToOneMemberOfEachGroup(t *testing.T) {
	proves(t, "MQTT-4.8.2-1 MQTT-4.8.2-2 MQTT-4.8.2-3")
	s := start(t)
	// Two groups on one filter, and a subscription that is not shared; each member with a QoS of its own.
	one, two := s.connect(t, v5, "one"), s.connect(t, v311, "two")
	other, all := s.connect(t, v5, "other"), s.connect(t, v5, "all")
	one.Subscribe(0, group, "end/one")
	two.Subscribe(1, group, "end/two")
	other.Subscribe(1, "$share/another group/a/#")
	all.Subscribe(2, "a/#")
	p := s.connect(t, v5, "p")
	const n = 40
	for i := range n {
		publish(p, message(fmt.Sprint("a/", i), fmt.Sprint(i), 2))
		all.Receive(fmt.Sprint("a/", i), fmt.Sprint(i), 2)
		other.Receive(fmt.Sprint("a/", i), fmt.Sprint(i), 1)
	}
	// What one member has not got, the other has: a sentinel tells each that nothing more comes.
	seen := make(map[string]int)
	for granted, c := range []*client{one, two} {
		c.Send(message("end/"+c.ID, "end", 0))
		for {
			m := mqtttest.Expect[*packet.Publish](c)
			if string(m.Topic) == "end/"+c.ID {
				break
			}
			if m.QoS != byte(granted) || m.Retain {
				t.Errorf("%s: got %s, granted %d", c.ID, mqtttest.Words(m), granted)
			}
			c.Acknowledge(m)
			seen[string(m.Payload)]++
		}
	}
	for i := range n {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d came %d times to the group", i, seen[fmt.Sprint(i)])
		}
	}
}

// Retained messages are not for shared subscriptions, and giving one up is a matter of one member.
func TestJoiningAndLeavingAGroup(t *testing.T) {
	proves(t, "MQTT-3.10.4-1 MQTT-3.10.4-2")
	s := start(t)
	p := s.connect(t, v5, "p")
	publish(p, retained("a/b", "kept", 1))
	one, two := s.connect(t, v5, "one"), s.connect(t, v5, "two")
	one.Subscribe(1, group)
	two.Subscribe(1, group)
	silent(one)
	silent(two)
	one.Send(&packet.Unsubscribe{PacketID: 900, Filters: []string{"a/#", group, group}})
	no := packet.NoSubscriptionExisted
	one.Expect(&packet.Unsuback{PacketID: 900, Codes: []packet.ReasonCode{no, 0, no}})
	for i := range 5 {
		publish(p, message("a/b", fmt.Sprint(i), 1))
		two.Receive("a/b", fmt.Sprint(i), 1)
	}
	silent(one)
}

func TestADeliveryThatAMemberHasBegunIsItsOwn(t *testing.T) {
	proves(t, "MQTT-4.8.2-4 MQTT-4.8.2-5 MQTT-4.4.0-1")
	s := start(t)
	p := s.connect(t, v5, "p")
	one := s.resume(t, v5, "one")
	one.Subscribe(2, group)
	publish(p, message("a/b", "begun", 2), message("a/b", "received", 2))
	m, r := mqtttest.Expect[*packet.Publish](one), mqtttest.Expect[*packet.Publish](one)
	one.Send(ack(packet.PUBREC, r.PacketID))
	one.Expect(ack(packet.PUBREL, r.PacketID))
	two := s.resume(t, v5, "two")
	two.Subscribe(2, group)
	one.Disconnect()
	publish(p, message("a/b", "for who is there", 2))
	two.Receive("a/b", "for who is there", 2)
	silent(two) // QoS 2 stays with whom it was begun
	one = s.resume(t, v5, "one")
	m.Dup = true
	var got packs
	for range 2 {
		got = append(got, one.Next())
	}
	for _, w := range []packet.Packet{m, ack(packet.PUBREL, r.PacketID)} {
		found := false
		for _, g := range got {
			found = found || string(g.Append(nil, v5)) == string(w.Append(nil, v5))
		}
		if !found {
			t.Errorf("no %s among what came", mqtttest.Words(w))
		}
	}
	// And if that member never comes back, with nobody.
	one.Disconnect()
	s.connect(t, v5, "one").Disconnect() // a clean start ends the session
	publish(p, message("a/b", "the next", 2))
	two.Receive("a/b", "the next", 2)
	silent(two)
}

func TestWhatAMemberRefusesGoesToNobodyElse(t *testing.T) {
	proves(t, "MQTT-4.8.2-6 MQTT-4.4.0-2")
	s := start(t)
	p := s.connect(t, v5, "p")
	one := s.connect(t, v5, "one")
	one.Subscribe(2, group)
	publish(p, message("a/b", "refused", 1), message("a/b", "refused as well", 2))
	a, b := mqtttest.Expect[*packet.Publish](one), mqtttest.Expect[*packet.Publish](one)
	two := s.connect(t, v5, "two")
	two.Subscribe(2, group)
	one.Send(ack(packet.PUBACK, a.PacketID, packet.UnspecifiedError), ack(packet.PUBREC, b.PacketID, packet.QuotaExceeded))
	one.Ping()
	one.Disconnect()
	publish(p, message("a/b", "the next", 1))
	two.Receive("a/b", "the next", 1)
	silent(two)
}
