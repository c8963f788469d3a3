package storage

import (
	"slices"
	"time"

	"cairnmq/segment"
)

// Never is the session expiry interval that means "does not expire".
const Never uint32 = 0xFFFFFFFF

// Will is what a session publishes when its connection is lost.
type Will struct {
	Topic     string
	Payload   []byte
	Props     []byte // end-to-end properties as on the wire
	QoS       uint8
	Retain    bool
	HasExpiry bool
	Expiry    uint32 // seconds
	Delay     uint32 // seconds
}

// Sub is one subscription of a session.
type Sub struct {
	Filter            string // as the client wrote it
	QoS               uint8
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8
	ID                uint32 // subscription identifier, 0 if none
	Since             Pos    // messages before it are not meant
}

// Inflight is an outbound message with a packet identifier.
type Inflight struct {
	ID       uint16
	Pos      Pos
	QoS      uint8
	Retained bool // sent because of a subscription, with the retain flag
	// Group is the shared subscription that the message belongs to, if any.
	Group string
	// Received: the PUBREC has come; what is to be repeated is the PUBREL.
	Received bool
}

// SessionRow is the durable state of a session: what the index keeps, and
// what replaying the session's events from AsOf on brings up to date. It is a
// cursor and what is around it, and nothing in it grows with the backlog.
type SessionRow struct {
	ID      string
	AsOf    Pos // events from here on are not yet applied
	Version uint8
	Expiry  uint32 // seconds after the connection's end; Never
	Online  bool   // a connection was open
	Closed  segment.Head
	Will    *Will
	Subs    []Sub
	// Next is the cursor: messages before it are in Inflight or done with.
	Next Pos
	// SkipQoS0 is the position before which QoS 0 messages are not delivered:
	// after a crash it is not known which of them were, and at most once
	// means none.
	SkipQoS0 Pos
	Inflight []Inflight
	Inbound  []uint16 // QoS 2 identifiers received and not released

	due int64 // the due time in the index, unix ms; 0 if none
}

// Low is the lowest position that the session still needs: its cursor, if it
// has a subscription of its own, or what is in flight.
func (r *SessionRow) Low() Pos {
	low := r.Next
	if len(r.Subs) > 0 && !slices.ContainsFunc(r.Subs, func(s Sub) bool { return !s.Shared() }) {
		low = 1<<64 - 1
	}
	for _, f := range r.Inflight {
		if !f.Received {
			low = min(low, f.Pos)
		}
	}
	return low
}

// FindSub returns the subscription with exactly this filter.
func (r *SessionRow) FindSub(filter string) *Sub {
	for i := range r.Subs {
		if r.Subs[i].Filter == filter {
			return &r.Subs[i]
		}
	}
	return nil
}

// Due is when something happens to a closed session: its will is published or
// it ends. ok is false if never. A clock that was wrong when the connection
// ended makes it late rather than early only if it was ahead; see
// docs/durability.md.
func (r *SessionRow) Due() (at time.Time, ok bool) {
	if r.Online {
		return at, false
	}
	wait := r.Expiry
	if r.Will != nil {
		wait = min(wait, r.Will.Delay)
	}
	if wait == Never {
		return at, false
	}
	return r.Closed.WallTime().Add(time.Duration(wait) * time.Second), true
}

// Expires is when a closed session ends.
func (r *SessionRow) Expires() (at time.Time, ok bool) {
	if r.Online || r.Expiry == Never {
		return at, false
	}
	return r.Closed.WallTime().Add(time.Duration(r.Expiry) * time.Second), true
}

const rowVersion = 1

// encode appends the row's index form. The id is the key and not in it.
func (r *SessionRow) encode(b []byte) []byte {
	e := encoder{b}
	e.byte(rowVersion)
	e.uint(uint64(r.AsOf))
	e.byte(r.Version)
	e.uint(uint64(r.Expiry))
	e.byte(bit(r.Online, 1) | bit(r.Will != nil, 2))
	e.int(r.Closed.Wall)
	e.uint(uint64(r.Closed.Boot))
	e.int(r.Closed.Mono)
	e.int(r.due)
	e.uint(uint64(r.Next))
	e.uint(uint64(r.SkipQoS0))
	if r.Will != nil {
		encodeWill(&e, r.Will)
	}
	e.uint(uint64(len(r.Subs)))
	for i := range r.Subs {
		encodeSub(&e, &r.Subs[i])
		e.uint(uint64(r.Subs[i].Since))
	}
	encodeInflight(&e, r.Inflight)
	encodeIDs(&e, r.Inbound)
	return e.b
}

func decodeRow(id string, b []byte) (*SessionRow, bool) {
	d := decoder{b: b}
	if d.byte() != rowVersion {
		return nil, false
	}
	r := &SessionRow{ID: id}
	r.AsOf = Pos(d.uint())
	r.Version = d.byte()
	r.Expiry = uint32(d.uint())
	flags := d.byte()
	r.Online = flags&1 != 0
	r.Closed = segment.Head{Wall: d.int(), Boot: uint16(d.uint()), Mono: d.int()}
	r.due = d.int()
	r.Next = Pos(d.uint())
	r.SkipQoS0 = Pos(d.uint())
	if flags&2 != 0 {
		r.Will = decodeWill(&d)
	}
	for range d.count() {
		s := decodeSub(&d)
		s.Since = Pos(d.uint())
		r.Subs = append(r.Subs, s)
	}
	r.Inflight = decodeInflight(&d)
	r.Inbound = decodeIDs(&d)
	return r, !d.bad
}

func bit(b bool, v byte) byte {
	if b {
		return v
	}
	return 0
}

func encodeWill(e *encoder, w *Will) {
	e.string(w.Topic)
	e.bytes(w.Payload)
	e.bytes(w.Props)
	e.byte(w.QoS | bit(w.Retain, 4) | bit(w.HasExpiry, 8))
	e.uint(uint64(w.Expiry))
	e.uint(uint64(w.Delay))
}

func decodeWill(d *decoder) *Will {
	w := &Will{Topic: d.string(), Payload: d.bytes(), Props: d.bytes()}
	f := d.byte()
	w.QoS, w.Retain, w.HasExpiry = f&3, f&4 != 0, f&8 != 0
	w.Expiry = uint32(d.uint())
	w.Delay = uint32(d.uint())
	return w
}

func encodeSub(e *encoder, s *Sub) {
	e.string(s.Filter)
	e.byte(s.QoS | bit(s.NoLocal, 4) | bit(s.RetainAsPublished, 8) | s.RetainHandling<<4)
	e.uint(uint64(s.ID))
}

func decodeSub(d *decoder) Sub {
	s := Sub{Filter: d.string()}
	f := d.byte()
	s.QoS, s.NoLocal, s.RetainAsPublished, s.RetainHandling = f&3, f&4 != 0, f&8 != 0, f>>4&3
	s.ID = uint32(d.uint())
	return s
}

func encodeInflight(e *encoder, list []Inflight) {
	e.uint(uint64(len(list)))
	last, group := Pos(0), ""
	for _, f := range list {
		e.uint(uint64(f.ID))
		named := f.Group != "" && f.Group != group
		e.byte(f.QoS | bit(f.Retained, 4) | bit(f.Received, 8) | bit(f.Group != "", 16) | bit(named, 32))
		if named {
			e.string(f.Group)
			group = f.Group
		}
		e.int(int64(f.Pos - last))
		last = f.Pos
	}
}

func decodeInflight(d *decoder) []Inflight {
	var list []Inflight
	last, group := Pos(0), ""
	for range d.count() {
		f := Inflight{ID: uint16(d.uint())}
		b := d.byte()
		f.QoS, f.Retained, f.Received = b&3, b&4 != 0, b&8 != 0
		if b&32 != 0 {
			group = d.string()
		}
		if b&16 != 0 {
			f.Group = group
		}
		last += Pos(d.int())
		f.Pos = last
		list = append(list, f)
	}
	return list
}

func encodeIDs(e *encoder, ids []uint16) {
	e.uint(uint64(len(ids)))
	for _, id := range ids {
		e.uint(uint64(id))
	}
}

func decodeIDs(d *decoder) []uint16 {
	var ids []uint16
	for range d.count() {
		ids = append(ids, uint16(d.uint()))
	}
	return ids
}

// Session events. Every body begins with the client id.

// EventOpened says that a connection opened the session. With clean, what was
// there before is gone.
func EventOpened(id string, version uint8, clean bool, expiry uint32, w *Will, next Pos) Event {
	var e encoder
	e.string(id)
	e.byte(version)
	e.byte(bit(clean, 1) | bit(w != nil, 2))
	e.uint(uint64(expiry))
	e.uint(uint64(next))
	if w != nil {
		encodeWill(&e, w)
	}
	return Event{Kind: KindOpened, Body: e.b}
}

// EventClosed says that the connection ended. keepWill: it is still to be
// published, after its delay.
func EventClosed(id string, expiry uint32, keepWill bool, next Pos) Event {
	var e encoder
	e.string(id)
	e.byte(bit(keepWill, 1))
	e.uint(uint64(expiry))
	e.uint(uint64(next))
	return Event{Kind: KindClosed, Body: e.b}
}

// EventEnded says that the session is no more.
func EventEnded(id string) Event {
	var e encoder
	e.string(id)
	return Event{Kind: KindEnded, Body: e.b}
}

// EventSubscribed adds or replaces subscriptions.
func EventSubscribed(id string, subs []Sub) Event {
	var e encoder
	e.string(id)
	e.uint(uint64(len(subs)))
	for i := range subs {
		encodeSub(&e, &subs[i])
	}
	return Event{Kind: KindSubscribed, Body: e.b}
}

// EventUnsubscribed removes subscriptions.
func EventUnsubscribed(id string, filters []string) Event {
	var e encoder
	e.string(id)
	e.uint(uint64(len(filters)))
	for _, f := range filters {
		e.string(f)
	}
	return Event{Kind: KindUnsubscribed, Body: e.b}
}

// EventDelivered says that the messages in list have been given their packet
// identifiers, and that the cursor is now at next. The body is appended to
// buf, so that a caller on the hot path can use one buffer again.
func EventDelivered(buf []byte, id string, next Pos, list []Inflight) Event {
	e := encoder{buf}
	e.string(id)
	e.uint(uint64(next))
	encodeInflight(&e, list)
	return Event{Kind: KindDelivered, Body: e.b}
}

// Acked is one step of an outbound message: PUBREC received, or done.
type Acked struct {
	ID   uint16
	Done bool
}

// EventAcked says what the subscriber has acknowledged.
func EventAcked(buf []byte, id string, list []Acked) Event {
	e := encoder{buf}
	e.string(id)
	e.uint(uint64(len(list)))
	for _, a := range list {
		e.uint(uint64(a.ID)<<1 | uint64(bit(a.Done, 1)))
	}
	return Event{Kind: KindAcked, Body: e.b}
}

// EventReleased says which inbound QoS 2 identifiers are free again.
func EventReleased(buf []byte, id string, ids []uint16) Event {
	e := encoder{buf}
	e.string(id)
	encodeIDs(&e, ids)
	return Event{Kind: KindReleased, Body: e.b}
}

// eventSession is the client id that a record is about, or nil. KindDealt is
// about several, see eachMember.
func eventSession(rec *Record) []byte {
	switch rec.Kind {
	case KindMessage:
		if rec.ID == 0 && rec.Flags&FlagWill == 0 || rec.Flags&FlagCarried != 0 {
			return nil
		}
		id, _, _ := cutString(rec.Body)
		return id
	case KindOpened, KindClosed, KindEnded, KindSubscribed, KindUnsubscribed, KindDelivered, KindAcked, KindReleased, KindReturned:
		d := decoder{b: rec.Body}
		return d.view()
	}
	return nil
}

// apply brings r up to date with one record about it. It is idempotent
// through AsOf. gone reports that the session ended.
func (r *SessionRow) apply(rec *Record) (gone bool) {
	if rec.Pos < r.AsOf {
		return false
	}
	r.AsOf = rec.Pos + 1
	if rec.Kind == KindMessage {
		r.applyMessage(rec)
		return false
	}
	d := decoder{b: rec.Body}
	d.view() // the id, or the group of KindDealt
	switch rec.Kind {
	case KindOpened:
		r.applyOpened(&d)
	case KindClosed:
		keepWill := d.byte() != 0
		r.Expiry = uint32(d.uint())
		r.Next = max(r.Next, Pos(d.uint()))
		r.Online, r.Closed = false, rec.Head
		if !keepWill {
			r.Will = nil
		}
	case KindEnded:
		return true
	case KindSubscribed:
		for range d.count() {
			r.setSub(decodeSub(&d), rec.Pos)
		}
	case KindUnsubscribed:
		for range d.count() {
			filter := d.string()
			r.Subs = slices.DeleteFunc(r.Subs, func(s Sub) bool { return s.Filter == filter })
		}
	case KindDelivered:
		r.Next = max(r.Next, Pos(d.uint()))
		r.setInflight(decodeInflight(&d))
	case KindDealt:
		r.applyDealt(rec)
	case KindReturned:
		d.view() // the group
		for _, f := range decodeInflight(&d) {
			r.acked(f.ID, true)
		}
	case KindAcked:
		for range d.count() {
			v := d.uint()
			r.acked(uint16(v>>1), v&1 != 0)
		}
	case KindReleased:
		for _, id := range decodeIDs(&d) {
			r.Inbound = slices.DeleteFunc(r.Inbound, func(x uint16) bool { return x == id })
		}
	}
	return false
}

func (r *SessionRow) applyMessage(rec *Record) {
	if rec.Flags&FlagWill != 0 {
		r.Will = nil
	}
	if rec.ID != 0 && !slices.Contains(r.Inbound, rec.ID) {
		r.Inbound = append(r.Inbound, rec.ID)
	}
}

func (r *SessionRow) applyOpened(d *decoder) {
	version, flags := d.byte(), d.byte()
	expiry := uint32(d.uint())
	next := Pos(d.uint())
	if flags&1 != 0 {
		*r = SessionRow{ID: r.ID, AsOf: r.AsOf, Next: next, due: r.due}
	}
	r.Version, r.Expiry, r.Online, r.Will = version, expiry, true, nil
	if flags&2 != 0 {
		r.Will = decodeWill(d)
	}
}

// setSub adds or replaces a subscription. Replacing keeps Since, so that no
// message is lost by it [MQTT-3.8.4-4].
func (r *SessionRow) setSub(s Sub, at Pos) {
	s.Since = at
	if old := r.FindSub(s.Filter); old != nil {
		s.Since = old.Since
		*old = s
		return
	}
	r.Subs = append(r.Subs, s)
}

// applyDealt takes the part of a group's messages that is this session's.
func (r *SessionRow) applyDealt(rec *Record) {
	d := decoder{b: rec.Body}
	name := d.string()
	decodeDealt(&d, func(id []byte, list []Inflight) {
		if string(id) != r.ID {
			return
		}
		for i := range list {
			list[i].Group = name
		}
		r.setInflight(list)
	})
}

// setInflight adds messages in the order of their identifiers, which is that
// of the window. Two records can be in the log the other way round when they
// come from different readers; and one may be in the row already, when that
// was taken while the record was on its way.
func (r *SessionRow) setInflight(list []Inflight) {
	if len(r.Inflight) == 0 {
		r.Inflight = list
		return
	}
	for _, f := range list {
		i := len(r.Inflight)
		for i > 0 && idAhead(r.Inflight[i-1].ID, f.ID) {
			i--
		}
		if i > 0 && r.Inflight[i-1].ID == f.ID {
			continue
		}
		r.Inflight = slices.Insert(r.Inflight, i, f)
	}
}

// idAhead reports whether a is given out after b; after 65,535 comes 1.
func idAhead(a, b uint16) bool {
	d := (int(a) - int(b) + 65535) % 65535
	return d > 0 && d < 1<<15
}

func (r *SessionRow) acked(id uint16, done bool) {
	i := slices.IndexFunc(r.Inflight, func(f Inflight) bool { return f.ID == id })
	switch {
	case i < 0:
	case done:
		r.Inflight = slices.Delete(r.Inflight, i, i+1)
	default:
		r.Inflight[i].Received = true
	}
}
