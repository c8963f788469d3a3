package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"cairnmq/segment"
)

// collector is a sink that copies what it is told.
type collector struct{ got []string }

func (c *collector) Route(rec *Record, m *MessageView, t *Topic) {
	c.got = append(c.got, t.Name+"="+string(m.Payload))
}
func (c *collector) Batch() Flusher { return nil }

func openTest(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func publish(t testing.TB, l *Log, topic, payload string, retain bool) Pos {
	t.Helper()
	m := []Message{{Publisher: "p", Topic: []byte(topic), Payload: []byte(payload), QoS: 1, Retain: retain}}
	end, class, err := l.AppendMessages(m)
	if err == nil {
		err = m[0].Err
	}
	if err == nil {
		err = l.Wait(end, class)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Advance()
	return end
}

// settle waits until every committed record is routed and the keeper has
// nothing left to do. Advance alone may return while another goroutine is
// still routing, and segments that it leaves are sealed only then.
func (l *Log) settle() {
	for l.view.behind(l) {
		l.Advance()
		runtime.Gosched()
	}
	l.keeper.wait()
}

// readAll reads every message of the log.
func readAll(t testing.TB, l *Log) (out []string) {
	t.Helper()
	_ = l.Sync() // so that all of it may be seen
	r := l.NewReader()
	defer r.Release()
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		if err == ErrEnd {
			return out
		}
		if err != nil {
			t.Fatalf("read at %d: %v", pos, err)
		}
		pos = next
		if rec.Kind == KindMessage {
			m, err := DecodeMessage(&rec)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(m.Topic)+"="+string(m.Payload))
		}
	}
}

func small() Options { return Options{SegmentSize: 64 << 10, CheckpointBytes: 32 << 10} }

func TestMessagesSurviveEveryWayToEnd(t *testing.T) {
	for _, end := range []string{"close", "kill", "index deleted", "kill and index deleted"} {
		t.Run(end, func(t *testing.T) {
			dir := t.TempDir()
			var want []string
			for round := range 4 {
				l := openTest(t, dir, small())
				c := &collector{}
				l.SetSink(c)
				if got := readAll(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("round %d: %d messages, want %d", round, len(got), len(want))
				}
				for i := range 700 {
					topic, payload := fmt.Sprintf("a/%d", i%7), fmt.Sprintf("%d-%d-%0100d", round, i, i)
					publish(t, l, topic, payload, i%100 == 3)
					want = append(want, topic+"="+payload)
				}
				if n := len(want) - 700; fmt.Sprint(c.got) != fmt.Sprint(want[n:]) {
					t.Fatalf("round %d: routed %d messages, want 700 in order", round, len(c.got))
				}
				list, err := l.Retained("a/#", "", l.Head(), 100)
				if err != nil || len(list) != 7 {
					t.Fatalf("retained: %v, %v", list, err)
				}
				if end == "close" || end == "index deleted" {
					err = l.Close()
				} else {
					err = l.stop()
				}
				if err != nil {
					t.Fatal(err)
				}
				if end == "index deleted" || end == "kill and index deleted" {
					if err := os.RemoveAll(filepath.Join(dir, indexSub)); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

func TestPositionsAreNotReusedAfterKill(t *testing.T) {
	dir := t.TempDir()
	var last Pos
	for range 5 {
		l := openTest(t, dir, small())
		p := publish(t, l, "a", "x", false)
		if p <= last {
			t.Fatalf("position %d after %d", p, last)
		}
		last = p
		if err := l.stop(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, segmentsSub, "*"+segment.Suffix))
	if len(files) != 5 {
		t.Fatalf("%d segment files, want one for each run: %v", len(files), files)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, small())
	defer l.Close()
	if _, err := Open(dir, small()); err == nil {
		t.Fatal("a second process opened the directory")
	}
}

func TestBudgetDropsOldestAndWritesTheLedger(t *testing.T) {
	dir := t.TempDir()
	o := small()
	o.MaxBytes = 512 << 10
	l := openTest(t, dir, o)
	row := &SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "a/#", QoS: 1}}}
	if err := l.StoreSession(row); err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a/keep", "retained", true)
	const n = 10000
	for i := range n {
		publish(t, l, fmt.Sprintf("a/%d", i%3), fmt.Sprintf("%0100d", i), false)
	}
	l.settle()
	u, err := l.Usage()
	if err != nil || u.Total() > o.MaxBytes {
		t.Fatalf("usage %+v, %v", u, err)
	}
	var lost uint64
	if err := l.Losses(0, func(x Loss) error { lost += x.Count; return nil }); err != nil {
		t.Fatal(err)
	}
	kept := 0
	carried := 0
	r := l.NewReader()
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		if err == ErrEnd {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pos = next
		if rec.Kind == KindMessage && rec.Flags&FlagCarried == 0 {
			kept++
		} else if rec.Kind == KindMessage {
			carried++
		}
	}
	r.Release()
	// Rows of the ledger go with their segment, so the sum is checked against
	// the rows still in the log plus the counter.
	if got := l.stats.Losses.Load(); uint64(kept)+got != n+1 {
		t.Fatalf("kept %d, lost by the ledger %d (%d in the index), published %d", kept, got, lost, n+1)
	}
	list, err := l.Retained("a/#", "", l.Head(), 10)
	if err != nil || len(list) != 1 || carried == 0 {
		t.Fatalf("retained after the carry: %v, %v (%d carried)", list, err, carried)
	}
	rr := l.NewReader()
	defer rr.Release()
	rec, err := rr.Get(list[0].Pos)
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := DecodeMessage(&rec); string(m.Payload) != "retained" {
		t.Fatalf("carried payload %q", m.Payload)
	}
	rr.Release()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	l := openTest(t, t.TempDir(), Options{SegmentSize: 64 << 20})
	defer l.Close()
	msgs := make([]Message, 32)
	for i := range msgs {
		msgs[i] = Message{Publisher: "sensor-1", Topic: []byte("plant/line/1"), Payload: make([]byte, 256), QoS: 1}
	}
	work := func() {
		if _, _, err := l.AppendMessages(msgs); err != nil {
			t.Fatal(err)
		}
		l.Advance()
	}
	work()
	if n := testing.AllocsPerRun(200, work); n > 0.5 {
		t.Fatalf("%.2f allocations per batch of 32 messages", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	l := openTest(b, b.TempDir(), Options{SegmentSize: 64 << 20})
	defer l.Close()
	msgs := make([]Message, 64)
	for i := range msgs {
		msgs[i] = Message{Publisher: "sensor-1", Topic: []byte("plant/line/1"), Payload: make([]byte, 256), QoS: 1}
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(msgs) {
		if _, _, err := l.AppendMessages(msgs); err != nil {
			b.Fatal(err)
		}
		l.Advance()
	}
}

// A record of class always that nobody waits for used to hold up whatever was
// appended behind it until somebody else asked for a sync.
func TestNobodyWaitsAndStillItIsRouted(t *testing.T) {
	always := ClassAlways
	o := small()
	o.SessionClass, o.SyncInterval = &always, time.Hour
	l := openTest(t, t.TempDir(), o)
	defer l.Close()
	routed := make(chan string, 1)
	l.SetSink(sinkFunc(func(m *MessageView) { routed <- string(m.Payload) }))
	if _, _, err := l.AppendEvents(EventEnded("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.AppendMessages([]Message{{Topic: []byte("a"), Payload: []byte("hello")}}); err != nil {
		t.Fatal(err)
	}
	l.Advance()
	select {
	case got := <-routed:
		if got != "hello" {
			t.Fatalf("routed %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the message was never routed")
	}
}

type sinkFunc func(m *MessageView)

func (f sinkFunc) Route(_ *Record, m *MessageView, _ *Topic) { f(m) }
func (f sinkFunc) Batch() Flusher                            { return nil }

func TestScanAllocatesNothing(t *testing.T) {
	l := openTest(t, t.TempDir(), Options{SegmentSize: 1 << 20})
	defer l.Close()
	for range 3000 {
		publish(t, l, "plant/line/1", "0123456789", false)
	}
	r := l.NewReader()
	defer r.Release()
	work := func() {
		for pos := Pos(0); ; {
			rec, next, err := r.Next(pos)
			if err != nil {
				return
			}
			if rec.Kind == KindMessage {
				if _, err := DecodeMessage(&rec); err != nil {
					t.Fatal(err)
				}
			}
			pos = next
		}
	}
	work()
	if n := testing.AllocsPerRun(20, work); n > 0.5 {
		t.Fatalf("%.2f allocations per scan of 3000 messages", n)
	}
}

func BenchmarkScan(b *testing.B) {
	l := openTest(b, b.TempDir(), Options{SegmentSize: 64 << 20})
	defer l.Close()
	msgs := make([]Message, 64)
	for i := range msgs {
		msgs[i] = Message{Publisher: "sensor-1", Topic: []byte("plant/line/1"), Payload: make([]byte, 256), QoS: 1}
	}
	for range 2000 {
		if _, _, err := l.AppendMessages(msgs); err != nil {
			b.Fatal(err)
		}
	}
	l.Advance()
	r := l.NewReader()
	defer r.Release()
	b.ReportAllocs()
	b.ResetTimer()
	pos := Pos(0)
	for range b.N {
		rec, next, err := r.Next(pos)
		if err == ErrEnd {
			next, err = 0, nil
		}
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(rec.Body)))
		pos = next
	}
}

func TestCount(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, Options{SegmentSize: 64 << 10})
	for i := range 100 { // several segments
		publish(t, l, fmt.Sprint("t/", i%7), fmt.Sprintf("%04000d", i), i%7 < 3)
	}
	publish(t, l, "t/0", "", true) // none any more
	if err := l.RecordLoss(Loss{Cause: CauseExpiry, Readers: []string{"a"}, Count: 3}); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreSession(&SessionRow{ID: "a", Expiry: 60, Next: l.Head()}); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		l.settle()
		c, err := l.Count()
		if err != nil {
			t.Fatal(err)
		}
		if c.Messages != 101 || c.Retained != 2 || c.Losses != 1 || c.Lost != 3 || c.SessionRows != 1 || c.Segments < 7 {
			t.Errorf("%s: %+v", when, c)
		}
	}
	check("at first")
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	check("after a checkpoint")
	if c, _ := l.Count(); c.Checkpoint == 0 || c.Checkpoint > l.Head() {
		t.Errorf("checkpoint %d, head %d", c.Checkpoint, l.Head())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, dir, Options{SegmentSize: 64 << 10})
	defer func() { _ = l.Close() }()
	check("after a restart")
}
