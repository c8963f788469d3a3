package broker

import (
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"cairnmq/mqtt/auth"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/packet"
	proto "cairnmq/mqtt/session"
	"cairnmq/storage"
)

// entry is a message in an outbox: where it is, and what it means to this
// session.
type entry struct {
	pos   storage.Pos
	match *match
	qos   uint8 // of this delivery [MQTT-3.8.4-8]
	// retained: sent because of a subscription, with the retain flag set.
	retained bool
	id       uint16 // the packet identifier, once it has one: in an outbox, if a group has dealt it
	hash     uint32 // which decides, in a group, whom it belongs to
}

// mode is where a session's messages come from.
type mode uint8

const (
	live     mode = iota // the router fills the outbox
	catching             // the session reads the log itself
)

// session is a client with an open connection. What outlives the connection
// is a storage.SessionRow.
type session struct {
	b       *Broker
	id      string
	version packet.Version
	c       *conn
	limits  *config.Server // of the server that it came to
	who     who
	reauth  auth.Exchange // the reader's: it authenticates again
	log     *slog.Logger

	keepAlive  time.Duration // 0: none
	maxPacket  int           // the client's limit; 0: none
	aliases    [][]byte      // topic aliases of the client; the reader's
	problem    bool          // reason strings and user properties are wanted
	logged     bool          // events of this session are in the log
	present    bool          // an earlier session was resumed
	connExpiry uint32        // what CONNECT said

	in      *batch        // what the reader is collecting, while it handles a buffer
	at      packet.Type   // the reader's: of the packet that was wrong
	refused *storage.Loss // messages of this client for which there was no room

	// staged belongs to the view: entries of the batch that is being routed.
	staged []entry

	// mu guards what follows. Nothing is appended to the log and nothing
	// written to the index while it is held.
	mu   sync.Mutex
	cond *sync.Cond // control bytes were taken, or flushing ended
	win  proto.Window
	// inbound are QoS 2 messages received and not released.
	inbound proto.Inbound
	subs    map[string]*subscription
	shares  shares
	// answering: subscriptions have begun, and their SUBACK is not queued yet.
	// The standard lets messages overtake it; clients do not expect them to.
	answering bool
	// wantsSys: there has been a subscription to $SYS topics. sysNew are those
	// whose values are yet to be sent.
	wantsSys atomic.Bool
	sysNew   []storage.Sub
	will     *storage.Will
	expiry   uint32 // session expiry interval, seconds

	mode     mode
	out      outbox
	readPos  storage.Pos // where catching up goes on
	next     storage.Pos // behind the last message taken out of the outbox
	skipQoS0 storage.Pos // see storage.SessionRow
	retained []*retainTask
	resend   bool // messages of an earlier connection may be waiting
	memo     map[string]memoEntry
	subsGen  uint64 // counts changes of subs

	ctrl     []byte // control packets that wait to be written
	flushing bool
	closed   bool // the connection is over: nothing is sent any more
	farewell bool // a DISCONNECT is the last thing sent

	acks []storage.Acked // acknowledged, not yet in the log
	// appending is the head before the oldest append of this session that
	// has not been applied here, while there is one.
	appending  int
	appendFrom storage.Pos
	dirty      bool
	// final is the row of a session whose connection is over, while that is
	// being written down.
	final *storage.SessionRow

	// the flusher's
	outAliases *outAliases // nil: none
	reader     storage.Reader
	sel        selection
	losses     *lossCount // nil as long as there are none
	scratch    []storage.Inflight
	event      []byte

	reason closeReason // set once, by whoever ends the connection
	done   chan struct{}

	resumeFn func() // goes on reading after the connection was parked
}

// closeReason is why a connection ended.
type closeReason struct {
	set    bool
	normal bool // DISCONNECT 0x00: the will is thrown away
	code   packet.ReasonCode
	text   string
	err    error
	// takeover: the same client has connected again, with cleanStart or not.
	takeover, cleanStart bool
}

// beginAppend says that an event of the session is about to be appended whose
// effect is already here; endAppend that the append is over. In between, a
// snapshot must not claim to reflect the log up to its head.
func (s *session) beginAppendLocked() {
	if s.appending == 0 {
		s.appendFrom = s.b.log.Head()
	}
	s.appending++
	s.dirty = true
}

func (s *session) endAppend() {
	s.mu.Lock()
	s.appending--
	s.dirty = true // a snapshot in between did not know what came of it
	s.mu.Unlock()
}

// appendEvent appends an event of this session and waits for its class.
func (s *session) appendEvent(e storage.Event) error {
	return s.b.appendEvents(e)
}

// Snapshot implements storage.Source.
func (s *session) Snapshot(onlyDirty bool) (*storage.SessionRow, bool) {
	// Read before the lock: what was handed out until here is in the outbox.
	routed := s.b.router.handedOut()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !onlyDirty {
		return s.rowLocked(routed), s.logged
	}
	if !s.logged || !s.dirty && s.appending == 0 {
		return nil, false
	}
	s.dirty = false
	// The row says what these would say; a crash before it is durable costs
	// a repetition that QoS 1 allows.
	s.acks = s.acks[:0]
	return s.rowLocked(routed), true
}

// rowLocked is the session's durable state.
func (s *session) rowLocked(routed storage.Pos) *storage.SessionRow {
	asOf := s.b.log.Head()
	if s.appending > 0 {
		asOf = s.appendFrom
	}
	if s.final != nil {
		row := *s.final
		row.AsOf = asOf
		return &row
	}
	row := &storage.SessionRow{
		ID: s.id, Version: uint8(s.version), Expiry: s.expiry, Online: true, Will: s.will,
		SkipQoS0: s.skipQoS0, AsOf: asOf, Next: s.cursorLocked(routed),
	}
	row.Subs = s.subListLocked()
	s.win.Each(func(id uint16, e proto.Entry) {
		if e.Unlogged { // the record that says so comes behind AsOf
			return
		}
		row.Inflight = append(row.Inflight, storage.Inflight{
			ID: id, Pos: storage.Pos(e.Pos), QoS: e.QoS, Retained: e.Retained, Received: e.Received, Group: s.shares.group(e.Tag),
		})
	})
	row.Inbound = s.inbound.List()
	return row
}

// cursorLocked is the position before which every message is in flight or
// done with.
func (s *session) cursorLocked(routed storage.Pos) storage.Pos {
	switch {
	case s.out.len() > 0:
		return max(s.next, s.out.at(0).pos)
	case s.mode == catching:
		return max(s.next, s.readPos)
	}
	return max(s.next, routed)
}

// takeStaged moves what the router has staged into the outbox. It reports
// whether the session has to be woken. Called under the view.
func (s *session) takeStaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	staged := s.staged
	s.staged = s.staged[:0]
	if s.mode != live || len(staged) == 0 {
		return false
	}
	if s.closed {
		// The connection is over and its end not yet written down: the cursor
		// must not pass what comes meanwhile [MQTT-4.5.0-1], [MQTT311-3.1.2-5], [MQTT311-4.5.0-1].
		if s.out.len() == 0 {
			s.readPos = staged[0].pos
		}
		s.mode = catching
		return false
	}
	n := s.out.putAll(staged, s.b.outboxLimit)
	if n < len(staged) {
		// Too slow for now: what did not fit is read from the log later,
		// and until then publishing costs nothing for this session.
		s.mode = catching
		s.readPos = staged[n].pos
		s.log.Debug("outbox full: reading from the log", "pos", s.readPos)
	}
	return !s.flushing
}

// outbox is a ring of entries, in the order of the log, which is the order of
// publishing: [MQTT-4.6.0-5], [MQTT-4.6.0-6], [MQTT311-4.6.0-5],
// [MQTT311-4.6.0-6].
type outbox struct {
	ring []entry // power of two
	head int
	n    int
	from *[]entry // what goes back into the pool
}

// rings are those of empty outboxes, by the logarithm of their length: bursts
// come and go, and idle sessions hold no memory.
var rings [32]sync.Pool

func (o *outbox) len() int        { return o.n }
func (o *outbox) at(i int) *entry { return &o.ring[(o.head+i)&(len(o.ring)-1)] }

// putAll appends entries up to a total of limit and returns how many.
func (o *outbox) putAll(list []entry, limit int) int {
	n := min(len(list), limit-o.n)
	for o.n+n > len(o.ring) {
		bigger := ringOf(max(16, 2*len(o.ring)))
		for i := range o.n {
			(*bigger)[i] = *o.at(i)
		}
		o.free()
		o.ring, o.from, o.head = *bigger, bigger, 0
	}
	for i := range n {
		*o.at(o.n + i) = list[i]
	}
	o.n += n
	return n
}

// drop removes the first n entries. An empty outbox gives its memory back.
func (o *outbox) drop(n int) {
	o.head = (o.head + n) & (len(o.ring) - 1)
	if o.n -= n; o.n == 0 && len(o.ring) > 64 {
		o.free()
		*o = outbox{}
	}
}

func ringOf(size int) *[]entry {
	if r, ok := rings[bits.Len(uint(size))].Get().(*[]entry); ok {
		return r
	}
	r := make([]entry, size)
	return &r
}

func (o *outbox) free() {
	if o.from != nil {
		clear(o.ring) // let go of the matches
		rings[bits.Len(uint(len(o.ring)))].Put(o.from)
	}
}

// reply queues a control packet; handleBuffered sees to it that it is sent.
func (s *session) reply(b []byte) {
	s.mu.Lock()
	if !s.farewell { // [MQTT-3.14.4-1]
		s.ctrl = append(s.ctrl, b...) // [MQTT-3.3.4-10]
		s.b.stats.packetsOut.Add(1)
	}
	s.mu.Unlock()
}

// ctrlLimit is how many bytes of control packets may wait for a peer that
// does not read; beyond it we do not read from it either.
const ctrlLimit = 64 << 10

// awaitCtrl holds the reader back while too much is waiting. It reports false
// if nothing more is to be read: the connection is to end.
func (s *session) awaitCtrl() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ctrl) > ctrlLimit && !s.closed && !s.farewell {
		s.cond.Wait()
	}
	return !s.closed && !s.farewell
}

// end closes the connection, for a reason. The first reason counts. With
// MQTT 5 and a code of its own the client is told.
func (s *session) end(r closeReason) {
	s.mu.Lock()
	if s.reason.set {
		s.mu.Unlock()
		return
	}
	r.set = true
	s.reason = r
	if s.version == packet.V5 && r.code != 0 && !s.closed {
		d := packet.Disconnect{Code: r.code}
		if s.problem && r.text != "" {
			d.Props.ReasonString = &r.text // [MQTT-3.14.2-3] below
		}
		d.Props.ServerReference = s.b.reference(r.code)
		if b, ok := d.AppendLimited(nil, s.version, s.limit()); ok {
			s.ctrl = append(s.ctrl, b...)
			s.b.stats.packetsOut.Add(1)
		}
	}
	s.farewell = true // [MQTT-3.14.4-1]: nothing behind it
	s.cond.Broadcast()
	s.mu.Unlock()
	s.c.leave()
	s.kick(false)
}

// farewellTime is how long a last packet may take to leave.
const farewellTime = 200 * time.Millisecond

func (s *session) limit() int {
	if s.maxPacket == 0 {
		return packet.MaxPacketSize
	}
	return s.maxPacket
}
