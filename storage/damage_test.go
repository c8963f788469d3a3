package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
)

// written is a message of the directory that is going to be damaged.
type written struct {
	text     string
	pos, end Pos
}

// specimen is a small directory: three sealed segments and one that was in
// use when the process died.
type specimen struct {
	files map[string][]byte
	index string // directory that holds "index"
	msgs  []written
	bases []Pos
}

func specimenOptions(d *segmenttest.Disk) Options {
	o := crashOptions(d)
	o.SegmentSize = 8 << 10
	return o
}

func newSpecimen(t *testing.T) *specimen {
	s := &specimen{files: map[string][]byte{}, index: t.TempDir()}
	dir := t.TempDir()
	d := segmenttest.New(dir)
	l := openTest(t, dir, specimenOptions(d))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := l.AppendEvents(EventOpened("c", 5, true, Never, nil, l.Head()), EventSubscribed("c", []Sub{{Filter: "#", QoS: 1}}))
	must(err)
	must(l.StoreSession(&SessionRow{ID: "c", Expiry: Never, Next: l.Head(), AsOf: l.Head(), Subs: []Sub{{Filter: "#", QoS: 1}}}))
	for i := range 120 {
		text := fmt.Sprintf("%03d %s", i, strings.Repeat("payload ", i%40))
		end := publish(t, l, fmt.Sprintf("t/%d", i%5), text, i%20 == 0)
		m := Message{Publisher: "p", Topic: []byte("t/0"), Payload: []byte(text)}
		s.msgs = append(s.msgs, written{text, end - Pos(segment.PaddedLen(m.bodyLen())), end})
	}
	l.settle()
	must(l.Checkpoint())
	must(os.CopyFS(filepath.Join(s.index, indexSub), os.DirFS(l.indexDir())))
	next := l.seq.next
	for _, name := range d.Names() {
		if next == nil || filepath.Base(name) != filepath.Base(next.Path) {
			s.files[name] = slices.Clone(d.Bytes(name))
			base, _ := segment.ParseFileName(filepath.Base(name))
			s.bases = append(s.bases, base)
		}
	}
	slices.Sort(s.bases)
	must(l.stop())
	if len(s.files) != 4 {
		t.Fatalf("%d segments, want 4", len(s.files))
	}
	return s
}

// hurt opens a copy of the specimen after change has damaged it. lost says
// which messages may be missing.
func (s *specimen) hurt(t *testing.T, what string, withIndex bool, change func(*segmenttest.Disk), lost func(written) bool) {
	t.Helper()
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	d := segmenttest.New(dir)
	for name, b := range s.files {
		d.Put(name, slices.Clone(b))
	}
	if withIndex {
		if err := os.CopyFS(dir, os.DirFS(s.index)); err != nil {
			t.Fatal(err)
		}
	}
	change(d)
	what = fmt.Sprintf("%s, index %v", what, withIndex)
	l, err := Open(dir, specimenOptions(d))
	if err != nil {
		t.Errorf("%s: open: %v", what, err)
		return
	}
	got := map[string]bool{}
	r := l.NewReader()
	last := Pos(0)
	for pos := Pos(0); ; {
		rec, next, err := r.Next(pos)
		var damage *segment.Damage
		if errors.As(err, &damage) {
			if damage.To <= pos {
				t.Fatalf("%s: damage %v does not lead on from %d", what, damage, pos)
			}
			l.ReportDamage(damage)
			pos = damage.To
			continue
		}
		if err == ErrEnd {
			break
		}
		if err != nil {
			t.Fatalf("%s: read at %d: %v", what, pos, err)
		}
		if rec.Pos <= last {
			t.Fatalf("%s: %d comes behind %d", what, rec.Pos, last)
		}
		last, pos = rec.Pos, next
		if rec.Kind != KindMessage {
			continue
		}
		m, err := DecodeMessage(&rec)
		i := slices.IndexFunc(s.msgs, func(w written) bool { return w.text == string(m.Payload) })
		if err != nil || i < 0 || s.msgs[i].pos != rec.Pos {
			t.Errorf("%s: record at %d was never written (%v)", what, rec.Pos, err)
			continue
		}
		got[s.msgs[i].text] = true
	}
	r.Release()
	var reported []Loss
	if err := l.Losses(0, func(x Loss) error { reported = append(reported, x); return nil }); err != nil {
		t.Errorf("%s: ledger: %v", what, err)
	}
	tail := s.msgs[len(s.msgs)-1].end
	for i := len(s.msgs) - 1; i >= 0; i-- {
		w := s.msgs[i]
		if got[w.text] {
			if w.pos > s.bases[3] {
				tail = 0 // what is missing before a sound record is a hole
			}
			continue
		}
		if !lost(w) {
			t.Errorf("%s: message at %d is missing", what, w.pos)
		}
		covered := slices.ContainsFunc(reported, func(x Loss) bool { return x.Cause == CauseDamage && x.From <= w.pos && x.To >= w.end })
		torn := tail != 0 && w.pos > s.bases[3]
		if !covered && !torn {
			t.Errorf("%s: message at %d is missing without a row in the ledger: %+v", what, w.pos, reported)
		}
	}
	if _, ok, err := l.LoadSession("c"); err != nil || withIndex && !ok {
		t.Errorf("%s: session: %v, %v", what, ok, err)
	}
	if pos := publishAt(t, l, "new", "x"); pos < s.msgs[len(s.msgs)-1].end {
		t.Errorf("%s: position %d given again", what, pos)
	}
	l.settle()
	if err := l.Close(); err != nil {
		t.Errorf("%s: close: %v", what, err)
	}
}

func (s *specimen) baseOf(name string) Pos {
	base, _ := segment.ParseFileName(filepath.Base(name))
	return base
}

// at reports whether a message has a byte in [from, to) of a file.
func (s *specimen) at(name string, from, to int) func(written) bool {
	base := s.baseOf(name)
	limit := base + Pos(len(s.files[name]))
	if from < segment.FileHeadLen {
		to = 1 << 30 // without its header, a segment is set aside whole
	}
	return func(w written) bool {
		return w.pos >= base && w.pos < limit && w.pos < base+Pos(to) && w.end > base+Pos(from)
	}
}

func TestDamagedBytes(t *testing.T) {
	s := newSpecimen(t)
	stride := 173
	if long {
		stride = 1
	}
	n := 0
	for name, b := range s.files {
		for off := 0; off < len(b); off += 1 + (off*7)%stride {
			if off < 72 && !long && off%5 != 0 {
				continue
			}
			for i, change := range []struct {
				what string
				to   int
				f    func(b []byte) []byte
			}{
				{"flip", off + 1, func(b []byte) []byte { b[off] ^= 0x10; return b }},
				{"zero", off + 64, func(b []byte) []byte { clear(b[off:min(off+64, len(b))]); return b }},
				{"truncate", 1 << 30, func(b []byte) []byte { return b[:off] }},
			} {
				if n++; !long && n/3%3 != i {
					continue
				}
				s.hurt(t, fmt.Sprintf("%s of %s at %d", change.what, name, off), n%2 == 0, func(d *segmenttest.Disk) {
					d.Put(name, change.f(slices.Clone(d.Bytes(name))))
				}, s.at(name, off, change.to))
			}
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	s := newSpecimen(t)
	for _, withIndex := range []bool{true, false} {
		for a := range s.files {
			whole := s.at(a, 0, 0)
			if withIndex && s.baseOf(a) != s.bases[3] {
				// Nothing but the index says that it was ever there, and of
				// the one that was in use not even that.
				s.hurt(t, "delete "+a, withIndex, func(d *segmenttest.Disk) { d.Put(a, nil) }, whole)
			}
			s.hurt(t, "empty "+a, withIndex, func(d *segmenttest.Disk) { d.Put(a, []byte{}) }, whole)
			for b := range s.files {
				if a < b {
					s.hurt(t, "swap "+a+" and "+b, withIndex, func(d *segmenttest.Disk) {
						x, y := d.Bytes(a), d.Bytes(b)
						d.Put(a, y)
						d.Put(b, x)
					}, func(w written) bool { return whole(w) || s.at(b, 0, 0)(w) })
				}
			}
		}
	}
}

func TestStrayFilesDoNotMatter(t *testing.T) {
	s := newSpecimen(t)
	for _, name := range []string{"18446744073709551000.seg", "00000000000000000001.seg", "x.seg", "00000000000000000001.seg.tmp"} {
		for _, b := range [][]byte{{}, []byte("no segment"), make([]byte, 8192)} {
			s.hurt(t, fmt.Sprintf("stray %s of %d bytes", name, len(b)), true, func(d *segmenttest.Disk) { d.Put("log/"+name, b) },
				func(written) bool { return false })
		}
	}
}

func TestDamagedIndex(t *testing.T) {
	s := newSpecimen(t)
	var files []string
	err := filepath.WalkDir(filepath.Join(s.index, indexSub), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stride := max(1, len(old)/12)
		if long {
			stride = max(1, len(old)/200)
		}
		for off := 0; off < len(old); off += stride {
			for _, change := range []struct {
				what string
				b    []byte
			}{
				{"flip", append(append(slices.Clone(old[:off]), old[off]^0x40), old[off+1:]...)},
				{"truncate", old[:off]},
			} {
				s.hurtIndex(t, fmt.Sprintf("%s of %s at %d", change.what, filepath.Base(path), off), path, change.b)
			}
		}
		s.hurtIndex(t, "delete "+filepath.Base(path), path, nil)
		if err := os.WriteFile(path, old, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// hurtIndex: the log's messages are all there whatever the index holds.
func (s *specimen) hurtIndex(t *testing.T, what, path string, b []byte) {
	t.Helper()
	err := os.Remove(path)
	if b != nil {
		err = os.WriteFile(path, b, 0o640)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	d := segmenttest.New(dir)
	for name, b := range s.files {
		d.Put(name, slices.Clone(b))
	}
	if err := os.CopyFS(dir, os.DirFS(s.index)); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		l, err := Open(dir, specimenOptions(d))
		if err != nil {
			t.Errorf("%s: open %d: %v", what, round, err)
			return
		}
		n := len(readAll(t, l))
		list, err := l.Retained("t/+", "", l.Head(), 10)
		if round == 1 && (err != nil || len(list) != 1) {
			t.Errorf("%s: retained: %v, %v", what, list, err)
		}
		if _, ok, err := l.LoadSession("c"); round == 1 && (err != nil || !ok) {
			t.Errorf("%s: session: %v, %v", what, ok, err)
		}
		if n != len(s.msgs) {
			t.Errorf("%s: %d messages, want %d", what, n, len(s.msgs))
		}
		if err := l.Close(); err != nil && round == 1 {
			t.Errorf("%s: close: %v", what, err)
		}
	}
}
