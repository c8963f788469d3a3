package broker

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// group is a shared subscription with members online: a cursor on the log, as
// a session is one, whose messages are dealt to the members. What outlives it
// is a storage.GroupRow.
//
// Messages wait in the log, or for a while in out, until a member can send
// them at once: it has room in its window or, with QoS 0, in its queue. So a
// member that is slow holds at most its window.
type group struct {
	b      *Broker
	name   string // "$share/name/filter"
	filter string
	log    logger

	// staged belongs to the view: entries of the batch that is being routed.
	staged []entry

	// waiting: there are messages, and no member takes them. Whoever makes
	// room kicks the group.
	waiting atomic.Bool

	// mu guards what follows. It is taken after the view and before
	// session.mu; nothing is appended and nothing written to the index while
	// it is held.
	mu   sync.Mutex
	cond *sync.Cond // busy was given back
	// busy: somebody deals, or changes who is a member. What is the busy
	// one's belongs to him without mu.
	busy    bool
	wanted  int  // how many wait to be busy
	again   bool // somebody thinks that there is something to deal
	stalled bool // dealing failed; the housekeeper tries again
	ended   bool

	row  storage.GroupRow // but for Next, Open and AsOf
	mode mode
	out  outbox // routed or read, and not dealt
	// open are messages before the cursor that no member has, in order:
	// given back by one that left, or waiting for the one that they belong
	// to. The busy one alone changes it.
	open    []entry
	unread  int         // of open, the busy one's
	readPos storage.Pos // where catching up goes on
	next    storage.Pos // behind the last message taken out of out
	// appending, appendFrom and dirty are as in a session.
	appending  int
	appendFrom storage.Pos
	dirty      bool

	// the busy one's
	routed  bool // the router knows the group
	fresh   bool // nothing is stored: it begins where the router is
	members []*member
	pick    picker
	reader  storage.Reader
	sel     selection
	memo    map[string]bool
	round   dealing
}

// unread in place of a QoS: of this message only the position is known.
const unread = 0xfe

func newGroup(b *Broker, name string) *group {
	shared, _, _ := topic.ParseShared(name)
	g := &group{
		b: b, name: name, filter: shared.Filter, log: b.brokerLog.With("group", name),
		pick: picker{strategy: b.cfg.Shared.StrategyFor(shared.Group, shared.Filter)},
		row:  storage.GroupRow{Name: name}, mode: catching,
	}
	g.cond = sync.NewCond(&g.mu)
	g.reader.Init(b.log)
	return g
}

// restore brings in what is stored.
func (g *group) restore(row *storage.GroupRow) {
	g.row = *row
	g.next, g.readPos = row.Next, row.Next
	for _, pos := range row.Open {
		g.open = append(g.open, entry{pos: pos, qos: unread})
	}
	g.row.Open, g.unread = nil, len(g.open)
}

// entryOf is a message as the group keeps it.
func (g *group) entryOf(rec *storage.Record, msg *storage.MessageView) entry {
	e := entry{pos: rec.Pos, qos: rec.Flags & storage.FlagQoS}
	if g.pick.patient() {
		key := msg.Topic
		if g.pick.strategy == config.HashClient {
			key = msg.Publisher
		}
		e.hash = hashOf(key)
	}
	return e
}

// takeStaged moves what the router has staged into out. It reports whether
// the group has to be kicked. Called under the view.
func (g *group) takeStaged() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	staged := g.staged
	g.staged = g.staged[:0]
	if g.ended || g.mode != live {
		return false
	}
	n := g.out.putAll(staged, g.b.outboxLimit)
	if n < len(staged) {
		g.mode = catching
		g.readPos = staged[n].pos
		g.log.Debug("members take less than comes: reading from the log", "pos", g.readPos)
	}
	return !g.waiting.Load() || g.pick.patient()
}

// SnapshotGroup implements storage.GroupSource. Messages that are being dealt
// count as not dealt: the record that says so comes behind AsOf.
func (g *group) SnapshotGroup(onlyDirty bool) *storage.GroupRow {
	routed := g.b.router.handedOut()
	g.mu.Lock()
	defer g.mu.Unlock()
	if onlyDirty {
		if !g.dirty && g.appending == 0 {
			return nil
		}
		g.dirty = false
	}
	return g.rowLocked(routed)
}

func (g *group) rowLocked(routed storage.Pos) *storage.GroupRow {
	row := g.row
	row.AsOf = g.b.log.Head()
	if g.appending > 0 {
		row.AsOf = g.appendFrom
	}
	row.Members = slices.Clone(g.row.Members)
	row.Online = len(row.Members) > 0
	row.Next = g.cursorLocked(routed)
	for i := range g.open {
		row.Open = append(row.Open, g.open[i].pos)
	}
	return &row
}

// cursorLocked is the position before which every message is dealt or open.
func (g *group) cursorLocked(routed storage.Pos) storage.Pos {
	switch {
	case g.out.len() > 0:
		return max(g.next, g.out.at(0).pos)
	case g.mode == catching:
		return max(g.next, g.readPos)
	}
	return max(g.next, routed)
}

// begin and end enclose an append whose effect follows.
func (g *group) begin() {
	g.mu.Lock()
	if g.appending == 0 {
		g.appendFrom = g.b.log.Head()
	}
	g.appending++
	g.mu.Unlock()
}

func (g *group) end() {
	g.mu.Lock()
	g.endLocked()
	g.mu.Unlock()
}

func (g *group) endLocked() {
	g.appending--
	g.dirty = true
}

// acquire waits until nobody is busy with the group, and is.
func (g *group) acquire() {
	g.mu.Lock()
	g.wanted++
	for g.busy {
		g.cond.Wait()
	}
	g.wanted--
	g.busy = true
	g.mu.Unlock()
}

// release ends that, and sees to what there is to deal.
func (g *group) release() {
	g.mu.Lock()
	g.busy = false
	g.cond.Broadcast()
	g.mu.Unlock()
	g.kick(false)
}

// fill gets messages where they have to be read: those of which only the
// position is known, and those behind the cursor while catching up. It reports
// whether it got anywhere.
func (g *group) fill() (moved bool, err error) {
	if g.unread > 0 {
		return true, g.readOpen()
	}
	g.mu.Lock()
	read := g.mode == catching && g.out.len() == 0
	g.mu.Unlock()
	if !read {
		return false, nil
	}
	return true, g.catchUp()
}

// readOpen looks the next open messages up. What is gone, retention has
// written down.
func (g *group) readOpen() error {
	for i, n := 0, 0; i < len(g.open) && n < flushBatch; i++ {
		if g.open[i].qos != unread {
			continue
		}
		rec, err := g.reader.Get(g.open[i].pos)
		if err != nil && !errors.Is(err, storage.ErrGone) {
			if _, err := g.b.pastDamage(err); err != nil {
				return err
			}
		}
		e := entry{pos: g.open[i].pos, qos: skip}
		if err == nil {
			if msg, err := storage.DecodeMessage(&rec); err == nil && !g.b.log.Dropped(msg.Topic, rec.Pos) {
				e = g.entryOf(&rec, &msg)
			}
		}
		g.mu.Lock()
		g.open[i] = e
		g.mu.Unlock()
		g.unread--
		n++
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = slices.DeleteFunc(g.open, func(e entry) bool { return e.qos == skip })
	g.dirty = true
	return nil
}

// catchUp reads on from the cursor and fills out. When it meets the router it
// goes back to live, under the view, so without a gap and without a
// repetition.
func (g *group) catchUp() error {
	limit := g.b.log.Routed()
	if g.readPos >= limit {
		g.goLive()
		return nil
	}
	var found [flushBatch]entry
	read := g.scan
	if g.narrow() {
		read = g.visit
	}
	n, pos, err := read(found[:], limit)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readPos = pos
	g.dirty = true
	g.out.putAll(found[:n], n)
	return nil
}

func (g *group) goLive() {
	g.b.log.WithView(func(pos storage.Pos) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.readPos >= pos {
			g.mode = live
			g.next = max(g.next, pos)
			g.memo = nil
		}
	})
}

// scan reads every record.
func (g *group) scan(found []entry, limit storage.Pos) (n int, pos storage.Pos, err error) {
	pos = g.readPos
	for left := catchUpScan; left > 0 && n < len(found) && pos < limit; left-- {
		rec, next, err := g.reader.Next(pos)
		switch {
		case errors.Is(err, storage.ErrEnd):
			next = limit
		case err != nil:
			if next, err = g.b.pastDamage(err); err != nil {
				return n, pos, err
			}
		case rec.Pos >= limit:
			next = limit
		default:
			if e, ok := g.wants(&rec); ok {
				found[n] = e
				n++
			}
		}
		pos = min(next, limit)
	}
	return n, pos, nil
}

// narrow reports whether the index has a list of what to visit next. It asks
// once for each segment.
func (g *group) narrow() bool {
	if g.readPos < g.sel.from || g.readPos >= g.sel.To {
		g.sel = selection{from: g.readPos}
		g.sel.Selection, g.sel.narrow = g.b.log.Select([]string{g.filter}, g.readPos)
	}
	return g.sel.narrow
}

// visit reads the records of the selection.
func (g *group) visit(found []entry, limit storage.Pos) (n int, pos storage.Pos, err error) {
	pos = g.readPos
	for ; n < len(found) && len(g.sel.Positions) > 0; g.sel.Positions = g.sel.Positions[1:] {
		at := g.sel.Positions[0]
		if at >= limit {
			return n, limit, nil
		}
		rec, err := g.reader.Get(at)
		switch {
		case err == nil:
			if e, ok := g.wants(&rec); ok {
				found[n] = e
				n++
			}
		case !errors.Is(err, storage.ErrGone):
			if _, err := g.b.pastDamage(err); err != nil {
				return n, pos, err
			}
		}
		pos = at + 1
	}
	if len(g.sel.Positions) == 0 {
		pos = g.sel.To
	}
	return n, min(pos, limit), nil
}

// wants says whether a record of the log is the group's.
func (g *group) wants(rec *storage.Record) (entry, bool) {
	if rec.Kind != storage.KindMessage || rec.Flags&storage.FlagCarried != 0 {
		return entry{}, false
	}
	msg, err := storage.DecodeMessage(rec)
	if err != nil || g.b.log.Dropped(msg.Topic, rec.Pos) {
		return entry{}, false
	}
	ok, known := g.memo[string(msg.Topic)]
	if !known {
		ok = topic.Match(g.filter, string(msg.Topic))
		if g.memo == nil || len(g.memo) >= memoTopics {
			g.memo = make(map[string]bool)
		}
		g.memo[string(msg.Topic)] = ok
	}
	if !ok {
		return entry{}, false
	}
	return g.entryOf(rec, &msg), true
}

// giveBack puts messages among the open ones; the caller is busy.
func (g *group) giveBack(list []storage.Pos) {
	if len(list) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, pos := range list {
		i, found := slices.BinarySearchFunc(g.open, pos, func(e entry, pos storage.Pos) int { return cmp.Compare(e.pos, pos) })
		if !found {
			g.open = slices.Insert(g.open, i, entry{pos: pos, qos: unread})
			g.unread++
		}
	}
	g.dirty = true
}
