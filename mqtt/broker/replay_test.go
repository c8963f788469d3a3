package broker

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

// plain makes rows comparable: what a restart sets anew is cleared, and the
// order of what has none is fixed.
func plain(row *storage.SessionRow) storage.SessionRow {
	x := *row
	x = storage.SessionRow{ID: x.ID, Version: x.Version, Expiry: x.Expiry, Will: x.Will, Subs: x.Subs, Next: x.Next, Inflight: x.Inflight, Inbound: x.Inbound}
	x.Subs, x.Inbound = slices.Clone(x.Subs), slices.Clone(x.Inbound)
	if x.Will != nil {
		w := *x.Will
		w.Props = append([]byte{}, w.Props...)
		x.Will = &w
	}
	for i := range x.Subs {
		x.Subs[i].Since = 0 // the position of the event, or that of the view
	}
	slices.SortFunc(x.Subs, func(a, b storage.Sub) int { return strings.Compare(a.Filter, b.Filter) })
	slices.Sort(x.Inbound)
	if len(x.Inflight) == 0 {
		x.Inflight = nil
	}
	if len(x.Inbound) == 0 {
		x.Inbound = nil
	}
	return x
}

// Whatever a client does, a kill at any moment leaves in the log what the
// broker had in memory.
func TestReplayingTheLogYieldsTheSession(t *testing.T) {
	for seed := range int64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewSource(seed))
			r := start(t)
			p := r.connect(packet.V5, "p")
			c, _ := r.resume(packet.V5, "c", will("w", delay(100)))
			var open []*packet.Publish // to the client
			inbound := make(map[uint16]bool)
			filters := []string{"a", "b", "a/+", "#", "b/#", replayedGroup, replayedGroup}
			take := func() { // what has come
				for range 2 {
					c.Send(&packet.Pingreq{})
					for pong := false; !pong; {
						switch m := c.Next().(type) {
						case *packet.Pingresp:
							pong = true
						case *packet.Publish:
							if m.QoS > 0 {
								open = append(open, m)
							}
						}
					}
				}
			}
			for step := range 120 {
				take()
				switch op := rnd.Intn(12); op {
				case 0, 1:
					c.Send(&packet.Subscribe{PacketID: c.NextID(), Subscriptions: []packet.Subscription{
						{Filter: filters[rnd.Intn(len(filters))], QoS: byte(rnd.Intn(3)), RetainHandling: 2}}})
				case 2:
					c.Send(&packet.Unsubscribe{PacketID: c.NextID(), Filters: []string{filters[rnd.Intn(len(filters))], "none"}})
				case 3, 4, 5:
					p.Publish(mqtttest.Message([]string{"a", "b", "a/x", "b/x"}[rnd.Intn(4)], fmt.Sprint(step), byte(rnd.Intn(3))))
				case 6, 7:
					if len(open) == 0 {
						break
					}
					i := rnd.Intn(len(open))
					m := open[i]
					switch {
					case m.QoS == 1:
						c.Send(ack(packet.PUBACK, m.PacketID))
						open = slices.Delete(open, i, i+1)
					case !m.Dup:
						c.Send(ack(packet.PUBREC, m.PacketID))
						m.Dup = true // here: PUBREC was sent
					default:
						c.Send(ack(packet.PUBCOMP, m.PacketID))
						open = slices.Delete(open, i, i+1)
					}
				case 8:
					m := mqtttest.Message("out", fmt.Sprint(step), 2)
					m.PacketID = uint16(1 + rnd.Intn(5))
					inbound[m.PacketID] = true
					c.Send(m)
				case 9:
					id := uint16(1 + rnd.Intn(5))
					c.Send(ack(packet.PUBREL, id))
				case 10:
					if rnd.Intn(3) == 0 {
						if err := r.Broker.log.Checkpoint(); err != nil {
							t.Fatal(err)
						}
					}
				case 11:
					if rnd.Intn(3) > 0 {
						break
					}
					r.drop(c)
					open = nil
					p.Publish(mqtttest.Message("a", "away", 1))
					c, _ = r.resume(packet.V5, "c", will("w", delay(100)))
				}
			}
			take()
			s := r.clients.get("c")
			s.mu.Lock()
			pending := slices.Clone(s.acks) // collected, not yet worth a record
			s.mu.Unlock()
			r.groups.mu.Lock()
			group := r.groups.live[replayedGroup]
			r.groups.mu.Unlock()
			if group != nil { // nothing is being dealt
				group.acquire()
				defer group.release()
			}
			live, _ := s.Snapshot(false)
			dir := t.TempDir()
			copyTree(t, r.cfg.Storage.Dir, dir)
			o, err := storageOptions(r.cfg, logging.New(r.log, logging.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			l, err := storage.Open(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			row, ok, err := l.LoadSession("c")
			if err != nil || !ok {
				t.Fatalf("LoadSession: %v, %v", ok, err)
			}
			for _, a := range pending {
				row.Inflight = slices.DeleteFunc(row.Inflight, func(f storage.Inflight) bool { return a.Done && f.ID == a.ID })
			}
			got, want := plain(row), plain(live)
			// The cursor in the log is that of the last record about the session;
			// between it and the live one lies nothing that the session wants.
			if got.Next > want.Next {
				t.Errorf("cursor %d is beyond %d", got.Next, want.Next)
			}
			got.Next = want.Next
			if !reflect.DeepEqual(got, want) {
				t.Errorf("replayed %+v\nlive     %+v", got, want)
			}
			sameGroup(t, l, group)
		})
	}
}

const replayedGroup = "$share/g/#"

// sameGroup compares the row of the replayed log with what was in memory.
func sameGroup(t *testing.T, l *storage.Log, live *group) {
	t.Helper()
	got, ok, err := l.LoadGroup(replayedGroup)
	if err != nil || ok != (live != nil) {
		t.Fatalf("group: %v, %v; live %v", ok, err, live != nil)
	}
	if live == nil {
		return
	}
	want := live.SnapshotGroup(false)
	if got.Next > want.Next || !slices.Equal(got.Members, want.Members) || !slices.Equal(got.Open, want.Open) {
		t.Errorf("replayed %+v\nlive     %+v", got, want)
	}
}

const childDir = "CAIRNMQ_TEST_CHILD_DIR"

// TestMain also is the broker that TestKill9 kills.
func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	cfg := config.Default()
	cfg.Storage.Dir, cfg.Storage.SegmentSize = dir, config.MiB
	cfg.Storage.CheckpointBytes = 64 * config.KiB // many checkpoints
	cfg.Servers[0].Listen = "127.0.0.1:0"
	b, err := Open(cfg, logging.New(os.Stderr, logging.Options{Level: 8}))
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println(b.Addr("main"))
	select {}
}

// child is a broker process on dir.
func child(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "failed") {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return strings.TrimSpace(line), kill
}

// Acknowledged means kept: killed in the middle of everything, the broker has
// afterwards all that it acknowledged, QoS 2 exactly once.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	addr, kill := child(t, dir)
	connect := func(id string) *mqtttest.Client {
		c := mqtttest.Dial(t, addr, packet.V5)
		c.Connect(id, mqtttest.Resume, mqtttest.Expiry(3600))
		return c
	}
	s := connect("s")
	s.Subscribe(2, "#")
	next := 0              // the message to publish
	got := make([]bool, 0) // by the subscriber
	count := func(m *packet.Publish) {
		var n int
		if _, err := fmt.Sscan(string(m.Payload), &n); err != nil {
			t.Fatal(err)
		}
		for len(got) <= n {
			got = append(got, false)
		}
		if got[n] {
			t.Fatalf("message %d came twice", n)
		}
		got[n] = true
	}
	received := make(map[uint16]bool) // QoS 2 identifiers, as every client keeps them
	take := func(p packet.Packet) bool {
		switch m := p.(type) {
		case *packet.Publish:
			if !received[m.PacketID] {
				count(m)
			} else if !m.Dup {
				t.Fatalf("identifier %d is used again before its PUBREL", m.PacketID) // [MQTT-2.2.1-4]
			}
			received[m.PacketID] = true
			s.Send(ack(packet.PUBREC, m.PacketID))
		case *packet.Ack:
			delete(received, m.PacketID)
			if m.PacketID%3 > 0 || m.Code != packet.Success {
				s.Send(ack(packet.PUBCOMP, m.PacketID))
			}
		default:
			return false
		}
		return true
	}
	for round := range 4 {
		p := connect("p")
		const burst = 40
		for range 10 + round {
			var b []byte
			for i := range burst {
				m := mqtttest.Message("a", fmt.Sprint(next+i), 2)
				m.PacketID = uint16(i + 1)
				b = m.Append(b, packet.V5)
			}
			p.SendRaw(b)
			for i := range burst {
				p.Expect(ack(packet.PUBREC, uint16(i+1)))
			}
			next += burst
			for i := range burst {
				p.Send(ack(packet.PUBREL, uint16(i+1)))
			}
			for i := range burst {
				p.Expect(ack(packet.PUBCOMP, uint16(i+1)))
			}
			for range burst / 2 { // some of them, and these to different ends
				take(s.Next())
			}
		}
		kill()
		addr, kill = child(t, dir)
		s = connect("s")
	}
	for quiet := 0; quiet < 5; quiet++ {
		s.Send(&packet.Pingreq{})
		for take(s.Next()) {
			quiet = 0
		}
	}
	for n := range next {
		if n >= len(got) || !got[n] {
			t.Fatalf("message %d of %d was acknowledged and is gone", n, next)
		}
	}
}
