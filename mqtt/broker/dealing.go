package broker

import (
	"math"

	"cairnmq/mqtt/config"

	"cairnmq/storage"
)

// dealing is a round of dealing: who gets what of the messages at hand. The
// slices are used again.
type dealing struct {
	peek    []entry // the first of out
	taken   int     // of them are dealt or held
	looked  int     // open messages that were looked at
	kept    []entry // of those, the ones that go on waiting
	held    []entry // taken ones that wait for their member from now on
	touched []*member

	dealt     []storage.Dealt
	positions []storage.Pos
	event     []byte
}

// kick sees to it that the group deals, if there is something. With inline,
// this goroutine does it as long as that takes no reading and no sync.
func (g *group) kick(inline bool) {
	g.mu.Lock()
	if g.busy || g.ended {
		g.again = true
		g.mu.Unlock()
		return
	}
	if g.out.len() == 0 && len(g.open) == 0 && g.mode == live {
		g.mu.Unlock()
		return
	}
	g.busy = true
	inline = inline && g.inlineLocked()
	g.mu.Unlock()
	if inline {
		g.deal(true)
		return
	}
	go g.deal(false)
}

func (g *group) inlineLocked() bool {
	return g.mode == live && len(g.open) == 0 && !g.b.syncedSessions
}

// deal goes on until there is nothing left or nobody takes it. Its caller is
// busy with the group, and no longer is afterwards.
func (g *group) deal(inline bool) {
	for n := 0; ; n++ {
		if inline {
			g.mu.Lock()
			inline = n < inlineRounds && g.inlineLocked()
			g.mu.Unlock()
			if !inline {
				go g.deal(false)
				return
			}
		}
		moved, err := g.dealRound(inline)
		if err != nil {
			g.stall(err)
			return
		}
		if g.rest(moved) {
			return
		}
	}
}

// rest decides whether dealing has come to its end for now.
func (g *group) rest(moved bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := g.out.len()+len(g.open) > 0
	switch {
	case g.wanted > 0:
		// whoever is busy next goes on with it
	case moved || g.again:
		g.again = false
		return false
	case left && !g.waiting.Load():
		g.waiting.Store(true) // from here on whoever makes room says so
		return false          // and who has made some a moment ago, did not
	}
	if !left {
		g.waiting.Store(false)
	}
	g.reader.Release()
	g.busy = false
	g.cond.Broadcast()
	return true
}

// stall ends dealing after an error. Nothing is lost: what was not dealt is
// where it was.
func (g *group) stall(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stalled {
		g.log.Warn("cannot deal out messages of a shared subscription; trying again", "error", err)
	}
	g.stalled = true
	g.reader.Release()
	g.busy = false
	g.cond.Broadcast()
}

// dealRound is one turn: choose, write down, hand over. It reports whether
// anything was done.
func (g *group) dealRound(inline bool) (moved bool, err error) {
	if len(g.members) == 0 {
		return false, nil
	}
	if moved, err = g.fill(); err != nil {
		return false, err
	}
	g.choose()
	r := &g.round
	if r.taken == 0 && len(r.kept) == r.looked {
		return moved, nil
	}
	if err := g.writeDown(); err != nil {
		for _, m := range r.touched {
			m.takeBack()
		}
		return false, err
	}
	inline = inline && len(r.touched) <= inlineFlushes
	for _, m := range r.touched {
		m.handOver()
		m.s.kick(inline)
	}
	return true, nil
}

// choose finds members for open messages, and then for those behind the
// cursor. What belongs to a member that is full does not hold up the others:
// it goes aside, up to a limit.
func (g *group) choose() {
	r := &g.round
	r.taken, r.looked = 0, 0
	r.kept, r.held, r.touched = r.kept[:0], r.held[:0], r.touched[:0]
	for _, m := range g.members {
		m.newRound()
	}
	patient := g.pick.patient()
	for left := flushBatch; r.looked < len(g.open); r.looked++ {
		e := g.open[r.looked]
		if left == 0 || e.qos == unread {
			return
		}
		if g.place(e) {
			left--
			continue
		}
		if !patient {
			return
		}
		r.kept = append(r.kept, e)
	}
	g.mu.Lock()
	r.peek = r.peek[:0]
	for i := range min(g.out.len(), flushBatch) {
		r.peek = append(r.peek, *g.out.at(i))
	}
	g.mu.Unlock()
	for _, e := range r.peek {
		if !g.place(e) {
			if !patient || len(r.kept)+len(r.held) >= g.b.outboxLimit {
				return
			}
			r.held = append(r.held, e)
		}
		r.taken++
	}
}

// place gives a message to a member. It reports false if it has to wait.
func (g *group) place(e entry) bool {
	for {
		m := g.pick.pick(g.members, e.hash)
		if m == nil {
			return false
		}
		first := len(m.batch) == 0
		if !m.grant(e, g.row.SkipQoS0) {
			m.full = true
			continue
		}
		if first && len(m.batch) > 0 {
			g.round.touched = append(g.round.touched, m)
		}
		return true
	}
}

// writeDown puts what was chosen into the log, and then makes it so.
func (g *group) writeDown() error {
	r := &g.round
	next := g.next
	if r.taken > 0 {
		next = r.peek[r.taken-1].pos + 1
	}
	event, log := g.dealtEvent(next)
	if log {
		g.begin()
		if err := g.b.appendEvents(event); err != nil {
			g.end()
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = next
	g.out.drop(r.taken)
	if rest := g.open[r.looked:]; len(r.kept)+len(r.held) == 0 {
		g.open = rest
	} else {
		list := append(r.kept, rest...)
		r.kept = g.open[:0]
		g.open = append(list, r.held...)
	}
	if len(g.open) == 0 {
		g.open = nil
	}
	g.stalled = false
	g.dirty = true
	if log {
		g.endLocked()
	}
	return nil
}

// dealtEvent is the record of the round. Nothing is written down about
// messages of QoS 0 alone: they are delivered at most once.
func (g *group) dealtEvent(next storage.Pos) (storage.Event, bool) {
	r := &g.round
	r.dealt, r.positions = r.dealt[:0], r.positions[:0]
	for _, m := range r.touched {
		m.list = m.list[:0]
		for _, e := range m.batch {
			if e.id != 0 {
				m.list = append(m.list, storage.Inflight{ID: e.id, Pos: e.pos, QoS: e.qos})
			}
		}
		if len(m.list) > 0 {
			r.dealt = append(r.dealt, storage.Dealt{ID: m.s.id, List: m.list})
		}
	}
	for _, e := range r.held {
		r.positions = append(r.positions, e.pos)
	}
	if len(r.dealt)+len(r.positions) == 0 {
		return storage.Event{}, false
	}
	e := storage.EventDealt(r.event[:0], g.name, next, r.positions, r.dealt)
	r.event = e.Body
	return e, true
}

// member is a client's part in a group, while it is connected: one shared
// subscription.
type member struct {
	g   *group // nil until the session has joined
	s   *session
	key uint64 // of the client id

	// session.mu guards these.
	sub   storage.Sub
	match *match
	tag   uint16 // of the group's messages in the window
	dealt outbox // written down, and not yet on their way

	// These belong to whoever is busy with the group.
	full  bool
	load  int
	batch []entry // granted in this round
	list  []storage.Inflight
	begun bool // session.beginAppendLocked was called
}

func newMember(s *session, sub storage.Sub) *member {
	return &member{s: s, key: mix(uint64(hashOf(s.id))), sub: sub, match: newMatch(&sub)}
}

// queueLimit is how many messages of QoS 0 wait for one member.
const queueLimit = 1024

// newRound forgets who was full.
func (m *member) newRound() {
	m.full = false
	if m.g.pick.strategy == config.LeastInflight {
		m.s.mu.Lock()
		m.load = m.s.win.Len() + m.dealt.len()
		m.s.mu.Unlock()
	}
}

// grant gives a message its place with the session. It reports false if the
// session cannot send it at once. A message of QoS 0 before skipQoS0 goes to
// nobody: it may have been delivered.
func (m *member) grant(e entry, skipQoS0 storage.Pos) bool {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.farewell {
		return false
	}
	e.qos = min(e.qos, m.match.qos) // [MQTT-4.8.2-3]
	switch {
	case e.qos == 0 && e.pos < skipQoS0:
		return true
	case e.qos == 0:
		if m.dealt.len()+len(m.batch) >= queueLimit {
			return false
		}
	default:
		// What an earlier connection left unsent has the first claim to room.
		if s.win.Free() == 0 || s.win.Unsent() {
			return false
		}
		e.id = s.win.AddTagged(uint64(e.pos), e.qos, m.tag)
		if !m.begun {
			m.begun = true
			s.beginAppendLocked()
		}
	}
	m.load++
	m.batch = append(m.batch, e)
	return true
}

// handOver lets the session send what it was granted.
func (m *member) handOver() {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range m.batch {
		if id := m.batch[i].id; id != 0 {
			s.win.Logged(id)
		}
	}
	m.dealt.putAll(m.batch, math.MaxInt)
	m.endLocked()
}

// takeBack undoes grants.
func (m *member) takeBack() {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range m.batch {
		if id := m.batch[i].id; id != 0 {
			s.win.Drop(id)
		}
	}
	m.endLocked()
}

func (m *member) endLocked() {
	m.batch = m.batch[:0]
	if m.begun {
		m.begun = false
		m.s.appending--
		m.s.dirty = true
	}
}
