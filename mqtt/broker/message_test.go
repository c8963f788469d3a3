package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

func TestMessagesPassBetweenAllVersionsWithTheLowerQoS(t *testing.T) { // [MQTT-3.8.4-8], [MQTT-3.3.4-1]
	r := start(t)
	for _, from := range versions {
		p := r.connect(from, "p")
		for _, to := range versions {
			for subQoS := range byte(3) {
				s := r.connect(to, "s")
				s.Subscribe(subQoS, "t/+")
				for qos := range byte(3) {
					p.Publish(mqtttest.Message("t/x", fmt.Sprint(qos), qos))
					m := s.Receive("t/x", fmt.Sprint(qos), min(qos, subQoS))
					if m.Dup || m.Retain { // [MQTT-3.3.1-3], [MQTT-4.3.1-1], [MQTT-4.3.2-2], [MQTT-4.3.3-2]
						t.Errorf("got %s", mqtttest.Words(m))
					}
				}
				s.Disconnect()
			}
		}
		p.Disconnect()
	}
}

func TestPropertiesTravelEndToEnd(t *testing.T) { // [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-20]
	r := start(t)
	s, old := r.connect(packet.V5, "s"), r.connect(packet.V311, "old")
	s.Subscribe(1, "a")
	old.Subscribe(1, "a")
	props := []byte{0x01, 1, 0x08, 0, 1, 'r', 0x09, 0, 2, 0, 255, 0x26, 0, 1, 'k', 0, 1, 'v', 0x26, 0, 1, 'b', 0, 0, 0x26, 0, 1, 'k', 0, 1, 'v', 0x03, 0, 1, 'c'}
	m := mqtttest.Message("a", "x", 1)
	m.Props = slices.Concat([]byte{0x23, 0, 5}, props) // the alias does not travel
	r.connect(packet.V5, "p").Publish(m)
	if got := mqtttest.Expect[*packet.Publish](s); !slices.Equal(got.Props, props) {
		t.Errorf("got %s", mqtttest.Words(got))
	}
	old.Receive("a", "x", 1)
}

func TestRetainedMessagesAreSetReplacedAndCleared(t *testing.T) {
	r := start(t)
	for _, v := range versions {
		p, id := r.connect(v, "p"), v.String()
		live := r.connect(v, "live")
		live.Subscribe(1, "r/"+id)
		p.Publish(mqtttest.Retained("r/"+id, "one", 1))
		p.Publish(mqtttest.Retained("r/"+id, "two", 1)) // [MQTT-3.3.1-5]
		p.Publish(mqtttest.Message("r/"+id, "three", 1))
		for _, payload := range []string{"one", "two", "three"} {
			if live.Receive("r/"+id, payload, 1).Retain { // [MQTT-3.3.1-12]
				t.Error("retain flag on a live message")
			}
		}
		s := r.connect(v, "s")
		s.Subscribe(1, "r/#")
		if !s.Receive("r/"+id, "two", 1).Retain { // [MQTT-3.3.1-8]
			t.Error("no retain flag")
		}
		s.ExpectNothing()
		r.restart()
		p, s = r.connect(v, "p"), r.connect(v, "s")
		s.Subscribe(0, "r/#")
		s.Receive("r/"+id, "two", 0)
		p.Publish(mqtttest.Retained("r/"+id, "", 1)) // [MQTT-3.3.1-6], [MQTT-3.3.1-7]
		s.Receive("r/"+id, "", 0)
		again := r.connect(v, "again")
		again.Subscribe(0, "r/#", "r/"+id)
		again.ExpectNothing()
		r.kill()
		again = r.connect(v, "again")
		again.Subscribe(0, "r/#", "r/"+id)
		again.ExpectNothing()
	}
}

func TestRetainHandlingAndRetainAsPublished(t *testing.T) {
	r := start(t)
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Retained("a", "kept", 1))
	s := r.connect(packet.V5, "s")
	sub := packet.Subscription{Filter: "a", QoS: 1}
	for handling, want := range []int{2, 1, 0} { // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
		s.Send(&packet.Unsubscribe{PacketID: s.NextID(), Filters: []string{"a"}})
		mqtttest.Expect[*packet.Unsuback](s)
		sub.RetainHandling = byte(handling)
		for i := range 2 {
			s.SubscribeWith(0, sub)
			if i < want {
				s.Receive("a", "kept", 1)
			}
			s.ExpectNothing()
		}
	}
	sub.RetainAsPublished = true // [MQTT-3.3.1-13]
	s.SubscribeWith(0, sub)
	p.Publish(mqtttest.Retained("a", "new", 1))
	if !s.Receive("a", "new", 1).Retain {
		t.Error("retain as published: the flag is gone")
	}
	p.Publish(mqtttest.Message("a", "plain", 1))
	if s.Receive("a", "plain", 1).Retain {
		t.Error("retain as published: a flag out of nowhere")
	}
	sub.RetainHandling, sub.NoLocal = 0, true
	p.SubscribeWith(0, sub) // [MQTT-3.8.3-3]
	p.ExpectNothing()
}

func TestFiftyThousandRetainedMessagesGoThroughAWindowOfTen(t *testing.T) {
	r := start(t)
	n := 50_000
	if testing.Short() {
		n = 5000
	}
	p := r.connect(packet.V5, "p")
	const burst = 500
	for i := 0; i < n; i += burst {
		var b []byte
		for j := range burst {
			m := mqtttest.Retained(fmt.Sprintf("r/%d", i+j), "x", 1)
			m.PacketID = uint16(j + 1)
			b = m.Append(b, packet.V5)
		}
		p.SendRaw(b)
		for j := range burst {
			p.Expect(ack(packet.PUBACK, uint16(j+1)))
		}
	}
	s := r.connect(packet.V5, "s", mqtttest.ReceiveMaximum(10))
	s.Subscribe(2, "#")
	seen := make(map[string]bool)
	for len(seen) < n {
		var acks []packet.Packet
		for range 10 { // the window is full
			m := mqtttest.Expect[*packet.Publish](s)
			if seen[string(m.Topic)] || !m.Retain {
				t.Fatalf("got %s", mqtttest.Words(m))
			}
			seen[string(m.Topic)] = true
			acks = append(acks, ack(packet.PUBACK, m.PacketID))
		}
		if len(seen)%1000 == 0 {
			s.ExpectNothing()
		}
		s.Send(acks...)
	}
	s.ExpectNothing()
}

func TestUnsubscribingEndsRetainedMessagesThatAreUnderWay(t *testing.T) { // [MQTT-3.10.4-2]
	r := start(t)
	p := r.connect(packet.V5, "p")
	for i := range 100 {
		p.Publish(mqtttest.Retained(fmt.Sprintf("r/%d", i), "x", 1))
	}
	s := r.connect(packet.V5, "s", mqtttest.ReceiveMaximum(3))
	s.Subscribe(1, "r/#")
	for range 3 {
		mqtttest.Expect[*packet.Publish](s)
	}
	s.Send(&packet.Unsubscribe{PacketID: 5, Filters: []string{"r/#"}})
	s.Expect(&packet.Unsuback{PacketID: 5, Codes: []packet.ReasonCode{0}})
	s.Send(ack(packet.PUBACK, 1), ack(packet.PUBACK, 2), ack(packet.PUBACK, 3))
	s.ExpectNothing()
	for range 3 { // the same again and again does not pile up
		s.Send(&packet.Subscribe{PacketID: 6, Subscriptions: []packet.Subscription{{Filter: "r/#", QoS: 1}}})
	}
	for acks := 0; acks < 3; {
		if _, ok := s.Next().(*packet.Suback); ok {
			acks++
		}
	}
	x := r.clients.get("s")
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.retained); n > 1 {
		t.Errorf("%d retain tasks", n)
	}
}

func TestQoS2IsTakenOnce(t *testing.T) {
	mqtttest.Proves(t, "MQTT-4.3.3-10 MQTT311-4.3.3-2")
	r := start(t)
	for _, v := range versions {
		s := r.connect(v, "s")
		s.Subscribe(2, "a")
		c, _ := r.resume(v, "c"+v.String())
		m := mqtttest.Message("a", "once", 2)
		m.PacketID = 7
		c.Send(m)
		c.Expect(ack(packet.PUBREC, 7)) // [MQTT-4.3.3-8]
		m.Dup = true
		c.Send(m, m) // [MQTT-4.3.3-10]
		c.Expect(ack(packet.PUBREC, 7), ack(packet.PUBREC, 7))
		r.drop(c)
		c, _ = r.resume(v, c.ID)
		c.Send(m)
		c.Expect(ack(packet.PUBREC, 7))
		s.Receive("a", "once", 2)
		r.kill()
		s2 := r.connect(v, "s")
		s2.Subscribe(0, "a")
		c, _ = r.resume(v, c.ID)
		c.Send(m)
		c.Expect(ack(packet.PUBREC, 7))
		c.Send(ack(packet.PUBREL, 7))
		c.Expect(ack(packet.PUBCOMP, 7)) // [MQTT-4.3.3-11]
		s2.ExpectNothing()
		m.Dup, m.Payload = false, []byte("new") // [MQTT-4.3.3-12]
		c.Send(m, ack(packet.PUBREL, 7), m)
		c.Expect(ack(packet.PUBREC, 7), ack(packet.PUBCOMP, 7), ack(packet.PUBREC, 7))
		s2.Receive("a", "new", 0)
		s2.Receive("a", "new", 0)
		c.Send(ack(packet.PUBREL, 7))
		c.Expect(ack(packet.PUBCOMP, 7))
	}
}

func TestQoS1IsTakenAgainAfterItsAcknowledgement(t *testing.T) { // [MQTT-4.3.2-5], [MQTT-4.6.0-2]
	r := start(t)
	s := r.connect(packet.V5, "s")
	s.Subscribe(1, "a")
	c := r.connect(packet.V5, "c")
	m := mqtttest.Message("a", "x", 1)
	m.PacketID = 3
	d := *m
	d.Dup = true
	c.Send(m, &d, m)
	c.Expect(ack(packet.PUBACK, 3), ack(packet.PUBACK, 3), ack(packet.PUBACK, 3)) // [MQTT-4.3.2-4]
	for range 3 {
		if s.Receive("a", "x", 1).Dup { // [MQTT-3.3.1-3]
			t.Error("DUP was passed on")
		}
	}
}

func TestUnknownPacketIdentifiers(t *testing.T) {
	r := start(t)
	for _, v := range versions {
		c := r.connect(v, "c")
		c.Send(ack(packet.PUBREL, 9))
		c.Expect(ack(packet.PUBCOMP, 9, packet.PacketIdentifierNotFound)) // [MQTT-4.3.3-11]
		c.Send(ack(packet.PUBREC, 9))
		c.Expect(ack(packet.PUBREL, 9, packet.PacketIdentifierNotFound))
		c.Send(ack(packet.PUBACK, 9), ack(packet.PUBCOMP, 9))
		c.ExpectNothing()
	}
}

func TestTheReceiveMaximumOfTheServerHolds(t *testing.T) { // [MQTT-3.3.4-7]
	r := start(t, func(c *config.Config) { c.Sessions.ReceiveMaximum = 3 })
	s := r.connect(packet.V5, "s")
	s.Subscribe(2, "a")
	c := r.connect(packet.V5, "c")
	for id := uint16(1); id <= 3; id++ {
		m := mqtttest.Message("a", "x", 2)
		m.PacketID = id
		c.Send(m)
		c.Expect(ack(packet.PUBREC, id))
		s.Receive("a", "x", 2)
	}
	dup := mqtttest.Message("a", "x", 2)
	dup.PacketID, dup.Dup = 1, true
	c.Send(dup) // is none of its own
	c.Expect(ack(packet.PUBREC, 1))
	c.Publish(mqtttest.Message("a", "qos 0 does not count", 0))
	s.Receive("a", "qos 0 does not count", 0)
	fourth := mqtttest.Message("a", "one too many", 1)
	fourth.PacketID = 4
	c.Send(fourth)
	c.ExpectDisconnect(packet.ReceiveMaximumExceeded)
	s.ExpectNothing()
	old := r.connect(packet.V311, "old") // knows no receive maximum
	for id := uint16(1); id <= 10; id++ {
		m := mqtttest.Message("b", "x", 2)
		m.PacketID = id
		old.Send(m)
		old.Expect(ack(packet.PUBREC, id))
	}
}

func TestTheReceiveMaximumOfTheClientHolds(t *testing.T) { // [MQTT-3.3.4-9], [MQTT-4.9.0-2]
	r := start(t)
	c := r.connect(packet.V5, "c", mqtttest.ReceiveMaximum(2))
	c.Subscribe(2, "a")
	p := r.connect(packet.V5, "p")
	for i := range 5 {
		p.Publish(mqtttest.Message("a", fmt.Sprint(i), byte(1+i%2)))
	}
	first, second := mqtttest.Expect[*packet.Publish](c), mqtttest.Expect[*packet.Publish](c)
	if first.PacketID == second.PacketID { // [MQTT-2.2.1-4]
		t.Fatal("one identifier for two messages")
	}
	c.ExpectNothing() // [MQTT-3.3.4-10], [MQTT-4.9.0-3]
	c.Subscribe(0, "b")
	c.Send(ack(packet.PUBREC, second.PacketID))
	c.Expect(ack(packet.PUBREL, second.PacketID)) // [MQTT-4.3.3-4]
	c.ExpectNothing()
	c.Send(ack(packet.PUBCOMP, second.PacketID))
	third := mqtttest.Expect[*packet.Publish](c)
	c.ExpectNothing()
	c.Send(ack(packet.PUBACK, first.PacketID, packet.UnspecifiedError)) // [MQTT-4.4.0-2]
	fourth := mqtttest.Expect[*packet.Publish](c)
	c.ExpectNothing()
	c.Send(ack(packet.PUBREC, fourth.PacketID, packet.QuotaExceeded)) // [MQTT-4.4.0-2]
	c.Receive("a", "4", 1)
	c.Send(ack(packet.PUBACK, third.PacketID))
	c.ExpectNothing()
}

func TestUnacknowledgedMessagesAreRepeatedInOrder(t *testing.T) { // [MQTT-4.4.0-1], [MQTT-3.3.1-1], [MQTT-4.6.0-1]
	mqtttest.Proves(t, "MQTT-4.4.0-1 MQTT-4.3.3-6 MQTT311-4.4.0-1")
	for _, how := range []string{"reconnect", "takeover", "restart", "kill"} {
		for _, v := range versions {
			t.Run(how+" "+v.String(), func(t *testing.T) {
				r := start(t)
				c, _ := r.resume(v, "c")
				c.Subscribe(2, "a")
				p := r.connect(v, "p")
				var ids []uint16
				for i := range 6 {
					p.Publish(mqtttest.Message("a", fmt.Sprint(i), byte(1+i%2)))
					ids = append(ids, mqtttest.Expect[*packet.Publish](c).PacketID)
				}
				c.Send(ack(packet.PUBACK, ids[2]))
				c.Send(ack(packet.PUBREC, ids[3]), ack(packet.PUBREC, ids[1]))
				c.Expect(ack(packet.PUBREL, ids[3]), ack(packet.PUBREL, ids[1])) // [MQTT-4.6.0-4]
				c.Send(ack(packet.PUBCOMP, ids[1]))
				c.Ping()
				switch how {
				case "reconnect":
					r.drop(c)
				case "restart":
					r.restart()
				case "kill":
					r.kill()
				}
				c, _ = r.resume(v, "c")
				repeat := func(i int, qos byte) *packet.Publish {
					m := mqtttest.Message("a", fmt.Sprint(i), qos)
					m.Dup, m.PacketID = true, ids[i]
					return m
				}
				c.Expect(repeat(0, 1))
				if how == "kill" { // its PUBCOMP was not worth a record of its own
					c.Expect(ack(packet.PUBREL, ids[1]))
				}
				c.Expect(ack(packet.PUBREL, ids[3]), repeat(4, 1), repeat(5, 2)) // [MQTT-4.3.3-6]
				c.ExpectNothing()
				r.connect(v, "q").Publish(mqtttest.Message("a", "new", 1))
				m := mqtttest.Expect[*packet.Publish](c)
				if m.Dup || slices.Contains(ids, m.PacketID) { // [MQTT-2.2.1-4]
					t.Errorf("got %s", mqtttest.Words(m))
				}
				for _, id := range []uint16{ids[0], ids[2], ids[4], m.PacketID} {
					c.Send(ack(packet.PUBACK, id))
				}
				c.Send(ack(packet.PUBREC, ids[5]))
				c.Expect(ack(packet.PUBREL, ids[5]))
				for _, id := range []uint16{ids[1], ids[3], ids[5]} {
					c.Send(ack(packet.PUBCOMP, id))
				}
				c.Ping()
				if s := r.clients.get("c"); s.win.Len() != 0 {
					t.Errorf("%d are still in flight", s.win.Len())
				}
			})
		}
	}
}

func TestRepetitionsKeepToTheWindowAndNewMessagesFollow(t *testing.T) {
	r := start(t)
	c, _ := r.resume(packet.V5, "c")
	c.Subscribe(1, "a")
	p := r.connect(packet.V5, "p")
	for i := range 6 {
		p.Publish(mqtttest.Message("a", fmt.Sprint(i), 1))
		mqtttest.Expect[*packet.Publish](c)
	}
	r.drop(c)
	for i := 6; i < 10; i++ {
		p.Publish(mqtttest.Message("a", fmt.Sprint(i), 1))
	}
	c, _ = r.resume(packet.V5, "c", mqtttest.ReceiveMaximum(2))
	for i := range 10 {
		if m := c.Receive("a", fmt.Sprint(i), 1); m.Dup != (i < 6) {
			t.Errorf("got %s", mqtttest.Words(m))
		}
	}
	c.ExpectNothing()
}

// Found by reading: who acknowledged what had not been repeated yet got
// nothing any more.
func TestAcknowledgingBeforeTheRepetitionDoesNotStopTheSession(t *testing.T) {
	r := start(t)
	c, _ := r.resume(packet.V5, "c")
	c.Subscribe(1, "a")
	p := r.connect(packet.V5, "p")
	for range 3 {
		p.Publish(mqtttest.Message("a", "x", 1))
		mqtttest.Expect[*packet.Publish](c)
	}
	r.drop(c)
	c, _ = r.resume(packet.V5, "c", mqtttest.ReceiveMaximum(1))
	mqtttest.Expect[*packet.Publish](c)
	c.Send(ack(packet.PUBACK, 2), ack(packet.PUBACK, 3), ack(packet.PUBACK, 1))
	p.Publish(mqtttest.Message("a", "after", 1))
	for {
		m := mqtttest.Expect[*packet.Publish](c)
		c.Acknowledge(m)
		if string(m.Payload) == "after" {
			break
		}
	}
}

func TestOverlappingSubscriptionsGiveOneCopyWithAllIdentifiers(t *testing.T) { // [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]
	r := start(t)
	c := r.connect(packet.V5, "c")
	c.SubscribeWith(1, packet.Subscription{Filter: "a/b", QoS: 0})
	c.SubscribeWith(20000, packet.Subscription{Filter: "a/+", QoS: 2})
	c.SubscribeWith(0, packet.Subscription{Filter: "#", QoS: 1})
	c.SubscribeWith(3, packet.Subscription{Filter: "x", QoS: 1})
	old := r.connect(packet.V311, "old")
	old.Subscribe(0, "a/b")
	old.Subscribe(2, "#")
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("a/b", "x", 2))
	old.Receive("a/b", "x", 2)
	m := c.Receive("a/b", "x", 2)
	slices.Sort(m.SubscriptionIDs)
	if !slices.Equal(m.SubscriptionIDs, []uint32{1, 20000}) {
		t.Errorf("identifiers %d", m.SubscriptionIDs)
	}
	c.SubscribeWith(7, packet.Subscription{Filter: "a/+", QoS: 0}) // [MQTT-3.8.4-3]
	p.Publish(mqtttest.Message("a/b", "y", 2))
	if m = c.Receive("a/b", "y", 1); !slices.Contains(m.SubscriptionIDs, 7) || slices.Contains(m.SubscriptionIDs, 20000) {
		t.Errorf("identifiers %d", m.SubscriptionIDs)
	}
	c.ExpectNothing()
	old.Receive("a/b", "y", 2)
	old.ExpectNothing()
}

func TestNoLocal(t *testing.T) { // [MQTT-3.8.3-3]
	r := start(t)
	c, _ := r.resume(packet.V5, "c")
	c.SubscribeWith(1, packet.Subscription{Filter: "a/#", QoS: 1, NoLocal: true})
	c.Publish(mqtttest.Message("a/b", "own", 1))
	c.ExpectNothing()
	r.connect(packet.V5, "p").Publish(mqtttest.Message("a/b", "other", 1))
	c.Receive("a/b", "other", 1)
	c.SubscribeWith(2, packet.Subscription{Filter: "a/b", QoS: 0})
	c.Publish(mqtttest.Message("a/b", "own", 0))
	if m := c.Receive("a/b", "own", 0); !slices.Equal(m.SubscriptionIDs, []uint32{2}) {
		t.Errorf("identifiers %d", m.SubscriptionIDs)
	}
	// Not when it catches up, either.
	r.drop(c)
	r.connect(packet.V5, "p").Publish(mqtttest.Message("a/c", "away", 1))
	c, _ = r.resume(packet.V5, "c")
	c.Receive("a/c", "away", 1)
	c.ExpectNothing()
}

func TestAnExpiredMessageIsDroppedAndTheRestTold(t *testing.T) { // [MQTT-3.3.2-5], [MQTT-3.3.2-6]
	mqtttest.Proves(t, "MQTT-3.3.2-5 MQTT-3.3.2-6 MQTT-4.3.3-7")
	r := start(t)
	c, _ := r.resume(packet.V5, "c")
	c.Subscribe(1, "a")
	r.drop(c)
	p := r.connect(packet.V5, "p")
	short, long := mqtttest.Message("a", "short", 1), mqtttest.Message("a", "long", 1)
	short.Props, long.Props = []byte{2, 0, 0, 0, 10}, []byte{2, 0, 0, 0, 100}
	p.Publish(short)
	p.Publish(long)
	r.skew.Add(int64(30 * time.Second))
	c, _ = r.resume(packet.V5, "c")
	if m := mqtttest.Expect[*packet.Publish](c); string(m.Payload) != "long" || m.Expiry != 70 {
		t.Fatalf("got %s", mqtttest.Words(m))
	}
	c.ExpectNothing()
	eventually(t, "the ledger has it", func() bool { return has(r.losses(), "expiry [c] 1") })
	r.skew.Add(int64(300 * time.Second)) // but what has gone out once is repeated [MQTT-4.3.3-7]
	r.drop(c)
	c, _ = r.resume(packet.V5, "c")
	if m := c.Receive("a", "long", 1); !m.Dup {
		t.Errorf("got %s", mqtttest.Words(m))
	}
}

func TestAMessageAboveTheClientsLimitIsDropped(t *testing.T) { // [MQTT-3.1.2-24], [MQTT-3.1.2-25]
	r := start(t)
	c := r.connect(packet.V5, "c", mqtttest.MaximumPacketSize(100))
	c.Subscribe(1, "a")
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("a", strings.Repeat("x", 200), 1))
	p.Publish(mqtttest.Message("a", strings.Repeat("x", 91), 1)) // 2+3+2+1+91 = 99
	p.Publish(mqtttest.Message("a", strings.Repeat("x", 93), 1))
	p.Publish(mqtttest.Message("a", "small", 1))
	c.Receive("a", strings.Repeat("x", 91), 1)
	c.Receive("a", "small", 1)
	c.ExpectNothing()
	eventually(t, "the ledger has both", func() bool {
		return has(r.losses(), "too-large [c] 2") || has(r.losses(), "too-large [c] 1") && len(r.losses()) == 2
	})
}

func TestTopicAliases(t *testing.T) { // [MQTT-3.3.2-7] to [MQTT-3.3.2-12]
	r := start(t, func(c *config.Config) { c.Limits.MaxTopicAlias = 3 })
	s := r.connect(packet.V5, "s")
	s.Subscribe(0, "#")
	c := r.connect(packet.V5, "c")
	send := func(topic string, alias byte, payload string) {
		m := mqtttest.Message(topic, payload, 0)
		m.Props = []byte{0x23, 0, alias}
		c.Send(m)
	}
	send("a", 3, "set")
	send("b", 1, "other")
	send("", 3, "used")
	send("c", 3, "changed")
	send("", 3, "used again")
	s.Receive("a", "set", 0)
	s.Receive("b", "other", 0)
	s.Receive("a", "used", 0)
	s.Receive("c", "changed", 0)
	s.Receive("c", "used again", 0)
	send("a", 4, "above")
	c.ExpectDisconnect(packet.TopicAliasInvalid)
	c = r.connect(packet.V5, "c")
	send("", 3, "of an earlier connection")
	c.ExpectDisconnect(packet.ProtocolError)
	s.ExpectNothing()
	none := start(t, func(c *config.Config) { c.Limits.MaxTopicAlias = 0 })
	c = none.connect(packet.V5, "c")
	send("a", 1, "x")
	c.ExpectDisconnect(packet.TopicAliasInvalid)
}

// Topics that begin with $ are the server's: nobody else publishes to them, and wildcards do not find them.
func TestDollarTopics(t *testing.T) { // [MQTT-4.7.2-1]
	r := start(t, seldom)
	for _, v := range versions {
		c := r.connect(v, "c")
		c.Subscribe(0, "#", "+/x", "+/broker/uptime", "$app/#")
		p := r.connect(v, "p")
		for _, name := range []string{"$SYS/x", "$app/x", "$", "$SYSTEM"} {
			p.Publish(mqtttest.Message(name, "dropped", 0))
			m := mqtttest.Message(name, "refused", 1)
			m.PacketID = 1
			p.Send(m)
			p.Expect(ack(packet.PUBACK, 1, packet.NotAuthorized))
			m.QoS = 2
			p.Send(m, m)
			p.Expect(ack(packet.PUBREC, 1, packet.NotAuthorized), ack(packet.PUBREC, 1, packet.NotAuthorized)) // [MQTT-4.3.3-9]
			r.refused(v, packet.NotAuthorized, mqtttest.Will(packet.Will{Topic: name}))
		}
		p.Publish(mqtttest.Message("a$", "x", 0)) // only at the beginning
		c.Receive("a$", "x", 0)
		sys := r.connect(v, "sys")
		sys.Subscribe(0, "$SYS/broker/uptime")
		r.skew.Add(int64(time.Minute))
		r.reportSys()
		for range 2 {
			if m := mqtttest.Expect[*packet.Publish](sys); string(m.Topic) != "$SYS/broker/uptime" || !strings.HasSuffix(string(m.Payload), " seconds") {
				t.Errorf("got %s", mqtttest.Words(m))
			}
		}
		c.ExpectNothing()
		sys.Disconnect()
	}
}

func TestSubscribeAnswersForEachFilter(t *testing.T) { // [MQTT-3.8.4-6], [MQTT-3.9.3-1]
	r := start(t, func(c *config.Config) { c.Sessions.MaxSubscriptions = 4; c.Limits.MaxTopicLevels = 8 })
	deep := strings.Repeat("a/", 8) + "a"
	filters := []string{"a", "a/#/b", "b", "", "$share/g/z", "$share//a", "a+", "a", deep, "c", "d"}
	codes := []packet.ReasonCode{1, packet.TopicFilterInvalid, 1, packet.TopicFilterInvalid, 1,
		packet.TopicFilterInvalid, packet.TopicFilterInvalid, 1, packet.TopicFilterInvalid, 1, packet.QuotaExceeded}
	for _, v := range versions {
		c := r.connect(v, "c")
		p := &packet.Subscribe{PacketID: 77}
		for _, f := range filters {
			p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: f, QoS: 1})
		}
		c.Send(p)
		c.Expect(&packet.Suback{PacketID: 77, Codes: codes}) // [MQTT-3.8.4-2]
		c.Subscribe(2, "a", "b", "c")                        // replacing is not adding
		for _, topic := range []string{"a", "b", "c", "d"} {
			c.Publish(mqtttest.Message(topic, topic, 0))
		}
		for _, topic := range []string{"a", "b", "c"} {
			c.Receive(topic, topic, 0)
		}
		c.ExpectNothing()
		c.Send(&packet.Unsubscribe{PacketID: 78, Filters: []string{"b", "nothing", "a/#/b", "+"}})
		n := packet.NoSubscriptionExisted
		c.Expect(&packet.Unsuback{PacketID: 78, Codes: []packet.ReasonCode{0, n, n, n}}) // [MQTT-3.10.4-1], [MQTT-3.10.4-5]
		c.Publish(mqtttest.Message("b", "gone", 0))
		c.Publish(mqtttest.Message("a", "still", 0))
		c.Receive("a", "still", 0) // [MQTT-3.10.4-2]
		if code := c.SubscribeWith(0, packet.Subscription{Filter: "d", QoS: 0}); code != 0 {
			t.Errorf("%v: SUBACK %v after one was given up", v, code)
		}
	}
}

func TestWhatHasBegunIsFinishedAfterUnsubscribing(t *testing.T) { // [MQTT-3.10.4-3]
	r := start(t)
	c, _ := r.resume(packet.V5, "c")
	c.Subscribe(2, "a")
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("a", "x", 2))
	mqtttest.Expect[*packet.Publish](c)
	c.Send(&packet.Unsubscribe{PacketID: 5, Filters: []string{"a"}})
	mqtttest.Expect[*packet.Unsuback](c)
	r.drop(c)
	c, _ = r.resume(packet.V5, "c")
	c.Receive("a", "x", 2)
	c.ExpectNothing()
}

// Found by the conformance suite: the PUBACK leaves before the message is routed, and who subscribed in between got it
// as a live one, without the flag.
func TestWhatWasAcknowledgedIsRetainedForWhoSubscribesNow(t *testing.T) { // [MQTT-3.3.1-9]
	r := start(t)
	p, c := r.connect(packet.V5, "p"), r.connect(packet.V5, "c")
	for i := range 300 {
		topic := fmt.Sprint("r/", i)
		p.Publish(mqtttest.Retained(topic, "x", 1))
		c.Subscribe(1, topic)
		if m := c.Receive(topic, "x", 1); !m.Retain {
			t.Fatalf("message %d came live", i)
		}
	}
}

// Found by the conformance suite: a flusher that was busy anyway sent the retained messages of a new subscription
// before its SUBACK was queued.
func TestTheSubackComesBeforeItsMessages(t *testing.T) {
	r := start(t)
	c, p := r.connect(packet.V5, "c"), r.connect(packet.V5, "p")
	s := r.clients.get("c")
	p.Publish(mqtttest.Retained("r", "retained", 1))
	for _, row := range []struct{ filter, topic string }{{"r", "r"}, {"$share/g/live", "live"}} {
		if err := s.subscribe([]storage.Sub{{Filter: row.filter, QoS: 1}}); err != nil {
			t.Fatal(err)
		}
		p.Publish(mqtttest.Message(row.topic, "live", 1))
		p.Ping()
		s.kick(false)
		c.ExpectNothing()
		s.mu.Lock()
		s.answering = false // as handleSubscribe leaves it
		s.mu.Unlock()
		s.kick(false)
		if row.topic == "r" {
			c.Receive("r", "retained", 1)
		}
		c.Receive(row.topic, "live", 1)
	}
}
