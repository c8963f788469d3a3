package storage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cairnmq/index"
)

// sharePrefix begins the filter of a shared subscription.
const sharePrefix = "$share/"

// Shared reports whether the subscription is shared: the messages are the
// group's, whose name is the filter, and the session only gets its part.
func (s *Sub) Shared() bool { return isShared(s.Filter) }

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

// GroupFilter is the topic filter in the name of a group, "$share/name/filter".
func GroupFilter(name string) string {
	_, filter, _ := strings.Cut(name[len(sharePrefix):], "/")
	return filter
}

// GroupRow is the durable state of a shared subscription: one cursor for all
// its members. It exists as long as a session is subscribed.
//
// Every record that changes a group names it and says all that the group needs
// to know, so that a group is replayed without looking at sessions, whose rows
// may be newer or older.
type GroupRow struct {
	Name string
	AsOf Pos // events from here on are not yet applied
	// Online: a member was connected, so messages of QoS 0 before the end of
	// the log may have been delivered.
	Online  bool
	Members []string // client ids, sorted
	// Next is the cursor: messages before it were dealt to a member or are
	// in Open.
	Next     Pos
	SkipQoS0 Pos // see SessionRow
	// Open are messages before the cursor that no member has: given back by
	// one that left, or waiting for the one that they belong to. Sorted.
	Open []Pos
}

// IsMember reports whether the session of id is subscribed.
func (r *GroupRow) IsMember(id string) bool {
	_, found := slices.BinarySearch(r.Members, id)
	return found
}

// Join adds a member.
func (r *GroupRow) Join(id string) { r.Members = insertSorted(r.Members, id) }

// Leave takes a member out.
func (r *GroupRow) Leave(id string) {
	if i, found := slices.BinarySearch(r.Members, id); found {
		r.Members = slices.Delete(r.Members, i, i+1)
	}
}

func insertSorted[T cmp.Ordered](list []T, x T) []T {
	i, found := slices.BinarySearch(list, x)
	if found {
		return list
	}
	return slices.Insert(list, i, x)
}

// encode appends the row's index form. The name is the key and not in it.
func (r *GroupRow) encode(b []byte) []byte {
	e := encoder{b}
	e.byte(rowVersion)
	e.uint(uint64(r.AsOf))
	e.byte(bit(r.Online, 1))
	e.uint(uint64(len(r.Members)))
	for _, id := range r.Members {
		e.string(id)
	}
	e.uint(uint64(r.Next))
	e.uint(uint64(r.SkipQoS0))
	encodePositions(&e, r.Open)
	return e.b
}

func decodeGroupRow(name string, b []byte) (*GroupRow, bool) {
	d := decoder{b: b}
	if d.byte() != rowVersion || !isShared(name) {
		return nil, false
	}
	r := &GroupRow{Name: name, AsOf: Pos(d.uint()), Online: d.byte()&1 != 0}
	for range d.count() {
		r.Members = append(r.Members, d.string())
	}
	r.Next = Pos(d.uint())
	r.SkipQoS0 = Pos(d.uint())
	r.Open = decodePositions(&d)
	return r, !d.bad
}

func encodePositions(e *encoder, list []Pos) {
	e.uint(uint64(len(list)))
	last := Pos(0)
	for _, p := range list {
		e.int(int64(p - last))
		last = p
	}
}

func decodePositions(d *decoder) []Pos {
	var list []Pos
	last := Pos(0)
	for range d.count() {
		last += Pos(d.int())
		list = append(list, last)
	}
	return list
}

// Dealt is what one member gets of a group's messages.
type Dealt struct {
	ID   string // of the client
	List []Inflight
}

// EventDealt says that members have been given messages of a group under
// packet identifiers of their own, that open are now waiting before the
// cursor, and that the cursor is at next. It is one record, so that a message
// is never dealt without the cursor knowing, or the other way round.
func EventDealt(buf []byte, name string, next Pos, open []Pos, dealt []Dealt) Event {
	e := encoder{buf}
	e.string(name)
	e.uint(uint64(next))
	encodePositions(&e, open)
	e.uint(uint64(len(dealt)))
	for i := range dealt {
		e.string(dealt[i].ID)
		encodeInflight(&e, dealt[i].List)
	}
	return Event{Kind: KindDealt, Body: e.b}
}

// decodeDealt reads what follows the name and calls fn for each member.
func decodeDealt(d *decoder, fn func(id []byte, list []Inflight)) (next Pos, open []Pos) {
	next = Pos(d.uint())
	open = decodePositions(d)
	for range d.count() {
		id := d.view()
		fn(id, decodeInflight(d))
	}
	return next, open
}

// EventReturned says that a session gives messages back to its group: another
// member is to have them.
func EventReturned(id, name string, list []Inflight) Event {
	var e encoder
	e.string(id)
	e.string(name)
	encodeInflight(&e, list)
	return Event{Kind: KindReturned, Body: e.b}
}

// EventGroup says that the first member of a group has come online, or that
// the last one has gone, and where the cursor is.
func EventGroup(name string, online bool, next Pos) Event {
	var e encoder
	e.string(name)
	e.byte(bit(online, 1))
	e.uint(uint64(next))
	return Event{Kind: KindGroup, Body: e.b}
}

// eventGroups are the groups that a record is about.
func eventGroups(rec *Record) (names []string) {
	d := decoder{b: rec.Body}
	switch rec.Kind {
	case KindDealt, KindGroup:
		names = append(names, d.string())
	case KindReturned:
		d.view()
		names = append(names, d.string())
	case KindSubscribed, KindUnsubscribed:
		if !strings.Contains(viewString(rec.Body), sharePrefix) {
			return nil
		}
		d.view()
		for range d.count() {
			if name := filterIn(&d, rec.Kind); isShared(name) {
				names = append(names, name)
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return !isShared(name) })
}

func filterIn(d *decoder, kind Kind) string {
	if kind == KindSubscribed {
		s := decodeSub(d)
		return s.Filter
	}
	return d.string()
}

// apply brings r up to date with one record about it. It is idempotent
// through AsOf. gone reports that nobody is subscribed any more.
func (r *GroupRow) apply(rec *Record) (gone bool) {
	if rec.Pos < r.AsOf {
		return false
	}
	r.AsOf = rec.Pos + 1
	d := decoder{b: rec.Body}
	switch rec.Kind {
	case KindSubscribed:
		r.Online = true
		r.Join(d.string())
	case KindUnsubscribed:
		r.Leave(d.string())
		return len(r.Members) == 0
	case KindDealt:
		d.view()
		r.Online = true
		next, open := decodeDealt(&d, func(_ []byte, list []Inflight) {
			for _, f := range list {
				if i, found := slices.BinarySearch(r.Open, f.Pos); found {
					r.Open = slices.Delete(r.Open, i, i+1)
				}
			}
		})
		r.Next = max(r.Next, next)
		for _, p := range open {
			r.Open = insertSorted(r.Open, p)
		}
	case KindReturned:
		d.view()
		d.view()
		for _, f := range decodeInflight(&d) {
			r.Open = insertSorted(r.Open, f.Pos)
		}
	case KindGroup:
		d.view()
		r.Online = d.byte()&1 != 0
		r.Next = max(r.Next, Pos(d.uint()))
	}
	return false
}

// GroupSource is a group with members online; see Source.
type GroupSource interface {
	SnapshotGroup(onlyDirty bool) *GroupRow
}

// LoadGroup reads a group's row from the index. ok is false if there is no
// such group.
func (l *Log) LoadGroup(name string) (row *GroupRow, ok bool, err error) {
	b, ok, err := l.index.Reader(name)
	if err != nil || !ok {
		return nil, false, err
	}
	row, ok = decodeGroupRow(name, b)
	if !ok {
		return nil, false, fmt.Errorf("group %q: %w", name, index.ErrDamaged)
	}
	return row, true, nil
}

// AttachGroup registers a group whose state is in memory.
func (l *Log) AttachGroup(name string, src GroupSource) {
	l.sources.mu.Lock()
	defer l.sources.mu.Unlock()
	l.sources.groups[name] = src
}

func (l *Log) detachGroup(name string) {
	l.sources.mu.Lock()
	defer l.sources.mu.Unlock()
	delete(l.sources.groups, name)
}

// StoreGroup writes a row to the index, or removes it if the group has no
// members left, and ends what AttachGroup began; see StoreSession.
func (l *Log) StoreGroup(row *GroupRow) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	l.detachGroup(row.Name)
	b := l.index.NewBatch()
	putGroup(b, row)
	return l.applied(b.Apply())
}

func putGroup(b *index.Batch, row *GroupRow) {
	if len(row.Members) == 0 {
		b.DeleteReader(row.Name)
		return
	}
	b.SetReader(row.Name, row.encode(nil))
}

// Groups calls fn for every group in the index, those with members online
// included as they were at the last checkpoint.
func (l *Log) Groups(fn func(row *GroupRow) error) error {
	return l.index.Readers(func(name string, b []byte) error {
		if row, ok := decodeGroupRow(name, b); ok {
			return fn(row)
		}
		return nil
	})
}

func (s *sources) groupSnapshot() []GroupSource {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]GroupSource, 0, len(s.groups))
	for _, src := range s.groups {
		out = append(out, src)
	}
	return out
}

// Low is the lowest position that the group still needs.
func (r *GroupRow) Low() Pos {
	if len(r.Open) > 0 {
		return min(r.Next, r.Open[0])
	}
	return r.Next
}

// EachGroup calls fn for every group there is, as it is now.
func (l *Log) EachGroup(fn func(row *GroupRow)) error {
	seen := make(map[string]bool)
	for _, src := range l.sources.groupSnapshot() {
		if row := src.SnapshotGroup(false); row != nil {
			seen[row.Name] = true
			fn(row)
		}
	}
	return l.Groups(func(row *GroupRow) error {
		if !seen[row.Name] {
			fn(row)
		}
		return nil
	})
}

// asSession is the group as whoever counts what a reader loses knows it.
func (r *GroupRow) asSession() *SessionRow {
	row := &SessionRow{ID: r.Name, Next: r.Next, Subs: []Sub{{Filter: GroupFilter(r.Name), QoS: 2}}}
	for _, p := range r.Open {
		row.Inflight = append(row.Inflight, Inflight{Pos: p})
	}
	return row
}

// The replay.

// group applies a record to the groups that it is about.
func (p *replayer) group(rec *Record) error {
	for _, name := range eventGroups(rec) {
		row, ok := p.groups[name]
		if !ok {
			var err error
			if row, _, err = p.l.LoadGroup(name); err != nil {
				return err
			}
			p.groups[name] = row // nil if there is none
		}
		if row == nil {
			if rec.Kind != KindSubscribed {
				continue // the beginning has gone with an older segment, and the members' subscriptions with it
			}
			row = &GroupRow{Name: name, Next: rec.Pos}
			p.groups[name] = row
		}
		if row.apply(rec) {
			p.groups[name] = nil
			p.b.DeleteReader(name)
		}
	}
	return nil
}

// members applies KindDealt to the sessions that it is about.
func (p *replayer) members(rec *Record) (err error) {
	d := decoder{b: rec.Body}
	d.view() // the group
	decodeDealt(&d, func(id []byte, _ []Inflight) {
		if err == nil {
			err = p.session(id, rec)
		}
	})
	return err
}

// interruptedGroups: of those that had members online it is not known which
// messages of QoS 0 were delivered.
func (p *replayer) interruptedGroups(end Pos) error {
	err := p.l.Groups(func(row *GroupRow) error {
		if _, ok := p.groups[row.Name]; !ok && row.Online {
			p.groups[row.Name] = row
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range p.groups {
		if row == nil {
			continue
		}
		if row.Online {
			row.Online, row.SkipQoS0, row.AsOf = false, end, end
		}
		putGroup(p.b, row)
	}
	return nil
}
