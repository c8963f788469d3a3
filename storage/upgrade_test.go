package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairnmq/index"
	"cairnmq/segment"
)

// Golden directories, one for each released format of segments and index
// together: written once by a program of that format, and only ever added to.
const goldenDirectories = "../testdata/directories"

// describeLog is everything that a directory is to mean to every later program.
func describeLog(t *testing.T, l *Log) string {
	t.Helper()
	var b strings.Builder
	for _, m := range readAll(t, l) {
		fmt.Fprintln(&b, "message", m)
	}
	list, err := l.Retained("#", "", l.Head(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		fmt.Fprintln(&b, "retained", x.Topic, x.Pos)
	}
	err = l.Sessions(func(row *SessionRow) error {
		at, due := row.Due()
		fmt.Fprintf(&b, "session %s %v expiry %d due %v %v next %d\n", row.ID, stateOf(row), row.Expiry, due, at.UTC(), row.Next)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Losses(0, func(x Loss) error {
		fmt.Fprintf(&b, "loss %v %v %d to %d: %d\n", x.Cause, x.Readers, x.From, x.To, x.Count)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// writeGoldenDirectory makes dir with this program's format, if there is none.
func writeGoldenDirectory(t *testing.T, dir string) {
	if _, err := os.Stat(dir); err == nil {
		return
	}
	o := small()
	o.SegmentSize = 8 << 10
	o.MaxBytes = 60 << 10
	clock := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return clock }
	l := openTest(t, dir, o)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.StoreSession(&SessionRow{ID: "away", Version: 5, Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "plant/#", QoS: 1, ID: 7}}}))
	for i := range 120 {
		publish(t, l, fmt.Sprintf("plant/%d", i%4), fmt.Sprintf("%03d %s", i, strings.Repeat("x", i%300)), i%30 < 3)
		l.settle()
	}
	must(l.StoreSession(&SessionRow{
		ID: "back soon", Version: 4, Expiry: 3600, Closed: l.Clock(), Next: l.Head(), Inbound: []uint16{9},
		Will: &Will{Topic: "gone", Payload: []byte("bye"), QoS: 1, Delay: 60}, Inflight: []Inflight{{ID: 3, Pos: l.Oldest(), QoS: 2, Received: true}},
	}))
	must(l.Close())
	l = openTest(t, dir, o)
	text := describeLog(t, l)
	must(l.Close())
	must(os.WriteFile(dir+".txt", []byte(text), 0o644))
}

func TestDirectoryOfEveryReleasedFormatOpens(t *testing.T) {
	if *update {
		writeGoldenDirectory(t, filepath.Join(goldenDirectories, "v1"))
	}
	dirs, err := filepath.Glob(filepath.Join(goldenDirectories, "v*.txt"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden directories: %v", err)
	}
	for _, listing := range dirs {
		want, err := os.ReadFile(listing)
		if err != nil {
			t.Fatal(err)
		}
		original := strings.TrimSuffix(listing, ".txt")
		for _, withIndex := range []bool{true, false} {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
				t.Fatal(err)
			}
			if v, err := Verify(dir); err != nil || len(v.Problems) > 0 || v.Index != "verified" {
				t.Errorf("%s: %v, %+v", original, err, v)
			}
			if !withIndex {
				if err := os.RemoveAll(filepath.Join(dir, indexSub)); err != nil {
					t.Fatal(err)
				}
			}
			l := openTest(t, dir, small())
			got := strings.Split(describeLog(t, l), "\n")
			for line := range strings.Lines(string(want)) {
				line = strings.TrimSuffix(line, "\n")
				// Some sessions were only ever in the index.
				if !slices.Contains(got, line) && (withIndex || strings.HasPrefix(line, "message")) {
					t.Errorf("%s, index %v: missing: %s", original, withIndex, line)
				}
			}
			publish(t, l, "new", "x", false)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a later version has written is refused in words, and left as it is.
func TestNewerDirectoryIsRefused(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(t *testing.T, dir string)
		is     error
		says   []string
	}{
		{"segment", func(t *testing.T, dir string) {
			files, _ := filepath.Glob(filepath.Join(dir, segmentsSub, "*.seg"))
			b, err := os.ReadFile(files[0])
			if err == nil {
				b[8] = 99
				err = os.WriteFile(files[0], b, 0o640)
			}
			if err == nil {
				err = os.RemoveAll(filepath.Join(dir, indexSub))
			}
			if err != nil {
				t.Fatal(err)
			}
		}, segment.ErrNewer, []string{".seg", "segment format 99, this program reads up to 1"}},
		{"index", func(t *testing.T, dir string) {
			i, err := index.Open(filepath.Join(dir, indexSub), index.Options{})
			if err != nil {
				t.Fatal(err)
			}
			m, _, err := i.Meta()
			b := i.NewBatch()
			m.Format = 99
			b.SetMeta(m)
			if err := errors.Join(err, b.Apply(), i.Flush(), i.Close()); err != nil {
				t.Fatal(err)
			}
		}, index.ErrNewer, []string{"index", "rows are of format 99, this program reads up to 1"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			l, dir := openReal(t)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			x.change(t, dir)
			_, err := Open(dir, small())
			if !errors.Is(err, x.is) {
				t.Fatal(err)
			}
			for _, words := range x.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
			if aside, _ := os.ReadDir(filepath.Join(dir, damagedSub)); len(aside) > 0 {
				t.Errorf("set aside: %v", aside)
			}
		})
	}
}
