package storage

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"cairnmq/segment"
)

// Topic is what the view knows about a topic name in the segment that it
// reads: its postings, and a place for the router's memo. It lives as long as
// that segment is the newest, so the number of topics in memory is bounded by
// what fits into one segment.
type Topic struct {
	Name string
	// Route belongs to the sink.
	Route any

	postings postings
	bytes    uint64
}

// count adds a message to the postings. A carried one is not among them: it
// is not delivered again, so nobody can miss it. Its topic is, so that the
// carry finds it when this segment goes in its turn.
func (t *Topic) count(rec *Record, base Pos) {
	if rec.Flags&FlagCarried == 0 {
		t.postings.add(uint32(rec.Pos - base))
		t.bytes += uint64(segment.PaddedLen(len(rec.Body)))
	}
}

// Sink is told of every committed message, once, in order.
type Sink interface {
	// Route is called with the view locked. rec and msg are slices of the
	// mapping, valid during the call.
	Route(rec *Record, msg *MessageView, t *Topic)
	// Batch is called with the view locked after a number of messages. What
	// it returns, if anything, is called after the lock is released.
	Batch() Flusher
}

// SegmentSink is a Sink that wants to know when the view goes over to the next
// segment, and the Topics that it has seen are let go.
type SegmentSink interface {
	Sink
	NewSegment()
}

// Flusher carries on what a batch of routed messages has begun.
type Flusher interface{ Flush() }

// stepRecords is how many records are routed before the subscribers are woken
// and the lock is offered to others.
const stepRecords = 512

// view reads committed records, once, in order. Whoever has appended calls
// Advance: if somebody else is at it, that one goes on until nothing is left.
type view struct {
	// routing is held by the one who routes, over as many batches as there
	// are. Whoever finds it taken may go: the holder looks again afterwards.
	// It is taken before the mutex, which others hold for other reasons.
	routing sync.Mutex

	sync.Mutex
	sink Sink
	pos  Pos // next record to read
	// routed is pos for those who do not hold the lock.
	routed atomic.Uint64
	seg    *segment.Segment
	// partial: topics does not hold what the segment held before this boot.
	partial bool
	topics  map[string]*Topic
	tally   tally
	// rec and msg are what is being routed; here rather than on the stack
	// because the sink is an interface and they would be allocated each time.
	rec Record
	msg MessageView
	// topic is that of msg: often that of the next one as well.
	topic *Topic

	// retained are changes of the retained table that are not yet in the
	// index; zero means deleted.
	retained map[string]Pos

	synced chan struct{} // capacity 1: a sync has moved the committed position
	quit   chan struct{}
	done   chan struct{}
}

func (v *view) init() {
	v.topics = make(map[string]*Topic)
	v.retained = make(map[string]Pos)
	v.synced = make(chan struct{}, 1)
	v.quit = make(chan struct{})
	v.done = make(chan struct{})
}

// run is the goroutine that advances the view after a sync, because whoever
// appended what is committed now may have gone long ago. It ends when quit is
// closed.
func (v *view) run(l *Log) {
	defer close(v.done)
	for {
		select {
		case <-v.synced:
			l.Advance()
		case <-v.quit:
			return
		}
	}
}

// follow asks for the view to be advanced.
func (v *view) follow() {
	select {
	case v.synced <- struct{}{}:
	default:
	}
}

// tally counts what a seal will say.
type tally struct {
	records, messages uint64
	first, last       int64
	times             timeTable
}

func (t *tally) count(rec *Record, base Pos) {
	t.records++
	if rec.Kind == KindMessage {
		t.messages++
		if rec.Flags&FlagCarried != 0 {
			return // its clock is that of the original
		}
	}
	if t.first == 0 {
		t.first = rec.Wall
	}
	t.last = max(t.last, rec.Wall)
	t.times.add(rec.Wall, uint32(rec.Pos-base))
}

// retainedLimit bounds the changes kept in memory.
const retainedLimit = 8192

// SetSink names the receiver of routed messages. It is called once, before
// the first Advance.
func (l *Log) SetSink(s Sink) {
	l.view.Lock()
	defer l.view.Unlock()
	l.view.sink = s
}

// Advance brings the view up to the committed position, unless another
// goroutine is doing so. It returns after everything that was committed when
// it was called has been routed or is being routed.
func (l *Log) Advance() { l.advance(Flusher.Flush) }

// advanceApart is Advance for the keeper: what the subscribers append may have
// to wait for the keeper, so it does not wait for them.
func (l *Log) advanceApart() { l.advance(func(f Flusher) { go f.Flush() }) }

func (l *Log) advance(flush func(Flusher)) {
	v := &l.view
	for v.behind(l) && v.routing.TryLock() {
		v.Lock()
		f, moved := l.step()
		v.Unlock()
		v.routing.Unlock()
		if f != nil {
			flush(f)
		}
		if !moved {
			return // the log was closed
		}
	}
}

// behind is a guess without the lock; Advance looks again after it has
// released the lock, so nothing is left lying.
func (v *view) behind(l *Log) bool { return l.Committed() > Pos(v.routed.Load()) }

// step routes one batch; the view is locked. It returns who wakes the
// subscribers, and whether anything was read.
func (l *Log) step() (f Flusher, moved bool) {
	v := &l.view
	if v.seg == nil {
		return nil, false
	}
	before := v.pos
	l.stepLocked()
	if v.sink != nil {
		f = v.sink.Batch()
	}
	return f, v.pos != before
}

// WithView calls fn while no message is routed: pos is the position behind
// the last message routed. Subscriptions change under it, so that every
// message lies before or behind the change.
func (l *Log) WithView(fn func(pos Pos)) {
	v := &l.view
	v.Lock()
	fn(v.pos)
	v.Unlock()
	l.Advance()
}

// RouteUpTo returns when every record before pos has been routed. If the sync
// of a record holds them back, it waits for that.
func (l *Log) RouteUpTo(pos Pos) error {
	if l.Committed() < pos {
		if err := l.syncer.wait(l, pos); err != nil {
			return err
		}
	}
	v := &l.view
	for Pos(v.routed.Load()) < pos {
		v.routing.Lock()
		v.Lock()
		f, moved := l.step()
		v.Unlock()
		v.routing.Unlock()
		if f != nil {
			f.Flush()
		}
		if !moved {
			return l.Err() // somebody else has routed it, or the log was closed
		}
	}
	return nil
}

// stepLocked reads up to stepRecords committed records.
func (l *Log) stepLocked() {
	v := &l.view
	defer func() { v.routed.Store(uint64(v.pos)) }()
	limit := l.Committed()
	for i := 0; i < stepRecords && v.pos < limit; i++ {
		var next Pos
		var err error
		next, err = v.seg.Read(v.pos, v.pos < l.recoveredEnd, &v.rec)
		if err == nil {
			l.viewRecord(&v.rec)
			v.pos = next
		} else if !l.viewPast(err) {
			return
		}
	}
}

// viewPast goes on where no record could be read: at the end of a segment, or
// behind damage, which whoever reads it for a subscriber reports. It reports
// false if there is nothing to go on with.
func (l *Log) viewPast(err error) bool {
	v := &l.view
	var damage *segment.Damage
	if errors.As(err, &damage) {
		v.partial, v.pos = true, damage.To
		return true
	}
	return l.viewNextSegment()
}

// viewRecord keeps the postings and the retained table and routes.
func (l *Log) viewRecord(rec *Record) {
	v := &l.view
	v.tally.count(rec, v.seg.Base)
	if rec.Kind != KindMessage {
		return
	}
	msg := &v.msg
	if msg.Decode(rec) != nil {
		return // sound by its checksum, so written like that: nothing to deliver
	}
	t := v.topic
	if t == nil || t.Name != string(msg.Topic) {
		t = v.topicLocked(msg.Topic)
	}
	t.count(rec, v.seg.Base)
	if rec.Flags&FlagRetain != 0 { // no other changes it [MQTT-3.3.1-8], [MQTT311-3.3.1-12]
		l.retainLocked(t.Name, rec, msg)
	}
	if v.sink != nil && rec.Flags&FlagCarried == 0 {
		v.sink.Route(rec, msg, t)
	}
}

// topicLocked is the segment's row of a topic.
func (v *view) topicLocked(name []byte) *Topic {
	t, ok := v.topics[string(name)]
	if !ok {
		t = &Topic{Name: string(name)}
		v.topics[t.Name] = t
	}
	v.topic = t
	return t
}

// retainLocked applies a retained message to the table, which belongs to no
// session [MQTT311-3.1.2-7].
func (l *Log) retainLocked(topic string, rec *Record, msg *MessageView) {
	v := &l.view
	if rec.Flags&FlagCarried != 0 && l.retainedLocked(topic) != msg.Original {
		return // a newer one came while it was carried
	}
	pos := rec.Pos
	if len(msg.Payload) == 0 {
		pos = 0 // [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT311-3.3.1-10], [MQTT311-3.3.1-11]
	}
	v.retained[topic] = pos // [MQTT-3.3.1-5], [MQTT311-3.3.1-5], [MQTT311-3.3.1-7]
	if len(v.retained) >= retainedLimit {
		_ = l.writeRetainedLocked() // if it fails, the next checkpoint says so
	}
}

// viewNextSegment goes over to the segment behind the one that was read to
// its end, which is then ready to be sealed. It reports false when there is
// none yet.
func (l *Log) viewNextSegment() bool {
	v := &l.view
	seg, err := l.set.Pin(v.seg.Limit())
	if err != nil || seg.Base <= v.seg.Base {
		if err == nil {
			seg.Unpin()
		}
		return false
	}
	l.keeper.seal(sealJob{seg: v.seg, topics: v.topics, partial: v.partial, tally: v.tally})
	v.seg.Unpin()
	v.seg, v.pos, v.partial = seg, seg.First(), false
	v.topics, v.topic = make(map[string]*Topic, len(v.topics)), nil
	v.tally = tally{}
	if s, ok := v.sink.(SegmentSink); ok {
		s.NewSegment()
	}
	return true
}

// postings are the offsets of a topic's messages in a segment, as varints of
// the distance in units of segment.Align.
type postings struct {
	n    int
	last uint32
	enc  []byte
}

func (p *postings) add(off uint32) {
	p.enc = binary.AppendUvarint(p.enc, uint64(off-p.last)/segment.Align)
	p.last = off
	p.n++
}

// eachPosting calls fn with every offset until it returns false. Damaged
// bytes end the list: the caller verifies what it reads at an offset.
func eachPosting(enc []byte, fn func(off uint32) bool) {
	var off uint64
	for len(enc) > 0 {
		d, w := binary.Uvarint(enc)
		if w <= 0 {
			return
		}
		enc = enc[w:]
		if off += d * segment.Align; off > segment.MaxSize || !fn(uint32(off)) {
			return
		}
	}
}

// timeTable is a sparse list of (wall clock, offset): one entry for each
// timeStep bytes.
type timeTable struct {
	entries []timeEntry
}

type timeEntry struct {
	wall int64
	off  uint32
}

const timeStep = 256 << 10

func (t *timeTable) add(wall int64, off uint32) {
	if n := len(t.entries); n == 0 || off-t.entries[n-1].off >= timeStep {
		t.entries = append(t.entries, timeEntry{wall, off})
	}
}
