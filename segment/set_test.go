package segment_test

import (
	"errors"
	"syscall"
	"testing"

	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
)

func makeSegments(t *testing.T, d *segmenttest.Disk, dir string, n int) []*segment.Segment {
	t.Helper()
	var list []*segment.Segment
	for i := range n {
		s, err := segment.Create(d, dir, segment.FileHead{Base: segment.FirstBase + segment.Pos(i*8192), Size: 8192, Salt: uint32(i)})
		if err != nil {
			t.Fatal(err)
		}
		body := s.Reserve(5)
		copy(body, "hello")
		s.Commit(5, &segment.Head{Kind: 1})
		list = append(list, s)
	}
	return list
}

func TestSetKeepsItsOrder(t *testing.T) {
	dir := t.TempDir()
	list := makeSegments(t, segmenttest.New(dir), dir, 4)
	set := segment.NewSet(segment.OS{}, 1)
	for _, i := range []int{2, 0, 3, 1} {
		set.Add(list[i])
	}
	for i, s := range set.Snapshot() {
		if s != list[i] {
			t.Fatalf("segment %d of the set begins at %d", i, s.Base)
		}
		if p, err := set.Pin(s.First()); p != s || err != nil {
			t.Fatalf("pin %d: %v", s.First(), err)
		}
		s.Unpin()
	}
}

func TestLastReaderOutUnmapsAndRemoves(t *testing.T) {
	dir := t.TempDir()
	d := segmenttest.New(dir)
	list := makeSegments(t, d, dir, 8)
	set := segment.NewSet(d, 2)
	for _, s := range list {
		set.Add(s)
		if err := set.PinSegment(s); err != nil {
			t.Fatal(err)
		}
		set.Deactivate(s)
	}
	set.Retire(list[0], true)
	if set.Leaving() == 0 || len(d.Names()) != 8 {
		t.Fatalf("%d bytes leaving, files %v", set.Leaving(), d.Names())
	}
	list[0].Unpin()
	if set.Leaving() != 0 || len(d.Names()) != 7 {
		t.Fatalf("%d bytes leaving, files %v", set.Leaving(), d.Names())
	}
	// Readers that are late find their bytes, and nobody falls over them.
	if err := set.Close(); err == nil {
		t.Fatal("closed although there are readers")
	}
	for _, s := range list[1:] {
		rec, _, err := s.At(s.First(), true)
		if err != nil || string(rec.Body) != "hello" {
			t.Fatalf("%q, %v", rec.Body, err)
		}
		s.Unpin()
	}
}

func TestWhatTheMachineLacksIsNotDamage(t *testing.T) {
	dir := t.TempDir()
	d := segmenttest.New(dir)
	s := makeSegments(t, d, dir, 1)[0]
	set := segment.NewSet(d, 1)
	set.AddSealed(s.Path, s.FileHead, 100)
	for i, fault := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.EIO} {
		d.Fail(segmenttest.Map, 1, fault)
		if fault == syscall.ENOMEM {
			d.Fail(segmenttest.Map, 2, fault) // it is tried again without idle mappings
		}
		_, err := set.Pin(s.First())
		if errors.Is(err, segment.ErrDamaged) != (i == 2) || !errors.Is(err, fault) {
			t.Fatalf("%v: %v", fault, err)
		}
	}
}

// Mappings that nobody reads make way when the address space has no hole for
// another one.
func TestIdleMappingsMakeWay(t *testing.T) {
	dir := t.TempDir()
	d := segmenttest.New(dir)
	list := makeSegments(t, d, dir, 3)
	set := segment.NewSet(d, 3)
	for _, s := range list {
		set.AddSealed(s.Path, s.FileHead, 104)
	}
	pin := func(s *segment.Segment) *segment.Segment {
		t.Helper()
		got, err := set.Pin(s.First())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	held := pin(list[0])
	pin(list[1]).Unpin()
	d.Fail(segmenttest.Map, 1, syscall.ENOMEM)
	pin(list[2]).Unpin()
	d.Fail(segmenttest.Map, 1, syscall.EMFILE)
	if _, err := set.Pin(list[1].First()); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("the idle one is still mapped: %v", err)
	}
	if rec, _, err := held.At(held.First(), true); err != nil || string(rec.Body) != "hello" {
		t.Errorf("the one that is read: %q, %v", rec.Body, err)
	}
	held.Unpin()
}

func TestFailedSyncStaysFailed(t *testing.T) {
	dir := t.TempDir()
	d := segmenttest.New(dir)
	s := makeSegments(t, d, dir, 1)[0]
	d.Fail(segmenttest.Flush, 1, syscall.EIO)
	for range 3 {
		if err := s.Flush(s.Base, s.End()); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if err := s.WriteSeal(d, segment.Seal{}, segment.Head{}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
}
