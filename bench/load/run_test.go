//go:build linux

package load

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/wire"
)

const mosquitto = "/usr/sbin/mosquitto"

// TestMosquitto does a small run of every kind against a real broker.
func TestMosquitto(t *testing.T) {
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skip("mosquitto is not installed")
	}
	spec, err := broker.ParseSpec(mosquitto)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Scenario)
		phases int
	}{
		{"fanin3", func(s *Scenario) { s.QoS = 0 }, 1},
		{"fanin3", func(s *Scenario) { s.Topics = 50 }, 1},
		{"fanin3", func(s *Scenario) { s.QoS = 2 }, 1},
		{"pairs3", func(s *Scenario) { s.Version = wire.V5 }, 1},
		{"pairs3", func(s *Scenario) { s.Version, s.QoS = wire.V5, 2 }, 1},
		{"pairs3", func(s *Scenario) { s.Rate = 2000 }, 1},
		{"pair", func(s *Scenario) { s.QoS, s.Size = 0, 300_000 }, 1},
		{"fanout20", func(s *Scenario) { s.Size = MinPayload }, 1},
		{"publish3", func(s *Scenario) { s.QoS = 2 }, 1},
		{"rtt", func(*Scenario) {}, 1},
		{"store2", func(*Scenario) {}, 2},
		{"store", func(s *Scenario) { s.Version, s.QoS = wire.V5, 2 }, 2},
		{"offline5", func(*Scenario) {}, 2},
		{"offline0", func(*Scenario) {}, 1},
		{"retained500", func(*Scenario) {}, 2},
		{"idle100", func(s *Scenario) { s.Persistent = true }, 2},
		{"pairs3", func(s *Scenario) { s.Version, s.Properties = wire.V5, true }, 1},
		{"topics300", func(*Scenario) {}, 1},
		{"subs3000", func(s *Scenario) { s.QoS = 0 }, 1},
		{"shared3", func(s *Scenario) { s.Version = wire.V5 }, 1},
		{"beside2", func(s *Scenario) { s.Rate, s.SlowRate = 2000, 1e5 }, 4},
		{"offline5", func(s *Scenario) { s.Count, s.Limit = 1<<30, 100*time.Millisecond }, 2},
	} {
		s := Default()
		s.Warm, s.Measure, s.Count = 20*time.Millisecond, 100*time.Millisecond, 1000
		if err := s.SetName(tc.name); err != nil {
			t.Fatal(err)
		}
		tc.change(&s)
		if err := s.complete(); err != nil {
			t.Fatal(err)
		}
		t.Run(s.String(), func(t *testing.T) {
			port, err := broker.FreePort()
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := Start(spec, t.TempDir(), port)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			r := Run(s, TargetOf(p))
			if r.Failed() || len(r.Phases) != tc.phases {
				t.Fatalf("%d phases, want %d\n%s", len(r.Phases), tc.phases, r.String())
			}
			for _, phase := range r.Phases {
				if phase.Name != "idle" && (phase.Messages == 0 || phase.Rate == 0 || phase.RSSAnon == 0) {
					t.Errorf("empty figures: %+v", phase)
				}
			}
		})
	}
}

// TestFaultyBroker runs against brokers with a planted fault each: a run must
// find just that, and a broker without one must pass.
func TestFaultyBroker(t *testing.T) {
	// Each gets the n-th message of the run and says what to deliver. All
	// faults come at message 100, of 1 publisher and 1 topic.
	const at = 100
	var held []byte
	for _, tc := range []struct {
		name   string
		qos    byte
		faulty func(n int, packet []byte) [][]byte
		want   Faults
	}{
		{"none", 1, func(_ int, b []byte) [][]byte { return [][]byte{b} }, Faults{}},
		{"none at QoS 0", 0, func(_ int, b []byte) [][]byte { return [][]byte{b} }, Faults{}},
		{"loses", 1, func(n int, b []byte) [][]byte {
			if n == at {
				return nil
			}
			return [][]byte{b}
		}, Faults{Lost: 1}},
		{"repeats", 1, func(n int, b []byte) [][]byte {
			if n == at {
				return [][]byte{b, b}
			}
			return [][]byte{b}
		}, Faults{Repeated: 1}},
		{"repeats at QoS 0", 0, func(n int, b []byte) [][]byte {
			if n == at {
				return [][]byte{b, b}
			}
			return [][]byte{b}
		}, Faults{Repeated: 1}},
		{"exchanges", 1, func(n int, b []byte) [][]byte {
			switch n {
			case at:
				held = append([]byte(nil), b...)
				return nil
			case at + 1:
				return [][]byte{b, held}
			}
			return [][]byte{b}
		}, Faults{Misordered: 1}},
		{"flips a bit of a payload", 1, func(n int, b []byte) [][]byte {
			if n == at {
				b[len(b)-1] ^= 1
			}
			return [][]byte{b}
		}, Faults{Damaged: 1, Lost: 1}},
		{"lowers the QoS", 1, func(n int, b []byte) [][]byte {
			if n == at {
				topicEnd := 3 + 2 + int(binary.BigEndian.Uint16(b[3:]))
				lower := append([]byte{0x30}, b[1:topicEnd]...)
				lower[1] -= 2
				return [][]byte{append(lower, b[topicEnd+2:]...)}
			}
			return [][]byte{b}
		}, Faults{Damaged: 1, Lost: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := startFake(t, tc.faulty)
			s := Default()
			s.QoS = tc.qos
			s.Warm, s.Measure, s.least = 0, 50*time.Millisecond, at+1
			if err := s.SetName("pair"); err != nil {
				t.Fatal(err)
			}
			r := Run(s, Target{Name: "fake", Addr: addr})
			if r.Error != "" || r.Faults != tc.want || r.Failed() != (tc.want != Faults{}) {
				t.Errorf("%s\nwant %v", r.String(), tc.want)
			}
			if r.Phases[0].Messages <= at {
				t.Errorf("only %d messages: the fault may not have been reached", r.Phases[0].Messages)
			}
		})
	}
}

// startFake starts a broker for one subscriber that passes every message
// through a function. It ends with the test.
func startFake(t *testing.T, faulty func(n int, packet []byte) [][]byte) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveFake(t, l, &fake{faulty: faulty})
}

// serveFake lets f serve a listener until the test ends.
func serveFake(t *testing.T, l net.Listener, f *fake) netip.AddrPort {
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			conns = append(conns, c)
			serving.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait() // the clients are gone
		for _, c := range conns {
			c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

type fake struct {
	faulty   func(n int, packet []byte) [][]byte
	connects chan<- []byte // gets every CONNECT, if not nil

	mu         sync.Mutex // guards what follows and the order of writes
	n          int
	subscriber net.Conn
}

func (f *fake) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		bodyLen, err := binary.ReadUvarint(r) // the same code as a remaining length
		if err != nil {
			return
		}
		packet := binary.AppendUvarint([]byte{first}, bodyLen)
		body := len(packet)
		packet = append(packet, make([]byte, bodyLen)...)
		if _, err := io.ReadFull(r, packet[body:]); err != nil {
			return
		}
		f.handle(c, packet, body)
	}
}

func (f *fake) handle(c net.Conn, packet []byte, body int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch packet[0] >> 4 {
	case wire.TypeConnect:
		if f.connects != nil {
			f.connects <- packet
		}
		c.Write([]byte{0x20, 2, 0, 0})
	case wire.TypeSubscribe:
		f.subscriber = c
		c.Write([]byte{0x90, 3, packet[body], packet[body+1], packet[len(packet)-1]})
	case wire.TypePublish:
		if packet[0]&0x06 != 0 {
			id := body + 2 + int(binary.BigEndian.Uint16(packet[body:]))
			c.Write([]byte{0x40, 2, packet[id], packet[id+1]})
		}
		for _, b := range f.faulty(f.n, packet) {
			f.subscriber.Write(b)
		}
		f.n++
	}
}

func TestSetName(t *testing.T) {
	for name, want := range map[string][2]int{ // publishers, subscribers
		"fanin": {10, 1}, "fanin100": {100, 1}, "pairs10": {10, 10}, "pair1": {1, 1}, "pair": {1, 1},
		"fanout100": {1, 100}, "publish10": {10, 0}, "rtt": {1, 0}, "store": {10, 1}, "store8": {10, 8},
		"offline0": {10, 0}, "offline1000": {10, 1000}, "idle5000": {0, 5000}, "retained": {10, 1},
		"topics1000000": {20, 1}, "subs100000": {10, 100}, "subs10": {10, 1}, "shared": {10, 4}, "kill500": {10, 1}, "beside10000": {10, 10},
	} {
		s := Default()
		if err := s.SetName(name); err != nil || s.Publishers != want[0] || s.Subscribers != want[1] {
			t.Errorf("%s: %d publishers, %d subscribers, %v", name, s.Publishers, s.Subscribers, err)
		}
	}
	for _, name := range []string{"", "10", "fan10", "fanin0", "pairs-1", "fanin99999999999999999999"} {
		s := Default()
		if err := s.SetName(name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}

// TestNobodyListens wants an error that names the address.
func TestNobodyListens(t *testing.T) {
	port, err := broker.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := Default()
	if err := s.SetName("pair"); err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	if r := Run(s, Target{Addr: addr}); !strings.Contains(r.Error, addr.String()) || !strings.Contains(r.Error, "refused") {
		t.Errorf("%q", r.Error)
	}
}
