//go:build linux

package storage

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"cairnmq/segment"
)

// realLog is a log on the real file system with a few sealed segments, and what
// is in them.
func realLog(t *testing.T) (l *Log, all []string) {
	t.Helper()
	o := small()
	o.SegmentSize = 64 << 10
	l = openTest(t, t.TempDir(), o)
	for range 500 {
		publish(t, l, "a", strings.Repeat("x", 500), false)
	}
	l.settle()
	return l, readAll(t, l)
}

// A page that the disk cannot deliver arrives as SIGBUS. Cutting a file under
// its mapping makes the kernel send exactly that.
func TestUnreadablePagesOfASealedSegmentAreDamage(t *testing.T) {
	l, all := realLog(t)
	segs := l.set.Snapshot()
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	hurt := segs[1]
	r := l.NewReader()
	defer r.Release()
	if _, _, err := r.Next(hurt.First()); err != nil { // mapped and pinned
		t.Fatal(err)
	}
	const kept = 5 * 4096
	if err := os.Truncate(hurt.Path, kept); err != nil {
		t.Fatal(err)
	}
	got, inHurt := 0, 0
	var damages []*segment.Damage
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		var d *segment.Damage
		if errors.As(err, &d) {
			damages = append(damages, d)
			pos = d.To
			continue
		}
		if err == ErrEnd {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if pos = next; rec.Kind == KindMessage {
			got++
			if rec.Pos >= hurt.Base && rec.Pos < hurt.Limit() {
				inHurt++
			}
		}
	}
	if len(damages) != 1 || damages[0].File != hurt.Path || !errors.Is(damages[0], syscall.EIO) || damages[0].To > hurt.Limit() {
		t.Fatalf("damages %v", damages)
	}
	if inHurt < kept/600 || damages[0].From < hurt.Base+kept-600 {
		t.Errorf("%d messages were read of the pages that are left, damage from %d on", inHurt, damages[0].From-hurt.Base)
	}
	l.ReportDamage(damages[0])
	var lost uint64
	if err := l.Losses(0, func(x Loss) error { lost += x.Count; return nil }); err != nil {
		t.Fatal(err)
	}
	if int(lost) != len(all)-got {
		t.Errorf("%d messages are missing, the ledger says %d", len(all)-got, lost)
	}
	publish(t, l, "a", "still here", false)
	r.Release()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The index says that the segment is longer than the file is.
	l = openTest(t, l.dir, l.o)
	if n := len(readAll(t, l)); n != got+1 {
		t.Errorf("%d messages after a restart, want %d", n, got+1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnwritablePageOfTheActiveSegmentEndsTheLogAndNotTheProcess(t *testing.T) {
	l, _ := realLog(t)
	if err := os.Truncate(l.seq.active.Path, 0); err != nil {
		t.Fatal(err)
	}
	err := try(l, "a", 100)
	for err == nil { // pages ahead of the tail are gone, too
		err = try(l, "a", 4000)
	}
	if !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	<-l.Failed()
	if err := l.Wait(l.Head()+1, ClassAlways); !errors.Is(err, ErrFailed) {
		t.Errorf("wait: %v", err)
	}
	_ = l.stop()
}

// While it is being recovered, a file has a page that cannot be read.
func TestUnreadablePageInRecovery(t *testing.T) {
	l, _ := realLog(t)
	seg := l.set.Snapshot()[0]
	m, err := segment.OS{}.Map(seg.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Unmap()
	if err := os.Truncate(seg.Path, 3*4096); err != nil {
		t.Fatal(err)
	}
	n := 0
	rec, err := segment.Recover(seg.Path, m.Bytes(), 0, func(Record) error { n++; return nil })
	if err != nil || n < 10 || rec.End > 3*4096 {
		t.Errorf("%d records up to %d, %v", n, rec.End, err)
	}
	if err := os.Truncate(seg.Path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Recover(seg.Path, m.Bytes(), 0, nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("a header that cannot be read: %v", err)
	}
	_ = l.stop()
}
