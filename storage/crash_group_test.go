package storage

import (
	"fmt"
	"maps"
	"slices"
)

const crashGroup = "$share/g/x/#" // none of the script's topics

// groupState is what a group is, by a model that knows nothing of GroupRow's
// apply.
type groupState struct {
	members map[string]bool
	open    map[Pos]bool
	next    Pos
}

func newGroupState() groupState { return groupState{map[string]bool{}, map[Pos]bool{}, 0} }

func (s groupState) clone() groupState {
	return groupState{maps.Clone(s.members), maps.Clone(s.open), s.next}
}

func (s groupState) String() string {
	return fmt.Sprintf("members %v open %v next %d", s.members, s.open, s.next)
}

func groupStateOf(row *GroupRow) groupState {
	s := newGroupState()
	if row == nil {
		return s
	}
	s.next = row.Next
	for _, id := range row.Members {
		s.members[id] = true
	}
	for _, p := range row.Open {
		s.open[p] = true
	}
	return s
}

// crew is the script's group, of which the client "sub" is a member: its
// acknowledged state, and the one that an event under way leads to.
type crew struct {
	w          *world
	now, after groupState
	pending    bool
	from       Pos
}

// SnapshotGroup implements GroupSource.
func (g *crew) SnapshotGroup(bool) *GroupRow {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	row := &GroupRow{Name: crashGroup, Online: true, Next: g.now.next, AsOf: g.w.log.Head()}
	if g.pending {
		row.AsOf = g.from
	}
	row.Members = slices.Sorted(maps.Keys(g.now.members))
	row.Open = slices.Sorted(maps.Keys(g.now.open))
	return row
}

// groupEvent appends a record that is about both the group and "sub".
func (w *world) groupEvent(group func(*groupState), session func(*state), e Event) {
	w.t.Helper()
	g := w.group
	w.mu.Lock()
	g.after = g.now.clone()
	group(&g.after)
	g.pending, g.from = true, w.log.Head()
	w.mu.Unlock()
	w.event("sub", session, e)
	w.mu.Lock()
	g.now, g.pending = g.after.clone(), false
	w.mu.Unlock()
}

func (w *world) startGroup() {
	w.group = &crew{w: w, now: newGroupState(), after: newGroupState()}
	w.log.AttachGroup(crashGroup, w.group)
	join := func(s *groupState) { s.members["sub"], s.next = true, w.log.Head() }
	w.groupEvent(join, func(s *state) { s.subs[crashGroup] = 1 }, EventSubscribed("sub", []Sub{{Filter: crashGroup, QoS: 1}}))
}

// groupStep deals, sets aside, deals what was set aside, and gives back.
func (w *world) groupStep(i int) {
	if w.group == nil {
		return
	}
	w.ids += 2
	id, at := w.ids-1, w.log.Head()
	next := at + 24
	w.groupEvent(func(s *groupState) { s.next = next; s.open[at+8] = true }, func(s *state) { s.inflight[id] = false },
		EventDealt(nil, crashGroup, next, []Pos{at + 8}, []Dealt{{"nobody", nil}, {"sub", []Inflight{{ID: id, Pos: at, QoS: 1}}}}))
	switch i % 3 {
	case 0:
		w.groupEvent(func(s *groupState) { s.open[at] = true }, func(s *state) { delete(s.inflight, id) },
			EventReturned("sub", crashGroup, []Inflight{{ID: id, Pos: at, QoS: 1}}))
	case 1:
		w.groupEvent(func(s *groupState) { delete(s.open, at+8) }, func(s *state) { s.inflight[id+1] = false },
			EventDealt(nil, crashGroup, next, nil, []Dealt{{"sub", []Inflight{{ID: id + 1, Pos: at + 8, QoS: 2}}}}))
	}
}

// states are what a cut may find.
func (g *crew) states() [2]groupState {
	if g == nil {
		return [2]groupState{newGroupState(), newGroupState()}
	}
	return [2]groupState{g.now.clone(), g.after.clone()}
}

// find makes the model what a cut has left.
func (g *crew) find(c *cutCheck) {
	if g == nil {
		return
	}
	row, _, err := c.log.LoadGroup(crashGroup)
	if err != nil {
		c.errorf("group: %v", err)
	}
	g.now = groupStateOf(row)
	g.after = g.now.clone()
}

// groups compares the group with the model.
func (c *cutCheck) groups() {
	if !c.index && len(c.dropped) > 0 {
		return // what is older than the oldest segment lives only in the index
	}
	row, _, err := c.log.LoadGroup(crashGroup)
	if err != nil {
		c.errorf("group: %v", err)
		return
	}
	got := groupStateOf(row)
	if got.String() != c.group[0].String() && got.String() != c.group[1].String() {
		c.errorf("group is %v\nwant %v\nor   %v", got, c.group[0], c.group[1])
	}
	if row != nil && row.Online {
		c.errorf("the group is online")
	}
}
