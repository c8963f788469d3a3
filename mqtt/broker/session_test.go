package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

func ack(t packet.Type, id uint16, code ...packet.ReasonCode) *packet.Ack {
	a := &packet.Ack{Type: t, PacketID: id}
	if len(code) > 0 {
		a.Code = code[0]
	}
	return a
}

func TestASessionIsResumedOrBegunAnew(t *testing.T) {
	r := start(t)
	for _, v := range versions {
		id := "s" + v.String()
		seen := v != packet.V31 // 3.1 has no session present
		c, present := r.resume(v, id)
		if present { // [MQTT-3.1.2-6], [MQTT-3.2.2-3]
			t.Fatalf("%v: session present at first", v)
		}
		c.Subscribe(1, "a/"+id)
		c.Disconnect()
		r.away(id)
		p := r.connect(v, "p")
		p.Publish(mqtttest.Message("a/"+id, "while away", 1))
		c, present = r.resume(v, id)
		if present != seen { // [MQTT-3.1.2-5], [MQTT-3.2.2-3]
			t.Fatalf("%v: session present %v", v, present)
		}
		c.Receive("a/"+id, "while away", 1)
		c.ExpectNothing()
		c.Disconnect()
		r.away(id)
		c = r.dial(v)
		if c.Connect(id).SessionPresent { // [MQTT-3.1.2-4], [MQTT-3.2.2-2]
			t.Fatalf("%v: session present after clean start", v)
		}
		p.Publish(mqtttest.Message("a/"+id, "nobody", 1))
		c.ExpectNothing()
		c.Disconnect()
		r.away(id)
		if _, present = r.resume(v, id); present {
			t.Fatalf("%v: a clean session was kept", v)
		}
	}
}

func TestASessionEndsWhenItsExpiryIntervalIsOver(t *testing.T) { // [MQTT-3.1.2-23], [MQTT-4.1.0-2]
	mqtttest.Proves(t, "MQTT-3.1.2-23 MQTT-4.1.0-2")
	r := start(t, func(c *config.Config) { c.Sessions.MaxExpiry = config.Duration(time.Hour) })
	rows := []struct {
		name    string
		v       packet.Version
		options []mqtttest.Option
		leave   packet.Packet
		wait    time.Duration
		present bool
	}{
		{"absent in 5 is 0", packet.V5, []mqtttest.Option{mqtttest.Resume}, nil, 0, false},
		{"60 s, after 59", packet.V5, []mqtttest.Option{mqtttest.Resume, mqtttest.Expiry(60)}, nil, 59 * time.Second, true},
		{"60 s, after 61", packet.V5, []mqtttest.Option{mqtttest.Resume, mqtttest.Expiry(60)}, nil, 61 * time.Second, false},
		{"never is capped", packet.V5, []mqtttest.Option{mqtttest.Resume, mqtttest.Expiry(storage.Never)}, nil, 3601 * time.Second, false},
		{"3.1.1 without clean session is capped", packet.V311, []mqtttest.Option{mqtttest.Resume}, nil, 3601 * time.Second, false},
		{"3.1.1 before the cap", packet.V311, []mqtttest.Option{mqtttest.Resume}, nil, 3590 * time.Second, true},
		{"raised at DISCONNECT", packet.V5, []mqtttest.Option{mqtttest.Resume, mqtttest.Expiry(1)}, expiring(100), 90 * time.Second, true},
		{"lowered to 0 at DISCONNECT", packet.V5, []mqtttest.Option{mqtttest.Resume, mqtttest.Expiry(100)}, expiring(0), 0, false},
	}
	for i, row := range rows {
		for _, how := range []string{"told by the housekeeper", "noticed at CONNECT", "over a restart", "over a kill"} {
			t.Run(row.name+", "+how, func(t *testing.T) {
				id := fmt.Sprintf("%d-%s", i, how)
				c := r.connect(row.v, id, row.options...)
				c.Subscribe(1, "x")
				if row.leave != nil {
					c.Send(row.leave)
					c.ExpectClosed()
				}
				r.drop(c)
				switch how {
				case "noticed at CONNECT":
					r.skew.Add(int64(row.wait))
				case "over a restart":
					r.restart()
				case "over a kill":
					r.kill()
				}
				if how != "noticed at CONNECT" {
					r.pass(row.wait)
				}
				if c := r.dial(row.v); c.Connect(id, row.options...).SessionPresent != row.present {
					t.Errorf("session present: want %v", row.present)
				}
			})
		}
	}
}

func expiring(seconds uint32) *packet.Disconnect {
	d := &packet.Disconnect{}
	d.Props.SessionExpiry = &seconds
	return d
}

func TestAnExpiryIntervalInDisconnectAfterNoneInConnectIsAProtocolError(t *testing.T) {
	r := start(t)
	c := r.connect(packet.V5, "a")
	c.Send(expiring(5))
	c.ExpectDisconnect(packet.ProtocolError)
	r.away("a")
	if _, present := r.resume(packet.V5, "a"); present {
		t.Error("the session was kept")
	}
}

func TestNeverMeansNeverWithoutACap(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sessions.MaxExpiry = 0 })
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		c := r.connect(v, "a"+v.String(), mqtttest.Resume, mqtttest.Expiry(storage.Never))
		r.drop(c)
		r.pass(50 * 365 * 24 * time.Hour)
		if _, present := r.resume(v, c.ID); !present {
			t.Errorf("%v: the session has ended", v)
		}
	}
}

func TestTheNewerConnectionTakesOver(t *testing.T) { // [MQTT-3.1.4-3]
	r := start(t)
	for _, v := range versions {
		c, _ := r.resume(v, "a")
		c.Subscribe(1, "x")
		begin := time.Now()
		d, present := r.resume(v, "a")
		if took := time.Since(begin); took > farewellTime {
			t.Errorf("%v: taking over took %v", v, took)
		}
		c.ExpectDisconnect(packet.SessionTakenOver)
		if present != (v != packet.V31) {
			t.Errorf("%v: session present %v", v, present)
		}
		r.connect(v, "p").Publish(mqtttest.Message("x", "to the newer", 1))
		d.Receive("x", "to the newer", 1)
		r.drop(d)
	}
}

// Found by reading: what the client goes on sending was answered behind the
// DISCONNECT.
func TestNothingFollowsTheDisconnectOfTheServer(t *testing.T) { // [MQTT-3.14.4-1]
	mqtttest.Proves(t, "MQTT-3.14.4-1 MQTT-3.14.4-2")
	r := start(t)
	for i := range 20 {
		c := r.connect(packet.V5, "a")
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for range 2000 {
				b := packet.AppendPingreq(mqtttest.Message("x", "", 0).Append(nil, packet.V5))
				if _, err := c.Conn.Write(b); err != nil {
					return
				}
			}
		}()
		c.Expect(&packet.Pingresp{})
		other := make(chan struct{})
		go func() {
			defer close(other)
			r.clients.get("a").end(closeReason{code: packet.SessionTakenOver, text: fmt.Sprint(i)})
		}()
		for {
			p := c.Next()
			if _, ok := p.(*packet.Pingresp); ok {
				continue
			}
			if d, ok := p.(*packet.Disconnect); !ok || d.Code != packet.SessionTakenOver {
				t.Fatalf("got %s", mqtttest.Words(p))
			}
			break
		}
		c.ExpectClosed()
		<-stop
		<-other
	}
}

func TestManyTakeoversAtOnceLeaveOneConnection(t *testing.T) {
	r := start(t)
	const n = 40
	done := make(chan *mqtttest.Client, n)
	for range n {
		go func() {
			c := r.dial(packet.V5)
			c.Send(mqtttest.ConnectPacket("a", packet.V5, persistent(packet.V5)...))
			done <- c
		}()
	}
	var all []*mqtttest.Client
	for range n {
		all = append(all, <-done)
	}
	closed := 0
	for _, c := range all[:n] {
		if a := mqtttest.Expect[*packet.Connack](c); a.Code != packet.Success {
			t.Fatalf("CONNACK %v", a.Code)
		}
	}
	s := r.clients.get("a")
	for _, c := range all {
		if s.c.peer == c.Conn.LocalAddr().String() {
			c.Ping()
			continue
		}
		c.ExpectDisconnect(packet.SessionTakenOver)
		closed++
	}
	if closed != n-1 {
		t.Errorf("%d of %d connections were closed", closed, n)
	}
}

// will is one to topic "will".
func will(payload string, edit ...func(*packet.Will)) mqtttest.Option {
	w := packet.Will{Topic: "will", Payload: []byte(payload), QoS: 1}
	for _, f := range edit {
		f(&w)
	}
	return mqtttest.Will(w)
}

func delay(seconds uint32) func(*packet.Will) {
	return func(w *packet.Will) { w.Props.WillDelay = &seconds }
}

func TestAWillIsPublishedUnlessTheClientSaysGoodbye(t *testing.T) { // [MQTT-3.1.2-8], [MQTT-3.14.4-3]
	r := start(t)
	for _, v := range versions {
		watch := r.connect(v, "watch")
		watch.Subscribe(2, "will")
		c := r.connect(v, "a", will("lost"))
		r.drop(c)
		watch.Receive("will", "lost", 1)
		c = r.connect(v, "a", will("protocol error"))
		c.SendRaw([]byte{0x10, 0})
		watch.Receive("will", "protocol error", 1)
		r.away("a")
		r.connect(v, "a", will("taken over"))
		c = r.connect(v, "a", will("goodbye"))
		watch.Receive("will", "taken over", 1)
		c.Disconnect()
		r.away("a")
		r.connect(v, "a", will("keep alive"), mqtttest.KeepAlive(1))
		r.clients.get("a").c.lastRead.Store(instant() - int64(time.Minute))
		r.checkKeepAlives(r.clients.all())
		watch.Receive("will", "keep alive", 1)
		r.away("a")
		watch.ExpectNothing()
		watch.Disconnect()
	}
	watch := r.connect(packet.V5, "watch")
	watch.Subscribe(2, "will")
	c := r.connect(packet.V5, "a", will("0x04"))
	c.Send(&packet.Disconnect{Code: packet.DisconnectWithWill})
	c.ExpectClosed()
	watch.Receive("will", "0x04", 1)
}

func TestAWillCarriesWhatItWasGiven(t *testing.T) { // [MQTT-3.1.2-15], [MQTT-3.1.3-10]
	r := start(t)
	watch := r.connect(packet.V5, "watch")
	watch.SubscribeWith(0, packet.Subscription{Filter: "will", QoS: 2, RetainAsPublished: true})
	c := r.connect(packet.V5, "a", will("w", func(w *packet.Will) {
		seconds, kind := uint32(100), "text/plain"
		w.QoS, w.Retain = 2, true
		w.Props = packet.Properties{MessageExpiry: &seconds, ContentType: &kind, CorrelationData: []byte{1, 2},
			User: []packet.UserProperty{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "1"}}}
	}))
	r.drop(c)
	m := watch.Receive("will", "w", 2)
	props, err := m.Properties()
	if err != nil || !m.Retain || *props.ContentType != "text/plain" || len(props.User) != 3 || props.User[1].Name != "a" || m.Expiry != 100 || props.WillDelay != nil {
		t.Errorf("got %s", mqtttest.Words(m))
	}
	late := r.connect(packet.V5, "late")
	late.Subscribe(0, "will")
	late.Receive("will", "w", 0)
}

func TestADelayedWillWaitsForItsTimeOrTheEndOfTheSession(t *testing.T) {
	mqtttest.Proves(t, "MQTT-3.1.2-8 MQTT-3.1.3-9")
	rows := []struct {
		name   string
		expiry uint32
		delay  uint32
		then   func(r *rig)
		comes  bool
	}{
		{"at once if the session ends at once", 0, 60, func(*rig) {}, true},
		{"not before the delay", 3600, 60, func(r *rig) { r.pass(59 * time.Second) }, false},
		{"after the delay", 3600, 60, func(r *rig) { r.pass(61 * time.Second) }, true},
		{"when the session ends before", 30, 60, func(r *rig) { r.pass(31 * time.Second) }, true},
		{"not if the client is back [MQTT-3.1.3-9]", 3600, 60, func(r *rig) {
			r.resume(packet.V5, "a")
			r.pass(90 * time.Second)
		}, false},
		{"when the client begins anew", 3600, 60, func(r *rig) { r.connect(packet.V5, "a") }, true},
		{"after the delay over a restart", 3600, 60, func(r *rig) { r.restart(); r.pass(61 * time.Second) }, true},
		{"after the delay over a kill", 3600, 60, func(r *rig) { r.kill(); r.pass(61 * time.Second) }, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := start(t)
			watch, _ := r.resume(packet.V5, "watch")
			watch.Subscribe(1, "will")
			r.drop(watch)
			c := r.connect(packet.V5, "a", mqtttest.Expiry(row.expiry), will("w", delay(row.delay)))
			r.drop(c)
			row.then(r)
			watch, _ = r.resume(packet.V5, "watch")
			if row.comes {
				watch.Receive("will", "w", 1)
			}
			watch.ExpectNothing()
			r.drop(watch)
			r.kill() // and never again
			r.pass(1000 * time.Second)
			watch, _ = r.resume(packet.V5, "watch")
			if !row.comes && row.name[:3] == "not" && row.name[4:10] == "before" {
				watch.Receive("will", "w", 1)
			}
			watch.ExpectNothing()
		})
	}
}

func TestAWillIsPublishedOnceAfterAKill(t *testing.T) { // [MQTT-3.1.2-10]
	mqtttest.Proves(t, "MQTT-3.1.2-7 MQTT-3.1.2-10 MQTT311-3.1.2-10")
	r := start(t)
	watch, _ := r.resume(packet.V5, "watch")
	watch.Subscribe(1, "will")
	r.drop(watch)
	r.connect(packet.V5, "five", mqtttest.Expiry(3600), will("five"))
	r.connect(packet.V5, "five0", will("five0"))
	r.connect(packet.V311, "four", will("four"))
	r.connect(packet.V311, "goodbye", will("no")).Disconnect()
	r.away("goodbye")
	r.kill()
	r.pass(time.Second)
	r.kill()
	r.pass(time.Second)
	watch, _ = r.resume(packet.V5, "watch")
	got := make(map[string]int)
	for range 3 {
		m := mqtttest.Expect[*packet.Publish](watch)
		watch.Acknowledge(m)
		got[string(m.Payload)]++
	}
	watch.ExpectNothing()
	if got["five"] != 1 || got["five0"] != 1 || got["four"] != 1 {
		t.Errorf("got %v", got)
	}
}

// Found by killing the broker under load: a client that came back before the
// housekeeper had looked cancelled a will that was due already.
func TestAWillThatIsDueIsNotCancelledByAQuickReturn(t *testing.T) { // [MQTT-3.1.2-8], [MQTT-3.1.3-9]
	for name, delay := range map[string]uint32{"at once": 0, "over": 5, "waiting": 3600} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			watch, _ := r.resume(packet.V5, "watch")
			watch.Subscribe(1, "will")
			r.resume(packet.V5, "a", will("a"), func(p *packet.Connect) { p.Will.Props.WillDelay = &delay })
			r.kill()
			r.skew.Add(int64(10 * time.Second)) // the housekeeper does not know yet
			a, present := r.resume(packet.V5, "a")
			if !present {
				t.Fatal("the session is gone")
			}
			watch, _ = r.resume(packet.V5, "watch")
			if delay < 10 {
				watch.Receive("will", "a", 1)
			}
			a.Ping()
			watch.ExpectNothing()
			r.pass(2 * time.Hour)
			watch.ExpectNothing()
		})
	}
}

// Found by reading: the index kept the time at which a session would have been
// due, and the housekeeper asked for it every second from then on.
func TestASessionThatIsBackIsNotDueAnyMore(t *testing.T) {
	r := start(t)
	c := r.connect(packet.V5, "a", mqtttest.Resume, mqtttest.Expiry(60))
	r.drop(c)
	c, _ = r.resume(packet.V5, "a")
	if err := r.Broker.log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	r.pass(2 * time.Hour)
	ids, err := r.Broker.log.DueSessions(r.now())
	if err != nil || len(ids) > 0 {
		t.Errorf("due: %v, %v", ids, err)
	}
	c.Ping()
}

// Found by reading: a look for the ledger made the checkpoint believe that the
// session had been saved.
func TestALookAtASessionDoesNotCountAsSavingIt(t *testing.T) {
	r := start(t)
	c, _ := r.resume(packet.V5, "a")
	c.Subscribe(1, "x")
	s := r.clients.get("a")
	s.Snapshot(false)
	if row, persist := s.Snapshot(true); row == nil || !persist || len(row.Subs) != 1 {
		t.Fatalf("row %+v", row)
	}
	if row, _ := s.Snapshot(true); row != nil {
		t.Error("nothing has changed since")
	}
}

// Found by reading: what was being appended while a checkpoint was taken was
// in no row, and the checkpoint did not know that it had to come again.
func TestASnapshotInTheMiddleOfAnAppendSaysSo(t *testing.T) {
	r := start(t)
	r.resume(packet.V5, "a")
	s := r.clients.get("a")
	s.Snapshot(true)
	s.mu.Lock()
	s.beginAppendLocked()
	s.mu.Unlock()
	before := r.Broker.log.Head()
	r.connect(packet.V5, "p").Publish(mqtttest.Message("x", "", 1))
	for range 2 {
		if row, _ := s.Snapshot(true); row == nil || row.AsOf > before {
			t.Fatalf("row %+v reflects more than %d", row, before)
		}
	}
	s.endAppend()
	if row, _ := s.Snapshot(true); row == nil || row.AsOf <= before {
		t.Fatalf("row %+v after the append", row)
	}
}

// Found by the conformance suite: what was published between the end of a connection and the moment at which that was
// written down was in no outbox, and the cursor went past it.
func TestWhatComesWhileAConnectionEndsIsNotLost(t *testing.T) { // [MQTT-4.5.0-1], [MQTT311-3.1.2-5]
	mqtttest.Proves(t, "MQTT-4.5.0-1 MQTT311-4.5.0-1 MQTT311-3.1.2-5")
	r := start(t)
	for _, v := range versions {
		id := "c" + v.String()
		c, _ := r.resume(v, id)
		c.Subscribe(1, "a")
		p := r.connect(v, "p")
		p.Publish(mqtttest.Message("a", "before", 1))
		c.Receive("a", "before", 1)
		c.Ping()
		s := r.clients.get(id)
		s.mu.Lock()
		s.closed = true // as finish and flushFailed leave it
		s.mu.Unlock()
		p.Publish(mqtttest.Message("a", "meanwhile", 1))
		p.Publish(mqtttest.Message("a", "and again", 1))
		p.Ping()
		r.drop(c)
		p.Publish(mqtttest.Message("a", "away", 1))
		c, _ = r.resume(v, id)
		c.Receive("a", "meanwhile", 1)
		c.Receive("a", "and again", 1)
		c.Receive("a", "away", 1)
		c.ExpectNothing()
	}
}

// Found by random sequences: what waits when a connection ends is read from the
// log later, and came with the QoS and the identifiers of a subscription that
// had been made behind it.
func TestALaterSubscriptionDoesNotApplyToEarlierMessages(t *testing.T) {
	r := start(t)
	c, _ := r.resume(packet.V5, "c", mqtttest.ReceiveMaximum(1))
	c.SubscribeWith(1, packet.Subscription{Filter: "#", QoS: 1})
	p := r.connect(packet.V311, "p")
	for _, payload := range []string{"in flight", "waits", "waits too"} {
		p.Publish(mqtttest.Message("t/1", payload, 2))
	}
	mqtttest.Expect[*packet.Publish](c) // and no PUBACK
	c.SubscribeWith(2, packet.Subscription{Filter: "t/#", QoS: 2, RetainHandling: 2})
	r.drop(c)
	p.Publish(mqtttest.Message("t/1", "for both", 2))
	c, _ = r.resume(packet.V5, "c")
	for _, x := range []struct {
		payload string
		qos     byte
		ids     []uint32
	}{{"in flight", 1, []uint32{1}}, {"waits", 1, []uint32{1}}, {"waits too", 1, []uint32{1}}, {"for both", 2, []uint32{1, 2}}} {
		m := c.Receive("t/1", x.payload, x.qos)
		if slices.Sort(m.SubscriptionIDs); !slices.Equal(m.SubscriptionIDs, x.ids) {
			t.Errorf("%q has the identifiers %d, want %d", x.payload, m.SubscriptionIDs, x.ids)
		}
	}
}
