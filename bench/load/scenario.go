//go:build linux

package load

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"cairnmq/bench/wire"
)

// Kind is what a scenario does.
type Kind string

// The kinds of scenario. A name given to SetName is one of them, most with a
// number behind it; "pair" is Pairs with one, "topicsN" is FanIn over N topics.
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
	Subs     Kind = "subs"     // N subscriptions, two thirds with wildcards, one of them for each topic
	Shared   Kind = "shared"   // fan-in to a shared subscription with N members
	Kill     Kind = "kill"     // store N messages, SIGKILL, start again, deliver
	Beside   Kind = "beside"   // latency while N MB of backlog go to a slow subscriber
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
	// Properties makes MQTT 5 publishes carry some of most kinds.
	Properties bool
	// Prefix begins topics and client identifiers.
	Prefix string
	// Filter is what offline sessions and subscribers to retained messages
	// subscribe to; "#" if empty.
	Filter string

	// Rate is the number of messages a second over all publishers; 0 is as
	// fast as possible.
	Rate float64
	// Warm and Measure are how long a load lasts before and while it counts.
	Warm, Measure time.Duration
	// Count is the number of messages to publish instead of a measured time,
	// of the kinds that store them. After Limit, if there is one, publishing
	// ends even with fewer.
	Count int
	Limit time.Duration
	// Backlog is the bytes that Beside stores, in messages of BacklogSize, and
	// SlowRate the bytes a second that its slow subscriber takes.
	Backlog, SlowRate int64
	BacklogSize       int
	// Outstanding is the most deliveries that may be on their way.
	Outstanding int
	// Pause is that of Loop.
	Pause time.Duration
	// Persistent makes idle connections ones with a session that is kept.
	Persistent bool
	// Bystanders are connections that do nothing while others are measured.
	Bystanders int
	// CleanUp ends sessions and clears retained messages when all is over.
	CleanUp bool

	retain bool
	least  uint64 // messages to measure, however long it takes
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
		Prefix:  "bench",

		Backlog:     1e9,
		SlowRate:    50e6,
		BacklogSize: 4096,
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
	case Retained, Kill:
		s.Publishers = 10
		s.Count = or(s.Count)
	case Idle:
		s.Subscribers = or(10_000)
		s.Publishers = 0
	case Shared:
		s.Publishers, s.Subscribers = 10, or(4)
	case Beside:
		s.Publishers, s.Subscribers = 10, 10
		s.Backlog = int64(or(int(s.Backlog/1e6))) * 1e6
	case "topics":
		s.Kind = FanIn
		s.spread(or(1_000_000), 20)
	case Subs:
		s.spread(or(100_000), 10)
		s.Subscribers = (s.Publishers*s.Topics + perSubscriber - 1) / perSubscriber
	default:
		return fmt.Errorf("scenario %q: unknown", name)
	}
	return nil
}

// SetVersion sets the protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5.
func (s *Scenario) SetVersion(level byte) { s.Version = wire.Version(level) }

// Check reports what is wrong with a scenario that Run would not begin.
func (s *Scenario) Check() error {
	whole := *s
	return whole.complete()
}

// perSubscriber is how many subscriptions one client of Subs has at most.
const perSubscriber = 1000

// spread divides topics among publishers.
func (s *Scenario) spread(topics, publishers int) {
	s.Publishers = min(topics, publishers)
	s.Topics = (topics + s.Publishers - 1) / s.Publishers
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
	case Beside:
		if s.Rate == 0 {
			s.Rate = 10_000
		}
		if s.SlowRate < 1 || s.BacklogSize < MinPayload || s.Backlog < int64(s.BacklogSize) {
			return fmt.Errorf("a backlog of %d bytes in messages of %d, read at %d bytes a second: out of range", s.Backlog, s.BacklogSize, s.SlowRate)
		}
	case Publish, RTT, Store, Offline, Kill:
		if s.QoS == 0 {
			return fmt.Errorf("%s at QoS 0: nothing says when a message has arrived", s.Kind)
		}
	case Retained:
		if s.QoS == 0 {
			s.QoS = 1
		}
		s.retain = true
		s.Topics = (s.Count + s.Publishers - 1) / s.Publishers
		s.Count = s.Topics * s.Publishers
	}
	if s.Properties && s.Version != wire.V5 {
		return fmt.Errorf("properties need MQTT 5")
	}
	if s.Count < 1 && s.Kind != Idle {
		return fmt.Errorf("%d messages: want at least one", s.Count)
	}
	if s.Filter == "" {
		s.Filter = "#"
	}
	if s.Rate > 0 {
		s.Pause = 0
	}
	if s.Outstanding == 0 {
		s.Outstanding = max(min(10_000, 4<<20/s.Size), 4)
		if s.QoS > 0 {
			// The windows bound it; this only if acknowledgements run far ahead.
			s.Outstanding = max(min(50_000, 256<<20/s.Size), 4)
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
			names[p][t] = fmt.Sprintf("%s/%d/%d", s.Prefix, p, t)
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
	if s.Properties {
		b.WriteString(" properties")
	}
	if s.Topics > 1 && s.Kind != Retained {
		fmt.Fprintf(&b, " %d topics", s.Topics)
	}
	if s.Bystanders > 0 {
		fmt.Fprintf(&b, " %d bystanders", s.Bystanders)
	}
	if s.Rate > 0 {
		fmt.Fprintf(&b, " @%g/s", s.Rate)
	}
	return b.String()
}

// properties returns what each message carries; nil for nothing.
func (s *Scenario) properties() *wire.PublishProperties {
	if !s.Properties {
		return nil
	}
	return wire.NewPublishProperties()
}

// files is how many sockets the scenario needs at once.
func (s *Scenario) files() int {
	n := s.Publishers + s.Subscribers + s.Bystanders
	switch s.Kind {
	case Store, Offline, Kill:
		n = s.Publishers + min(s.Subscribers, sessionGroup)
	case Beside:
		n += s.Publishers + 1
	}
	return n + 32
}

// Target is the broker to load.
type Target struct {
	Name string
	Addr netip.AddrPort
	PID  int // 0 if its figures cannot be read

	TLS            *tls.Config // nil for a plain connection
	User, Password string
	KeepAlive      uint16 // in seconds; 0 is off

	// Stop, if not nil, is closed when the run is to end at once.
	Stop <-chan struct{}
	// Restart kills the broker and starts it again, and returns it with the
	// time from the start of the program to its first client. Nil if that is
	// not ours to do.
	Restart func() (Target, time.Duration, error)
}
