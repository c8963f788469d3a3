package broker

import (
	"sync"
	"sync/atomic"

	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// subscription is one filter of one open session, as the router needs it.
type subscription struct {
	storage.Sub
	match *match
}

// match is what delivering a message through a session's subscriptions means:
// the result of all filters that match a topic. It is immutable and shared.
type match struct {
	qos uint8 // highest granted among them [MQTT-3.3.4-2], [MQTT311-3.3.5-1]
	rap bool  // retain as published
	ids []uint32
}

func newMatch(s *storage.Sub) *match {
	m := &match{qos: s.QoS, rap: s.RetainAsPublished}
	if s.ID != 0 {
		m.ids = []uint32{s.ID}
	}
	return m
}

// merge adds an overlapping subscription [MQTT-3.3.4-3].
func (m *match) merge(s *storage.Sub) *match {
	if m == nil {
		return newMatch(s)
	}
	c := &match{qos: max(m.qos, s.QoS), rap: m.rap || s.RetainAsPublished, ids: m.ids}
	if s.ID != 0 {
		c.ids = append(append([]uint32(nil), m.ids...), s.ID)
	}
	return c
}

// target is a session that wants a topic. own is what it wants of its own
// messages: without the subscriptions that have No Local.
type target struct {
	s        *session
	all, own *match
}

// route is the memo of a topic: who wants it. It holds as long as no
// subscription has changed.
type route struct {
	gen     uint64
	targets []target
	groups  []*group
}

// size counts for memoLimit.
func (rt *route) size() int { return len(rt.targets) + len(rt.groups) + 1 }

// memoLimit bounds the targets that memos hold together. Beyond it they are
// all forgotten and made again when needed.
const memoLimit = 1 << 20

// router hands committed messages to the sessions that are open. Its state
// belongs to the view of the log: it is only touched under it.
type router struct {
	log  *storage.Log
	trie *topic.Trie[*session, *subscription]
	// groups are the shared subscriptions with members online.
	groups *topic.Trie[*group, struct{}]
	gen    uint64
	// memo are the topics that hold a route, of this generation or an older
	// one, and memoSize the targets in them.
	memo     []*storage.Topic
	memoSize int

	// These have staged entries in this batch.
	dirty       []*session
	dirtyGroups []*group

	// handed is the position up to which entries are in the outboxes; also
	// for those who do not hold the view.
	handed atomic.Uint64
}

func newRouter(l *storage.Log) *router {
	r := &router{log: l, trie: topic.NewTrie[*session, *subscription](), groups: topic.NewTrie[*group, struct{}](), gen: 1}
	r.handed.Store(uint64(l.Routed()))
	return r
}

func (r *router) handedOut() storage.Pos { return storage.Pos(r.handed.Load()) }

// Route implements storage.Sink.
func (r *router) Route(rec *storage.Record, msg *storage.MessageView, t *storage.Topic) {
	rt, ok := t.Route.(*route)
	if !ok || rt.gen != r.gen {
		rt = r.resolve(t)
	}
	qos := rec.Flags & storage.FlagQoS
	for i := range rt.targets {
		x := &rt.targets[i]
		m := x.all
		if x.own != x.all && string(msg.Publisher) == x.s.id {
			if m = x.own; m == nil {
				continue // [MQTT-3.8.3-3]
			}
		}
		if len(x.s.staged) == 0 {
			r.dirty = append(r.dirty, x.s)
		}
		x.s.staged = append(x.s.staged, entry{pos: rec.Pos, match: m, qos: min(qos, m.qos)})
	}
	for _, g := range rt.groups {
		if len(g.staged) == 0 {
			r.dirtyGroups = append(r.dirtyGroups, g)
		}
		g.staged = append(g.staged, g.entryOf(rec, msg))
	}
}

// resolve asks the trie who wants a topic, and keeps the answer.
func (r *router) resolve(t *storage.Topic) *route {
	rt := &route{gen: r.gen}
	at := make(map[*session]int)
	r.trie.Match(t.Name, func(s *session, sub *subscription) { // [MQTT-3.3.2-3], [MQTT311-3.3.2-3]
		i, ok := at[s]
		if !ok {
			i = len(rt.targets)
			at[s] = i
			rt.targets = append(rt.targets, target{s: s})
		}
		x := &rt.targets[i]
		x.addSub(sub)
	})
	r.groups.Match(t.Name, func(g *group, _ struct{}) { rt.groups = append(rt.groups, g) })
	if old, ok := t.Route.(*route); ok {
		r.memoSize -= old.size()
	} else {
		r.memo = append(r.memo, t)
	}
	t.Route = rt
	if r.memoSize += rt.size(); r.memoSize > memoLimit {
		r.forget()
	}
	return rt
}

func (x *target) addSub(sub *subscription) {
	same := x.own == x.all
	if x.all == nil {
		x.all = sub.match
	} else {
		x.all = x.all.merge(&sub.Sub)
	}
	switch {
	case same && !sub.NoLocal:
		x.own = x.all
	case sub.NoLocal:
		// own stays
	case x.own == nil:
		x.own = sub.match
	default:
		x.own = x.own.merge(&sub.Sub)
	}
}

// NewSegment implements storage.SegmentSink: the topics of the old segment
// are let go, and with them their memos.
func (r *router) NewSegment() {
	clear(r.memo)
	r.memo, r.memoSize = r.memo[:0], 0
}

// changed says that subscriptions have changed: memos hold no longer.
func (r *router) changed() {
	r.gen++
}

// forget drops all memos, so that they take no memory.
func (r *router) forget() {
	for _, t := range r.memo {
		t.Route = nil
	}
	r.NewSegment()
}

// Batch implements storage.Sink: staged entries go to the outboxes, and the
// sessions are woken once the view is free.
func (r *router) Batch() storage.Flusher {
	defer r.handed.Store(uint64(r.log.Routed()))
	if len(r.dirty)+len(r.dirtyGroups) == 0 {
		return nil
	}
	w := wakeups.Get().(*wakeup)
	for i, s := range r.dirty {
		if s.takeStaged() {
			w.sessions = append(w.sessions, s)
		}
		r.dirty[i] = nil
	}
	r.dirty = r.dirty[:0]
	for i, g := range r.dirtyGroups {
		if g.takeStaged() {
			w.groups = append(w.groups, g)
		}
		r.dirtyGroups[i] = nil
	}
	r.dirtyGroups = r.dirtyGroups[:0]
	return w
}

// wakeups are shared by all routers: a Flusher ends without the view, so it
// cannot go back into a list that belongs to the view.
var wakeups = sync.Pool{New: func() any { return new(wakeup) }}

// wakeup is the sessions and groups that a batch of messages has given work to.
type wakeup struct {
	sessions []*session
	groups   []*group
}

// inlineFlushes is how many sessions the goroutine that routed serves itself,
// which saves the switch to another one. More are worth spreading over the
// processors.
const inlineFlushes = 2

// Flush implements storage.Flusher.
func (w *wakeup) Flush() {
	inline := len(w.sessions) <= inlineFlushes
	for i, s := range w.sessions {
		s.kick(inline)
		w.sessions[i] = nil
	}
	w.sessions = w.sessions[:0]
	for i, g := range w.groups {
		g.kick(len(w.groups) <= inlineFlushes)
		w.groups[i] = nil
	}
	w.groups = w.groups[:0]
	wakeups.Put(w)
}
