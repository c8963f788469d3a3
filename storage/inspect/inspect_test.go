package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

// clock is a clock that moves by a second whenever it is asked.
type clock struct {
	sync.Mutex
	now time.Time
}

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func (c *clock) read() time.Time {
	c.Lock()
	defer c.Unlock()
	c.now = c.now.Add(time.Second)
	return c.now
}

func (c *clock) set(t time.Time) {
	c.Lock()
	defer c.Unlock()
	c.now = t
}

const segmentSize = 64 << 10

// newLog opens a log in small segments, with a clock of its own.
func newLog(t *testing.T, dir string) (*storage.Log, *clock) {
	t.Helper()
	c := &clock{now: start}
	l, err := storage.Open(dir, storage.Options{SegmentSize: segmentSize, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

// publish appends n messages of about 200 bytes to topics t/0, t/1 and t/2.
func publish(t *testing.T, l *storage.Log, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		m := []storage.Message{{Publisher: fmt.Sprintf("client-%d", i%2), Topic: fmt.Appendf(nil, "t/%d", i%3), Payload: fmt.Appendf(nil, "%0120d", i), QoS: 1}}
		end, class, err := l.AppendMessages(m)
		if err = errors.Join(err, m[0].Err); err == nil {
			err = l.Wait(end, class)
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Advance()
	}
}

func closeLog(t *testing.T, l *storage.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// made is a closed log with n messages.
func made(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	l, _ := newLog(t, dir)
	publish(t, l, 0, n)
	closeLog(t, l)
	return dir
}

func open(t *testing.T, path string) *inspect.Log {
	t.Helper()
	l, err := inspect.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// got is what a query found: the numbers of the messages, kinds of others.
type got struct {
	words   []string
	pos     []inspect.Pos
	damages []*segment.Damage
}

func (g *got) visitor() inspect.Visitor {
	return inspect.Visitor{
		Entry: func(e *inspect.Entry) error {
			word := storage.KindName(e.Kind)
			if e.Message != nil {
				if word = strings.TrimLeft(string(e.Message.Payload), "0"); word == "" {
					word = "0"
				}
			}
			g.words, g.pos = append(g.words, word), append(g.pos, e.Pos)
			return nil
		},
		Damage: func(d *segment.Damage) { g.damages = append(g.damages, d) },
	}
}

func read(t *testing.T, path string, q inspect.Query) *got {
	t.Helper()
	var g got
	if err := open(t, path).Read(t.Context(), q, g.visitor()); err != nil {
		t.Fatal(err)
	}
	return &g
}

var messages = []storage.Kind{storage.KindMessage}

func wantRange(t *testing.T, g *got, from, to int) {
	t.Helper()
	if len(g.words) != to-from || len(g.words) > 0 && (g.words[0] != fmt.Sprint(from) || g.words[len(g.words)-1] != fmt.Sprint(to-1)) {
		t.Fatalf("found %d messages %.60q, want %d to %d", len(g.words), g.words, from, to-1)
	}
}

func TestReadsAllFromEveryKindOfPlace(t *testing.T) {
	const n = 1000
	dir := made(t, n)
	wantRange(t, read(t, dir, inspect.Query{Kinds: messages}), 0, n)
	wantRange(t, read(t, filepath.Join(dir, "log"), inspect.Query{Kinds: messages}), 0, n)

	bare := t.TempDir()
	files, _ := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	for _, f := range files {
		copyFile(t, f, filepath.Join(bare, filepath.Base(f)))
	}
	wantRange(t, read(t, bare, inspect.Query{Kinds: messages}), 0, n)

	renamed := filepath.Join(bare, "pulled from the card.bin")
	copyFile(t, files[0], renamed)
	if g := read(t, renamed, inspect.Query{Kinds: messages}); len(g.words) == 0 || g.words[0] != "0" {
		t.Fatalf("one file: %.60q", g.words)
	}
	list, err := open(t, renamed).List(true)
	if err != nil || len(list) != 1 || list[0].State != inspect.Sealed || list[0].Base != segment.FirstBase {
		t.Fatalf("one file: %+v, %v", list, err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenSaysThatThereIsNoLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "log"), filepath.Join(dir, "missing")} {
		if _, err := inspect.Open(path); !errors.Is(err, inspect.ErrNoLog) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestQueryFindsWhatItSays(t *testing.T) {
	const n = 1000
	dir := made(t, n)
	all := read(t, dir, inspect.Query{Kinds: messages})
	var times []time.Time
	if err := open(t, dir).Read(t.Context(), inspect.Query{Kinds: messages}, inspect.Visitor{Entry: func(e *inspect.Entry) error {
		times = append(times, e.WallTime())
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	pos := func(p inspect.Pos) inspect.Bound { return inspect.Bound{Pos: p} }
	at := func(t time.Time) inspect.Bound { return inspect.Bound{Time: t} }
	for _, row := range []struct {
		name     string
		q        inspect.Query
		from, to int
	}{
		{"from a position", inspect.Query{From: pos(all.pos[700])}, 700, n},
		{"from between positions", inspect.Query{From: pos(all.pos[700] - 1)}, 700, n},
		{"to a position", inspect.Query{To: pos(all.pos[300])}, 0, 300},
		{"between positions", inspect.Query{From: pos(all.pos[300]), To: pos(all.pos[700])}, 300, 700},
		{"from a time", inspect.Query{From: at(times[700])}, 700, n},
		{"from between times", inspect.Query{From: at(times[700].Add(-time.Millisecond))}, 700, n},
		{"between times", inspect.Query{From: at(times[300]), To: at(times[700])}, 300, 700},
		{"first", inspect.Query{First: 5}, 0, 5},
		{"first from", inspect.Query{First: 5, From: pos(all.pos[990])}, 990, 995},
		{"tail", inspect.Query{HasTail: true, Tail: 5}, n - 5, n},
		{"tail over segments", inspect.Query{HasTail: true, Tail: 600}, n - 600, n},
		{"tail of more than there is", inspect.Query{HasTail: true, Tail: 2 * n}, 0, n},
		{"tail of nothing", inspect.Query{HasTail: true}, n, n},
		{"tail before a position", inspect.Query{HasTail: true, Tail: 5, To: pos(all.pos[500])}, 495, 500},
		{"tail after a time", inspect.Query{HasTail: true, Tail: 600, From: at(times[990])}, 990, n},
		{"tail and first", inspect.Query{HasTail: true, Tail: 10, First: 3}, n - 10, n - 7},
		{"behind the end", inspect.Query{From: pos(1 << 40)}, n, n},
		{"in the future", inspect.Query{From: at(start.Add(100 * time.Hour))}, n, n},
		{"before the beginning", inspect.Query{To: pos(5)}, n, n},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.q.Kinds = messages
			wantRange(t, read(t, dir, row.q), row.from, row.to)
		})
	}
	count := func(q inspect.Query) int { return len(read(t, dir, q).words) }
	if got := count(inspect.Query{Topics: []string{"t/1"}}); got != 333 {
		t.Errorf("one topic: %d", got)
	}
	if got := count(inspect.Query{Topics: []string{"t/1", "+/2", "t/2"}}); got != 666 {
		t.Errorf("two topics: %d", got)
	}
	if got := count(inspect.Query{Topics: []string{"x/#"}}); got != 0 {
		t.Errorf("no topic: %d", got)
	}
	if got := count(inspect.Query{Client: "client-1"}); got != 500 {
		t.Errorf("one publisher: %d", got)
	}
	if got := read(t, dir, inspect.Query{Kinds: []storage.Kind{storage.KindBoot, storage.KindShutdown}}); fmt.Sprint(got.words) != "[boot shutdown]" {
		t.Errorf("kinds: %v", got.words)
	}
	if got := read(t, dir, inspect.Query{}); len(got.words) != n+2 || got.words[0] != "boot" {
		t.Errorf("all kinds: %d, %v first", len(got.words), got.words[0])
	}
}

// A clock that was set back: the last record of a segment has an old time, the
// first one tells that others have not.
func TestATimeFindsRecordsInASegmentThatEndsInThePast(t *testing.T) {
	dir := t.TempDir()
	l, c := newLog(t, dir)
	publish(t, l, 0, 1000)
	c.set(start.Add(10 * time.Hour))
	closeLog(t, l)
	l, err := storage.Open(dir, storage.Options{SegmentSize: segmentSize, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, 1000, 400)
	c.set(start)
	publish(t, l, 1400, 1000)
	closeLog(t, l)
	g := read(t, dir, inspect.Query{Kinds: messages, From: inspect.Bound{Time: start.Add(9 * time.Hour)}})
	wantRange(t, g, 1000, 1400)
}

func TestEventsOfAClientAreFound(t *testing.T) {
	dir := t.TempDir()
	l, _ := newLog(t, dir)
	if _, _, err := l.AppendEvents(
		storage.EventOpened("a", 5, true, 60, nil, 1),
		storage.EventOpened("b", 5, true, 60, nil, 1),
		storage.EventSubscribed("a", []storage.Sub{{Filter: "t/#", QoS: 1}}),
		storage.Event{Kind: 99, Body: []byte("of a later version")},
	); err != nil {
		t.Fatal(err)
	}
	if err := l.RecordLoss(storage.Loss{Cause: storage.CauseExpiry, Readers: []string{"a"}, From: 1, To: 2, Count: 7}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if g := read(t, dir, inspect.Query{Client: "a"}); fmt.Sprint(g.words) != "[opened subscribed loss]" {
		t.Fatalf("events of a: %v", g.words)
	}
	if g := read(t, dir, inspect.Query{}); fmt.Sprint(g.words) != "[boot opened opened subscribed kind-99 loss shutdown]" {
		t.Fatalf("all: %v", g.words)
	}
	var sum uint64
	if err := open(t, dir).Losses(t.Context(), inspect.Query{}, func(x *storage.Loss) error { sum += x.Count; return nil }, nil); err != nil || sum != 7 {
		t.Fatalf("losses %d, %v", sum, err)
	}
}

func TestListAgreesWithAScan(t *testing.T) {
	const n = 1000
	dir := t.TempDir()
	l, _ := newLog(t, dir)
	publish(t, l, 0, n)
	check := func(live bool) {
		t.Helper()
		for _, scan := range []bool{false, true} {
			list, err := open(t, dir).List(scan)
			if err != nil || len(list) < 3 {
				t.Fatalf("%d segments, %v", len(list), err)
			}
			var total inspect.Total
			actives := 0
			for i := range list {
				s := &list[i]
				total.Add(s)
				if s.State == inspect.Active {
					actives++
				}
				if s.State == inspect.Sealed && (s.Topics != 3 || s.First == nil || !s.Last.After(*s.First) || !live && s.Scanned != scan) {
					t.Fatalf("%+v", s)
				}
			}
			if total.Messages != n || total.Damages != 0 || actives != 1 {
				t.Fatalf("scan %v: %+v, %d active", scan, total, actives)
			}
		}
	}
	check(true) // where segments may be sealed just now
	closeLog(t, l)
	check(false)
}

func TestDamageIsReportedAndSteppedOver(t *testing.T) {
	const n = 1000
	for _, row := range []struct {
		name string
		do   func(t *testing.T, files []string)
		lost func(lost int) bool
	}{
		{"a bit flipped", func(t *testing.T, files []string) { flip(t, files[0], 5000) }, func(n int) bool { return n == 1 }},
		{"a header flipped", func(t *testing.T, files []string) { flip(t, files[1], 20) }, func(n int) bool { return n > 100 }},
		{"a file cut", func(t *testing.T, files []string) {
			if err := os.Truncate(files[1], 30000); err != nil {
				t.Fatal(err)
			}
		}, func(n int) bool { return n > 100 }},
		{"a file emptied", func(t *testing.T, files []string) {
			if err := os.Truncate(files[0], 0); err != nil {
				t.Fatal(err)
			}
		}, func(n int) bool { return n > 100 }},
		{"a page zeroed", func(t *testing.T, files []string) {
			f, err := os.OpenFile(files[0], os.O_RDWR, 0)
			if err == nil {
				_, err = f.WriteAt(make([]byte, 4096), 8192)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}, func(n int) bool { return n > 20 && n < 30 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := made(t, n)
			files, _ := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
			row.do(t, files)
			g := read(t, dir, inspect.Query{Kinds: messages})
			if len(g.damages) != 1 || !row.lost(n-len(g.words)) {
				t.Fatalf("%d messages, damages %v", len(g.words), g.damages)
			}
			list, err := open(t, dir).List(true)
			if err != nil {
				t.Fatal(err)
			}
			damaged := 0
			for i := range list {
				if list[i].State == inspect.Damaged {
					damaged += len(list[i].Damages)
				}
			}
			if damaged != 1 {
				t.Fatalf("list: %+v", list)
			}
			// What is not asked for is not complained of.
			if g := read(t, dir, inspect.Query{Kinds: messages, From: inspect.Bound{Pos: list[2].Base}}); len(g.damages) != 0 {
				t.Fatalf("damages %v before the range", g.damages)
			}
		})
	}
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestANewerFormatIsNotDamage(t *testing.T) {
	dir := made(t, 10)
	files, _ := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{9}, 8)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	list, err := open(t, dir).List(true)
	if err != nil || list[0].State != inspect.Newer || len(list[0].Damages) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	var g got
	if err := open(t, dir).Read(t.Context(), inspect.Query{}, g.visitor()); !errors.Is(err, segment.ErrNewer) {
		t.Fatalf("error %v", err)
	}
}

// The follower is woken after each batch that was appended, and every message
// comes once and in order, over sealing and cutting and removing.
func TestFollowSeesEveryMessageOnce(t *testing.T) {
	const batches, each = 30, 100
	dir := t.TempDir()
	c := &clock{now: start}
	l, err := storage.Open(dir, storage.Options{SegmentSize: segmentSize, MaxBytes: 8 << 20, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	in := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	batch := 0
	in.Wait = func(context.Context) error {
		if batch == batches {
			cancel()
			return ctx.Err()
		}
		publish(t, l, batch*each, each)
		batch++
		return nil
	}
	var g got
	err = in.Read(ctx, inspect.Query{Kinds: messages, Follow: true}, g.visitor())
	if !errors.Is(err, context.Canceled) || len(g.damages) != 0 {
		t.Fatalf("%v, %v", err, g.damages)
	}
	for i, w := range g.words {
		if w != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, w)
		}
	}
	if len(g.words) != batches*each {
		t.Fatalf("%d messages", len(g.words))
	}
	closeLog(t, l)
}

func TestFollowWhileAnotherGoroutineAppends(t *testing.T) {
	const n = 3000
	dir := t.TempDir()
	l, _ := newLog(t, dir)
	done := make(chan struct{})
	go func() { defer close(done); publish(t, l, 0, n) }()
	in := open(t, dir)
	in.Wait = func(ctx context.Context) error { return ctx.Err() }
	var g got
	v := g.visitor()
	if err := in.Read(t.Context(), inspect.Query{Kinds: messages, Follow: true, First: n}, v); err != nil {
		t.Fatal(err)
	}
	wantRange(t, &g, 0, n)
	if len(g.damages) != 0 {
		t.Fatalf("damages in a sound log: %v", g.damages)
	}
	<-done
	closeLog(t, l)
}

// Tail 0 and follow begin at the last record, not at the segment that was
// made ahead of time.
func TestFollowFromTheEnd(t *testing.T) {
	dir := t.TempDir()
	l, _ := newLog(t, dir)
	publish(t, l, 0, 50)
	in := open(t, dir)
	wrote := false
	in.Wait = func(context.Context) error {
		if !wrote {
			publish(t, l, 50, 5)
		}
		wrote = true
		return nil
	}
	var g got
	if err := in.Read(t.Context(), inspect.Query{Kinds: messages, HasTail: true, Follow: true, First: 5}, g.visitor()); err != nil {
		t.Fatal(err)
	}
	wantRange(t, &g, 50, 55)
	closeLog(t, l)
}

func TestFollowSurvivesRetention(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: start}
	l, err := storage.Open(dir, storage.Options{SegmentSize: segmentSize, MaxBytes: 8 * segmentSize, Now: c.read})
	if err != nil {
		t.Fatal(err)
	}
	in := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	rounds := 0
	in.Wait = func(context.Context) error {
		if rounds++; rounds > 5 {
			cancel()
			return ctx.Err()
		}
		publish(t, l, rounds*3000, 3000) // far more than is kept
		return nil
	}
	var g got
	if err := in.Read(ctx, inspect.Query{Kinds: messages, Follow: true}, g.visitor()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(g.damages) != 0 || len(g.words) < 100 {
		t.Fatalf("%d messages, %v", len(g.words), g.damages)
	}
	closeLog(t, l)
}

func TestParseBound(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, row := range []struct {
		text string
		want inspect.Bound
	}{
		{"", inspect.Bound{}},
		{"@beginning", inspect.Bound{}},
		{"@now", inspect.Bound{Time: now}},
		{"1048640", inspect.Bound{Pos: 1048640}},
		{"2026-05-06T09:08:09+02:00", inspect.Bound{Time: now}},
		{"-2h", inspect.Bound{Time: now.Add(-2 * time.Hour)}},
		{"-90s", inspect.Bound{Time: now.Add(-90 * time.Second)}},
		{"-1d12h", inspect.Bound{Time: now.Add(-36 * time.Hour)}},
		{"-3d", inspect.Bound{Time: now.Add(-72 * time.Hour)}},
	} {
		got, err := inspect.ParseBound(row.text, now)
		if err != nil || got.Pos != row.want.Pos || !got.Time.Equal(row.want.Time) {
			t.Errorf("%q: %v, %v", row.text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "-", "-x", "2h", "--2h", "-d", "2026-05-06"} {
		if got, err := inspect.ParseBound(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
