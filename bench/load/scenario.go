//go:build linux

package load

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"cairnmq/bench/wire"
)

// Kind is what a scenario does.
type Kind string

// The kinds of scenario. A name given to ParseName is one of them, most with
// a number behind it.
const (
	FanIn    Kind = "fanin"    // N publishers, one subscriber to all of them
	Pairs    Kind = "pairs"    // N publishers with a subscriber each
	FanOut   Kind = "fanout"   // one publisher, N subscribers
	Publish  Kind = "publish"  // N publishers, nobody subscribed
	RTT      Kind = "rtt"      // one publisher with one message in flight
	Store    Kind = "store"    // publish for offline sessions, then deliver to them
	Offline  Kind = "offline"  // publish while N sessions on "#" are offline
	Retained Kind = "retained" // set retained messages, then deliver them
	Idle     Kind = "idle"     // N connections that do nothing
)

// Scenario says what to do to a broker.
type Scenario struct {
	Name    string
	Kind    Kind
	Version wire.Version
	QoS     byte
	Size    int // of payloads
	Window  int // messages in flight per publisher, QoS 1 and 2

	Publishers  int
	Subscribers int // live subscribers, offline sessions, or idle connections
	Topics      int // per publisher

	// Rate is the number of messages a second over all publishers; 0 is as
	// fast as possible.
	Rate float64
	// Warm and Measure are how long a load lasts before and while it counts.
	Warm, Measure time.Duration
	// Count is the number of messages to publish instead of a measured time,
	// of the kinds that store them.
	Count int
	// Outstanding is the most deliveries that may be on their way.
	Outstanding int
	// Pause is that of Loop.
	Pause time.Duration
	// Persistent makes idle connections ones with a session that is kept.
	Persistent bool
	Retain     bool // set by the kind, not by hand
}

// Default returns a scenario of 256-byte messages at QoS 1 with everything but
// its kind filled in.
func Default() Scenario {
	return Scenario{
		Version: wire.V311,
		QoS:     1,
		Size:    256,
		Window:  100,
		Topics:  1,
		Warm:    700 * time.Millisecond,
		Measure: 2 * time.Second,
		Count:   50_000,
		Pause:   200 * time.Microsecond,
	}
}

// SetName sets kind and numbers of clients from a name such as "fanin10".
func (s *Scenario) SetName(name string) error {
	word := strings.TrimRight(name, "0123456789")
	n := -1
	if digits := name[len(word):]; digits != "" {
		var err error
		if n, err = strconv.Atoi(digits); err != nil || n == 0 && Kind(word) != Offline {
			return fmt.Errorf("scenario %q: bad number", name)
		}
	}
	or := func(otherwise int) int {
		if n >= 0 {
			return n
		}
		return otherwise
	}
	s.Name = name
	s.Kind = Kind(word)
	s.Publishers, s.Subscribers = 1, 1
	switch s.Kind {
	case FanIn:
		s.Publishers = or(10)
	case "pair":
		s.Kind = Pairs
		fallthrough
	case Pairs:
		s.Publishers = or(10)
		if word == "pair" {
			s.Publishers = or(1)
		}
		s.Subscribers = s.Publishers
	case FanOut:
		s.Subscribers = or(100)
	case Publish:
		s.Publishers, s.Subscribers = or(10), 0
	case RTT:
		s.Subscribers = 0
		s.Window = 1
		s.Pause = 0
	case Store:
		s.Publishers, s.Subscribers = 10, or(1)
	case Offline:
		s.Publishers, s.Subscribers = 10, or(100)
	case Retained:
		s.Publishers = 10
		s.Count = or(s.Count)
	case Idle:
		s.Subscribers = or(10_000)
		s.Publishers = 0
	default:
		return fmt.Errorf("scenario %q: unknown", name)
	}
	return nil
}

// complete checks a scenario and fills in what follows from the rest.
func (s *Scenario) complete() error {
	if s.Size < MinPayload {
		return fmt.Errorf("payload of %d bytes: the least is %d", s.Size, MinPayload)
	}
	if s.QoS > 2 || s.Window < 1 || s.Window > 65535 || s.Topics < 1 || s.Topics > 65535 {
		return fmt.Errorf("QoS %d, window %d, %d topics: out of range", s.QoS, s.Window, s.Topics)
	}
	if s.Version != wire.V311 && s.Version != wire.V5 {
		return fmt.Errorf("protocol level %d: want 4 or 5", s.Version)
	}
	switch s.Kind {
	case Publish, RTT, Store, Offline:
		if s.QoS == 0 {
			return fmt.Errorf("%s at QoS 0: nothing says when a message has arrived", s.Kind)
		}
	case Retained:
		if s.QoS == 0 {
			s.QoS = 1
		}
		s.Retain = true
		s.Topics = (s.Count + s.Publishers - 1) / s.Publishers
		s.Count = s.Topics * s.Publishers
	}
	if s.Rate > 0 {
		s.Pause = 0
	}
	if s.Outstanding == 0 {
		s.Outstanding = min(10_000, 4<<20/s.Size)
		if s.QoS > 0 {
			s.Outstanding = 50_000 // the windows bound it; this only if acknowledgements run far ahead
		}
	}
	return nil
}

// topicNames returns the topics of every publisher.
func (s *Scenario) topicNames() [][]string {
	names := make([][]string, s.Publishers)
	for p := range names {
		names[p] = make([]string, s.Topics)
		for t := range names[p] {
			names[p][t] = fmt.Sprintf("bench/%d/%d", p, t)
		}
	}
	return names
}

// String describes the scenario for the head of a line.
func (s *Scenario) String() string {
	var b strings.Builder
	b.WriteString(s.Name)
	if s.Kind == Idle {
		if s.Persistent {
			b.WriteString(" persistent")
		}
	} else {
		fmt.Fprintf(&b, " q%d %dB", s.QoS, s.Size)
		if s.QoS > 0 {
			fmt.Fprintf(&b, " w%d", s.Window)
		}
	}
	if s.Version == wire.V5 {
		b.WriteString(" v5")
	}
	if s.Topics > 1 && s.Kind != Retained {
		fmt.Fprintf(&b, " %d topics", s.Topics)
	}
	if s.Rate > 0 {
		fmt.Fprintf(&b, " @%g/s", s.Rate)
	}
	return b.String()
}

// Target is the broker to load.
type Target struct {
	Name string
	Addr netip.AddrPort
	PID  int // 0 if its figures cannot be read
}
