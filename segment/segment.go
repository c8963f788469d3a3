package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// aheadChunk is how far ahead of the tail pages are made writable: small,
// because such a page is dirty, and a dirty page is written to flash.
const aheadChunk = 256 << 10

// fastSync: when a sync is of so much, it hardly matters that the last piece of
// it is large. Counted for each sync and not for each second, so that class
// always is not the one that pays.
const fastSync = 2 << 20

// Segment is one file of the log. Its owner is the Set.
type Segment struct {
	FileHead
	Path string

	set *Set
	// end is the offset behind the last record that readers may see, without
	// the seal. Only the appender moves it, and only forward.
	end atomic.Int64

	// guarded by set.mu
	m       Mapping
	pins    int
	retired bool
	remove  bool
	leaving bool // retired, to be removed, still pinned
	lastUse uint64
	active  bool // mapped for as long as it is appended to

	// data is the mapping's bytes: set while pins > 0 or active.
	data []byte

	// synced is how much the last sync was about; large, if not zero, is where
	// what may have been populated in large pieces ends.
	synced, large atomic.Int64

	shrinks int // only who syncs

	// only the appender
	filled    int
	forgotten int

	sync struct {
		sync.Mutex
		// failed is the first sync that failed. The system tells only one of
		// those who sync that pages were lost, so we tell the others.
		failed error
	}
}

// Create makes an empty segment file, maps it and syncs its header and
// directory. It is not yet part of a Set.
func Create(fsys FS, dir string, h FileHead) (*Segment, error) {
	if h.Size < MinSize || h.Size > MaxSize {
		return nil, fmt.Errorf("create segment %d: size %d is not in %d..%d", h.Base, h.Size, MinSize, MaxSize)
	}
	path := filepath.Join(dir, FileName(h.Base))
	m, err := fsys.Create(path, h.Size)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	undo := func(err error) error {
		return errors.Join(err, m.Unmap(), fsys.Remove(path))
	}
	// Before anything is touched: a page that came by a fault would start the
	// system's readahead, which then reads zeros ahead of us all the way.
	filled := os.Getpagesize()
	m.Populate(0, filled, true)
	EncodeFileHead(m.Bytes(), h)
	if err := m.Flush(0, FileHeadLen); err != nil {
		return nil, undo(fmt.Errorf("sync header of %s: %w", path, err))
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, undo(fmt.Errorf("sync directory %s: %w", dir, err))
	}
	s := &Segment{FileHead: h, Path: path, m: m, data: m.Bytes(), active: true, filled: filled}
	s.end.Store(FileHeadLen)
	return s, nil
}

// Discard removes a created segment that nothing was appended to.
func (s *Segment) Discard(fsys FS) error {
	return errors.Join(s.m.Unmap(), fsys.Remove(s.Path), fsys.SyncDir(filepath.Dir(s.Path)))
}

// Abandon unmaps a segment that was reopened but is not going to be used.
func (s *Segment) Abandon() error { return s.m.Unmap() }

// End is the position behind the last record.
func (s *Segment) End() Pos { return s.Base + Pos(s.end.Load()) }

// Limit is the first position that belongs to no record of this segment,
// whatever is appended: the base of the following segment at the earliest.
func (s *Segment) Limit() Pos { return s.Base + Pos(s.Size) }

// First is the position of the first record.
func (s *Segment) First() Pos { return s.Base + FileHeadLen }

// Bytes is the number of bytes that records take.
func (s *Segment) Bytes() int64 { return s.end.Load() - FileHeadLen }

// Room is the largest PaddedLen sum that can still be appended.
func (s *Segment) Room() int { return int(s.Size-s.end.Load()) - SealLen }

// Reserve returns the space for the body of the next record. The caller has
// checked Room, fills all of it and calls Commit; it is the only appender.
func (s *Segment) Reserve(bodyLen int) []byte {
	at := int(s.end.Load())
	if need := at + PaddedLen(bodyLen); need > s.filled {
		to := min((need+aheadChunk-1)&^(aheadChunk-1), int(s.Size))
		s.m.Populate(max(s.filled, at), to, s.synced.Load() >= fastSync)
		s.filled = to
		// Large or not: the system's readahead makes large ones as well when
		// one chunk follows the other quickly.
		s.large.Store(int64(to))
	}
	at += RecordHead
	return s.data[at : at+bodyLen : at+bodyLen]
}

// Commit completes the record whose body lies in the space of the last
// Reserve. It returns the record's position. From here on readers see it.
func (s *Segment) Commit(bodyLen int, h *Head) Pos {
	at := int(s.end.Load())
	encodeRecord(s.data[at:at+RecordHead+bodyLen], s.Salt, h)
	s.end.Store(int64(at + PaddedLen(bodyLen)))
	return s.Base + Pos(at)
}

// forgetBeforeSync: a sync makes every page that is mapped for writing clean,
// one interrupt to all processors for each. To unmap them all together costs
// one, and the readers one fault for each 64 KiB. A short range is not worth it.
const forgetBeforeSync = 64 << 10

// Flush puts the records in [from, to) on stable storage. An error is final:
// the pages may be gone.
func (s *Segment) Flush(from, to Pos) error {
	if to-from >= forgetBeforeSync {
		s.m.Forget(s.offset(from), s.offset(to))
	}
	if err := s.flush(s.offset(from), s.offset(to)); err != nil {
		return fmt.Errorf("sync %s, positions %d to %d: %w", s.Path, from, to, err)
	}
	s.synced.Store(int64(to - from))
	s.shrink(s.offset(from), s.offset(to))
	return nil
}

// shrinkTries: the kernel keeps a piece that is being written to, or read, at
// the moment.
const shrinkTries = 8

// shrink is called behind a sync. When the rush is over, the large piece that
// the tail lies in would be written whole by each sync from now on.
func (s *Segment) shrink(from, to int) {
	large := s.large.Load()
	if large == 0 || to-from >= fastSync/32 {
		return
	}
	if s.shrinks++; s.shrinks < shrinkTries && int64(to) < large {
		s.m.Shrink(to&^(aheadChunk-1), int(large))
		return
	}
	s.shrinks = 0
	s.large.CompareAndSwap(large, 0)
}

// KeepPace says that s goes on where before ends, as fast as that.
func (s *Segment) KeepPace(before *Segment) { s.synced.Store(before.synced.Load()) }

func (s *Segment) flush(from, to int) error {
	s.sync.Lock()
	defer s.sync.Unlock()
	if s.sync.failed == nil {
		s.sync.failed = s.m.Flush(from, to)
	}
	return s.sync.failed
}

// forgetChunk is how much is forgotten at a time: each time interrupts all
// processors.
const forgetChunk = 1 << 20

// Forget drops what lies more than keep bytes behind the tail, or somewhat
// less, from the process's resident set. Only the appender calls it.
func (s *Segment) Forget(keep int) {
	if to := int(s.end.Load()) - keep + forgetChunk; to-s.forgotten >= forgetChunk {
		s.m.Forget(s.forgotten, to)
		s.forgotten = to
	}
}

// ForgetRange drops [from, to) from the process's resident set.
func (s *Segment) ForgetRange(from, to Pos) { s.m.Forget(s.offset(from), s.offset(to)) }

// offset clips a position to the file.
func (s *Segment) offset(p Pos) int {
	if p <= s.Base {
		return 0
	}
	return int(min(p-s.Base, Pos(s.Size)))
}

// ErrEnd: no record at this position yet, or the segment ends here.
var ErrEnd = errEnd

// writtenLately is how far behind the end pages are taken to be in memory,
// because this process has just written them. To guard a read against a disk
// that cannot deliver takes some 15 ns, which live delivery need not pay.
const writtenLately = 1 << 20

// At is Read for those who have no Record yet.
func (s *Segment) At(pos Pos, verify bool) (rec Record, next Pos, err error) {
	next, err = s.Read(pos, verify, &rec)
	return rec, next, err
}

// Read reads the record at pos, which must be the position of a record or the
// end, into rec, which an error leaves as it was. The caller holds a pin. next
// is the position behind it. With verify the checksum is computed; without,
// the caller knows that the record was appended by this process. On damage the
// error is a *Damage whose To is where reading can go on.
func (s *Segment) Read(pos Pos, verify bool, rec *Record) (next Pos, err error) {
	end := int(s.end.Load())
	off := s.offset(pos)
	if off < FileHeadLen {
		off = FileHeadLen
		pos = s.First()
	}
	if off >= end {
		return 0, ErrEnd
	}
	var n int
	if verify || end-off > writtenLately {
		n, err = tryRecord(s.data[:end], off, s.Salt, verify, rec)
	} else {
		n, err = decodeRecord(s.data[:end], off, s.Salt, verify, rec)
	}
	if err != nil {
		return 0, s.damage(off, end, err)
	}
	rec.Pos = pos
	return s.Base + Pos(n), nil
}

func (s *Segment) damage(off, end int, cause error) *Damage {
	if errors.Is(cause, errEnd) {
		cause = fmt.Errorf("%w: nothing written at offset %d, records were expected up to %d", ErrDamaged, off, end)
	}
	to, ok := tryResync(s.data[:end], off+Align, s.Salt, 0)
	if !ok {
		to = end
	}
	return &Damage{File: s.Path, From: s.Base + Pos(off), To: s.Base + Pos(to), Err: cause}
}

// WriteSeal appends the seal in the space that Room has kept for it, syncs
// the whole segment and cuts the file behind it. Called once nobody appends
// any more.
func (s *Segment) WriteSeal(fsys FS, seal Seal, h Head) error {
	end := int(s.end.Load())
	seal.End = int64(end)
	h.Kind = KindSeal
	err := Try(s.data, func() error {
		encodeSeal(s.data[end+RecordHead:], seal)
		encodeRecord(s.data[end:end+SealLen], s.Salt, &h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("seal %s: %w", s.Path, err)
	}
	if err := s.flush(0, end+SealLen); err != nil {
		return fmt.Errorf("sync %s at its seal: %w", s.Path, err)
	}
	// Readers stay below end, so cutting under their mapping is safe. Where
	// a mapped file cannot be cut the reserved blocks stay: untidy, not wrong.
	_ = fsys.Truncate(s.Path, int64(end+SealLen))
	return nil
}
