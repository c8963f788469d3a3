package broker

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// numbered is the payload of a publisher's nth message.
func numbered(size int, publisher, n uint32) string {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, publisher)
	binary.BigEndian.PutUint32(b[4:], n)
	return string(b)
}

// flood publishes n messages from each of several publishers at once and waits
// until all are acknowledged.
func flood(r *rig, publishers, n, size int, qos byte) {
	var wg sync.WaitGroup
	for p := range publishers {
		c := r.connect(packet.V5, fmt.Sprint("flood-", p))
		wg.Add(1)
		go func() {
			defer wg.Done()
			const burst = 50
			for i := 0; i < n; i += burst {
				var b []byte
				for j := range burst {
					m := mqtttest.Message(fmt.Sprintf("flood/%d", p), numbered(size, uint32(p), uint32(i+j)), qos)
					m.PacketID = uint16(j + 1)
					b = m.Append(b, packet.V5)
				}
				c.SendRaw(b)
				for j := range burst {
					if qos == 1 {
						c.Expect(ack(packet.PUBACK, uint16(j+1)))
					}
				}
			}
			c.Ping()
		}()
	}
	wg.Wait()
}

// drain receives what flood has published and checks it: everything, once, in
// the order of each publisher.
func drain(c *mqtttest.Client, publishers, n int) {
	c.T.Helper()
	next := make([]uint32, publishers)
	for i := 0; i < publishers*n; i++ {
		m := mqtttest.Expect[*packet.Publish](c)
		p, k := binary.BigEndian.Uint32(m.Payload), binary.BigEndian.Uint32(m.Payload[4:])
		if m.Dup || k != next[p] { // [MQTT-4.6.0-5], [MQTT-4.6.0-6]
			c.T.Fatalf("message %d: publisher %d, number %d, want %d", i, p, k, next[p])
		}
		next[p]++
		c.Acknowledge(m)
	}
}

func TestASlowSubscriberFallsBackToTheLogAndComesBack(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sessions.Outbox = 64; c.Sessions.MaxInflight = 100 })
	const publishers, n, size = 4, 2000, 2000 // 16 MB
	subs := make([]*mqtttest.Client, 4)
	for i, qos := range []byte{0, 1, 1, 0} {
		filter := "flood/#"
		if i > 1 {
			filter = "flood/+"
		}
		subs[i] = r.connect(packet.V5, fmt.Sprint("slow-", i), mqtttest.Expiry(uint32(i%2)*100))
		subs[i].Subscribe(qos, filter)
	}
	for round := range 2 {
		flood(r, publishers, n/2, size, 1)
		for i := range subs {
			x := r.clients.get(subs[i].ID)
			x.mu.Lock()
			if x.out.len() > 64+flushBatch || cap(x.ctrl) > 1<<20 {
				t.Errorf("outbox of %d entries, %d control bytes", x.out.len(), cap(x.ctrl))
			}
			if x.mode != catching {
				t.Errorf("subscriber %d has not fallen back", i)
			}
			x.mu.Unlock()
		}
		for _, c := range subs {
			drain(c, publishers, n/2)
			c.ExpectNothing()
		}
		for i := range subs {
			x := r.clients.get(subs[i].ID)
			eventually(t, fmt.Sprintf("round %d: subscriber %d is live again", round, i), func() bool {
				x.mu.Lock()
				defer x.mu.Unlock()
				return x.mode == live
			})
		}
	}
	r.connect(packet.V5, "p").Publish(mqtttest.Message("flood/x", numbered(10, 0, 9), 1))
	for i, qos := range []byte{0, 1, 1, 0} {
		subs[i].Receive("flood/x", numbered(10, 0, 9), qos)
	}
}

// Reading while others publish, the two ways of reading change over again and
// again.
func TestNothingIsLostOrRepeatedWhereCatchingUpMeetsTheRouter(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sessions.Outbox = 16 })
	const publishers, n = 3, 5000
	var wg sync.WaitGroup
	for i, qos := range []byte{0, 1, 2} {
		c, _ := r.resume(packet.V5, fmt.Sprint("s-", i), mqtttest.ReceiveMaximum(uint16(20*(i+1))))
		c.Subscribe(min(qos, 1), "flood/#")
		wg.Add(1)
		go func() {
			defer wg.Done()
			drain(c, publishers, n)
		}()
	}
	flood(r, publishers, n, 100, 1)
	wg.Wait()
}

func TestAStoppedSubscriberHoldsNobodyUpAndTakesNoMemory(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sessions.Outbox = 256 })
	stopped := r.connect(packet.V5, "stopped")
	stopped.Subscribe(0, "#")
	reads := r.connect(packet.V5, "reads")
	reads.Subscribe(0, "flood/#")
	const n = 10_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		drain(reads, 1, n)
	}()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	flood(r, 1, n, 4000, 1) // 40 MB
	<-done
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("40 MB for a stopped subscriber took %d bytes of heap", grown)
	}
	drain(stopped, 1, n)
}

func TestAClientThatNeverReadsItsAnswersIsNotReadFrom(t *testing.T) {
	r := start(t)
	c := r.connect(packet.V5, "c")
	pings := []byte(strings.Repeat("\xc0\x00", 32<<10))
	blocked := make(chan struct{})
	go func() {
		defer close(blocked)
		for {
			if _, err := c.Conn.Write(pings); err != nil {
				return
			}
		}
	}()
	s := r.clients.get("c")
	eventually(t, "the broker does not read any more", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.ctrl) > ctrlLimit
	})
	r.connect(packet.V5, "other").Ping()
	s.mu.Lock()
	if len(s.ctrl) > 4*ctrlLimit {
		t.Errorf("%d bytes of answers wait", len(s.ctrl))
	}
	s.mu.Unlock()
	if d, _ := r.resume(packet.V5, "c"); d != nil { // even then it can be put out
		d.Ping()
	}
	<-blocked
}

// Found by reading: the deadline of a write was still there when the next one
// came, and a slice went beyond its end.
func TestAWriteTimeoutConcernsOneWrite(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Limits.WriteTimeout = config.Duration(300e6) })
	c, p := r.connect(packet.V5, "c"), r.connect(packet.V5, "p")
	c.Subscribe(0, "#")
	large := strings.Repeat("x", 3<<20)
	p.Publish(mqtttest.Message("a", large, 0))
	c.Receive("a", large, 0)
	s := r.clients.get("c")
	_ = s.c.write([]byte{0xd0, 0}, 1e6) // as the flusher does
	c.Expect(&packet.Pingresp{})
	deadlinePassed := make(chan struct{})
	go func() {
		defer close(deadlinePassed)
		d := r.dial(packet.V5)
		_ = d.Conn.SetReadDeadline(timeAfter(5e6))
		_, _ = d.Conn.Read(make([]byte, 1))
	}()
	<-deadlinePassed
	c.Ping()
	p.Publish(mqtttest.Message("a", "small", 0))
	c.Receive("a", "small", 0)

	// A client that takes nothing is disconnected.
	stopped := r.connect(packet.V5, "stopped")
	stopped.Subscribe(0, "#")
	for range 10 {
		p.Publish(mqtttest.Message("a", large, 1))
	}
	r.away("stopped")
}

func TestAFullLogTellsMQTT5AndHoldsBackTheOthers(t *testing.T) {
	mqtttest.Proves(t, "MQTT-4.3.3-9")
	r := start(t, func(c *config.Config) {
		c.Storage.SegmentSize, c.Storage.MaxBytes = 64*config.KiB, 640*config.KiB
		c.Retention = []config.Retention{{Filter: "#", OnFull: config.RejectNew}}
	})
	s, _ := r.resume(packet.V5, "s")
	s.Subscribe(1, "#")
	r.drop(s)
	five := r.connect(packet.V5, "five")
	payload := strings.Repeat("x", 4000)
	sent := 0
	for ; ; sent++ {
		m := mqtttest.Message("a", payload, 1+byte(sent%2))
		m.PacketID = five.NextID()
		five.Send(m)
		a := mqtttest.Expect[*packet.Ack](five)
		if a.Code == packet.QuotaExceeded {
			break
		}
		if a.Code != packet.Success {
			t.Fatalf("%v", mqtttest.Words(a))
		}
		if a.Type == packet.PUBREC {
			five.Send(ack(packet.PUBREL, a.PacketID))
			five.Expect(ack(packet.PUBCOMP, a.PacketID))
		}
		if sent > 1000 {
			t.Fatal("the log is never full")
		}
	}
	// QoS 2 that was refused is not taken for a repetition later [MQTT-4.3.3-9].
	m := mqtttest.Message("a", payload, 2)
	m.PacketID = 9999
	five.Send(m, m)
	five.Expect(ack(packet.PUBREC, 9999, packet.QuotaExceeded), ack(packet.PUBREC, 9999, packet.QuotaExceeded))
	five.Publish(mqtttest.Message("a", payload, 0)) // nobody is told but the ledger

	four := r.connect(packet.V311, "four")
	held := mqtttest.Message("a", "held back", 2)
	held.PacketID = 1
	four.Send(held, held)
	eventually(t, "the publisher is held back", func() bool { return strings.Contains(r.log.String(), "publisher held back") })
	// Held back, it can be put out, and has not been taken.
	again := r.connect(packet.V311, "four", mqtttest.Resume)
	four.ExpectClosed()
	again.Send(held, held)

	s, _ = r.resume(packet.V5, "s")
	for range sent {
		m := mqtttest.Expect[*packet.Publish](s)
		s.Acknowledge(m)
	}
	again.Expect(ack(packet.PUBREC, 1), ack(packet.PUBREC, 1))
	again.Send(ack(packet.PUBREL, 1))
	again.Expect(ack(packet.PUBCOMP, 1))
	s.Receive("a", "held back", 2-1)
	s.ExpectNothing()
	five.Send(m)
	five.Expect(ack(packet.PUBREC, 9999))
	five.Disconnect()
	r.away("five")
	eventually(t, "the ledger has what was refused", func() bool { return strings.Contains(fmt.Sprint(r.losses()), "refused [] 3") })
}

func TestADamagedIndexIsRebuiltAtStart(t *testing.T) {
	r := start(t)
	s, _ := r.resume(packet.V5, "s")
	s.Subscribe(1, "a/#")
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Retained("r", "kept", 1))
	r.drop(s)
	p.Publish(mqtttest.Message("a/b", "while away", 1))
	dir := r.cfg.Storage.Dir
	r.close()
	files, err := filepath.Glob(filepath.Join(dir, "index", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
			if err := os.WriteFile(f, []byte("rubbish"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.open()
	s, present := r.resume(packet.V5, "s")
	if !present {
		t.Fatal("the session is gone")
	}
	s.Receive("a/b", "while away", 1)
	s.Subscribe(0, "r")
	s.Receive("r", "kept", 0)
}

// Found by reading: the messages of a rule with class always stood in the way
// of those behind them, and nobody routed these when that was over.
func TestMessagesOfWeakerClassesDoNotWaitForEver(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Durability.Rules = []config.DurabilityRule{{Filter: "always/#", Class: config.ClassAlways}}
		c.Durability.Interval = config.Duration(3600e9)
	})
	s, _ := r.resume(packet.V5, "s")
	s.Subscribe(1, "#")
	p := r.connect(packet.V5, "p")
	for i := range 50 {
		x, _ := r.resume(packet.V5, fmt.Sprint("x", i)) // its events are of class always
		p.Publish(mqtttest.Message("weak", fmt.Sprint(i), 1))
		x.Disconnect()
		p.Publish(mqtttest.Message("always/x", fmt.Sprint(i), 1))
		p.Publish(mqtttest.Message("weak", fmt.Sprint(i), 1))
		s.Receive("weak", fmt.Sprint(i), 1)
		s.Receive("always/x", fmt.Sprint(i), 1)
		s.Receive("weak", fmt.Sprint(i), 1)
	}
}

// Found by reading: the keeper, making room, routed and then delivered, which
// asked it for room.
func TestMakingRoomDoesNotWaitForItself(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Storage.SegmentSize, c.Storage.MaxBytes = 64*config.KiB, 1024*config.KiB
	})
	var wg sync.WaitGroup
	for i := range inlineFlushes {
		c, _ := r.resume(packet.V5, fmt.Sprint("s", i))
		c.Subscribe(1, "#")
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				p := c.Next()
				m, ok := p.(*packet.Publish)
				if !ok || string(m.Payload) == "end" {
					return
				}
				c.Acknowledge(m)
			}
		}()
	}
	p := r.connect(packet.V5, "p")
	for i := range 30 {
		p.Publish(mqtttest.Retained(fmt.Sprint("r/", i), "kept", 1))
	}
	flood(r, 3, 1000, 2000, 1)
	p.Publish(mqtttest.Message("a", "end", 1))
	wg.Wait()
	c := r.connect(packet.V5, "c")
	c.Subscribe(0, "r/#")
	for range 30 {
		if m := mqtttest.Expect[*packet.Publish](c); string(m.Payload) != "kept" {
			t.Fatalf("got %s", mqtttest.Words(m))
		}
	}
	c.ExpectNothing()
}

// What cannot be carried out ends the connection it came on, unanswered.
func TestALogThatHasFailedEndsTheConnection(t *testing.T) {
	mqtttest.Proves(t, "MQTT311-4.8.0-2")
	for _, v := range versions {
		r := start(t)
		var all []*mqtttest.Client
		for i := range 2 {
			c, _ := r.resume(v, fmt.Sprint("c", i))
			all = append(all, c)
		}
		if err := r.Broker.log.Close(); err != nil {
			t.Fatal(err)
		}
		one, two := mqtttest.Message("a", "x", 1), mqtttest.Message("a", "x", 2)
		one.PacketID, two.PacketID = 1, 1
		for i, p := range []packet.Packet{one, two} {
			all[i].Send(p)
			for {
				p, err := all[i].Read()
				if err != nil {
					break
				}
				if d, ok := p.(*packet.Disconnect); !ok || !d.Code.IsError() {
					t.Errorf("%v: got %s", v, mqtttest.Words(p))
				}
			}
		}
		_ = r.Close() // it says that the log is closed
		r.Broker = nil
	}
}
