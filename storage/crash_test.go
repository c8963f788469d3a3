package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage/storagetest"
)

// long runs every variant of every cut instead of one for each.
var long = os.Getenv("CAIRNMQ_LONG") != ""

// told is a message that was given to Append.
type told struct {
	topic  string
	always bool
	retain bool
	empty  bool
	pos    Pos // of the record; zero while the append is under way
	acked  bool
}

// state is what a session is, by a model that knows nothing of SessionRow's
// apply.
type state struct {
	subs     map[string]uint8
	inflight map[uint16]bool // received?
	inbound  map[uint16]bool
	will     string
}

func (s state) clone() state {
	return state{maps.Clone(s.subs), maps.Clone(s.inflight), maps.Clone(s.inbound), s.will}
}

func (s state) String() string {
	return fmt.Sprintf("subs %v inflight %v inbound %v will %q", s.subs, s.inflight, s.inbound, s.will)
}

func newState() state {
	return state{map[string]uint8{}, map[uint16]bool{}, map[uint16]bool{}, ""}
}

func stateOf(row *SessionRow) state {
	s := newState()
	if row == nil {
		return s
	}
	for _, x := range row.Subs {
		s.subs[x.Filter] = x.QoS
	}
	for _, f := range row.Inflight {
		s.inflight[f.ID] = f.Received
	}
	for _, id := range row.Inbound {
		s.inbound[id] = true
	}
	if row.Will != nil {
		s.will = row.Will.Topic
	}
	return s
}

// client is an open session of the script: its acknowledged state, and the
// one that an event under way leads to.
type client struct {
	w          *world
	id         string
	now, after state
	pending    bool
	from       Pos // head before the event under way
}

// Snapshot implements Source.
func (c *client) Snapshot(bool) (*SessionRow, bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	row := &SessionRow{ID: c.id, Expiry: Never, Online: true, Next: c.w.cursor, AsOf: c.w.log.Head()}
	if c.pending {
		row.AsOf = c.from
	}
	for f, qos := range c.now.subs {
		row.Subs = append(row.Subs, Sub{Filter: f, QoS: qos})
	}
	for id, received := range c.now.inflight {
		row.Inflight = append(row.Inflight, Inflight{ID: id, Pos: c.w.cursor, QoS: 2, Received: received})
	}
	for id := range c.now.inbound {
		row.Inbound = append(row.Inbound, id)
	}
	if c.now.will != "" {
		row.Will = &Will{Topic: c.now.will}
	}
	return row, true
}

// world is a log on a disk that loses power, and what was promised about it.
type world struct {
	t    *testing.T
	disk *storagetest.Disk
	o    Options
	log  *Log

	// mu guards the model. The script changes it; the cuts read it, on
	// whatever goroutine they happen.
	mu      sync.Mutex
	msgs    []told
	clients map[string]*client
	cursor  Pos
	created []Pos // bases of all segments
	dropped map[Pos]bool
	ready   bool // the first opening is over
	every   int  // explore one cut in so many

	cuts int
}

func crashOptions(d segment.FS) Options {
	always := ClassAlways
	return Options{
		FS: d, SegmentSize: 32 << 10, CheckpointBytes: 1 << 40, CheckpointInterval: time.Hour, SyncInterval: time.Hour,
		MaxBytes: 1 << 40, MappedSegments: 1, SessionClass: &always,
		ClassRules: []ClassRule{{"m/always/#", ClassAlways}, {"m/os/#", ClassOS}},
	}
}

// onDisk are crashOptions with log and index on one simulated disk.
func onDisk(d *storagetest.Disk) Options {
	o := crashOptions(d.Log)
	o.IndexFS = d.IndexFS()
	return o
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, disk: storagetest.New(), clients: map[string]*client{}, dropped: map[Pos]bool{}}
	w.o = onDisk(w.disk)
	w.disk.SetStep(w.step)
	return w
}

func (w *world) open() {
	l, err := Open(storagetest.Dir, w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = l
	if err := l.Checkpoint(); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.ready = true
	w.mu.Unlock()
}

// step is called before every operation of the disk.
func (w *world) step(op, path string) {
	if op == string(segmenttest.Create) {
		w.mu.Lock()
		if base, ok := segment.ParseFileName(filepath.Base(path)); ok {
			if !slices.Contains(w.created, base) {
				w.created = append(w.created, base)
			}
			delete(w.dropped, base) // prepared, discarded, and now made again
		}
		w.mu.Unlock()
	}
	w.explore(op + " " + filepath.Base(path))
	if op == string(segmenttest.Remove) || op == string(segmenttest.Rename) {
		w.mu.Lock()
		if base, ok := segment.ParseFileName(filepath.Base(path)); ok {
			w.dropped[base] = true
		}
		w.mu.Unlock()
	}
}

// remains is one way in which a cut may leave the disk.
type remains struct {
	mode  segmenttest.Mode
	index bool // else deleted
}

var allRemains = []remains{
	{segmenttest.Lost, true}, {segmenttest.Mixed, true}, {segmenttest.Kept, true},
	{segmenttest.Mixed, false}, {segmenttest.Lost, false},
}

// explore cuts the power here and looks at what is left.
func (w *world) explore(where string) {
	for _, c := range w.cut(where) {
		c.run()
	}
}

// cut makes the remains of this moment. The model stands still meanwhile, so
// that at most one thing is under way that it does not know the end of.
func (w *world) cut(where string) (list []*cutCheck) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts++
	n := w.cuts
	if !w.ready || !long && n%w.every != 0 {
		return nil // still in the first opening, or not this one
	}
	clients := map[string][2]state{}
	for id, c := range w.clients {
		clients[id] = [2]state{c.now.clone(), c.after.clone()}
	}
	for i, v := range allRemains {
		if !long && i != n/w.every%len(allRemains) {
			continue
		}
		// In this order: what happens meanwhile on other goroutines was not there
		// when the head was read, and may be there when it is checked.
		head := w.headLocked()
		c := &cutCheck{
			t: w.t, where: fmt.Sprintf("cut %d before %s, %v, index %v", n, where, [...]string{"lost", "kept", "mixed"}[v.mode], v.index),
			disk: w.disk.Cut(v.mode, uint64(n*10+i)), promised: slices.Clone(w.msgs), clients: clients,
			dropped: maps.Clone(w.dropped), created: slices.Sorted(slices.Values(w.created)), head: head,
			mode: v.mode, index: v.index, killed: v.mode == segmenttest.Kept, again: long || n%4 == 0, world: w,
		}
		if !v.index {
			if err := c.disk.Index.RemoveAll(filepath.Join(storagetest.Dir, indexSub)); err != nil {
				w.t.Error(err)
			}
		}
		list = append(list, c)
	}
	return list
}

// headLocked is behind every position that was ever given.
func (w *world) headLocked() Pos {
	if w.log == nil {
		return 0
	}
	return w.log.Head()
}

// cutCheck opens what a cut has left and compares.
type cutCheck struct {
	t        *testing.T
	where    string
	disk     *storagetest.Disk
	promised []told
	clients  map[string][2]state
	dropped  map[Pos]bool
	created  []Pos
	head     Pos
	mode     segmenttest.Mode
	index    bool
	killed   bool // as after the death of the process: nothing at all may be missing
	again    bool // open it a second time
	world    *world

	log *Log
}

func (c *cutCheck) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s: %s", c.where, fmt.Sprintf(format, args...))
}

func (c *cutCheck) run() {
	o := onDisk(c.disk)
	l, err := Open(storagetest.Dir, o)
	if err != nil {
		c.errorf("open: %v", err)
		return
	}
	c.log = l
	seen := c.messages()
	c.retained(seen)
	c.sessions()
	c.ledger(seen)
	pos := publishAt(c.t, l, "m/always/new", "x")
	if pos < c.head {
		c.errorf("position %d given again, %d was in use", pos, c.head)
	}
	if err := l.Close(); err != nil {
		c.errorf("close: %v", err)
	}
	if !c.again {
		return
	}
	// And once more, in order.
	if l, err = Open(storagetest.Dir, o); err != nil {
		c.errorf("second open: %v", err)
		return
	}
	c.log = l
	if again := c.messages(); len(again) != len(seen) {
		c.errorf("%d messages, %d after the second opening", len(seen), len(again))
	}
	if err := l.stop(); err != nil {
		c.errorf("stop: %v", err)
	}
}

func publishAt(t testing.TB, l *Log, topic, payload string) Pos {
	t.Helper()
	before := l.Head()
	publish(t, l, topic, payload, false)
	return before
}

// number finds out which message a record is.
func number(m *MessageView) (int, error) {
	if s, ok := strings.CutPrefix(string(m.Publisher), "n"); ok {
		return strconv.Atoi(s)
	}
	s, _, _ := strings.Cut(string(m.Payload), "|")
	return strconv.Atoi(s)
}

// messages reads the log: whole records that were appended, in their order,
// and none missing that was promised.
func (c *cutCheck) messages() map[int]Pos {
	seen := map[int]Pos{}
	r := c.log.NewReader()
	defer r.Release()
	last := -1
	damages := 0
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		var d *segment.Damage
		if errors.As(err, &d) {
			damages++
			pos = d.To
			continue
		}
		if err == ErrEnd {
			break
		}
		if err != nil {
			c.errorf("read at %d: %v", pos, err)
			return seen
		}
		pos = next
		if rec.Kind != KindMessage {
			continue
		}
		m, err := DecodeMessage(&rec)
		if err != nil {
			c.errorf("decode at %d: %v", rec.Pos, err)
			continue
		}
		if string(m.Topic) == "m/always/new" {
			continue
		}
		n, err := number(&m)
		c.world.mu.Lock()
		ok := err == nil && n < len(c.world.msgs)
		var want told
		if ok {
			want = c.world.msgs[n]
		}
		c.world.mu.Unlock()
		if !ok || want.topic != string(m.Topic) || !want.empty && !bytes.HasSuffix(m.Payload, []byte("|end")) {
			c.errorf("record at %d was never appended: %q", rec.Pos, m.Topic)
			continue
		}
		if rec.Flags&FlagCarried != 0 {
			continue
		}
		if want.pos != 0 && want.pos != rec.Pos {
			c.errorf("message %d at %d, it was at %d", n, rec.Pos, want.pos)
		}
		if n <= last {
			c.errorf("message %d comes behind %d", n, last)
		}
		last = n
		seen[n] = rec.Pos
	}
	if damages > 0 && c.mode != segmenttest.Mixed {
		c.errorf("%d ranges damaged", damages)
	}
	for n, m := range c.promised {
		if _, ok := seen[n]; ok || !m.acked || c.gone(m.pos) {
			continue
		}
		if m.always || c.killed {
			c.errorf("message %d at %d on %s was acknowledged and is not there", n, m.pos, m.topic)
		}
	}
	return seen
}

// gone reports whether the segment of a position was dropped.
func (c *cutCheck) gone(pos Pos) bool {
	i, found := slices.BinarySearch(c.created, pos)
	if !found {
		i--
	}
	return i >= 0 && c.dropped[c.created[i]]
}

// retained compares the table with the messages that are there or were
// dropped: of each topic the last one counts.
func (c *cutCheck) retained(seen map[int]Pos) {
	want := map[string]int{}
	for n, m := range c.promised {
		if _, ok := seen[n]; m.retain && (ok || m.pos != 0 && c.gone(m.pos)) {
			want[m.topic] = n
			if m.empty {
				delete(want, m.topic)
			}
		}
	}
	list, err := c.log.Retained("#", "", 1<<62, 1000)
	if err != nil {
		c.errorf("retained: %v", err)
	}
	got := map[string]int{}
	r := c.log.NewReader()
	defer r.Release()
	for _, x := range list {
		rec, err := r.Get(x.Pos)
		if err != nil {
			c.errorf("retained message of %s at %d: %v", x.Topic, x.Pos, err)
			continue
		}
		m, err := DecodeMessage(&rec)
		if err == nil {
			got[x.Topic], err = number(&m)
		}
		if err != nil {
			c.errorf("retained message of %s: %v", x.Topic, err)
		}
	}
	if !maps.Equal(got, want) {
		c.errorf("retained %v, want %v", got, want)
	}
}

func (c *cutCheck) sessions() {
	if !c.index && len(c.dropped) > 0 {
		return // what is older than the oldest segment lives only in the index
	}
	for id, want := range c.clients {
		row, ok, err := c.log.LoadSession(id)
		if err != nil {
			c.errorf("session %s: %v", id, err)
			continue
		}
		got := stateOf(row)
		if got.String() != want[0].String() && got.String() != want[1].String() {
			c.errorf("session %s is %v\nwant %v\nor   %v", id, got, want[0], want[1])
		}
		if ok && row.Online {
			c.errorf("session %s is online", id)
		}
	}
}

// ledger compares what is missing because of retention with what the ledger
// says about the session "away", which subscribes to everything and has had
// nothing.
func (c *cutCheck) ledger(seen map[int]Pos) {
	if !c.index {
		return // old rows went with their segments
	}
	var lost, missing uint64
	err := c.log.Losses(0, func(x Loss) error {
		if x.Cause == CauseRetention && slices.Contains(x.Readers, "away") {
			lost += x.Count
		}
		if x.Cause == CauseDamage && c.mode != segmenttest.Mixed {
			c.errorf("damage reported: %s", x.Detail)
		}
		return nil
	})
	if err != nil {
		c.errorf("ledger: %v", err)
	}
	for n, m := range c.promised {
		if _, ok := seen[n]; !ok && m.pos != 0 && c.gone(m.pos) {
			missing++
		}
	}
	// A row may be there while its segment still is.
	if lost < missing || lost > missing+200 {
		c.errorf("%d messages were dropped, the ledger says %d", missing, lost)
	}
}

// The script.

func (w *world) publish(topic, pad string, o Message) {
	w.t.Helper()
	w.mu.Lock()
	n := len(w.msgs)
	empty := pad == ""
	w.msgs = append(w.msgs, told{topic: topic, always: strings.HasPrefix(topic, "m/always"), retain: o.Retain, empty: empty})
	w.mu.Unlock()
	o.Topic = []byte(topic)
	if !empty {
		o.Payload = fmt.Appendf(nil, "%d|%s|end", n, pad)
	}
	if o.Publisher == "" {
		o.Publisher = fmt.Sprintf("n%d", n)
	}
	list := []Message{o}
	end, class, err := w.log.AppendMessages(list)
	if err == nil {
		err = list[0].Err
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.msgs[n].pos = end - Pos(segment.PaddedLen(list[0].bodyLen()))
	w.mu.Unlock()
	if err := w.log.Wait(end, class); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.msgs[n].acked = true
	w.mu.Unlock()
	w.log.Advance()
}

// event appends events of a client whose effect is change.
func (w *world) event(id string, change func(*state), events ...Event) {
	w.t.Helper()
	w.begin(id, change)
	_, end, err := w.log.AppendEvents(events...)
	if err == nil {
		err = w.log.Wait(end, w.log.SessionClass())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.log.Advance()
	w.end(id)
}

func (w *world) begin(id string, change func(*state)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.clients[id]
	c.after = c.now.clone()
	change(&c.after)
	c.pending, c.from = true, w.log.Head()
}

func (w *world) end(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.clients[id]
	c.now, c.pending = c.after.clone(), false
}

func (w *world) connect(id string, will string) {
	c := w.clients[id]
	if c == nil {
		c = &client{w: w, id: id, now: newState(), after: newState()}
		w.mu.Lock()
		w.clients[id] = c
		w.mu.Unlock()
	}
	w.mu.Lock()
	c.pending, c.from = true, w.log.Head()
	w.mu.Unlock()
	w.log.AttachSession(id, c)
	var x *Will
	if will != "" {
		x = &Will{Topic: will}
	}
	w.event(id, func(s *state) { s.will = will }, EventOpened(id, 5, false, Never, x, w.cursor))
}

func (w *world) script(steps int) {
	nothing := func(*state) {}
	pad := strings.Repeat("x", 900)
	for i := range steps {
		switch {
		case i%11 == 3:
			w.publish(fmt.Sprintf("m/always/r%d", i%5), pad[:i%100+1], Message{QoS: 1, Retain: true})
		case i%11 == 7:
			w.publish(fmt.Sprintf("m/os/r%d", i%4), pad[:i%50+1], Message{Retain: true})
		case i%23 == 9:
			w.publish(fmt.Sprintf("m/always/r%d", i%5), "", Message{Retain: true})
		case i%11 == 5:
			id := uint16(i)
			change := func(s *state) { s.inbound[id] = true }
			w.begin("pub", change)
			w.publish("m/always/two", pad, Message{Publisher: "pub", QoS: 2, PacketID: id})
			w.end("pub")
		case i%22 == 8:
			var ids []uint16
			for id := range w.clients["pub"].now.inbound {
				ids = append(ids, id)
			}
			w.event("pub", func(s *state) { clear(s.inbound) }, EventReleased(nil, "pub", ids))
		case i%11 == 2:
			f := fmt.Sprintf("x/%d/#", i%6)
			if i%2 == 0 {
				w.event("sub", func(s *state) { s.subs[f] = 1 }, EventSubscribed("sub", []Sub{{Filter: f, QoS: 1}}))
			} else {
				w.event("sub", func(s *state) { delete(s.subs, f) }, EventUnsubscribed("sub", []string{f}))
			}
		case i%22 == 10:
			id := uint16(i)
			w.event("sub", func(s *state) { s.inflight[id] = false },
				EventDelivered(nil, "sub", w.cursor, []Inflight{{ID: id, Pos: w.cursor, QoS: 2}}))
			w.event("sub", func(s *state) { s.inflight[id] = true }, EventAcked(nil, "sub", []Acked{{ID: id}}))
			if i%44 == 10 {
				w.event("sub", func(s *state) { delete(s.inflight, id) }, EventAcked(nil, "sub", []Acked{{ID: id, Done: true}}))
			}
		case i%97 == 60:
			if err := w.log.Checkpoint(); err != nil {
				w.t.Fatal(err)
			}
		case i%151 == 120:
			w.event("sub", func(s *state) { s.will = "" }, EventClosed("sub", Never, false, w.cursor))
			w.reopen()
			w.connect("sub", "gone")
			w.connect("pub", "")
			w.connect("away", "")
		case i%3 == 0:
			w.publish("m/always/a", pad, Message{QoS: 1})
		case i%3 == 1:
			w.publish("m/b", pad, Message{QoS: 1})
		default:
			w.publish("m/os/c", pad, Message{})
		}
		if i%40 == 17 {
			w.event("pub", nothing, EventDelivered(nil, "pub", 0, nil))
		}
		if i%13 == 6 {
			w.explore(fmt.Sprintf("step %d", i))
		}
	}
}

func (w *world) reopen() {
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (w *world) start() {
	w.open()
	w.mu.Lock()
	w.cursor = w.log.Head()
	w.mu.Unlock()
	w.connect("away", "")
	w.connect("pub", "")
	w.connect("sub", "gone")
	w.event("away", func(s *state) { s.subs["m/#"] = 1 }, EventSubscribed("away", []Sub{{Filter: "m/#", QoS: 1}}))
	w.publish("m/always/once", "carried for ever", Message{Retain: true})
	w.publish("m/once", "carried for ever", Message{Retain: true})
}

func TestPowerCutEverywhere(t *testing.T) {
	if raceDetector {
		t.Skip("a cut reads what is being written")
	}
	for _, budget := range []int64{1 << 40, 220 << 10} {
		t.Run(fmt.Sprintf("budget %d KiB", budget>>10), func(t *testing.T) {
			w := newWorld(t)
			w.o.MaxBytes = budget
			steps := 360
			if w.every = 3; budget < 1<<40 {
				w.every, steps = 2, 500
			}
			w.start()
			w.script(steps)
			if err := w.log.Close(); err != nil {
				t.Fatal(err)
			}
			w.log = nil
			w.explore("end")
			if budget < 1<<40 && len(w.dropped) < 4 {
				t.Fatal("nothing was dropped")
			}
			t.Logf("%d cuts, %d messages, %d segments, %d dropped", w.cuts, len(w.msgs), len(w.created), len(w.dropped))
		})
	}
}
