package broker

import (
	"bytes"
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

// groupRow is what the index has of a group that nobody of is connected.
func (r *rig) groupRow(name string) *storage.GroupRow {
	r.t.Helper()
	row, ok, err := r.Broker.log.LoadGroup(name)
	if err != nil {
		r.t.Fatal(err)
	}
	if !ok {
		return nil
	}
	return row
}

const someGroup = "$share/g/t/#"

// leaving is one way in which a member goes with messages unacknowledged, and
// what becomes of them.
type leaving struct {
	name    string
	persist bool
	leave   func(r *rig, c *mqtttest.Client)
	stays   bool // they are the session's until it ends
	ended   bool // the session has ended
}

var leavings = []leaving{
	{"DISCONNECT of a clean session", false, func(r *rig, c *mqtttest.Client) { c.Disconnect(); r.away("a") }, false, true},
	{"connection of a clean session lost", false, func(r *rig, c *mqtttest.Client) { r.drop(c) }, false, true},
	{"malformed packet", false, func(r *rig, c *mqtttest.Client) { c.SendRaw([]byte{0, 0}); r.away("a") }, false, true},
	{"taken over by a clean start", true, func(r *rig, c *mqtttest.Client) { r.connect(packet.V5, "a") }, false, true},
	{"session expired", true, func(r *rig, c *mqtttest.Client) { r.drop(c); r.pass(2 * time.Hour) }, false, true},
	{"expiry of zero in DISCONNECT", true, func(r *rig, c *mqtttest.Client) {
		zero := uint32(0)
		d := &packet.Disconnect{}
		d.Props.SessionExpiry = &zero
		c.Send(d)
		c.ExpectClosed()
		r.away("a")
	}, false, true},
	{"clean start after the connection was lost", true, func(r *rig, c *mqtttest.Client) { r.drop(c); r.connect(packet.V5, "a") }, false, true},
	{"connection of a persistent session lost", true, func(r *rig, c *mqtttest.Client) { r.drop(c) }, true, false},
	{"DISCONNECT of a persistent session", true, func(r *rig, c *mqtttest.Client) { c.Disconnect(); r.away("a") }, true, false},
	{"taken over", true, func(r *rig, c *mqtttest.Client) { r.drop(c); r.resume(packet.V5, "a") }, true, false},
	{"UNSUBSCRIBE", true, func(r *rig, c *mqtttest.Client) {
		c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{someGroup}})
		mqtttest.Expect[*packet.Unsuback](c)
	}, true, false},
	{"UNSUBSCRIBE, then the end", false, func(r *rig, c *mqtttest.Client) {
		c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{someGroup}})
		mqtttest.Expect[*packet.Unsuback](c)
		r.drop(c)
	}, false, true},
}

// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: messages of QoS 1 go to another member once
// the session has ended; those of QoS 2 that were being sent are finished with
// it, or with nobody.
func TestWhatAMemberLeavesUnacknowledged(t *testing.T) {
	for _, x := range leavings {
		for _, restart := range []string{"", "restart", "kill"} {
			t.Run(strings.TrimSpace(x.name+" "+restart), func(t *testing.T) {
				r := start(t)
				var a *mqtttest.Client
				if x.persist {
					a, _ = r.resume(packet.V5, "a", mqtttest.ReceiveMaximum(6))
				} else {
					a = r.connect(packet.V5, "a", mqtttest.ReceiveMaximum(6))
				}
				a.Subscribe(2, someGroup)
				p := r.connect(packet.V5, "p")
				p.Publish(mqtttest.Message("t/1", "one", 1))
				p.Publish(mqtttest.Message("t/2", "two", 2))
				p.Publish(mqtttest.Message("t/3", "three", 1))
				p.Publish(mqtttest.Message("t/4", "received", 2))
				p.Publish(mqtttest.Message("t/5", "done", 1))
				p.Publish(mqtttest.Message("t/6", "refused", 1))
				var ids []uint16
				for range 6 {
					ids = append(ids, mqtttest.Expect[*packet.Publish](a).PacketID)
				}
				a.Send(ack(packet.PUBREC, ids[3]), ack(packet.PUBACK, ids[4]), ack(packet.PUBACK, ids[5], packet.UnspecifiedError)) // [MQTT-4.8.2-6]
				a.Expect(ack(packet.PUBREL, ids[3]))
				a.Ping()
				// It keeps the group, and is away.
				b, _ := r.resume(packet.V5, "b", mqtttest.Expiry(100_000))
				b.Subscribe(2, someGroup)
				r.drop(b)
				x.leave(r, a)
				switch restart {
				case "restart":
					r.restart()
				case "kill":
					r.kill()
				}
				b, _ = r.resume(packet.V5, "b")
				if x.ended {
					b.Receive("t/1", "one", 1)
					b.Receive("t/3", "three", 1)
				}
				b.ExpectNothing()
				if x.stays {
					r.sameMember(b, ids)
				}
				b.ExpectNothing()
			})
		}
	}
}

// sameMember takes what is left of the six messages with the client that they
// were sent to.
func (r *rig) sameMember(b *mqtttest.Client, ids []uint16) {
	r.t.Helper()
	a, present := r.resume(packet.V5, "a")
	if !present {
		r.t.Fatal("the session is gone")
	}
	for i, want := range []string{"one", "two", "three"} {
		m := mqtttest.Expect[*packet.Publish](a)
		if string(m.Payload) != want || !m.Dup || m.PacketID != ids[i] {
			r.t.Fatalf("got %s, want %q again", mqtttest.Words(m), want)
		}
	}
	a.Expect(ack(packet.PUBREL, ids[3]))
	a.ExpectNothing()
}

// Messages that a member was granted and that had not left go to others, at
// any QoS, and what had left stays.
func TestWhatWasNotSentGoesToOthers(t *testing.T) {
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			r := start(t)
			a, _ := r.resume(packet.V5, "a")
			a.Subscribe(2, someGroup)
			b, _ := r.resume(packet.V5, "b")
			b.Subscribe(2, someGroup)
			w := newCrew(t)
			w.add(b)
			p := r.connect(packet.V5, "p")
			const n = 400
			pad := strings.Repeat("x", 64<<10) // a's socket does not take all of its part
			for i := range n {
				m := mqtttest.Message("t/x", fmt.Sprintf("%d %s", i, pad), qos)
				p.Publish(m)
			}
			w.await(n / 2)
			r.drop(a)
			a, _ = r.resume(packet.V5, "a")
			w.add(a)
			if qos > 0 {
				w.await(n)
				w.once()
				return
			}
			// What was in the socket is lost, and nothing else.
			w.once()
		})
	}
}

// While all members are away the group waits in the log, over every kind of
// end, and then goes on in order.
func TestAGroupWaitsForItsMembers(t *testing.T) {
	for _, again := range []func(r *rig){func(*rig) {}, (*rig).restart, (*rig).kill} {
		r := start(t, func(c *config.Config) { c.Sessions.Outbox = 16 })
		for _, id := range []string{"a", "b"} {
			c, _ := r.resume(packet.V311, id)
			c.Subscribe(1, someGroup)
			r.drop(c)
		}
		if g := r.groupRow(someGroup); g == nil || !slices.Equal(g.Members, []string{"a", "b"}) || g.Online {
			t.Fatalf("group %+v", g)
		}
		p := r.connect(packet.V5, "p")
		const n = 200
		publishAll(p, burst("t/x", 0, n, 1)...)
		lags := map[string]string{} // it is the group that is behind, and not its members
		r.sysReaders(func(name, text string) { lags[name] = text }, func(string, int64) {})
		if len(lags) != 1 || !strings.Contains(lags["readers/lag/1"], `{"client":"$share/g/t/#","online":false,`) {
			t.Errorf("lags %v", lags)
		}
		again(r)
		b, _ := r.resume(packet.V311, "b")
		for i := range n {
			b.Receive("t/x", fmt.Sprint(i), 1)
		}
		p = r.connect(packet.V5, "p")
		publishAll(p, burst("t/x", n, 20, 1)...)
		for i := range 20 {
			b.Receive("t/x", fmt.Sprint(n+i), 1)
		}
		b.ExpectNothing()
		r.drop(b)
		a, _ := r.resume(packet.V311, "a")
		a.ExpectNothing()
	}
}

// QoS 0 messages wait, too; but when it is not known whether they were
// delivered, they are not delivered again.
func TestAGroupAndQoS0(t *testing.T) {
	r := start(t)
	a, _ := r.resume(packet.V5, "a")
	a.Subscribe(1, someGroup)
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("t", "live", 0))
	a.Receive("t", "live", 0)
	r.kill()
	a, _ = r.resume(packet.V5, "a")
	a.ExpectNothing()
	r.drop(a)
	p = r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("t", "waits", 0))
	p.Ping()
	r.kill()
	a, _ = r.resume(packet.V5, "a")
	a.Receive("t", "waits", 0)
	a.ExpectNothing()
}

// A group ends with its last member, and one of the same name begins anew.
func TestAGroupEndsWithItsMembers(t *testing.T) {
	for _, end := range []func(r *rig, c *mqtttest.Client){
		func(r *rig, c *mqtttest.Client) { r.drop(c) },
		func(r *rig, c *mqtttest.Client) { r.kill() },
		func(r *rig, c *mqtttest.Client) {
			c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{someGroup}})
			mqtttest.Expect[*packet.Unsuback](c)
		},
	} {
		r := start(t)
		a := r.connect(packet.V311, "a")
		a.Subscribe(1, someGroup)
		p := r.connect(packet.V5, "p")
		p.Publish(mqtttest.Message("t", "x", 1))
		mqtttest.Expect[*packet.Publish](a)
		end(r, a)
		r.pass(0) // after a kill the session ends now
		eventually(t, "the group is gone", func() bool { return r.groupRow(someGroup) == nil })
		p = r.connect(packet.V5, "p")
		p.Publish(mqtttest.Message("t", "to nobody", 1))
		b := r.connect(packet.V5, "b")
		b.Subscribe(1, someGroup)
		p.Publish(mqtttest.Message("t", "again", 1))
		b.Receive("t", "again", 1)
		b.ExpectNothing()
	}
}

// What a client asks for holds for its part.
func TestEachMemberHasItsOwnOptions(t *testing.T) { // [MQTT-4.8.2-3]
	r := start(t)
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Retained("t/r", "retained", 1))
	a := r.connect(packet.V5, "a")
	if code := a.SubscribeWith(77, packet.Subscription{Filter: someGroup, QoS: 1, RetainAsPublished: true}); code != 1 {
		t.Fatal(code)
	}
	b := r.connect(packet.V311, "b")
	b.Subscribe(0, someGroup)
	for range 2 { // nothing retained is sent because of a shared subscription
		p.Publish(mqtttest.Retained("t/r", "retained", 2))
	}
	m := a.Receive("t/r", "retained", 1)
	if !m.Retain || !slices.Equal(m.SubscriptionIDs, []uint32{77}) {
		t.Errorf("got %s", mqtttest.Words(m))
	}
	if m = b.Receive("t/r", "retained", 0); m.Retain {
		t.Errorf("got %s", mqtttest.Words(m))
	}
	// Subscribing again replaces.
	if code := a.SubscribeWith(78, packet.Subscription{Filter: someGroup, QoS: 0}); code != 0 {
		t.Fatal(code)
	}
	for range 2 {
		p.Publish(mqtttest.Message("t/r", "y", 2))
	}
	if m = a.Receive("t/r", "y", 0); !slices.Equal(m.SubscriptionIDs, []uint32{78}) {
		t.Errorf("got %s", mqtttest.Words(m))
	}
	b.Receive("t/r", "y", 0)
	a.ExpectNothing()
	b.ExpectNothing()
}

// A client gets what is its own and its part of each group, under one window.
func TestSeveralGroupsAndASubscriptionOfItsOwn(t *testing.T) {
	r := start(t)
	a := r.connect(packet.V5, "a", mqtttest.ReceiveMaximum(2))
	for i, f := range []string{"t/#", "$share/g/t/#", "$share/h/t/#", "$share/g/+/x", "$share/g/other"} {
		if code := a.SubscribeWith(uint32(i+1), packet.Subscription{Filter: f, QoS: 1}); code != 1 {
			t.Fatal(code)
		}
	}
	p := r.connect(packet.V5, "p")
	const n = 30
	publishAll(p, burst("t/x", 0, n, 1)...)
	last := map[uint32]int{}
	for range 4 * n {
		m := mqtttest.Expect[*packet.Publish](a)
		if len(m.SubscriptionIDs) != 1 {
			t.Fatalf("got %s", mqtttest.Words(m))
		}
		id := m.SubscriptionIDs[0]
		if want := fmt.Sprint(last[id]); string(m.Payload) != want {
			t.Fatalf("subscription %d: got %s, want %s", id, m.Payload, want)
		}
		last[id]++
		a.Acknowledge(m)
	}
	a.ExpectNothing()
	if len(last) != 4 || last[5] != 0 {
		t.Errorf("%v", last)
	}
}

// What retention takes before a group has had it is in the ledger, under the
// name of the group.
func TestTheLedgerKnowsGroups(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Storage.SegmentSize = 64 * config.KiB
		c.Storage.MaxBytes = 512 * config.KiB
		c.Limits.MaxPacketSize = 32 * config.KiB
	})
	a, _ := r.resume(packet.V5, "a")
	a.Subscribe(1, "$share/g/t", "u")
	r.drop(a)
	p := r.connect(packet.V5, "p")
	const n = 80 // so few that no row of the ledger goes with its segment
	pad := bytes.Repeat([]byte("x"), 8<<10)
	for i := range n {
		m := mqtttest.Message("t", "", 1)
		m.Payload = append([]byte(fmt.Sprintf("%d ", i)), pad...)
		p.Publish(m)
	}
	a, _ = r.resume(packet.V5, "a")
	got := 0
	for last := false; !last; got++ {
		m := mqtttest.Expect[*packet.Publish](a)
		last = strings.HasPrefix(string(m.Payload), fmt.Sprint(n-1, " "))
		a.Acknowledge(m)
	}
	lost, late := uint64(0), uint64(0)
	err := r.Broker.log.Losses(0, func(x storage.Loss) error {
		switch {
		case x.Cause != storage.CauseRetention || len(x.Readers) != 1:
			t.Errorf("row %+v", x)
		case x.Readers[0] == "$share/g/t":
			lost += x.Count
		case x.Readers[0] == "a": // on their way when the segment went
			late += x.Count
		}
		return nil
	})
	// A segment may be read between the counting and the drop.
	if missing := uint64(n - got); err != nil || lost+late < missing || lost > missing+8 || lost == 0 {
		t.Errorf("%d delivered, %d in the ledger, %d published; %v", got, lost, n, err)
	}
}

// A group on a rare topic visits what the index lists.
func TestAGroupCatchesUpByPostings(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Storage.SegmentSize = 64 * config.KiB
		c.Limits.MaxPacketSize = 32 * config.KiB
	})
	a, _ := r.resume(packet.V5, "a")
	a.Subscribe(1, "$share/g/rare/+")
	r.drop(a)
	p := r.connect(packet.V5, "p")
	pad := strings.Repeat("x", 1000)
	for i := range 20 {
		p.Publish(mqtttest.Message("rare/x", fmt.Sprint(i), 1))
		for range 30 {
			p.Publish(mqtttest.Message("often", pad, 0))
		}
	}
	p.Publish(mqtttest.Message("often", "", 1))
	g := newGroup(r.Broker, "$share/g/rare/+")
	row := r.groupRow("$share/g/rare/+")
	eventually(t, "segments are sealed", func() bool {
		g.readPos, g.sel = row.Next, selection{}
		return g.narrow()
	})
	a, _ = r.resume(packet.V5, "a")
	for i := range 20 {
		a.Receive("rare/x", fmt.Sprint(i), 1)
	}
	a.ExpectNothing()
}
