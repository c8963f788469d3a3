package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairnmq/index"
	"cairnmq/segment"
)

// verifiable is a data directory with some of everything.
func verifiable(t *testing.T, clean bool) string {
	t.Helper()
	o := small()
	o.SegmentSize = 32 << 10
	o.MaxBytes = 300 << 10
	l := openTest(t, t.TempDir(), o)
	if err := l.StoreSession(&SessionRow{ID: "away", Expiry: Never, Next: l.Head(), Subs: []Sub{{Filter: "#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	var pos Pos
	for i := range 400 {
		m := Message{Publisher: "p", Topic: fmt.Appendf(nil, "t/%d", i%7), Payload: []byte(strings.Repeat("x", 900))}
		pos = publish(t, l, string(m.Topic), string(m.Payload), i%50 < 7) - Pos(segment.PaddedLen(m.bodyLen()))
	}
	row := &SessionRow{ID: "busy", Expiry: 60, Closed: l.Clock(), Next: l.Head(), Inflight: []Inflight{{ID: 1, Pos: pos, QoS: 1}}}
	if err := l.StoreSession(row); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if clean {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.dir
	}
	publish(t, l, "t/1", "behind the checkpoint", true)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	return l.dir
}

func TestVerifyFindsNothingInASoundDirectory(t *testing.T) {
	for _, clean := range []bool{true, false} {
		v, err := Verify(verifiable(t, clean))
		if err != nil || len(v.Problems) > 0 {
			t.Fatalf("clean %v: %v, %+v", clean, err, v)
		}
		if v.Index != "verified" || v.Replay == clean || v.Segments < 4 || v.Postings == 0 || v.Retained != 7 || v.Sessions != 2 ||
			v.Inflight != 1 || v.Losses == 0 || v.Checkpoint == 0 {
			t.Errorf("clean %v: %+v", clean, v)
		}
	}
}

func TestVerifyBesideARunningBroker(t *testing.T) {
	l, _ := openReal(t)
	v, err := Verify(l.dir)
	if err != nil || len(v.Problems) > 0 || !strings.Contains(v.Index, "a broker has it open") || v.Messages == 0 {
		t.Errorf("%v, %+v", err, v)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func openReal(t *testing.T) (*Log, string) {
	t.Helper()
	o := small()
	l := openTest(t, t.TempDir(), o)
	publish(t, l, "a", "x", false)
	return l, l.dir
}

// Every reference from the index to the log is followed: each change here
// points somewhere else.
func TestVerifyFollowsEveryReference(t *testing.T) {
	original := verifiable(t, true)
	names, err := filepath.Glob(filepath.Join(original, segmentsSub, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	base, _ := segment.ParseFileName(filepath.Base(names[1]))
	for _, x := range []struct {
		want   string
		change func(b *index.Batch)
	}{
		{"retained message of t/1: there is none at", func(b *index.Batch) { b.SetRetained("t/1", uint64(base)+segment.FileHeadLen) }},
		{"retained message of nobody: there is none at", func(b *index.Batch) { b.SetRetained("nobody", 99) }},
		{"the postings of \"t/1\" are not those", func(b *index.Batch) { b.SetPostings(uint64(base), []byte("t/1"), []byte{1, 1, 8}) }},
		{"postings of \"nothing\", of which it has no message", func(b *index.Batch) { b.SetPostings(uint64(base), []byte("nothing"), []byte{1, 1, 8}) }},
		{"the row cannot be read", func(b *index.Batch) { b.SetSegment(uint64(base), []byte{77}) }},
		{"the file is missing: the index knows it", func(b *index.Batch) { b.SetSegment(4096, []byte{77}) }},
		{"session bad: the row cannot be read", func(b *index.Batch) { b.SetSession("bad", []byte{77}) }},
		{"lies behind the end of the log", func(b *index.Batch) {
			b.SetSession("ahead", (&SessionRow{ID: "ahead", Next: 1 << 50}).encode(nil))
		}},
		{"message in flight at", func(b *index.Batch) {
			row := SessionRow{ID: "lost", Inflight: []Inflight{{ID: 1, Pos: base + segment.FileHeadLen + 8, QoS: 1}}}
			b.SetSession("lost", row.encode(nil))
		}},
		{"row of the ledger at", func(b *index.Batch) { b.SetLoss(uint64(base)+segment.FileHeadLen, []byte{0}) }},
		{"something is due for it, and it does not exist", func(b *index.Batch) { b.SetDue(5, "ghost") }},
		{"checkpoint: ", func(b *index.Batch) { b.SetCheckpoint(1 << 50) }},
		{"it belongs to log", func(b *index.Batch) { b.SetMeta(index.Meta{Format: 1, LogID: [16]byte{1}, Checkpoint: uint64(base)}) }},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
			t.Fatal(err)
		}
		i, err := index.Open(filepath.Join(dir, indexSub), index.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := i.NewBatch()
		x.change(b)
		if err := b.Apply(); err != nil {
			t.Fatal(err)
		}
		if err := i.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
		v, err := Verify(dir)
		if err != nil {
			t.Fatalf("%s: %v", x.want, err)
		}
		if !slices.ContainsFunc(v.Problems, func(p Problem) bool { return strings.Contains(p.Where+": "+p.What, x.want) }) {
			t.Errorf("not found: %s\n%+v", x.want, v.Problems)
		}
	}
}

// Every damaged byte of the records is found, and nothing ends badly.
func TestVerifyFindsDamage(t *testing.T) {
	dir := verifiable(t, true)
	names, err := filepath.Glob(filepath.Join(dir, segmentsSub, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	stride := 997
	if long {
		stride = 31
	}
	for off := 0; off < len(b); off += stride {
		hurt := slices.Clone(b)
		hurt[off] ^= 0x10
		if err := os.WriteFile(names[0], hurt, 0o640); err != nil {
			t.Fatal(err)
		}
		v, err := Verify(dir)
		padding := err == nil && len(v.Problems) == 0 && b[off] == 0 // covered by no checksum, and read by nobody
		if err != nil && off/2 != 4 || err == nil && len(v.Problems) == 0 && !padding {
			t.Errorf("flip at %d of %s: %v, %+v", off, filepath.Base(names[0]), err, v)
		}
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(dir); err != nil || len(v.Problems) == 0 {
		t.Errorf("a missing segment: %v, %+v", err, v)
	}
}
