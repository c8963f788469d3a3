package storage

import (
	"fmt"
	"sync"
	"testing"

	"cairnmq/segment"
)

// evictions is the real file system that notes what is evicted.
type evictions struct {
	segment.OS
	mu    sync.Mutex
	paths map[string]bool
}

func (e *evictions) Evict(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.paths[path] = true
	e.OS.Evict(path)
}

// Sealed segments leave the page cache, but for the newest one and one that
// somebody reads; what was evicted reads as before.
func TestSealedSegmentsLeaveMemoryButForTheNewestAndThoseBeingRead(t *testing.T) {
	fs := &evictions{paths: map[string]bool{}}
	o := small()
	o.FS = fs
	l := openTest(t, t.TempDir(), o)
	defer l.Close()
	var want []string
	r := l.NewReader()
	for i := range 3000 {
		payload := fmt.Sprintf("%0100d", i)
		publish(t, l, "a", payload, false)
		l.settle()
		want = append(want, "a="+payload)
		if i == 0 {
			if _, _, err := r.Next(0); err != nil { // pins the first segment
				t.Fatal(err)
			}
		}
	}
	r.Release()
	list := l.set.Snapshot()
	if len(list) < 5 {
		t.Fatalf("%d segments, too few for this test", len(list))
	}
	fs.mu.Lock()
	for i, s := range list {
		expect := i > 0 && i < len(list)-2 // not the one that was read, the newest sealed one, the active one
		if fs.paths[s.Path] != expect {
			t.Errorf("segment %d of %d evicted: %v", i, len(list), !expect)
		}
	}
	fs.mu.Unlock()
	if got := readAll(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
}
