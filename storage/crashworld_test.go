package storage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage/filter"
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
	lost   bool // a power cut took it, as its class allows: it must not come back
}

// state is what a session is, by a model that knows nothing of SessionRow's
// apply.
type state struct {
	exists   bool
	subs     map[string]uint8
	inflight map[uint16]bool // received?
	inbound  map[uint16]bool
	will     string
}

func (s state) clone() state {
	s.subs, s.inflight, s.inbound = maps.Clone(s.subs), maps.Clone(s.inflight), maps.Clone(s.inbound)
	return s
}

func (s state) String() string {
	return fmt.Sprintf("exists %v subs %v inflight %v inbound %v will %q", s.exists, s.subs, s.inflight, s.inbound, s.will)
}

func newState() state {
	return state{subs: map[string]uint8{}, inflight: map[uint16]bool{}, inbound: map[uint16]bool{}}
}

func stateOf(row *SessionRow) state {
	s := newState()
	if row == nil {
		return s
	}
	s.exists = true
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

// client is a session of the script: its acknowledged state, and the one that
// an event under way leads to.
type client struct {
	w          *world
	id         string
	now, after state
	pending    bool
	open       bool
	from       Pos // head before the event under way
}

// Snapshot implements Source.
func (c *client) Snapshot(bool) (*SessionRow, bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	row := c.rowLocked()
	if c.pending {
		row.AsOf = c.from
	}
	return row, c.now.exists
}

func (c *client) rowLocked() *SessionRow {
	row := &SessionRow{ID: c.id, Expiry: Never, Online: c.open, Next: c.w.cursor, AsOf: c.w.log.Head()}
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
		row.Will = &Will{Topic: c.now.will, Delay: 3600}
	}
	return row
}

// world is a log on a disk that loses power, and what was promised about it.
type world struct {
	t       *testing.T
	options func(*Options)
	disk    *storagetest.Disk
	log     *Log
	clock   *atomic.Int64 // unix ns

	// mu guards the model. The script changes it; the cuts read it, on
	// whatever goroutine they happen.
	mu      sync.Mutex
	msgs    []told
	clients map[string]*client
	group   *crew
	cursor  Pos
	created []Pos // bases of all segments
	dropped map[Pos]bool
	rules   []string // filters whose messages a rule takes
	ledger  []Loss   // all rows about "away", also those that went with their segments
	head    Pos      // behind every position that earlier lives have given
	ready   bool     // the first opening is over
	every   int      // explore one cut in so many; zero: none
	mixed   bool     // what an earlier cut has left may be damaged
	rebuilt bool     // an index was rebuilt after segments had been dropped

	// A life that ends in the middle: at this cut.
	endAt int
	taken *cutCheck
	rng   *rand.Rand

	complaints           atomic.Int32
	ids                  uint16
	cuts, nested, looked int
	compactions          int64
}

func crashOptions(d segment.FS) Options {
	always := ClassAlways
	return Options{
		FS: d, SegmentSize: 32 << 10, CheckpointBytes: 1 << 40, CheckpointInterval: time.Hour, SyncInterval: time.Hour,
		MaxBytes: 1 << 40, MappedSegments: 1, SessionClass: &always,
		ClassRules: []ClassRule{{"m/always/#", ClassAlways}, {"m/os/#", ClassOS}},
	}
}

func newWorld(t *testing.T, change func(*Options)) *world {
	w := &world{t: t, options: change, clients: map[string]*client{}, dropped: map[Pos]bool{}, clock: new(atomic.Int64)}
	w.clock.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	w.live(storagetest.New())
	return w
}

// live goes on, on a disk.
func (w *world) live(d *storagetest.Disk) {
	w.disk = d
	d.SetStep(func(op, path string) {
		if w.disk == d { // not from an earlier life
			w.step(op, path)
		}
	})
}

// on are the options for a disk.
func (w *world) on(d *storagetest.Disk) Options {
	o := crashOptions(d.Log)
	o.IndexFS = d.IndexFS()
	o.Now = func() time.Time { return time.Unix(0, w.clock.Load()) }
	if w.options != nil {
		w.options(&o)
	}
	return o
}

func (w *world) open() {
	w.t.Helper()
	l, err := Open(storagetest.Dir, w.on(w.disk))
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
	base, isSegment := segment.ParseFileName(filepath.Base(path))
	if isSegment && op == string(segmenttest.Create) {
		w.mu.Lock()
		if !slices.Contains(w.created, base) {
			w.created = append(w.created, base)
		}
		delete(w.dropped, base) // prepared, discarded, and now made again
		w.mu.Unlock()
	}
	w.explore(op + " " + filepath.Base(path))
	drops := op == string(segmenttest.Remove) || op == string(segmenttest.Rename)
	if isSegment && drops && hasRecords(w.disk.Log.Bytes("log/"+filepath.Base(path))) {
		w.mu.Lock()
		w.dropped[base] = true
		w.mu.Unlock()
	}
}

// hasRecords tells a segment that is dropped from one that was prepared and not
// used, or of which a power cut took all that was in it.
func hasRecords(b []byte) bool {
	n := 0
	_, err := segment.Recover("", b, 0, func(Record) error { n++; return nil })
	return err == nil && n > 0
}

// readLedger remembers the rows about "away".
func (w *world) readLedger() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	from := Pos(0)
	if n := len(w.ledger); n > 0 {
		from = w.ledger[n-1].At + 1
	}
	err := w.log.Losses(from, func(x Loss) error {
		if slices.Contains(x.Readers, "away") {
			w.ledger = append(w.ledger, x)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
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

var modeNames = map[segmenttest.Mode]string{segmenttest.Lost: "lost", segmenttest.Kept: "kept", segmenttest.Mixed: "mixed"}

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
	if !w.ready {
		return nil // still in the first opening
	}
	w.cuts++
	n := w.cuts
	if w.endAt > 0 && n >= w.endAt && w.taken == nil {
		v := allRemains[w.rng.IntN(3)]
		w.taken = w.remainsLocked(where, n, v, w.rng.Uint64())
		return nil
	}
	if w.every == 0 || !long && n%w.every != 0 {
		return nil
	}
	for i, v := range allRemains {
		if long || i == n/w.every%len(allRemains) {
			list = append(list, w.remainsLocked(where, n, v, uint64(n*10+i)))
		}
	}
	w.looked += len(list)
	return list
}

func (w *world) remainsLocked(where string, n int, v remains, seed uint64) *cutCheck {
	clients := map[string][2]state{}
	for id, c := range w.clients {
		clients[id] = [2]state{c.now.clone(), c.after.clone()}
	}
	group := w.group.states()
	// In this order: what happens meanwhile on other goroutines was not there
	// when the head was read, and may be there when it is checked.
	head := w.head
	if w.log != nil {
		head = max(head, w.log.Head())
	}
	c := &cutCheck{
		t: w.t, where: fmt.Sprintf("cut %d before %s, %s, index %v", n, where, modeNames[v.mode], v.index),
		disk: w.disk.Cut(v.mode, seed), promised: slices.Clone(w.msgs), clients: clients, group: group,
		dropped: maps.Clone(w.dropped), created: slices.Sorted(slices.Values(w.created)), head: head, past: slices.Clone(w.ledger),
		mixed: w.mixed || v.mode == segmenttest.Mixed, index: v.index && !w.rebuilt, killed: v.mode == segmenttest.Kept,
		again: long || n%4 == 0, world: w, rng: rand.New(rand.NewPCG(seed, 2)),
	}
	if !v.index {
		if err := c.disk.Index.RemoveAll(filepath.Join(storagetest.Dir, indexSub)); err != nil {
			w.t.Error(err)
		}
	}
	return c
}

// cutCheck opens what a cut has left and compares.
type cutCheck struct {
	t        *testing.T
	where    string
	disk     *storagetest.Disk
	promised []told
	clients  map[string][2]state
	group    [2]groupState
	dropped  map[Pos]bool
	created  []Pos
	head     Pos
	past     []Loss // rows that the ledger had
	index    bool
	mixed    bool // some sectors are there and some are not
	killed   bool // as after the death of the process: nothing at all may be missing
	again    bool // open it a second time
	nested   bool // the second cut in a row
	world    *world
	rng      *rand.Rand

	log  *Log
	said *logLines // what the log had to say about it
}

// logLines keeps log lines for those who complain.
type logLines struct {
	mu sync.Mutex
	b  []byte
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *logLines) String() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

func (c *cutCheck) errorf(format string, args ...any) {
	c.t.Helper()
	if c.world.complaints.Add(1) > 20 {
		return // the first ones say it all
	}
	c.t.Errorf("%s: %s\n%s", c.where, fmt.Sprintf(format, args...), c.said.String())
}

// open opens the disk. While that runs, the power is cut a second time: at one
// operation of the recovery, in the long form at every tenth, so that all that
// start from the same place see all of them.
func (c *cutCheck) open() (*Log, error) {
	if !c.nested {
		at, n, over := c.rng.IntN(40), 0, false
		var mu sync.Mutex // the index has goroutines of its own
		c.disk.SetStep(func(op, path string) {
			mu.Lock()
			n++
			here := n
			skip := over || !long && here-1 != at || long && here%10 != at%10
			mu.Unlock()
			if !skip {
				c.second(fmt.Sprintf("%d, %s %s", here, op, filepath.Base(path)), allRemains[(here+at)%3].mode)
			}
		})
		defer func() {
			mu.Lock()
			over = true
			mu.Unlock()
		}()
	}
	return c.openAs(c.untouched)
}

func (c *cutCheck) openAs(options func(*storagetest.Disk) Options) (*Log, error) {
	l, err := Open(storagetest.Dir, options(c.disk))
	if err != nil {
		c.errorf("open: %v", err)
	}
	return l, err
}

// untouched are options with which nothing is dropped while we look.
func (c *cutCheck) untouched(d *storagetest.Disk) Options {
	o := c.world.on(d)
	o.MaxBytes, o.MaxAge, o.Retention = 1<<40, 0, nil
	c.said = new(logLines)
	o.Logger = slog.New(slog.NewTextHandler(c.said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return o
}

// second cuts the power while what the first cut left is being recovered.
func (c *cutCheck) second(where string, mode segmenttest.Mode) {
	x := *c
	x.where = fmt.Sprintf("%s, and in the recovery before %s, %s", c.where, where, modeNames[mode])
	x.disk, x.nested, x.again = c.disk.Cut(mode, c.rng.Uint64()), true, false
	x.mixed = c.mixed || mode == segmenttest.Mixed
	x.killed = c.killed && mode == segmenttest.Kept
	c.world.mu.Lock()
	c.world.nested++
	c.world.mu.Unlock()
	x.run()
}

func (c *cutCheck) run() {
	l, err := c.open()
	if err != nil {
		return
	}
	c.log = l
	seen := c.check()
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
	if l, err = c.openAs(c.untouched); err != nil {
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

// check compares everything that was promised.
func (c *cutCheck) check() (seen map[int]Pos) {
	seen = c.messages()
	c.retained(seen)
	c.sessions()
	c.groups()
	c.ledger(seen)
	return seen
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
		n, ok := c.known(&rec)
		if !ok || rec.Flags&FlagCarried != 0 {
			continue
		}
		if n <= last {
			c.errorf("message %d comes behind %d", n, last)
		}
		last = n
		seen[n] = rec.Pos
	}
	if damages > 0 && !c.mixed {
		c.errorf("%d ranges damaged", damages)
	}
	for n, m := range c.promised {
		if _, ok := seen[n]; ok || !m.acked || m.lost || c.gone(m.pos) {
			continue
		}
		if m.always || c.killed {
			c.errorf("message %d at %d on %s was acknowledged and is not there", n, m.pos, m.topic)
		}
	}
	return seen
}

// known reports whether, and as which number, the record of a message was
// appended, and complains if it was not.
func (c *cutCheck) known(rec *Record) (n int, ok bool) {
	m, err := DecodeMessage(rec)
	if err != nil {
		c.errorf("decode at %d: %v", rec.Pos, err)
		return 0, false
	}
	if string(m.Topic) == "m/always/new" {
		return 0, false
	}
	n, err = number(&m)
	c.world.mu.Lock()
	ok = err == nil && n < len(c.world.msgs)
	var want told
	if ok {
		want = c.world.msgs[n]
	}
	c.world.mu.Unlock()
	if !ok || want.topic != string(m.Topic) || !want.empty && !bytes.HasSuffix(m.Payload, []byte("|end")) {
		c.errorf("record at %d was never appended: %q", rec.Pos, m.Topic)
		return n, false
	}
	carried := rec.Flags&FlagCarried != 0
	switch {
	case want.lost:
		c.errorf("message %d at %d was lost in an earlier power cut and is back", n, rec.Pos)
	case carried && m.Original == 0:
		c.errorf("message %d at %d was carried from nowhere", n, rec.Pos)
	case !carried && want.pos != 0 && want.pos != rec.Pos:
		c.errorf("message %d at %d, it was at %d", n, rec.Pos, want.pos)
	}
	return n, true
}

// segmentOf is the base of the segment that a position belongs to.
func (c *cutCheck) segmentOf(pos Pos) (Pos, bool) {
	i, found := slices.BinarySearch(c.created, pos)
	if !found {
		i--
	}
	if i < 0 {
		return 0, false
	}
	return c.created[i], true
}

// gone reports whether the segment of a position was dropped.
func (c *cutCheck) gone(pos Pos) bool {
	base, ok := c.segmentOf(pos)
	return ok && c.dropped[base]
}

// retained compares the table with the messages that are there or were
// dropped: of each topic the last one counts.
func (c *cutCheck) retained(seen map[int]Pos) {
	want := map[string]int{}
	for n, m := range c.promised {
		if _, ok := seen[n]; m.retain && !m.lost && (ok || m.pos != 0 && c.gone(m.pos)) {
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

// ledger compares the rows about the session "away", which subscribes to
// everything and has had nothing, with the messages: each row counts exactly
// what lay in its range, and what is missing lies in the range of a row.
func (c *cutCheck) ledger(seen map[int]Pos) {
	if !c.index {
		return // old rows went with their segments
	}
	var rows []Loss
	oldest := c.log.set.Snapshot()[0].Limit()
	for _, x := range c.past {
		// Rows go with their segments, and a little before the file does.
		if c.gone(x.At) || x.At < oldest {
			rows = append(rows, x)
		}
	}
	err := c.log.Losses(0, func(x Loss) error {
		again := slices.ContainsFunc(rows, func(y Loss) bool { return y.At == x.At })
		if slices.Contains(x.Readers, "away") && !again {
			rows = append(rows, x)
		}
		if x.Cause == CauseDamage && !c.mixed {
			c.errorf("damage reported: %s", x.Detail)
		}
		return nil
	})
	if err != nil {
		c.errorf("ledger: %v", err)
	}
	for i := range rows {
		c.ledgerRow(rows, i)
	}
	for n, m := range c.promised {
		_, ok := seen[n]
		if ok || m.pos == 0 || m.lost || !c.gone(m.pos) {
			continue
		}
		if !slices.ContainsFunc(rows, func(x Loss) bool { return x.From <= m.pos && m.pos < x.To }) {
			c.errorf("message %d at %d was dropped and is in no row of the ledger", n, m.pos)
		}
	}
}

func (c *cutCheck) ledgerRow(rows []Loss, i int) {
	x := &rows[i]
	for j := range rows[:i] {
		if y := &rows[j]; y.From == x.From && y.To == x.To && y.Cause == x.Cause {
			c.errorf("the ledger says twice, at %d and %d, that %d to %d are lost", y.At, x.At, x.From, x.To)
		}
	}
	var floor Pos // a rule has taken what matches it and lies before it
	for j := range rows[:i] {
		if rows[j].Cause == CauseRule {
			floor = max(floor, rows[j].To)
		}
	}
	var count, underWay uint64
	for _, m := range c.promised {
		ruled := slices.ContainsFunc(c.world.rules, func(f string) bool { return filter.Match(f, m.topic) })
		switch {
		case m.lost, ruled && m.pos < floor, x.Cause == CauseRule && !ruled:
		case m.pos == 0:
			underWay++
		case x.From <= m.pos && m.pos < x.To:
			count++
		}
	}
	if x.Count < count || x.Count > count+underWay {
		c.errorf("the ledger says at %d that %d messages of %d to %d are lost (%v), there were %d", x.At, x.Count, x.From, x.To, x.Cause, count)
	}
}
