package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage/storagetest"
)

// What a script does: each is one promise, kept or under way.

func (w *world) publish(topic, pad string, o Message) {
	w.t.Helper()
	w.clock.Add(int64(50 * time.Millisecond))
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
	for err == nil && errors.Is(list[0].Err, ErrFull) {
		if err = w.log.WaitRoom(w.t.Context()); err == nil {
			end, class, err = w.log.AppendMessages(list)
		}
	}
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
	w.readLedger()
}

// event appends events of a client whose effect is change.
func (w *world) event(id string, change func(*state), events ...Event) {
	w.t.Helper()
	w.begin(id, change)
	w.append(events...)
	w.end(id)
}

func (w *world) append(events ...Event) {
	w.t.Helper()
	w.clock.Add(int64(10 * time.Millisecond))
	_, end, err := w.log.AppendEvents(events...)
	if err == nil {
		err = w.log.Wait(end, w.log.SessionClass())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.log.Advance()
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
	w.mu.Lock()
	c := w.clients[id]
	if c == nil {
		c = &client{w: w, id: id, now: newState(), after: newState()}
		w.clients[id] = c
	}
	c.pending, c.from, c.open = true, w.log.Head(), true
	w.mu.Unlock()
	w.log.AttachSession(id, c)
	var x *Will
	if will != "" {
		x = &Will{Topic: will, Delay: 3600}
	}
	w.event(id, func(s *state) { s.exists, s.will = true, will }, EventOpened(id, 5, false, Never, x, w.cursor))
}

// store puts a closed session into the index, as it is after what is under way.
func (w *world) store(id string) {
	w.t.Helper()
	w.mu.Lock()
	c := w.clients[id]
	now := c.now
	c.now, c.open = c.after, false
	row := c.rowLocked()
	c.now = now
	w.mu.Unlock()
	row.Closed = w.log.Clock()
	old, ok, err := w.log.LoadSession(id)
	if err == nil && ok {
		row.KeepDue(old)
	}
	if err == nil {
		err = w.log.StoreSession(row)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// disconnect closes a session whose will is to wait.
func (w *world) disconnect(id string) {
	w.begin(id, func(*state) {})
	w.append(EventClosed(id, Never, true, w.cursor))
	w.store(id)
	w.end(id)
}

// die ends a session.
func (w *world) die(id string) {
	w.begin(id, func(s *state) { *s = newState() })
	w.append(EventEnded(id))
	row, ok, err := w.log.LoadSession(id)
	if err == nil && !ok {
		row = &SessionRow{ID: id}
	}
	if err == nil {
		err = w.log.DeleteSession(row)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.end(id)
}

// publishWill publishes the will of a closed session.
func (w *world) publishWill(id, topic string) {
	w.begin(id, func(s *state) { s.will = "" })
	w.log.AttachSession(id, w.clients[id])
	w.publish(topic, "the will", Message{Publisher: id, Will: true, QoS: 1})
	w.store(id)
	w.end(id)
}

// visit lets client "dev" come, subscribe, go with a will, and its will come.
func (w *world) visit(i int) {
	topic := fmt.Sprintf("m/always/will%d", i%3)
	w.connect("dev", topic)
	f := fmt.Sprintf("dev/%d", i%4)
	w.event("dev", func(s *state) { s.subs[f] = 1 }, EventSubscribed("dev", []Sub{{Filter: f, QoS: 1}}))
	w.disconnect("dev")
	w.publishWill("dev", topic)
}

func (w *world) checkpoint() {
	if err := w.log.Checkpoint(); err != nil {
		w.t.Fatal(err)
	}
}

// outbound takes a QoS 2 message through its steps.
func (w *world) outbound(complete bool) {
	w.ids++
	id := w.ids
	w.event("sub", func(s *state) { s.inflight[id] = false },
		EventDelivered(nil, "sub", w.cursor, []Inflight{{ID: id, Pos: w.cursor, QoS: 2}}))
	w.event("sub", func(s *state) { s.inflight[id] = true }, EventAcked(nil, "sub", []Acked{{ID: id}}))
	if complete {
		w.event("sub", func(s *state) { delete(s.inflight, id) }, EventAcked(nil, "sub", []Acked{{ID: id, Done: true}}))
	}
}

func (w *world) inbound() {
	w.ids++
	id := w.ids
	w.begin("pub", func(s *state) { s.inbound[id] = true })
	w.publish("m/always/two", pad, Message{Publisher: "pub", QoS: 2, PacketID: id})
	w.end("pub")
}

func (w *world) release() {
	var ids []uint16
	for id := range w.clients["pub"].now.inbound {
		ids = append(ids, id)
	}
	w.event("pub", func(s *state) { clear(s.inbound) }, EventReleased(nil, "pub", ids))
}

func (w *world) subscription(i int) {
	f := fmt.Sprintf("x/%d/#", i%6)
	if i%2 == 0 {
		w.event("sub", func(s *state) { s.subs[f] = 1 }, EventSubscribed("sub", []Sub{{Filter: f, QoS: 1}}))
	} else {
		w.event("sub", func(s *state) { delete(s.subs, f) }, EventUnsubscribed("sub", []string{f}))
	}
}

var pad = strings.Repeat("x", 900)

func (w *world) script(steps int) {
	for i := range steps {
		switch {
		case i%11 == 3:
			w.publish(fmt.Sprintf("m/always/r%d", i%5), pad[:i%100+1], Message{QoS: 1, Retain: true})
		case i%11 == 7:
			w.publish(fmt.Sprintf("m/os/r%d", i%4), pad[:i%50+1], Message{Retain: true})
		case i%23 == 9:
			w.publish(fmt.Sprintf("m/always/r%d", i%5), "", Message{Retain: true})
		case i%11 == 5:
			w.inbound()
		case i%22 == 8:
			w.release()
		case i%11 == 2:
			w.subscription(i)
		case i%22 == 10:
			w.outbound(i%44 == 10)
		case i%22 == 16:
			w.groupStep(i)
		case i%29 == 12:
			w.visit(i)
		case i%58 == 31:
			w.connect("temp", "")
			w.event("temp", func(s *state) { s.subs["t"] = 1 }, EventSubscribed("temp", []Sub{{Filter: "t", QoS: 1}}))
			w.die("temp")
		case i%17 == 14:
			// Nothing has synced what the index is going to learn.
			w.publish(fmt.Sprintf("m/os/r%d", i%4), pad[:i%50+1], Message{Retain: true})
			w.checkpoint()
			w.explore(fmt.Sprintf("step %d, behind the checkpoint", i))
		case i%151 == 120:
			w.event("sub", func(s *state) { s.will = "" }, EventClosed("sub", Never, false, w.cursor))
			w.restart(i%2 == 0)
		case i%3 == 0:
			w.publish("m/always/a", pad, Message{QoS: 1})
		case i%3 == 1:
			w.publish("m/b", pad, Message{QoS: 1})
		default:
			w.publish("m/os/c", pad, Message{})
		}
		if i%40 == 17 {
			w.event("pub", func(*state) {}, EventDelivered(nil, "pub", 0, nil))
		}
		if i%13 == 6 {
			w.explore(fmt.Sprintf("step %d", i))
		}
	}
}

// restart ends the log, in order or not, and opens it again.
func (w *world) restart(clean bool) {
	w.compactions += w.log.index.Metrics().Compactions
	end := w.log.Close
	if !clean {
		end = w.log.stop
	}
	if err := end(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	w.reconnect()
}

func (w *world) reconnect() {
	if w.group != nil {
		w.log.AttachGroup(crashGroup, w.group)
	}
	w.connect("sub", "gone")
	w.connect("pub", "")
	w.connect("away", "")
}

func (w *world) start() {
	w.open()
	w.mu.Lock()
	w.cursor = w.log.Head()
	w.mu.Unlock()
	w.reconnect()
	w.startGroup()
	w.event("away", func(s *state) { s.subs["m/#"] = 1 }, EventSubscribed("away", []Sub{{Filter: "m/#", QoS: 1}}))
	w.publish("m/always/once", "carried for ever", Message{Retain: true})
	w.publish("m/once", "carried for ever", Message{Retain: true})
}

func skipUnderRace(t *testing.T) {
	if raceDetector {
		t.Skip("a cut reads what is being written")
	}
}

// The power is cut at every operation of the log's and of the index's, and
// again while what is left is being recovered.
func TestPowerCutEverywhere(t *testing.T) {
	skipUnderRace(t)
	for _, x := range []struct {
		name    string
		steps   int
		rules   []string
		options func(*Options)
	}{
		{"roomy", 360, nil, nil},
		{"small budget", 700, nil, func(o *Options) { o.MaxBytes = 300 << 10 }},
		{"tight budget", 400, nil, func(o *Options) { o.MaxBytes = 135 << 10 }},
		{"by age", 500, nil, func(o *Options) { o.MaxAge = 5 * time.Second }},
		{"by rule", 500, []string{"m/os/#"}, func(o *Options) {
			o.MaxBytes = 200 << 10
			o.Retention = []RetentionRule{{Filter: "m/os/#", MaxBytes: 10 << 10}}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t, x.options)
			w.every, w.rules = 3, x.rules
			w.start()
			w.script(x.steps)
			if x.options == nil {
				w.log.markForRebuild()
				w.restart(true)
				w.script(100)
			}
			w.compactions += w.log.index.Metrics().Compactions
			if err := w.log.Close(); err != nil {
				t.Fatal(err)
			}
			w.log = nil
			w.explore("end")
			if x.options != nil && len(w.dropped) < 3 {
				t.Errorf("only %d segments were dropped", len(w.dropped))
			}
			t.Logf("%d places to cut, %d disks looked at, %d more cut in their recovery; %d messages, %d segments, %d dropped, %d compactions",
				w.cuts, w.looked, w.nested, len(w.msgs), len(w.created), len(w.dropped), w.compactions)
		})
	}
}

// randomSeed is new for each run of the long form, unless one is given.
func randomSeed(t *testing.T) uint64 {
	seed := uint64(7)
	if long {
		seed = rand.Uint64()
	}
	if s := os.Getenv("CAIRNMQ_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("to repeat this: CAIRNMQ_SEED=%d", seed)
	return seed
}

// One disk goes through many lives, each ended by a power cut at a random
// operation, and what each of them promised is kept through all those that
// follow.
func TestPowerCutManyLives(t *testing.T) {
	skipUnderRace(t)
	worlds, lives := 6, 12
	if long {
		worlds, lives = 100, 40
	}
	rng := rand.New(rand.NewPCG(randomSeed(t), 0))
	cuts := 0
	for range worlds {
		w := newWorld(t, func(o *Options) { o.MaxBytes = 300 << 10 })
		w.rng = rng
		w.start()
		for life := range lives {
			w.life(life)
			if t.Failed() {
				return
			}
		}
		cuts += lives
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts survived", cuts)
}

// life does random things until the power is cut, and opens what is left.
func (w *world) life(number int) {
	w.mu.Lock()
	w.endAt = w.cuts + 1 + w.rng.IntN(400)
	w.mu.Unlock()
	for n := 0; ; n++ {
		w.mu.Lock()
		over := w.taken != nil
		w.mu.Unlock()
		if over {
			break
		}
		w.anything(number*1000 + n)
	}
	c := w.taken
	c.where = fmt.Sprintf("life %d, %s", number, c.where)
	if err := w.log.stop(); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.goBack(c)
	w.mu.Unlock()
	w.live(c.disk)
	l, err := c.openAs(w.on)
	if err != nil {
		return
	}
	if pos := l.Head(); pos < c.head {
		c.errorf("position %d given again, %d was in use", pos, c.head)
	}
	// What the budget takes is taken now and not while we look. Dropping
	// appends, which may fill a segment, which may lead to more of it.
	for head := Pos(0); head != l.Head(); {
		head = l.Head()
		if err := l.Sync(); err != nil {
			w.t.Fatal(err)
		}
		l.settle()
	}
	c.log = l
	seen := c.check()
	w.carryOn(c, seen)
	w.reconnect()
}

// goBack makes the model what it was when the power was cut.
func (w *world) goBack(c *cutCheck) {
	w.msgs, w.dropped, w.created = c.promised, c.dropped, c.created
	for id, s := range c.clients {
		w.clients[id].now, w.clients[id].after, w.clients[id].pending = s[0], s[1], false
	}
	for id := range w.clients {
		if _, ok := c.clients[id]; !ok {
			delete(w.clients, id)
		}
	}
	if w.group != nil {
		w.group.now, w.group.after, w.group.pending = c.group[0], c.group[1], false
	}
	w.head, w.mixed, w.ledger = c.head, c.mixed, c.past
	w.log, w.taken, w.endAt = nil, nil, 0
}

// carryOn makes the model what was found.
func (w *world) carryOn(c *cutCheck, seen map[int]Pos) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = c.log
	for n := range w.msgs {
		m := &w.msgs[n]
		if pos, ok := seen[n]; ok {
			m.pos, m.acked = pos, true
		} else if m.pos == 0 || !c.gone(m.pos) {
			m.lost = true
		}
	}
	w.group.find(c)
	for id, x := range w.clients {
		row, _, err := c.log.LoadSession(id)
		if err != nil {
			c.errorf("session %s: %v", id, err)
		}
		x.now, x.open = stateOf(row), false
		x.after = x.now.clone()
	}
}

// anything does one random thing.
func (w *world) anything(i int) {
	r := w.rng
	switch r.IntN(20) {
	case 0:
		w.publish(fmt.Sprintf("m/always/r%d", i%5), pad[:r.IntN(len(pad)-1)+1], Message{QoS: 1, Retain: true})
	case 1:
		w.publish(fmt.Sprintf("m/os/r%d", i%4), pad[:r.IntN(len(pad)-1)+1], Message{Retain: true})
	case 2:
		w.publish(fmt.Sprintf("m/always/r%d", i%5), "", Message{Retain: true})
	case 3:
		w.inbound()
	case 4:
		w.release()
	case 5:
		w.subscription(r.IntN(12))
	case 6:
		w.outbound(r.IntN(2) == 0)
	case 7:
		w.visit(r.IntN(100))
	case 8:
		w.connect("temp", "")
		w.die("temp")
	case 9:
		w.checkpoint()
	case 10:
		w.groupStep(r.IntN(3))
		if r.IntN(10) == 0 {
			w.restart(r.IntN(2) == 0)
		}
	case 11:
		w.publish("m/always/large", strings.Repeat("y", 1+r.IntN(40<<10)), Message{QoS: 1})
	case 12, 13, 14:
		w.publish("m/always/a", pad, Message{QoS: 1})
	case 15, 16:
		w.publish("m/os/c", pad[:r.IntN(len(pad)-1)+1], Message{})
	default:
		w.publish("m/b", pad[:r.IntN(len(pad)-1)+1], Message{QoS: 1})
	}
}

// A segment is dropped only when a restart would not have to replay it: what
// it says about an open session must be in the index first. The budget makes
// the keeper drop the segment that it has just sealed, before the checkpoint
// that follows sealing; the power is cut when the file is gone for good.
func TestSegmentIsDroppedOnlyBehindTheCheckpoint(t *testing.T) {
	skipUnderRace(t)
	disk := storagetest.New()
	o := crashOptions(disk.Log)
	o.IndexFS = disk.IndexFS()
	o.MaxBytes = 100 << 10
	type cut struct {
		removed Pos
		disk    *storagetest.Disk
	}
	var mu sync.Mutex
	var removed, durable Pos
	cuts := make(chan cut, 100)
	disk.SetStep(func(op, path string) {
		mu.Lock()
		defer mu.Unlock()
		base, isSegment := segment.ParseFileName(filepath.Base(path))
		switch {
		case durable != 0:
			cuts <- cut{durable, disk.Cut(segmenttest.Lost, 1)}
			removed, durable = 0, 0
		case op == string(segmenttest.Remove) && isSegment:
			removed = base
		case op == string(segmenttest.SyncDir):
			durable = removed
		}
	})
	l := openTest(t, storagetest.Dir, o)
	w := &world{t: t, log: l, clients: map[string]*client{}, clock: new(atomic.Int64)}
	w.cursor = l.Head()
	w.connect("sub", "")
	for n := range 4 {
		first := l.Oldest()
		f := fmt.Sprintf("f/%d", n)
		w.event("sub", func(s *state) { clear(s.subs); s.subs[f] = 1 },
			EventUnsubscribed("sub", []string{fmt.Sprintf("f/%d", n-1)}), EventSubscribed("sub", []Sub{{Filter: f, QoS: 1}}))
		for l.Oldest() == first {
			w.publish("m/b", pad, Message{})
		}
		left := <-cuts
		for left.removed+segment.FileHeadLen != first {
			left = <-cuts
		}
		o := o
		o.FS, o.IndexFS = left.disk.Log, left.disk.IndexFS()
		again := openTest(t, storagetest.Dir, o)
		row, ok, err := again.LoadSession("sub")
		if got := stateOf(row); err != nil || !ok || got.subs[f] != 1 || len(got.subs) != 1 {
			t.Errorf("session after the segment with its subscription %s was dropped: %v, %v", f, got, err)
		}
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// After an orderly end the log goes on in the segment where it ended. What a
// power cut then takes must not leave the mark of that end as the last record,
// or the positions behind it would be given a second time.
func TestPowerCutAfterAnOrderlyEndGivesNoPositionAgain(t *testing.T) {
	skipUnderRace(t)
	disk := storagetest.New()
	weak := ClassOS
	options := func(d *storagetest.Disk) Options {
		o := crashOptions(d.Log)
		o.IndexFS, o.DefaultClass, o.SessionClass = d.IndexFS(), &weak, &weak
		return o
	}
	l := openTest(t, storagetest.Dir, options(disk))
	publish(t, l, "m/os/a", "before", false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, storagetest.Dir, options(disk))
	for range 3 {
		publish(t, l, "m/os/a", "after", false)
	}
	head := l.Head()
	for _, mode := range []segmenttest.Mode{segmenttest.Lost, segmenttest.Mixed, segmenttest.Kept} {
		again := openTest(t, storagetest.Dir, options(disk.Cut(mode, 3)))
		if pos := publishAt(t, again, "m/os/a", "x"); pos < head {
			t.Errorf("%s: position %d given again, %d was in use", modeNames[mode], pos, head)
		}
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
}
