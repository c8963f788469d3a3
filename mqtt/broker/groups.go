package broker

import (
	"slices"
	"sync"

	"cairnmq/storage"
)

// groups are the shared subscriptions that have members online. mu serialises
// everything that makes a session a member or ends that; it is taken before
// the view. The log is appended to under it, and never waited for.
type groups struct {
	b    *Broker
	mu   sync.Mutex
	live map[string]*group
}

func newGroups(b *Broker) *groups { return &groups{b: b, live: make(map[string]*group)} }

// take returns the group of a name, in memory, and busy with it. It is made if
// need be.
func (t *groups) take(name string) (*group, error) {
	g := t.live[name]
	if g == nil {
		row, ok, err := t.b.log.LoadGroup(name)
		if err != nil {
			return nil, err
		}
		g = newGroup(t.b, name)
		if ok {
			g.restore(row)
		} else {
			g.fresh = true
			g.next = t.b.log.Routed()
			g.readPos = g.next
		}
		t.live[name] = g
		t.b.log.AttachGroup(name, g)
	}
	g.acquire()
	return g, nil
}

// leave ends take. A group without members online goes to the index, or away
// if it has no members at all.
func (t *groups) leave(g *group) {
	if len(g.members) > 0 {
		g.release()
		return
	}
	b := t.b
	if g.routed {
		cursor := t.unroute(g)
		g.begin()
		if _, _, err := b.log.AppendEvents(storage.EventGroup(g.name, false, cursor)); err != nil {
			g.log.Warn("cannot write down where a shared subscription stands", "error", err)
		}
		g.end()
		g.log.Debug("no member of the shared subscription is connected", "members", len(g.row.Members))
	}
	g.mu.Lock()
	row := g.rowLocked(0)
	row.Online = false
	g.ended = true
	g.mu.Unlock()
	if err := b.log.StoreGroup(row); err != nil {
		g.log.Error("cannot store a shared subscription", "error", err)
	}
	g.reader.Release()
	delete(t.live, g.name)
	g.release()
}

// route makes the router hand messages to a group.
func (t *groups) route(g *group) {
	g.routed = true
	t.b.log.WithView(func(pos storage.Pos) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.fresh {
			g.next, g.readPos, g.fresh = pos, pos, false
		}
		if g.next >= pos {
			g.mode = live
		}
		t.b.router.groups.Set(g.filter, g, struct{}{})
		t.b.router.changed()
	})
}

// unroute ends that and returns where the group stands: from there on it will
// have to read.
func (t *groups) unroute(g *group) (cursor storage.Pos) {
	g.routed = false
	t.b.log.WithView(func(pos storage.Pos) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.mode == live {
			g.mode, g.readPos = catching, pos
		}
		cursor = g.cursorLocked(0)
		t.b.router.groups.Delete(g.filter, g)
		t.b.router.changed()
	})
	return cursor
}

// subscribe adds subscriptions to a session, some of which are shared: into
// the log, then under the view, as without groups. It returns the end of what
// was appended, which meets its class later.
func (t *groups) subscribe(s *session, subs []storage.Sub) (end storage.Pos, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := make(map[string]*group)
	defer func() {
		for _, g := range taken {
			t.leave(g)
		}
	}()
	for i := range subs {
		if name := subs[i].Filter; subs[i].Shared() && taken[name] == nil {
			g, err := t.take(name)
			if err != nil {
				return 0, err
			}
			taken[name] = g
		}
	}
	s.mu.Lock()
	events := s.joinEventsLocked(subs)
	s.beginAppendLocked()
	s.mu.Unlock()
	defer s.endAppend()
	for _, g := range taken {
		g.begin()
		defer g.end()
	}
	if _, end, err = t.b.log.AppendEvents(events...); err != nil {
		return 0, err
	}
	t.b.log.WithView(func(pos storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range subs {
			if g := taken[subs[i].Filter]; g != nil {
				s.shares.set(s, subs[i])
			} else {
				s.addSubLocked(subs[i], pos)
			}
		}
		s.memo = nil
		s.subsGen++
	})
	for _, g := range taken {
		t.join(g, s)
	}
	return end, nil
}

// joinEventsLocked are the events of new subscriptions. A session that is a
// member of a group is in the log even if it ends with its connection: the log
// must know what it has of the group's messages.
func (s *session) joinEventsLocked(subs []storage.Sub) []storage.Event {
	if s.logged {
		return []storage.Event{storage.EventSubscribed(s.id, subs)}
	}
	s.logged = true
	all := slices.Concat(s.subListLocked(), subs)
	return []storage.Event{
		storage.EventOpened(s.id, uint8(s.version), true, s.expiry, s.will, s.cursorLocked(s.next)),
		storage.EventSubscribed(s.id, all),
	}
}

// join makes a session, which has the subscription, a member that gets
// messages. The caller is busy with the group.
func (t *groups) join(g *group, s *session) {
	s.mu.Lock()
	m := s.shares.all[g.name]
	old := m.g != nil
	if !old {
		m.g, m.tag = g, s.shares.tagOf(g.name, &s.win)
		s.shares.joined = append(s.shares.joined, m)
	}
	s.mu.Unlock()
	if old {
		return // subscribed again
	}
	g.members = append(g.members, m)
	g.mu.Lock()
	g.row.Join(s.id)
	g.mu.Unlock()
	if g.routed {
		return
	}
	t.route(g)
	g.log.Debug("the shared subscription has a member connected", "pos", g.next, "waiting", len(g.open))
}

// resume makes a session a member of the groups that it has subscribed to in
// an earlier connection.
func (t *groups) resume(s *session) {
	if len(s.shares.all) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, m := range s.shares.all {
		g, err := t.take(name)
		if err != nil {
			s.log.Error("cannot read a shared subscription", "filter", name, "error", err)
			continue
		}
		if err := t.sayJoined(g, m); err != nil {
			s.log.Warn("cannot write down that a shared subscription has members", "filter", name, "error", err)
		}
		t.join(g, s)
		t.leave(g)
	}
}

// sayJoined writes down what the log does not know about a member that comes
// back.
func (t *groups) sayJoined(g *group, m *member) error {
	var events []storage.Event
	if !g.row.IsMember(m.s.id) { // the group's row was lost
		events = append(events, storage.EventSubscribed(m.s.id, []storage.Sub{m.sub}))
	}
	if !g.routed {
		events = append(events, storage.EventGroup(g.name, true, g.next))
	}
	if len(events) == 0 {
		return nil
	}
	g.begin()
	defer g.end()
	_, _, err := t.b.log.AppendEvents(events...)
	return err
}

// depart takes a session whose connection is over out of its groups. What it
// was granted and was not sent goes to others; what was sent stays with it
// [MQTT-4.8.2-4].
func (t *groups) depart(s *session) {
	for len(s.shares.joined) > 0 {
		m := s.shares.joined[0]
		g := m.g
		t.mu.Lock()
		g.acquire()
		if err := t.part(m); err != nil {
			s.log.Warn("messages of a shared subscription stay with a client that has not had them", "filter", g.name, "error", err)
		}
		t.leave(g)
		t.mu.Unlock()
	}
}

// part ends what join began; the caller is busy with the group.
func (t *groups) part(m *member, more ...storage.Event) error {
	g, s := m.g, m.s
	g.members = slices.DeleteFunc(g.members, func(x *member) bool { return x == m })
	g.pick.left(m)
	list, positions := m.takeUnsent()
	events := more
	if len(list) > 0 {
		events = append([]storage.Event{storage.EventReturned(s.id, g.name, list)}, more...)
	}
	var err error
	if len(events) > 0 {
		s.mu.Lock()
		s.beginAppendLocked()
		s.mu.Unlock()
		defer s.endAppend()
		g.begin()
		defer g.end()
		_, _, err = t.b.log.AppendEvents(events...)
	}
	s.mu.Lock()
	s.shares.joined = slices.DeleteFunc(s.shares.joined, func(x *member) bool { return x == m })
	m.g = nil
	if err == nil {
		for _, f := range list {
			s.win.Drop(f.ID)
		}
	}
	s.mu.Unlock()
	if err == nil {
		g.giveBack(positions)
	}
	return err
}

// takeUnsent is what the member was granted and was not sent, of which nothing
// is sent any more: what has an identifier, and the positions of all.
func (m *member) takeUnsent() (list []storage.Inflight, positions []storage.Pos) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	for m.s.shares.sending {
		m.s.cond.Wait()
	}
	defer func() { m.dealt.drop(m.dealt.len()) }()
	for i := range m.dealt.len() {
		e := m.dealt.at(i)
		positions = append(positions, e.pos)
		if e.id != 0 {
			list = append(list, storage.Inflight{ID: e.id, Pos: e.pos, QoS: e.qos})
		}
	}
	return list, positions
}

// unsubscribe ends shared subscriptions, among the filters of an UNSUBSCRIBE.
// What has been sent is completed [MQTT-3.10.4-3]; the rest goes to others.
func (t *groups) unsubscribe(s *session, filters []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range filters {
		m := s.shares.all[name]
		if m == nil || m.g == nil {
			continue
		}
		g := m.g
		g.acquire()
		err := t.part(m, storage.EventUnsubscribed(s.id, []string{name}))
		if err == nil {
			g.mu.Lock()
			g.row.Leave(s.id)
			g.dirty = true
			g.mu.Unlock()
			s.mu.Lock()
			delete(s.shares.all, name)
			s.mu.Unlock()
		}
		t.leave(g)
		if err != nil {
			return err
		}
	}
	return nil
}

// end takes a session that is about to end out of its groups. Messages of QoS
// 1 that it has not acknowledged go to others; those of QoS 2 that were being
// sent to it go to nobody [MQTT-4.8.2-5].
func (t *groups) end(row *storage.SessionRow) error {
	returned := make(map[string][]storage.Inflight)
	for _, f := range row.Inflight {
		if f.Group != "" && f.QoS == 1 {
			returned[f.Group] = append(returned[f.Group], f)
		}
	}
	for i := range row.Subs {
		if x := &row.Subs[i]; x.Shared() && returned[x.Filter] == nil {
			returned[x.Filter] = nil
		}
	}
	for name, list := range returned {
		if err := t.endOf(row, name, list); err != nil {
			return err
		}
	}
	return nil
}

func (t *groups) endOf(row *storage.SessionRow, name string, list []storage.Inflight) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, err := t.take(name)
	if err != nil {
		return err
	}
	defer t.leave(g)
	var events []storage.Event
	if len(list) > 0 {
		events = append(events, storage.EventReturned(row.ID, name, list))
	}
	if row.FindSub(name) != nil {
		events = append(events, storage.EventUnsubscribed(row.ID, []string{name}))
	}
	g.begin()
	defer g.end()
	if _, _, err := t.b.log.AppendEvents(events...); err != nil {
		return err
	}
	var positions []storage.Pos
	for _, f := range list {
		positions = append(positions, f.Pos)
	}
	g.giveBack(positions)
	g.mu.Lock()
	g.row.Leave(row.ID)
	g.mu.Unlock()
	return nil
}

// retry deals where an error has stopped it.
func (t *groups) retry() {
	t.mu.Lock()
	var list []*group
	for _, g := range t.live {
		g.mu.Lock()
		if g.stalled {
			list = append(list, g)
		}
		g.mu.Unlock()
	}
	t.mu.Unlock()
	for _, g := range list {
		g.kick(false)
	}
}
