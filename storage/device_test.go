package storage

import (
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cairnmq/segment/segmenttest"
	"cairnmq/storage/storagetest"
)

// openFailing opens a log whose index's disk fails with *fault while that is
// set.
func openFailing(t *testing.T, change func(*Options)) (l *Log, disk *storagetest.Disk, fault *atomic.Pointer[error]) {
	t.Helper()
	disk = storagetest.New()
	fault = new(atomic.Pointer[error])
	disk.Index.Step = func(op, _ string) error {
		if err := fault.Load(); err != nil && (op == "write" || op == "sync" || op == "create") {
			return *err
		}
		return nil
	}
	o := crashOptions(disk.Log)
	o.IndexFS = disk.IndexFS()
	o.SyncInterval = time.Millisecond
	if change != nil {
		change(&o)
	}
	return openTest(t, storagetest.Dir, o), disk, fault
}

// The log is the truth: while the index cannot be written, messages are still
// taken and kept, and what the index has missed is replayed.
func TestLogGoesOnWhileTheIndexCannotBeWritten(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EROFS} {
		l, disk, fault := openFailing(t, nil)
		publish(t, l, "a", "before", true)
		fault.Store(&cause)
		if err := l.Checkpoint(); !errors.Is(err, cause) {
			t.Fatalf("checkpoint: %v", err)
		}
		for range 100 {
			if err := try(l, "m/always/a", 900); err != nil {
				t.Fatalf("%v in the index stops the log: %v", cause, err)
			}
		}
		publish(t, l, "a", "meanwhile", true)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		left := disk.Cut(segmenttest.Lost, 1)
		o := crashOptions(left.Log)
		o.IndexFS = left.IndexFS()
		again := openTest(t, storagetest.Dir, o)
		if n := len(readAll(t, again)); n != 102 {
			t.Errorf("%d messages after a power cut", n)
		}
		list, err := again.Retained("a", "", again.Head(), 1)
		if err != nil || len(list) != 1 {
			t.Errorf("retained: %v, %v", list, err)
		}
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		fault.Store(nil)
		l.settle()
		if err := l.Checkpoint(); err != nil {
			t.Errorf("the index can be written again: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// While the index cannot be flushed no segment goes, however often the keeper
// tries, and the ledger does not say a second time what it has said.
func TestDropThatIsTriedAgainIsInTheLedgerOnce(t *testing.T) {
	l, _, fault := openFailing(t, nil)
	if err := l.StoreSession(&SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := try(l, "m/always/a", 900); err != nil {
			t.Fatal(err)
		}
	}
	l.settle()
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	first := l.Oldest()
	var cause error = syscall.ENOSPC
	fault.Store(&cause)
	for range 3 {
		if dropped, _, err := l.dropOldest(CauseRetention, "test"); err == nil || l.Oldest() != first {
			t.Fatalf("dropped %v, %v", dropped, err)
		}
	}
	fault.Store(nil)
	dropped, _, err := l.dropOldest(CauseRetention, "test")
	if !dropped || err != nil || l.Oldest() == first {
		t.Fatalf("dropped %v, %v", dropped, err)
	}
	rows := 0
	if err := l.Losses(0, func(x Loss) error { rows++; return nil }); err != nil {
		t.Fatal(err)
	}
	if rows != 1 {
		t.Errorf("%d rows", rows)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file system that was remounted for reading only refuses every new segment:
// publishers are told that there is no room, and nothing that was acknowledged
// is lost.
func TestReadOnlyRemount(t *testing.T) {
	l, d := openDisk(t, nil)
	l.settle()
	for n := 1; n < 10000; n++ {
		d.Fail(segmenttest.Create, n, syscall.EROFS)
	}
	kept := 0
	var err error
	for ; kept < 1000; kept++ {
		if err = try(l, "m/always/a", 900); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("%v after %d messages", err, kept)
	}
	if n := len(readAll(t, l)); n != kept {
		t.Errorf("%d messages, acknowledged were %d", n, kept)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A clock that jumps, years back or from 1970 to today, costs no message and no
// order, makes nothing younger than zero, and a session whose connection ended
// while the clock was ahead does not end early.
func TestClockThatJumps(t *testing.T) {
	base := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		name         string
		wrong, right time.Time
	}{
		{"starts in 1970 and is set right", time.Unix(10, 0), base},
		{"is set back by years", base.AddDate(20, 0, 0), base},
		{"goes back to 1970", base, time.Unix(10, 0)},
	} {
		t.Run(x.name, func(t *testing.T) {
			var now atomic.Int64
			now.Store(x.wrong.UnixNano())
			l, _ := openDisk(t, func(o *Options) { o.Now = func() time.Time { return time.Unix(0, now.Load()) } })
			write := func(n int) {
				t.Helper()
				for range n {
					now.Add(int64(time.Millisecond))
					if err := try(l, "m/always/a", 900); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := l.StoreSession(&SessionRow{ID: "s", Expiry: 3600, Closed: l.Clock(), Next: l.Head()}); err != nil {
				t.Fatal(err)
			}
			write(100)
			now.Store(x.right.UnixNano())
			write(100)
			l.settle()
			got := readAll(t, l)
			if len(got) != 200 {
				t.Fatalf("%d messages", len(got))
			}
			// Records keep the order in which they were appended, whatever their
			// clocks say, and the monotonic clock does not make them younger.
			r := l.NewReader()
			defer r.Release()
			for pos := Pos(0); ; {
				rec, next, err := r.Next(pos)
				if err != nil {
					break
				}
				if age := l.Age(&rec.Head, l.o.Now()); age < 0 {
					t.Errorf("age %v at %d", age, rec.Pos)
				}
				pos = next
			}
			r.Release()
			if err := l.stop(); err != nil {
				t.Fatal(err)
			}
			l = openTest(t, l.dir, l.o)
			if !slices.Equal(readAll(t, l), got) {
				t.Error("not the same after a restart")
			}
			due, err := l.DueSessions(l.o.Now())
			if late := x.wrong.After(x.right); err != nil || late && len(due) != 0 {
				t.Errorf("due: %v, %v", due, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
