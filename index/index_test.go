package index

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// everywhere runs test on a real directory and in memory.
func everywhere(t *testing.T, test func(t *testing.T, dir string, o Options)) {
	t.Run("disk", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "index"), Options{}) })
	t.Run("memory", func(t *testing.T) { test(t, "a/index", Options{FS: vfs.NewCrashableMem()}) })
}

func mustOpen(t testing.TB, dir string, o Options) *Index {
	t.Helper()
	x, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// closing closes x at the end of the test, after checking all of it.
func closing(t testing.TB, x *Index) *Index {
	t.Cleanup(func() {
		if err := x.Verify(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("at the end of the test: %v", err)
		}
		if err := x.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return x
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func apply(t testing.TB, x *Index, change func(b *Batch)) {
	t.Helper()
	b := x.NewBatch()
	change(b)
	must(t, b.Apply())
}

// dump is everything in the index, readable.
func dump(x *Index) (map[string]string, error) {
	rows := map[string]string{}
	err := x.scanTo([]byte{0}, []byte{0xff}, func(key, value []byte) error {
		rows[string(key)] = string(value)
		return nil
	})
	return rows, err
}

func TestRowsComeBackAfterFlushAndReopen(t *testing.T) {
	everywhere(t, func(t *testing.T, dir string, o Options) {
		x := mustOpen(t, dir, o)
		if _, ok, err := x.Meta(); ok || err != nil {
			t.Fatalf("a new index has Meta: %v %v", ok, err)
		}
		meta := Meta{Format: 3, LogID: [16]byte{1, 15: 2}, Checkpoint: 77}
		apply(t, x, func(b *Batch) {
			b.SetMeta(meta)
			b.SetSegment(64, []byte("segment"))
			b.SetPostings(64, []byte("a/b"), []byte("postings"))
			b.SetRetained("a/b", 99)
			b.SetSession("client", []byte("session"))
			b.SetSession("empty", nil)
			b.SetOnline("client")
			b.SetDue(-5, "client")
			b.SetReader("$share/g/#", []byte("reader"))
			b.SetLoss(123, []byte("loss"))
		})
		want, err := dump(x)
		must(t, err)
		if x.Pending() == 0 {
			t.Error("nothing is pending after Apply")
		}
		must(t, x.Flush())
		if x.Pending() != 0 {
			t.Errorf("%d bytes pending after Flush", x.Pending())
		}
		must(t, x.Close())

		x = closing(t, mustOpen(t, dir, o))
		got, err := dump(x)
		must(t, err)
		if !maps.Equal(got, want) || len(got) != 11 {
			t.Errorf("got %q\nwant %q", got, want)
		}
		if m, ok, err := x.Meta(); m != meta || !ok || err != nil {
			t.Errorf("Meta: %+v %v %v", m, ok, err)
		}
		if row, ok, err := x.Segment(64); string(row) != "segment" || !ok || err != nil {
			t.Errorf("Segment: %q %v %v", row, ok, err)
		}
		if row, ok, err := x.Postings(64, "a/b"); string(row) != "postings" || !ok || err != nil {
			t.Errorf("Postings: %q %v %v", row, ok, err)
		}
		if _, ok, err := x.Postings(64, "a"); ok || err != nil {
			t.Errorf("Postings of a shorter topic: %v %v", ok, err)
		}
		if pos, ok, err := x.Retained("a/b"); pos != 99 || !ok || err != nil {
			t.Errorf("Retained: %d %v %v", pos, ok, err)
		}
		if row, ok, err := x.Session("client"); string(row) != "session" || !ok || err != nil {
			t.Errorf("Session: %q %v %v", row, ok, err)
		}
		if row, ok, err := x.Session("empty"); len(row) != 0 || !ok || err != nil {
			t.Errorf("Session with an empty row: %q %v %v", row, ok, err)
		}
		if row, ok, err := x.Reader("$share/g/#"); string(row) != "reader" || !ok || err != nil {
			t.Errorf("Reader: %q %v %v", row, ok, err)
		}
		if m := x.Metrics(); m.DiskBytes == 0 || m.Tables == 0 || m.MemTableBytes == 0 {
			t.Errorf("Metrics: %+v", m)
		}
	})
}

func TestDeleteSegmentTakesItsPostingsAndNoOthers(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	bases := []uint64{0, 1, 255, 256, 1<<56 - 1, 1 << 56, math.MaxUint64 - 1, math.MaxUint64}
	apply(t, x, func(b *Batch) {
		for _, base := range bases {
			b.SetSegment(base, []byte{1})
			for _, topic := range []string{"", "a", "\xff\xff", "\x00"} {
				b.SetPostings(base, []byte(topic), []byte(topic))
			}
		}
		b.SetRetained("", 1) // the key right after the last postings
	})
	for len(bases) > 0 {
		gone := bases[len(bases)/2]
		bases = slices.Delete(bases, len(bases)/2, len(bases)/2+1)
		apply(t, x, func(b *Batch) { b.DeleteSegment(gone) })
		var left []uint64
		must(t, x.Segments(func(base uint64, _ []byte) error {
			left = append(left, base)
			topics := 0
			must(t, x.PostingTopics(base, "", func(topic, enc []byte) error {
				topics++
				if string(topic) != string(enc) {
					t.Errorf("segment %d, topic %q has postings %q", base, topic, enc)
				}
				return nil
			}))
			if topics != 4 {
				t.Errorf("segment %d keeps %d of 4 topics", base, topics)
			}
			return nil
		}))
		if !slices.Equal(left, bases) {
			t.Fatalf("segments %d, want %d", left, bases)
		}
		must(t, x.PostingTopics(gone, "", func(topic, _ []byte) error {
			return fmt.Errorf("segment %d is gone and keeps %q", gone, topic)
		}))
	}
	if _, ok, err := x.Retained(""); !ok || err != nil {
		t.Errorf("retained row: %v %v", ok, err)
	}
}

func TestPrefixesSelectTopicsThatBeginWithThem(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	topics := []string{"a", "a/", "a/b", "a/b/c", "a0", "b", "é", "\xff", "\xffa", "/"}
	apply(t, x, func(b *Batch) {
		for i, topic := range topics {
			b.SetRetained(topic, uint64(i))
			b.SetPostings(7, []byte(topic), nil)
			b.SetPostings(8, []byte("z"+topic), nil)
		}
	})
	slices.Sort(topics)
	for _, prefix := range append(topics, "", "a/b/", "zz", "\xff\xff") {
		var want, retained, posted []string
		for _, topic := range topics {
			if strings.HasPrefix(topic, prefix) {
				want = append(want, topic)
			}
		}
		must(t, x.RetainedPrefix(prefix, func(topic []byte, _ uint64) error {
			retained = append(retained, string(topic))
			return nil
		}))
		must(t, x.PostingTopics(7, prefix, func(topic, _ []byte) error {
			posted = append(posted, string(topic))
			return nil
		}))
		if !slices.Equal(retained, want) || !slices.Equal(posted, want) {
			t.Errorf("prefix %q: retained %q, posted %q, want %q", prefix, retained, posted, want)
		}
	}
}

func TestDueIsOrderedByTimeAndStopsAtUntil(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	times := []int64{math.MinInt64, -1, 0, 1, 1000, math.MaxInt64}
	apply(t, x, func(b *Batch) {
		for _, at := range slices.Backward(times) {
			b.SetDue(at, "b")
			b.SetDue(at, "a")
			b.SetDue(at, "c")
			b.DeleteDue(at, "c")
		}
	})
	for i, until := range times {
		var got []string
		must(t, x.Due(until, func(at int64, id string) error {
			got = append(got, fmt.Sprint(at, id))
			return nil
		}))
		var want []string
		for _, at := range times[:i+1] {
			want = append(want, fmt.Sprint(at, "a"), fmt.Sprint(at, "b"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("until %d: %q, want %q", until, got, want)
		}
	}
}

func TestDeleteSessionClearsTheOnlineMark(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	apply(t, x, func(b *Batch) {
		b.SetSession("a", []byte("1"))
		b.SetSession("ab", []byte("2"))
		b.SetOnline("a")
		b.SetOnline("ab")
	})
	apply(t, x, func(b *Batch) { b.DeleteSession("a") })
	var online, ids []string
	must(t, x.Online(func(id string) error { online = append(online, id); return nil }))
	must(t, x.Sessions(func(id string, _ []byte) error { ids = append(ids, id); return nil }))
	if !slices.Equal(online, []string{"ab"}) || !slices.Equal(ids, []string{"ab"}) {
		t.Errorf("online %q, sessions %q", online, ids)
	}
}

func TestLossesFromAPosition(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	apply(t, x, func(b *Batch) {
		for pos := range uint64(10) {
			b.SetLoss(pos, []byte{byte(pos)})
		}
	})
	apply(t, x, func(b *Batch) { b.DeleteLosses(3) })
	var got []uint64
	must(t, x.Losses(0, func(pos uint64, _ []byte) error { got = append(got, pos); return nil }))
	must(t, x.Losses(8, func(pos uint64, row []byte) error { got = append(got, uint64(row[0])); return nil }))
	if want := []uint64{3, 4, 5, 6, 7, 8, 9, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestIterationSeesTheMomentItBegan(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	apply(t, x, func(b *Batch) {
		for i := range 10 {
			b.SetSession(fmt.Sprint(i), nil)
		}
	})
	seen := 0
	must(t, x.Sessions(func(id string, _ []byte) error {
		seen++
		apply(t, x, func(b *Batch) {
			b.DeleteSession(fmt.Sprint(9))
			b.SetSession(id+"x", nil)
		})
		if seen == 5 {
			must(t, x.Flush())
		}
		return nil
	}))
	if seen != 10 {
		t.Errorf("saw %d sessions, want the 10 there were", seen)
	}
	stop := errors.New("enough")
	if err := x.Sessions(func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an iteration that was stopped returns %v", err)
	}
}

func TestBatchIsEmptyAfterApply(t *testing.T) {
	x := closing(t, mustOpen(t, t.TempDir(), Options{}))
	b := x.NewBatch()
	must(t, b.Apply()) // of nothing
	b.SetSession("a", nil)
	must(t, b.Apply())
	if b.Len() != 0 {
		t.Errorf("%d changes left", b.Len())
	}
	apply(t, x, func(b *Batch) { b.DeleteSession("a") })
	must(t, b.Apply()) // must not bring it back
	b.SetSession("b", nil)
	b.Reset()
	must(t, b.Apply())
	// Larger than half a memtable: Pebble keeps such a batch's bytes.
	row := make([]byte, 3<<20)
	b.SetSession("large", row)
	must(t, b.Apply())
	b.SetSession("c", []byte("c"))
	must(t, b.Apply())
	var ids []string
	must(t, x.Sessions(func(id string, _ []byte) error { ids = append(ids, id); return nil }))
	if !slices.Equal(ids, []string{"c", "large"}) {
		t.Errorf("sessions %q", ids)
	}
	if got, _, err := x.Session("large"); len(got) != len(row) || err != nil {
		t.Errorf("large row: %d bytes, %v", len(got), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, dir string, o Options) {
		readOnly := o
		readOnly.ReadOnly = true
		if _, err := Open(dir, readOnly); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading a directory that is not there: %v", err)
		}
		x := mustOpen(t, dir, o)
		apply(t, x, func(b *Batch) { b.SetMeta(Meta{}) })
		must(t, x.Flush())
		if _, err := Open(dir, o); !errors.Is(err, ErrLocked) {
			t.Errorf("open twice: %v", err)
		}
		must(t, x.Close())
		// A lock that was refused must not stay taken.
		x = mustOpen(t, dir, readOnly)
		b := x.NewBatch()
		b.SetRetained("a", 1)
		if err := b.Apply(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Apply while reading only: %v", err)
		}
		if err := x.Flush(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Flush while reading only: %v", err)
		}
		must(t, x.Verify())
		must(t, x.Close())

		x = mustOpen(t, dir, o)
		row := appendMeta(nil, Meta{})
		row[0] = tableVersion + 1
		b = x.NewBatch()
		b.set(keyMeta, row)
		must(t, b.Apply())
		must(t, x.Flush())
		must(t, x.Close())
		for range 2 {
			if _, err := Open(dir, o); !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
				t.Errorf("a newer key table: %v", err)
			}
		}
	})
}

func TestOpenRefusesNewerFileFormat(t *testing.T) {
	dir := t.TempDir()
	must(t, mustOpen(t, dir, Options{}).Close())
	must(t, os.WriteFile(filepath.Join(dir, "marker.format-version.009999.999"), nil, 0o644))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestMachineErrorsAreNotDamage(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("root ignores permissions; only a file in place of the directory is tried")
	} else {
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0))
		_, err := Open(filepath.Join(dir, "index"), Options{})
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrDamaged) {
			t.Errorf("no permission: %v", err)
		}
		must(t, os.Chmod(dir, 0o700))
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o644))
	if _, err := Open(file, Options{}); err == nil {
		t.Error("a file opens as an index")
	}
}

func TestEverythingFailsAfterClose(t *testing.T) {
	x := mustOpen(t, t.TempDir(), Options{})
	b := x.NewBatch()
	b.SetRetained("a", 1)
	must(t, x.Close())
	_, _, getErr := x.Retained("a")
	for what, err := range map[string]error{
		"Apply": b.Apply(), "Flush": x.Flush(), "Close": x.Close(), "Verify": x.Verify(), "Retained": getErr,
		"Sessions": x.Sessions(func(string, []byte) error { return nil }),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if m := x.Metrics(); m != (Metrics{}) {
		t.Errorf("Metrics after Close: %+v", m)
	}
}

func TestCloseWaitsForReaders(t *testing.T) {
	x := mustOpen(t, t.TempDir(), Options{})
	apply(t, x, func(b *Batch) { b.SetSession("a", nil); b.SetSession("b", nil) })
	inside, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-inside
		closed <- x.Close()
	}()
	seen := 0
	err := x.Sessions(func(string, []byte) error {
		if seen++; seen == 1 {
			close(inside)
		}
		return nil
	})
	if err != nil || seen != 2 {
		t.Errorf("iteration during Close: %d rows, %v", seen, err)
	}
	must(t, <-closed)
}

// Random changes, against a map.
func TestIndexAgainstModel(t *testing.T) {
	everywhere(t, func(t *testing.T, dir string, o Options) {
		o.MemTableBytes = 64 << 10
		r := rand.New(rand.NewPCG(7, 8))
		x := mustOpen(t, dir, o)
		model := newModel()
		for round := range 300 {
			b := x.NewBatch()
			for range r.IntN(40) {
				model.change(r, b)
			}
			must(t, b.Apply())
			switch r.IntN(20) {
			case 0:
				must(t, x.Flush())
			case 1:
				must(t, x.Flush())
				must(t, x.Close())
				x = mustOpen(t, dir, o)
			}
			if round%20 == 0 {
				model.check(t, x)
			}
		}
		model.check(t, x)
		must(t, x.Verify())
		must(t, x.Close())
	})
}

// model is what the index should hold, as dump shows it.
type model map[string]string

func newModel() model { return model{} }

// change makes one random change in both.
func (m model) change(r *rand.Rand, b *Batch) {
	base := uint64(r.IntN(5)) << 40
	name := randomName(r) + fmt.Sprint(r.IntN(20))
	row := make([]byte, r.IntN(200))
	for i := range row {
		row[i] = byte(r.IntN(8))
	}
	pos := randomPos(r)
	at := int64(r.IntN(9)) - 4
	remove := r.IntN(3) == 0
	set := func(key []byte, value string) { m[string(key)] = value }
	forget := func(key []byte) { delete(m, string(key)) }
	switch kind := r.IntN(8); {
	case kind == 0 && remove:
		b.DeleteSegment(base)
		forget(appendPosKey(nil, prefixSegment, base))
		maps.DeleteFunc(m, func(key, _ string) bool {
			return strings.HasPrefix(key, string(appendPosKey(nil, prefixPostings, base)))
		})
	case kind == 0:
		b.SetSegment(base, row)
		set(appendPosKey(nil, prefixSegment, base), string(row))
	case kind == 1:
		b.SetPostings(base, []byte(name), row)
		set(appendPostingsKey(nil, base, name), string(row))
	case kind == 2 && remove:
		b.DeleteRetained(name)
		forget(appendNameKey(nil, prefixRetained, name))
	case kind == 2:
		b.SetRetained(name, pos)
		set(appendNameKey(nil, prefixRetained, name), string(appendPosKey(nil, 0, pos)[1:]))
	case kind == 3 && remove:
		b.DeleteSession(name)
		forget(appendNameKey(nil, prefixSession, name))
		forget(appendNameKey(nil, prefixOnline, name))
	case kind == 3:
		b.SetSession(name, row)
		set(appendNameKey(nil, prefixSession, name), string(row))
	case kind == 4 && remove:
		b.ClearOnline(name)
		forget(appendNameKey(nil, prefixOnline, name))
	case kind == 4:
		b.SetOnline(name)
		set(appendNameKey(nil, prefixOnline, name), "")
	case kind == 5 && remove:
		b.DeleteDue(at, name)
		forget(appendDueKey(nil, at, name))
	case kind == 5:
		b.SetDue(at, name)
		set(appendDueKey(nil, at, name), "")
	case kind == 6 && remove:
		b.DeleteReader(name)
		forget(appendNameKey(nil, prefixReader, name))
	case kind == 6:
		b.SetReader(name, row)
		set(appendNameKey(nil, prefixReader, name), string(row))
	default:
		b.SetLoss(pos, row)
		set(appendPosKey(nil, prefixLoss, pos), string(row))
	}
}

func (m model) check(t *testing.T, x *Index) {
	t.Helper()
	got, err := dump(x)
	must(t, err)
	if !maps.Equal(got, m) {
		for key, want := range m {
			if got[key] != want {
				t.Fatalf("key %q: %q, want %q", key, got[key], want)
			}
		}
		t.Fatalf("%d rows, want %d", len(got), len(m))
	}
}

func BenchmarkSessionGet(b *testing.B) {
	x := closing(b, mustOpen(b, b.TempDir(), Options{}))
	const sessions = 20_000
	batch := x.NewBatch()
	for i := range sessions {
		batch.SetSession(fmt.Sprintf("client-%06d", i), make([]byte, 120))
	}
	must(b, batch.Apply())
	must(b, x.Flush())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok, err := x.Session(fmt.Sprintf("client-%06d", i*7919%sessions)); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkSetRetained1000(b *testing.B) {
	x := closing(b, mustOpen(b, b.TempDir(), Options{}))
	batch := x.NewBatch()
	topics := make([]string, 50_000)
	for i := range topics {
		topics[i] = fmt.Sprintf("site/%d/machine/%d/temperature", i%50, i)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for range 1000 {
			batch.SetRetained(topics[n%len(topics)], uint64(n))
			n++
		}
		must(b, batch.Apply())
		if x.Pending() > DefaultMemTableBytes/2 {
			must(b, x.Flush())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
	m := x.Metrics()
	b.ReportMetric(float64(m.FlushedBytes+m.CompactedBytes)/float64(n), "written-B/row")
}

// A reader that catches up asks every segment for a topic that few have.
func BenchmarkPostingsMiss(b *testing.B) {
	x := closing(b, mustOpen(b, b.TempDir(), Options{}))
	const segments, topics = 400, 500 // 40 MB, more than the cache holds
	batch := x.NewBatch()
	random := rand.NewChaCha8([32]byte{})
	enc := make([]byte, 200)
	for s := range uint64(segments) {
		for i := range topics {
			random.Read(enc)
			batch.SetPostings(s<<26, fmt.Appendf(nil, "site/%d/machine/%d", i%20, i), enc)
		}
		must(b, batch.Apply())
	}
	must(b, x.Flush())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok, err := x.Postings(uint64(i%segments)<<26, "site/7/machine/none"); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
