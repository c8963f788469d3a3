package session

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
)

// model is the slow, obvious form of a Window.
type model struct {
	list  []modelEntry // unacknowledged, in the order of first sending
	next  int          // number of the next new message
	limit int
}

type modelEntry struct {
	n int // which message it is, counted from the first one ever
	Entry
	sent bool
}

func (e modelEntry) id() uint16 { return uint16(e.n%65535) + 1 }

func (m *model) inUse() (n int) {
	for _, e := range m.list {
		if e.sent {
			n++
		}
	}
	return n
}

func (m *model) free() int {
	oldest := m.next
	if len(m.list) > 0 {
		oldest = m.list[0].n
	}
	return max(0, min(m.limit-m.inUse(), 65535-(m.next-oldest)))
}

func (m *model) find(id uint16) int {
	return slices.IndexFunc(m.list, func(e modelEntry) bool { return e.id() == id })
}

func (m *model) resend() int {
	return slices.IndexFunc(m.list, func(e modelEntry) bool { return !e.sent })
}

// pair runs both.
type pair struct {
	t *testing.T
	w *Window
	m *model
}

func (p *pair) same(what string, got, want any) {
	p.t.Helper()
	if got != want {
		p.t.Fatalf("%s: %v, the model says %v", what, got, want)
	}
}

func (p *pair) add(r *rand.Rand) {
	qos := byte(1 + r.Intn(2))
	pos := r.Uint64()
	e := modelEntry{n: p.m.next, Entry: Entry{Pos: pos, QoS: qos, Retained: qos == 2 && pos%2 == 0}, sent: true}
	p.m.next++
	p.m.list = append(p.m.list, e)
	p.same("identifier", p.w.Add(pos, qos, e.Retained), e.id())
}

func (p *pair) acknowledged(id uint16, qos byte) {
	i := p.m.find(id)
	ok := i >= 0 && p.m.list[i].QoS == qos && !p.m.list[i].Received
	if ok {
		p.m.list = slices.Delete(p.m.list, i, i+1)
	}
	p.same("Acknowledged", p.w.Acknowledged(id, qos), ok)
}

func (p *pair) received(id uint16) {
	i := p.m.find(id)
	ok := i >= 0 && p.m.list[i].QoS == 2
	first := ok && !p.m.list[i].Received
	if ok {
		p.m.list[i].Received = true
	}
	f, k := p.w.Received(id)
	p.same("Received", fmt.Sprint(f, k), fmt.Sprint(first, ok))
}

func (p *pair) completed(id uint16) {
	i := p.m.find(id)
	ok := i >= 0 && p.m.list[i].Received
	if ok {
		p.m.list = slices.Delete(p.m.list, i, i+1)
	}
	p.same("Completed", p.w.Completed(id), ok)
}

func (p *pair) drop(id uint16) {
	if i := p.m.find(id); i >= 0 {
		p.m.list = slices.Delete(p.m.list, i, i+1)
	}
	p.w.Drop(id)
}

func (p *pair) resend() {
	i := p.m.resend()
	p.same("Unsent", p.w.Unsent(), i >= 0)
	can := i >= 0 && (p.m.inUse() < p.m.limit || p.m.list[i].Received)
	p.same("CanResend", p.w.CanResend(), can)
	if !can {
		return
	}
	p.m.list[i].sent = true
	id, e := p.w.NextResend()
	p.same("resent", id, p.m.list[i].id())
	e.sent = false
	p.same("resent entry", e, p.m.list[i].Entry)
}

// reconnect carries the window over to a new connection.
func (p *pair) reconnect(limit int) {
	w := new(Window)
	w.SetLimit(limit)
	p.w.Each(func(id uint16, e Entry) { w.Restore(id, e) })
	p.w, p.m.limit = w, limit
	for i := range p.m.list {
		p.m.list[i].sent = false
	}
	// Where nothing is in flight, numbering begins anew; else it goes on
	// behind the last.
	p.m.next = 0
	if n := len(p.m.list); n > 0 {
		shift := p.m.list[0].n / 65535 * 65535
		for i := range p.m.list {
			p.m.list[i].n -= shift
		}
		p.m.next = p.m.list[n-1].n + 1
	}
}

func (p *pair) compare() {
	p.t.Helper()
	p.same("Len", p.w.Len(), len(p.m.list))
	p.same("Free", p.w.Free(), p.m.free())
	i := 0
	p.w.Each(func(id uint16, e Entry) {
		e.sent = false
		if id != p.m.list[i].id() || e != p.m.list[i].Entry {
			p.t.Fatalf("entry %d: %d %+v, the model says %d %+v", i, id, e, p.m.list[i].id(), p.m.list[i].Entry)
		}
		i++
	})
}

// [MQTT-2.2.1-4], [MQTT-4.9.0-1], [MQTT-4.9.0-2]: whatever happens in whatever
// order, the window does what the model does.
func TestTheWindowDoesWhatTheModelDoes(t *testing.T) {
	for seed := range int64(60) {
		r := rand.New(rand.NewSource(seed))
		p := &pair{t: t, w: new(Window), m: &model{limit: 1 + r.Intn(30)}}
		p.w.SetLimit(p.m.limit)
		if seed%3 == 0 { // near the end of the identifiers
			n := 65500 + r.Intn(40)
			e := Entry{Pos: 1, QoS: 1}
			p.w.Restore(uint16(n%65535)+1, e)
			p.m.list, p.m.next = []modelEntry{{n: n % 65535, Entry: e}}, n%65535+1
		}
		for range 4000 {
			id := uint16(r.Intn(65536))
			if n := len(p.m.list); n > 0 && r.Intn(10) > 0 {
				id = p.m.list[r.Intn(n)].id()
			}
			switch op := r.Intn(100); {
			case op < 40:
				if p.m.resend() < 0 && p.m.free() > 0 {
					p.add(r)
				}
			case op < 55:
				p.acknowledged(id, byte(1+r.Intn(2)))
			case op < 70:
				p.received(id)
			case op < 80:
				p.completed(id)
			case op < 82:
				p.drop(id)
			case op < 98:
				p.resend()
			default:
				p.reconnect(1 + r.Intn(30))
			}
			p.compare()
		}
	}
}

func TestTheOldestUnacknowledgedIdentifierIsNotUsedAgain(t *testing.T) { // [MQTT-2.2.1-4]
	var w Window
	w.SetLimit(100)
	first := w.Add(1, 1, false)
	for range 65534 {
		if w.Free() == 0 {
			t.Fatal("no room before the identifiers have been around")
		}
		id := w.Add(2, 1, false)
		if id == first || id == 0 || !w.Acknowledged(id, 1) {
			t.Fatalf("identifier %d", id)
		}
	}
	if w.Free() != 0 {
		t.Fatal("the identifier of the oldest would be used again")
	}
	w.Acknowledged(first, 1)
	if w.Free() != 100 || w.Len() != 0 {
		t.Fatalf("free %d, len %d", w.Free(), w.Len())
	}
}

func TestATaggedMessageIsUnloggedUntilItIsLogged(t *testing.T) {
	var w Window
	w.SetLimit(10)
	a, b := w.AddTagged(7, 2, 3), w.Add(8, 1, false)
	list := func() (out []Entry) {
		w.Each(func(id uint16, e Entry) { e.sent = false; out = append(out, e) })
		return out
	}
	if got := list(); !slices.Equal(got, []Entry{{Pos: 7, QoS: 2, Tag: 3, Unlogged: true}, {Pos: 8, QoS: 1}}) {
		t.Fatalf("%+v", got)
	}
	w.Logged(a)
	w.Logged(b + 1) // nothing
	if got := list(); !slices.Equal(got, []Entry{{Pos: 7, QoS: 2, Tag: 3}, {Pos: 8, QoS: 1}}) {
		t.Fatalf("%+v", got)
	}
	w.Drop(a)
	w.Logged(a)
	if w.Len() != 1 || w.Free() != 9 {
		t.Fatalf("len %d, free %d", w.Len(), w.Free())
	}
}

func TestInboundIsASet(t *testing.T) {
	var s Inbound
	m := make(map[uint16]bool)
	r := rand.New(rand.NewSource(1))
	for range 20_000 {
		id := uint16(1 + r.Intn(300)*218)
		if r.Intn(2) == 0 {
			if s.Add(id) == m[id] {
				t.Fatalf("Add(%d)", id)
			}
			m[id] = true
		} else {
			if s.Remove(id) != m[id] {
				t.Fatalf("Remove(%d)", id)
			}
			delete(m, id)
		}
		if s.Has(id) != m[id] || s.Len() != len(m) {
			t.Fatalf("Has(%d), Len %d", id, s.Len())
		}
	}
	list := s.List()
	if len(list) != len(m) || !slices.IsSorted(list) {
		t.Fatalf("List %v", list)
	}
	for _, id := range list {
		if !m[id] {
			t.Fatalf("List has %d", id)
		}
	}
}

// A list that Each has not given does not break anything.
func TestRestoringRubbishIsHarmless(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for range 200 {
		var w Window
		w.SetLimit(10)
		for range r.Intn(20) {
			w.Restore(uint16(r.Intn(65536)), Entry{QoS: byte(1 + r.Intn(2)), Received: r.Intn(2) == 0})
		}
		n := 0
		w.Each(func(id uint16, e Entry) { n++ })
		if n != w.Len() || w.tail-w.head > maxID {
			t.Fatalf("%d entries, Len %d, span %d", n, w.Len(), w.tail-w.head)
		}
		for w.CanResend() {
			id, _ := w.NextResend()
			w.Drop(id)
		}
		if w.Unsent() || w.Len() != 0 {
			t.Fatalf("%d are left", w.Len())
		}
	}
}
