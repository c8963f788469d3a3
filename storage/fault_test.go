package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
)

func openDisk(t *testing.T, change func(*Options)) (*Log, *segmenttest.Disk) {
	t.Helper()
	dir := t.TempDir()
	d := segmenttest.New(dir)
	o := crashOptions(d)
	o.SyncInterval = time.Millisecond
	if change != nil {
		change(&o)
	}
	return openTest(t, dir, o), d
}

// try appends one message and says what became of it.
func try(l *Log, topic string, n int) error {
	m := []Message{{Publisher: "p", Topic: []byte(topic), Payload: []byte(strings.Repeat("x", n)), QoS: 1}}
	end, class, err := l.AppendMessages(m)
	if err == nil {
		err = m[0].Err
	}
	if err == nil {
		err = l.Wait(end, class)
	}
	l.Advance()
	return err
}

func TestFullDiskRefusesMessagesAndTakesEventsForAWhile(t *testing.T) {
	l, d := openDisk(t, nil)
	d.SetRoom(d.Used() + 32<<10 + 100)
	n := 0
	var err error
	for ; n < 1000; n++ {
		if err = try(l, "m/always/a", 1000); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("%v after %d messages", err, n)
	}
	events := 0
	for ; events < 10000; events++ {
		_, end, err := l.AppendEvents(EventEnded("x"))
		if errors.Is(err, ErrFull) {
			break
		}
		if err == nil {
			err = l.Wait(end, ClassAlways)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if events < 100 || events == 10000 {
		t.Fatalf("%d events went on a full disk", events)
	}
	woken := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() { woken <- l.WaitRoom(ctx) }()
	d.SetRoom(0)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	if err := try(l, "m/always/a", 1000); err != nil {
		t.Fatal(err)
	}
	if got := len(readAll(t, l)); got != n+1 {
		t.Fatalf("%d messages, acknowledged were %d", got, n+1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseWhenFull(t *testing.T) {
	l, d := openDisk(t, nil)
	d.SetRoom(d.Used())
	for try(l, "m/a", 900) == nil {
	}
	for {
		if _, _, err := l.AppendEvents(EventEnded("x")); err != nil {
			break
		}
	}
	done := make(chan error, 1)
	go func() { done <- l.Close() }()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Fatalf("second Close: %v", err)
	}
	if err := try(l, "a", 1); !errors.Is(err, ErrClosed) {
		t.Fatalf("append behind Close: %v", err)
	}
	if err := l.Wait(l.Head()+1, ClassAlways); !errors.Is(err, ErrClosed) {
		t.Fatalf("wait behind Close: %v", err)
	}
	l.Advance()
}

func TestFailedCreationIsTriedAgain(t *testing.T) {
	l, d := openDisk(t, nil)
	l.settle()
	for i := 1; i <= 3; i++ {
		d.Fail(segmenttest.Create, i, syscall.ENOSPC)
	}
	full := 0
	for i := 0; i < 200; {
		err := try(l, "m/a", 1000)
		if errors.Is(err, ErrFull) {
			full++
			if err := l.WaitRoom(context.Background()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		i++
	}
	if full == 0 {
		t.Fatal("the fault was not met")
	}
	if n := len(readAll(t, l)); n != 200 {
		t.Fatalf("%d messages", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	for _, at := range []int{1, 2, 5} {
		l, d := openDisk(t, nil)
		l.settle()
		d.Fail(segmenttest.Flush, at, syscall.EIO)
		var err error
		for i := 0; i < 100 && err == nil; i++ {
			err = try(l, "m/always/a", 1000)
		}
		if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("fault %d: %v", at, err)
		}
		select {
		case <-l.Failed():
		default:
			t.Fatalf("fault %d: not marked as failed", at)
		}
		committed := l.Committed()
		for range 10 {
			if err := try(l, "m/always/a", 10); !errors.Is(err, ErrFailed) {
				t.Fatalf("fault %d: later append: %v", at, err)
			}
			if err := l.Sync(); !errors.Is(err, ErrFailed) && l.Head() > committed {
				t.Fatalf("fault %d: later sync: %v", at, err)
			}
		}
		if l.Committed() != committed {
			t.Fatalf("fault %d: committed moved", at)
		}
		_ = l.Close()
	}
}

func TestRejectNewIsHeldByAnOfflineSessionWithinTheBudget(t *testing.T) {
	l, _ := openDisk(t, func(o *Options) {
		o.MaxBytes = 300 << 10
		o.Retention = []RetentionRule{{Filter: "keep/#", RejectNew: true}}
	})
	row := &SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "keep/#", QoS: 1}}}
	if err := l.StoreSession(row); err != nil {
		t.Fatal(err)
	}
	kept := 0
	var err error
	for range 2000 {
		if err = try(l, "keep/a", 900); err != nil {
			break
		}
		kept++
	}
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrQuota) {
		t.Fatal(err)
	}
	// Others and events do not push it beyond the budget for ever.
	for range 3000 {
		_ = try(l, "other/a", 900)
		_, _, _ = l.AppendEvents(EventEnded("somebody"))
	}
	u, err := l.Usage()
	if err != nil || u.Total() > 300<<10+2*l.o.SegmentSize {
		t.Fatalf("usage %+v, %v", u, err)
	}
	n := 0
	for _, m := range readAll(t, l) {
		if strings.HasPrefix(m, "keep/") {
			n++
		}
	}
	if n != kept {
		t.Fatalf("%d messages of %d are there", n, kept)
	}
	// The session takes what is there: then there is room again.
	row.Next = l.Head()
	if err := l.StoreSession(row); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.WaitRoom(ctx); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for try(l, "keep/a", 900) != nil && time.Now().Before(deadline) {
		if err := l.WaitRoom(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := try(l, "keep/a", 900); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSlowReaderDoesNotMakeRetentionDropEverything(t *testing.T) {
	l, _ := openDisk(t, func(o *Options) { o.MaxBytes = 400 << 10 })
	if err := try(l, "a", 100); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	r := l.NewReader()
	if _, _, err := r.Next(0); err != nil { // pins the oldest segment
		t.Fatal(err)
	}
	for i := range 1500 {
		if err := try(l, "a", 900); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	l.settle()
	if n := len(l.set.Snapshot()); n < 6 {
		t.Fatalf("only %d segments were left", n)
	}
	r.Release()
	if n := l.set.Leaving(); n != 0 {
		t.Fatalf("%d bytes are still leaving", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOversizedRecords(t *testing.T) {
	l, _ := openDisk(t, func(o *Options) { o.MaxBytes = 4 << 20 })
	sizes := []int{10, 100 << 10, 31 << 10, 32 << 10, 1 << 20, 1, 32<<10 - segment.FileHeadLen - segment.SealLen - segment.RecordHead - 7}
	for round := range 3 {
		for _, n := range sizes {
			err := try(l, fmt.Sprintf("t%d", round), n)
			for errors.Is(err, ErrFull) { // what is to be dropped is not sealed yet
				if err = l.WaitRoom(t.Context()); err == nil {
					err = try(l, fmt.Sprintf("t%d", round), n)
				}
			}
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	if err := try(l, "a", 5<<20); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("beyond the budget: %v", err)
	}
	if err := try(l, strings.Repeat("a", 70000), 5); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("topic too long: %v", err)
	}
	if err := try(l, "a", 5); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, l)
	if len(got) == 0 || got[len(got)-1] != "a=xxxxx" {
		t.Fatalf("%d messages", len(got))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, l.dir, l.o)
	if again := readAll(t, l); len(again) != len(got) {
		t.Fatalf("%d messages, %d after opening again", len(got), len(again))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A record that does not fit must not stand in the way of those that do.
func TestOversizedRecordThatDoesNotFitNow(t *testing.T) {
	l, d := openDisk(t, nil)
	l.settle()
	d.SetRoom(d.Used() + 200<<10)
	if err := try(l, "a", 1<<20); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	for range 100 {
		err := try(l, "a", 900)
		if errors.Is(err, ErrFull) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err = l.WaitRoom(ctx)
			cancel()
			if err == nil {
				err = try(l, "a", 900)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsThatFillASegmentExactly(t *testing.T) {
	l, _ := openDisk(t, nil)
	for n := range 40 {
		room := l.seq.active.Room()
		m := Message{Publisher: "p", Topic: []byte("a")}
		body := room - segment.RecordHead - m.bodyLen() - n
		if body < 0 {
			t.Fatal("no room")
		}
		l.settle()
		if err := try(l, "a", body); err != nil {
			t.Fatal(err)
		}
		if err := try(l, "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(readAll(t, l)); got != 80 {
		t.Fatalf("%d messages", got)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, l.dir, l.o)
	defer l.Close()
	if got := len(readAll(t, l)); got != 80 {
		t.Fatalf("%d messages after the kill", got)
	}
}

func TestRuleFloorsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	o := small()
	o.SegmentSize = 16 << 10
	o.Retention = []RetentionRule{{Filter: "v/#", MaxBytes: 64 << 10}}
	l := openTest(t, dir, o)
	if err := l.StoreSession(&SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "v/#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		publish(t, l, "v/a", strings.Repeat("x", 500), false)
	}
	l.settle()
	rule := l.rules.retention[0]
	floor, used, lost := rule.floor.Load(), rule.bytes.Load(), l.stats.Losses.Load()
	if floor == 0 || used > 96<<10 || lost == 0 {
		t.Fatalf("floor %d, %d bytes, %d lost", floor, used, lost)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, dir, o)
	l.settle()
	rule = l.rules.retention[0]
	if rule.floor.Load() != floor || rule.bytes.Load() != used || l.stats.Losses.Load() != 0 {
		t.Fatalf("floor %d, %d bytes, %d lost; before: %d, %d", rule.floor.Load(), rule.bytes.Load(), l.stats.Losses.Load(), floor, used)
	}
	// After a kill the last segment is sealed, and then the rule is applied:
	// to what is above the floor and to nothing else.
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, dir, o)
	l.settle()
	rule = l.rules.retention[0]
	if rule.floor.Load() < floor || rule.bytes.Load() > used || l.stats.Losses.Load() > lost/2 {
		t.Fatalf("floor %d, %d bytes, %d lost; before: %d, %d", rule.floor.Load(), rule.bytes.Load(), l.stats.Losses.Load(), floor, used)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A reader that begins before the oldest record is led to it; that record
// used to be shown although it was not synced yet.
func TestReaderDoesNotSeeWhatIsNotSynced(t *testing.T) {
	dir := t.TempDir()
	d := segmenttest.New(dir)
	release := make(chan struct{})
	var flushes atomic.Int32
	d.Step = func(op segmenttest.Op, _ string) {
		// The first sync is that of the new segment's header, before anything
		// is appended; those of records wait.
		if op == segmenttest.Flush && flushes.Add(1) > 2 {
			<-release
		}
	}
	l := openTest(t, dir, crashOptions(d))
	defer l.Close()
	defer close(release)
	if _, _, err := l.AppendEvents(EventEnded("x")); err != nil {
		t.Fatal(err)
	}
	r := l.NewReader()
	defer r.Release()
	for range 100 {
		committed := l.Committed()
		rec, _, err := r.Next(0)
		if err == nil && rec.Pos >= max(committed, l.Committed()) {
			t.Fatalf("read %d, committed %d", rec.Pos, l.Committed())
		}
	}
}

// Where the address space has no hole for a large segment, its message is
// refused by itself, and others go on.
func TestOversizedRecordThatCannotBeMapped(t *testing.T) {
	l, d := openDisk(t, nil)
	l.settle()
	d.Fail(segmenttest.Create, 1, syscall.ENOMEM)
	d.Fail(segmenttest.Create, 2, syscall.ENOMEM) // without idle mappings
	if err := try(l, "a", 1<<20); !errors.Is(err, ErrUnmappable) || errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	for range 100 { // over several segments
		if err := try(l, "a", 900); err != nil {
			t.Fatal(err)
		}
	}
	d.Fail(segmenttest.Create, 1, syscall.ENOMEM)
	if err := try(l, "a", 1<<20); err != nil { // the second attempt finds a hole
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// One that is too large for now must not make others wait, not even for the
// keeper's next attempt, and smaller ones that are oversized too find room.
func TestOversizedRecordsAreRefusedOneByOne(t *testing.T) {
	l, d := openDisk(t, nil)
	l.settle()
	d.SetRoom(d.Used() + 400<<10)
	for range 3 {
		if err := try(l, "a", 1<<20); !errors.Is(err, ErrLarge) {
			t.Fatal(err)
		}
		if l.seq.full {
			t.Fatal("the log is full for everybody")
		}
		if err := try(l, "a", 900); err != nil {
			t.Fatal(err)
		}
		if err := try(l, "a", 70<<10); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// The largest messages that a configuration allows take a quarter of the
// budget each. They follow one another without end, the newest is always
// there, the budget holds, and the ledger says what a session has lost.
func TestBudgetOfFourOversizedRecords(t *testing.T) {
	const size = 1 << 20 // of a segment with room for events
	l, _ := openDisk(t, func(o *Options) { o.MaxBytes = 4*size + 64<<10 })
	if err := l.StoreSession(&SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	const n = 12
	for i := range n {
		err := try(l, fmt.Sprint("t", i), size-20<<10)
		for errors.Is(err, ErrFull) { // what is to be dropped is not sealed yet
			if err = l.WaitRoom(t.Context()); err == nil {
				err = try(l, fmt.Sprint("t", i), size-20<<10)
			}
		}
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		u, err := l.Usage()
		if err != nil || u.Total() > u.Budget+l.o.SegmentSize { // a ledger row may need a segment to free a larger one
			t.Fatalf("message %d: %+v, %v", i, u, err)
		}
	}
	l.settle()
	got := readAll(t, l)
	if len(got) < 2 || !strings.HasPrefix(got[len(got)-1], fmt.Sprint("t", n-1)) {
		t.Fatalf("%d messages", len(got))
	}
	if lost := l.stats.Losses.Load(); int(lost) != n-len(got) {
		t.Errorf("%d written to the ledger, %d missing", lost, n-len(got))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
