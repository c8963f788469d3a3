package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"sync"
	"syscall"
)

// Set is the ordered list of the segments of one log, and the owner of their
// mappings: it maps a segment when it is pinned and unmaps the one that was
// not used for the longest time when too many are mapped and nobody reads
// them.
type Set struct {
	fs    FS
	limit int // sealed segments that may stay mapped without a pin

	// mu guards list and the mapping state of each segment. It is held for
	// the length of a map or unmap call, never while bytes are read.
	mu    sync.Mutex
	list  []*Segment // by base
	clock uint64
	idle  int // mapped, not pinned, not active
	// leaving is the size of what is retired and not yet removed.
	leaving int64
}

// NewSet returns an empty set that keeps up to limit unused mappings.
func NewSet(fsys FS, limit int) *Set { return &Set{fs: fsys, limit: limit} }

// Add puts a segment in its place among the others, which is nearly always
// behind them.
func (t *Set) Add(s *Segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.set = t
	i := sort.Search(len(t.list), func(i int) bool { return t.list[i].Base > s.Base })
	t.list = slices.Insert(t.list, i, s)
}

// AddSealed puts a file that is sealed, with its records ending at end, in its
// place among the others. It is mapped when it is first pinned.
func (t *Set) AddSealed(path string, h FileHead, end int64) *Segment {
	s := &Segment{FileHead: h, Path: path}
	s.end.Store(end)
	t.Add(s)
	return s
}

// Snapshot returns the segments in order.
func (t *Set) Snapshot() []*Segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*Segment(nil), t.list...)
}

// Oldest is the position of the oldest record that can still be read, or the
// position at which the first one will be.
func (t *Set) Oldest() Pos {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		return 0
	}
	return t.list[0].First()
}

// Pin finds the segment for reading on from pos: the one that holds pos, or
// the first one behind it if pos lies before the oldest record or in the
// unused range behind an early end. It counts the caller in before the bytes
// can go away; the caller calls Unpin. A segment that cannot be mapped is
// reported as *Damage over its whole range, unless it is the machine that
// lacks something: that passes.
func (t *Set) Pin(pos Pos) (*Segment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := sort.Search(len(t.list), func(i int) bool { return t.list[i].Base > pos }) - 1
	if i < 0 {
		i = 0
	}
	// A sealed segment ends for good: what is behind lies in the next one.
	for i+1 < len(t.list) && pos >= t.list[i].End() {
		i++
	}
	if i >= len(t.list) {
		return nil, ErrEnd
	}
	return t.list[i], t.pinLocked(t.list[i])
}

// PinUnsealed pins s unless it was sealed, which has synced all of it.
func (t *Set) PinUnsealed(s *Segment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.active && t.pinLocked(s) == nil
}

// Sealed reports whether s may be unmapped and dropped.
func (t *Set) Sealed(s *Segment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !s.active
}

// SealedBytes is about what the files of all sealed segments take.
func (t *Set) SealedBytes() (n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.list {
		if !s.active {
			n += s.end.Load() + SealLen
		}
	}
	return n
}

// Leaving is about what the files of retired segments take that are still
// there because somebody reads them.
func (t *Set) Leaving() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leaving
}

// PinSegment pins s itself.
func (t *Set) PinSegment(s *Segment) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.retired && s.m == nil {
		return fmt.Errorf("pin %s: removed", s.Path)
	}
	return t.pinLocked(s)
}

func (t *Set) pinLocked(s *Segment) error {
	if s.m == nil {
		m, err := t.fs.Map(s.Path, false)
		if errors.Is(err, syscall.ENOMEM) {
			t.unmapIdleLocked() // a small address space may have a large enough hole then
			m, err = t.fs.Map(s.Path, false)
		}
		if err == nil && int64(len(m.Bytes())) < s.end.Load() {
			err = errors.Join(fmt.Errorf("%w: file has %d bytes, records were expected up to %d", ErrDamaged, len(m.Bytes()), s.end.Load()), m.Unmap())
		}
		if err != nil && IsEnvironment(err) {
			return fmt.Errorf("map %s: %w", s.Path, err)
		}
		if err != nil {
			return &Damage{File: s.Path, From: s.First(), To: s.End(), Err: fmt.Errorf("%w: %w", ErrDamaged, err)}
		}
		s.m, s.data = m, m.Bytes()
	} else if s.pins == 0 && !s.active {
		t.idle--
	}
	s.pins++
	return nil
}

// Unpin counts the caller out. Bytes read under the pin are gone.
func (s *Segment) Unpin() {
	t := s.set
	t.mu.Lock()
	defer t.mu.Unlock()
	s.pins--
	if s.pins > 0 || s.active {
		return
	}
	t.idle++
	t.clock++
	s.lastUse = t.clock
	if s.retired {
		t.dropLocked(s)
		return
	}
	// What a reader went through is not resident memory of ours any more; a
	// page that is read again soon is still in the kernel's.
	s.m.Forget(0, len(s.data))
	t.trimLocked()
}

// trimLocked unmaps what was not used for the longest time.
func (t *Set) trimLocked() {
	for t.idle > t.limit {
		t.dropLocked(t.longestUnusedLocked())
	}
}

// UnmapIdle unmaps every segment that nobody reads.
func (t *Set) UnmapIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unmapIdleLocked()
}

func (t *Set) unmapIdleLocked() {
	for t.idle > 0 {
		t.dropLocked(t.longestUnusedLocked())
	}
}

func (t *Set) longestUnusedLocked() *Segment {
	var oldest *Segment
	for _, s := range t.list {
		if s.m != nil && s.pins == 0 && !s.active && (oldest == nil || s.lastUse < oldest.lastUse) {
			oldest = s
		}
	}
	return oldest
}

// dropLocked unmaps a segment that is mapped and unused, and removes its file
// if it was retired. An error to unmap leaks address space and nothing else;
// an error to remove leaves a file that the next start finds and retires.
func (t *Set) dropLocked(s *Segment) {
	if s.m != nil {
		_ = s.m.Unmap()
		s.m, s.data = nil, nil
		t.idle--
	}
	if s.remove {
		s.remove = false
		if s.leaving {
			s.leaving = false
			t.leaving -= s.end.Load() + SealLen
		}
		_ = t.fs.Remove(s.Path)
	}
}

// EvictBefore lets go of what memory holds of the sealed segment before s, if
// nobody reads it.
func (t *Set) EvictBefore(s *Segment) {
	if e, ok := t.fs.(Evicter); ok {
		if path := t.unmapBefore(s); path != "" {
			// Without the lock: it takes milliseconds. Whoever pins the
			// segment meanwhile reads from the disk what is gone by then.
			e.Evict(path)
		}
	}
}

// unmapBefore unmaps the sealed segment before s and returns its file, or ""
// if there is none or it is being read.
func (t *Set) unmapBefore(s *Segment) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.list, s)
	if i < 1 || t.list[i-1].active || t.list[i-1].pins > 0 {
		return ""
	}
	old := t.list[i-1]
	if old.m != nil {
		t.dropLocked(old)
	}
	return old.Path
}

// Deactivate says that s is sealed: from now on it may be unmapped.
func (t *Set) Deactivate(s *Segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.active {
		return
	}
	s.active = false
	if s.pins == 0 {
		t.idle++
		t.clock++
		s.lastUse = t.clock
		t.trimLocked()
	}
}

// Retire takes s out of the set. The last reader out unmaps it and, with
// remove, deletes the file.
func (t *Set) Retire(s *Segment, remove bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, x := range t.list {
		if x == s {
			t.list = append(t.list[:i:i], t.list[i+1:]...)
			break
		}
	}
	s.retired, s.remove = true, remove
	if s.active {
		s.active = false
		t.idle++
		if s.pins > 0 {
			t.idle--
		}
	}
	if s.pins == 0 {
		t.dropLocked(s)
	} else if remove {
		s.leaving = true
		t.leaving += s.end.Load() + SealLen
	}
}

// Close unmaps everything. The caller has ended all readers; a segment that
// is still pinned stays mapped, because a fault would be worse than a leak.
func (t *Set) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	for _, s := range t.list {
		if s.m != nil && s.pins == 0 {
			err = errors.Join(err, s.m.Unmap())
			s.m, s.data, s.active = nil, nil, false
		} else if s.pins > 0 {
			s.retired, s.active = true, false // the last reader out unmaps it
			err = errors.Join(err, fmt.Errorf("%s is still pinned by %d readers", s.Path, s.pins))
		}
	}
	t.list, t.idle = nil, 0
	return err
}

// IsEnvironment reports whether err says that the machine lacks something, so
// that it may succeed later; the file is not to blame.
func IsEnvironment(err error) bool {
	for _, cause := range []error{fs.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
