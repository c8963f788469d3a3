package broker

import (
	"encoding/binary"
	"slices"

	proto "cairnmq/mqtt/session"
	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// shares is a session's part in groups. It is guarded by session.mu; the
// connection's goroutine alone changes it, and reads it without.
type shares struct {
	all    map[string]*member // shared subscriptions by filter
	joined []*member          // those that are members of their groups by now
	turn   int                // which of them is served next
	// sending: the flusher is reading what was dealt to one of them, so that
	// it is on its way. session.cond tells of the end.
	sending bool
	own     bool     // the session's own messages were served last
	tags    []string // the groups of messages in the window: tag - 1
}

// set adds or replaces a shared subscription.
func (x *shares) set(s *session, sub storage.Sub) {
	if m := x.all[sub.Filter]; m != nil {
		m.sub, m.match = sub, newMatch(&sub)
		return
	}
	if x.all == nil {
		x.all = make(map[string]*member)
	}
	x.all[sub.Filter] = newMember(s, sub)
}

// restore brings in what is stored about a session: its shared subscriptions,
// and the tag of a message in flight.
func (x *shares) restore(s *session, sub storage.Sub) bool {
	if !sub.Shared() {
		return false
	}
	if _, _, err := topic.ParseShared(sub.Filter); err == nil {
		x.set(s, sub)
	}
	return true
}

// tagOf is the mark of a group's messages in the window, zero for none.
func (x *shares) tagOf(name string, win *proto.Window) proto.Tag {
	if name == "" {
		return 0
	}
	i := slices.Index(x.tags, name)
	if i < 0 {
		x.forgetTags(win)
		if i = slices.Index(x.tags, ""); i < 0 {
			i = len(x.tags)
			x.tags = append(x.tags, "")
		}
		x.tags[i] = name
	}
	return proto.Tag(i + 1)
}

// forgetTags lets go of the groups that the session has left, once nothing of
// theirs is in flight.
func (x *shares) forgetTags(win *proto.Window) {
	used := make([]bool, len(x.tags)+1)
	win.Each(func(_ uint16, e proto.Entry) { used[e.Tag] = true })
	for i, name := range x.tags {
		if m := x.all[name]; !used[i+1] && (m == nil || m.g == nil) {
			x.tags[i] = ""
		}
	}
}

func (x *shares) group(tag proto.Tag) string {
	if tag == 0 {
		return ""
	}
	return x.tags[tag-1]
}

// match is what the subscription makes of a group's message that is sent
// again; nothing if there is none any more [MQTT-3.10.4-3].
func (x *shares) match(tag proto.Tag) *match {
	if m := x.all[x.group(tag)]; m != nil {
		return m.match
	}
	return nil
}

// dealt reports whether a group has messages for this session.
func (x *shares) dealt() bool {
	for _, m := range x.joined {
		if m.dealt.len() > 0 {
			return true
		}
	}
	return false
}

// next is the member whose messages go out now. With messages of the session's
// own they take turns.
func (x *shares) next(own bool) *member {
	if own && !x.own {
		x.own = x.dealt()
		if x.own {
			return nil
		}
	}
	x.own = false
	for range x.joined {
		x.turn++
		if m := x.joined[x.turn%len(x.joined)]; m.dealt.len() > 0 {
			return m
		}
	}
	return nil
}

// nextDealtLocked reports whether messages of a group go out now, and whose.
func (s *session) nextDealtLocked(m **member) bool {
	*m = s.shares.next(s.hasOwnLocked())
	return *m != nil
}

// peekDealtLocked copies what goes out next to w.list. It has its identifiers
// already.
func (s *session) peekDealtLocked(w *work, m *member) int {
	s.shares.sending = true
	n := min(m.dealt.len(), flushBatch)
	for i := range n {
		e := *m.dealt.at(i)
		e.match = m.match
		w.list[i] = delivery{entry: e}
	}
	return n
}

// sendDealt reads and encodes the first n deliveries of w.list, which are the
// first that were dealt to m.
func (s *session) sendDealt(w *work, m *member, n int, inline bool) (stepResult, error) {
	used, err := s.read(w, w.list[:n], inline)
	room := false
	s.mu.Lock()
	s.shares.sending = false
	s.cond.Broadcast()
	if err != nil || used == 0 && len(w.buf) == 0 {
		s.mu.Unlock()
		return stepSlow, err
	}
	g := m.g
	m.dealt.drop(used)
	for i := range used {
		x := &w.list[i]
		switch {
		case x.id == 0:
			room = true
		case x.qos == skip:
			s.win.Drop(x.id)
			s.noteAckLocked(x.id, true)
			room = true
		default:
			binary.BigEndian.PutUint16(w.buf[x.idAt:], x.id)
		}
	}
	s.mu.Unlock()
	if room {
		g.madeRoom(false)
	}
	return stepWrite, s.writeLarge(w)
}

// madeRoom tells the groups that the session takes messages again. The
// connection's goroutine calls it.
func (s *session) madeRoom() {
	for _, m := range s.shares.joined {
		m.g.madeRoom(true)
	}
}

func (g *group) madeRoom(inline bool) {
	if g.waiting.Load() {
		g.kick(inline)
	}
}

// resentAll tells the groups that nothing of an earlier connection is to be
// sent again any more. The flusher calls it.
func (s *session) resentAll() {
	var list []*group
	s.mu.Lock()
	for _, m := range s.shares.joined {
		list = append(list, m.g)
	}
	s.mu.Unlock()
	for _, g := range list {
		g.madeRoom(false)
	}
}

// subListLocked are all subscriptions.
func (s *session) subListLocked() []storage.Sub {
	var list []storage.Sub
	for _, sub := range s.subs {
		list = append(list, sub.Sub)
	}
	for _, m := range s.shares.all {
		list = append(list, m.sub)
	}
	return list
}
