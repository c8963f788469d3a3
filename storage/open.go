package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"cairnmq/index"
	"cairnmq/segment"
)

// The data directory:
//
//	LOCK       held by the process that has it open
//	log/       segments
//	index/     Pebble; may be deleted, is rebuilt
//	damaged/   what was set aside, for study; never read again
const (
	lockName    = "LOCK"
	segmentsSub = "log"
	indexSub    = "index"
	damagedSub  = "damaged"
)

// rowFormat is the version of the rows that storage keeps in the index.
const rowFormat = 1

var errNotExist = fs.ErrNotExist

func (l *Log) segmentDir() string { return filepath.Join(l.dir, segmentsSub) }
func (l *Log) indexDir() string   { return filepath.Join(l.dir, indexSub) }
func (l *Log) damagedDir() string { return filepath.Join(l.dir, damagedSub) }

func newSalt() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint32(b[:])
}

// Open opens the log in dir, creating it if there is none, and recovers it if
// it was not closed in order.
func Open(dir string, o Options) (*Log, error) {
	o = o.withDefaults()
	l, err := open(dir, o, nil)
	if errors.Is(err, index.ErrDamaged) {
		// Found while it was being used, so it is set aside after all.
		l, err = open(dir, o, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	return l, nil
}

// open opens the log. damaged is why the index is not to be trusted, if so.
func open(dir string, o Options, damaged error) (*Log, error) {
	l := &Log{dir: dir, o: o, opened: o.Now(), log: o.Logger, dead: make(chan struct{}), rules: newRules(&o)}
	l.set = segment.NewSet(o.FS, o.MappedSegments)
	l.sources.open = make(map[string]Source)
	l.sources.groups = make(map[string]GroupSource)
	l.syncer.init()
	l.keeper.init()
	l.seq.attempted = sync.NewCond(&l.seq)
	l.view.init()
	if err := l.lockDir(); err != nil {
		return nil, err
	}
	r := recovery{l: l, distrust: damaged}
	if err := r.run(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	go l.syncer.run(l)
	go l.keeper.run(l)
	go l.view.run(l)
	if err := r.afterStart(); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

func (l *Log) lockDir() error {
	for _, d := range []string{l.dir, l.segmentDir(), l.damagedDir()} {
		if err := l.o.FS.MkdirAll(d); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	// The directories may be there because an earlier start made them and got
	// no further.
	if err := l.o.FS.SyncDir(l.dir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := l.o.FS.Lock(filepath.Join(l.dir, lockName))
	if errors.Is(err, segment.ErrLocked) {
		return fmt.Errorf("%w: %s", ErrLocked, l.dir)
	}
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	l.unlock = unlock
	return nil
}

// recovery is the work of opening, step by step.
type recovery struct {
	l          *Log
	meta       index.Meta
	rebuild    bool
	open       []openSegment // unsealed, in order
	losses     []Loss
	limit      Pos // behind every position that may have been used
	clean      bool
	boot       uint16 // of the last record
	end        Pos    // behind the last sound record
	reopened   *segment.Segment
	damages    []segment.Damage
	sealedBase []Pos
	unused     []string // files without a record, whose positions stay used
	distrust   error    // why the index is to be rebuilt, if known from the start
}

// openSegment is a segment file without a seal.
type openSegment struct {
	path string
	rec  segment.Recovery
	seg  *segment.Segment
}

func (r *recovery) run() error {
	started := time.Now()
	if err := r.openIndex(); err != nil {
		return err
	}
	if err := r.findSegments(); err != nil {
		return err
	}
	if err := r.startActive(); err != nil {
		return err
	}
	if err := r.replay(); err != nil {
		return err
	}
	l := r.l
	l.log.Info("log opened", "dir", l.dir, "oldest", l.Oldest(), "head", l.Head(), "checkpoint", r.meta.Checkpoint,
		"clean", r.clean, "rebuilt", r.rebuild, "took", time.Since(started).Round(time.Microsecond))
	return nil
}

// openIndex opens the index, or sets a damaged one aside and begins anew.
func (r *recovery) openIndex() error {
	l := r.l
	marked, err := r.marked()
	if err != nil {
		return err
	}
	if marked {
		r.distrust = errors.New("an earlier run found it damaged")
	}
	if r.distrust != nil {
		r.setIndexAside(r.distrust)
	}
	if marked {
		if err := l.o.FS.Remove(filepath.Join(l.dir, rebuildMark)); err != nil {
			return err
		}
	}
	open := func() error {
		l.index, err = index.Open(l.indexDir(), index.Options{FS: l.o.IndexFS, Logger: l.log, CacheBytes: l.o.IndexCache})
		if err == nil {
			r.meta, _, err = l.index.Meta()
			if err != nil {
				err = errors.Join(err, l.index.Close())
				l.index = nil
			}
		}
		return err
	}
	if open(); errors.Is(err, index.ErrDamaged) && r.distrust == nil {
		r.setIndexAside(err)
		open()
	}
	if err == nil && r.meta.Format > rowFormat {
		return fmt.Errorf("%w: its rows are of format %d, this program reads up to %d: %s", index.ErrNewer, r.meta.Format, rowFormat, l.indexDir())
	}
	if err == nil && r.meta.LogID != [16]byte{} {
		if why := r.foreign(); why != nil {
			if err := l.index.Close(); err != nil {
				return err
			}
			r.setIndexAside(why)
			open()
		}
	}
	return err
}

// marked reports whether an earlier run has asked for the index to be rebuilt.
func (r *recovery) marked() (bool, error) {
	files, err := r.l.o.FS.List(r.l.dir)
	return slices.ContainsFunc(files, func(f segment.FileInfo) bool { return f.Name == rebuildMark }), err
}

// foreign compares the index's log id with those of the segments: if none has
// it, the index has come from elsewhere. The log is the truth.
func (r *recovery) foreign() error {
	l := r.l
	files, err := l.o.FS.List(l.segmentDir())
	if err != nil {
		return nil // findSegments will say so
	}
	var other error
	for _, f := range files {
		if _, ok := segment.ParseFileName(f.Name); !ok || f.Dir || f.Size < segment.FileHeadLen {
			continue
		}
		m, err := l.o.FS.Map(filepath.Join(l.segmentDir(), f.Name), false)
		if err != nil {
			continue
		}
		h, err := readHead(m.Bytes())
		_ = m.Unmap()
		if err != nil {
			continue
		}
		if h.LogID == r.meta.LogID {
			return nil
		}
		other = fmt.Errorf("it belongs to log %x, the segments to %x", r.meta.LogID, h.LogID)
	}
	return other
}

func (r *recovery) setIndexAside(why error) {
	l := r.l
	to := filepath.Join(l.damagedDir(), fmt.Sprintf("index-%d", l.o.Now().UnixNano()))
	// Durable before the mark that asked for it is removed.
	err := errors.Join(l.o.FS.Rename(l.indexDir(), to), l.o.FS.SyncDir(l.dir), l.o.FS.SyncDir(l.damagedDir()))
	l.log.Error("the index is damaged: set aside, and rebuilt from the log", "why", why, "kept", to, "error", err)
	r.rebuild = true
}

// findSegments lists the segment files, checks what the index does not
// already know, and sets aside what cannot be a part of the log.
func (r *recovery) findSegments() error {
	l := r.l
	files, err := l.o.FS.List(l.segmentDir())
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b segment.FileInfo) int { return strings.Compare(a.Name, b.Name) })
	known := r.meta.LogID != [16]byte{}
	if known {
		l.id = r.meta.LogID
	}
	files = slices.DeleteFunc(files, func(f segment.FileInfo) bool {
		_, ok := segment.ParseFileName(f.Name)
		return !ok || f.Dir
	})
	for i, f := range files {
		base, _ := segment.ParseFileName(f.Name)
		if base < r.limit {
			r.setAside(f, base, fmt.Errorf("%w: overlaps the segment before it", segment.ErrDamaged))
			continue
		}
		if r.fromIndex(f, base) {
			continue
		}
		if err := r.examine(f, base, i == len(files)-1); err != nil {
			return err
		}
	}
	if err := r.missing(); err != nil {
		return err
	}
	if l.id == [16]byte{} {
		if _, err := rand.Read(l.id[:]); err != nil {
			return err
		}
	}
	if !known {
		r.rebuild = r.rebuild || r.limit != 0
		r.meta = index.Meta{Format: rowFormat, LogID: l.id}
	}
	return nil
}

// missing looks for segments that the index knows and the directory does not
// have: what retention drops is forgotten before it is removed, so these were
// removed by somebody else. Their positions stay used.
func (r *recovery) missing() error {
	l := r.l
	have := make(map[Pos]bool)
	for _, seg := range l.set.Snapshot() {
		have[seg.Base] = true
	}
	for i := range r.open {
		have[r.open[i].rec.Head.Base] = true
	}
	aside := make(map[Pos]bool) // a moment ago, and noted
	for _, x := range r.losses {
		aside[x.From] = true
	}
	b := l.index.NewBatch()
	err := l.index.Segments(func(at uint64, enc []byte) error {
		base := Pos(at)
		if have[base] {
			return nil
		}
		b.DeleteSegment(at)
		row, ok := decodeSegmentRow(enc)
		if !ok {
			return nil
		}
		limit := base + Pos(row.Size)
		r.limit = max(r.limit, limit)
		if !aside[base] {
			r.losses = append(r.losses, Loss{Cause: CauseDamage, From: base, To: limit, Count: row.Messages, Bytes: uint64(row.End),
				Detail: segment.FileName(base) + ": the file is missing"})
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.limit = max(r.limit, Pos(r.meta.Checkpoint))
	return b.Apply()
}

// fromIndex adds a sealed segment that the index describes without touching
// the file, so that opening costs the same with any backlog.
func (r *recovery) fromIndex(f segment.FileInfo, base Pos) bool {
	l := r.l
	row, ok, err := l.segmentRow(base)
	if err != nil || !ok || f.Size < row.End {
		return false
	}
	l.set.AddSealed(filepath.Join(l.segmentDir(), f.Name), segment.FileHead{LogID: l.id, Base: base, Size: row.Size, Salt: row.Salt}, row.End)
	r.limit = base + Pos(row.Size)
	return true
}

// notUsed: the crash came while the last file was created.
func (r *recovery) notUsed(path string, limit Pos) {
	r.unused = append(r.unused, path)
	r.limit = max(r.limit, limit)
}

// readHead reads the header of a mapped file.
func readHead(data []byte) (h segment.FileHead, err error) {
	err = segment.Try(data, func() (err error) { h, err = segment.DecodeFileHead(data); return err })
	return h, err
}

// examine looks into a segment file; last says that none comes behind it.
func (r *recovery) examine(f segment.FileInfo, base Pos, last bool) error {
	l := r.l
	path := filepath.Join(l.segmentDir(), f.Name)
	if f.Size == 0 && last {
		r.notUsed(path, base+Pos(l.o.SegmentSize))
		return nil
	}
	if f.Size < segment.FileHeadLen {
		r.setAside(f, base, fmt.Errorf("%w: file has %d bytes", segment.ErrDamaged, f.Size))
		return nil
	}
	m, err := l.o.FS.Map(path, false)
	if segment.IsEnvironment(err) {
		return err
	}
	if err != nil {
		r.setAside(f, base, err)
		return nil
	}
	defer func() { _ = m.Unmap() }()
	data := m.Bytes()
	h, err := readHead(data)
	switch {
	case err != nil && last && !errors.Is(err, syscall.EIO) && segment.Unused(data):
		r.notUsed(path, base+Pos(len(data)))
		return nil
	case errors.Is(err, segment.ErrNewer):
		return fmt.Errorf("%s: %w", path, err)
	case err == nil && h.Base != base:
		err = fmt.Errorf("%w: header says base %d", segment.ErrDamaged, h.Base)
	case err == nil && l.id != [16]byte{} && h.LogID != l.id:
		err = fmt.Errorf("%w: belongs to another log, %x", segment.ErrDamaged, h.LogID)
	}
	if err != nil {
		r.setAside(f, base, err)
		return nil
	}
	l.id = h.LogID
	r.limit = h.Base + Pos(h.Size)
	r.boot = h.Boot
	if tail := len(data) - segment.SealLen; tail >= segment.FileHeadLen {
		var seal segment.Seal
		ok := false
		err := segment.Try(data, func() error { seal, ok = segment.ReadSeal(data[tail:], h.Salt); return nil })
		if err == nil && ok && seal.End == int64(tail) {
			l.set.AddSealed(path, h, seal.End)
			r.sealedBase = append(r.sealedBase, base)
			return nil
		}
	}
	return r.examineOpen(path, &h, data)
}

// examineOpen finds the end of a segment that has no seal.
func (r *recovery) examineOpen(path string, h *segment.FileHead, data []byte) error {
	from := int64(0)
	if c := Pos(r.meta.Checkpoint); !r.rebuild && c > h.Base && c <= h.Base+Pos(len(data)) {
		from = int64(c - h.Base)
	}
	var last Kind
	bootKnown := false
	visit := func(rec Record) error {
		last = rec.Kind
		if rec.Flags&FlagCarried == 0 || rec.Kind != KindMessage { // those have old clocks
			r.boot, bootKnown = rec.Boot, true
		}
		return nil
	}
	rec, err := segment.Recover(path, data, from, visit)
	if err == nil && from > 0 && !bootKnown {
		// Which boot wrote what is before the checkpoint?
		rec, err = segment.Recover(path, data, 0, visit)
	}
	if err != nil {
		return err
	}
	whole := int64(len(data)) == h.Size
	if rec.End == segment.FileHeadLen && len(rec.Damages) == 0 && rec.Torn == 0 && whole {
		// Prepared and never used, or all of it lost to a power cut: its
		// positions stay used.
		r.unused = append(r.unused, path)
		return nil
	}
	r.clean = last == KindShutdown && !rec.Sealed
	r.damages = append(r.damages, rec.Damages...)
	if end := h.Base + Pos(rec.End); !whole && !rec.Sealed {
		// Counted now: replay writes new postings, of what is left.
		r.losses = append(r.losses, Loss{Cause: CauseDamage, From: end, To: r.limit, Count: r.l.postingsIn(h.Base, end, r.limit),
			Detail: fmt.Sprintf("%s: file ends at %d of %d bytes without a seal", filepath.Base(path), len(data), h.Size)})
	}
	r.open = append(r.open, openSegment{path: path, rec: rec})
	return nil
}

// setAside moves a file that is not a segment of this log out of the way and
// notes what is thereby missing.
func (r *recovery) setAside(f segment.FileInfo, base Pos, why error) {
	l := r.l
	from := filepath.Join(l.segmentDir(), f.Name)
	to := filepath.Join(l.damagedDir(), fmt.Sprintf("%s-%d", f.Name, l.o.Now().UnixNano()))
	err := errors.Join(l.o.FS.Rename(from, to), l.o.FS.SyncDir(l.segmentDir()), l.o.FS.SyncDir(l.damagedDir()))
	l.log.Error("a segment cannot be read: set aside", "segment", from, "why", why, "kept", to, "error", err)
	end := base + Pos(max(f.Size, l.o.SegmentSize))
	r.limit = max(r.limit, end)
	loss := Loss{Cause: CauseDamage, From: base, To: end, Bytes: uint64(f.Size), Detail: fmt.Sprintf("%s: %v; kept as %s", f.Name, why, to)}
	if n, ok := r.indexedMessages(base); ok {
		loss.Count = n
	}
	r.losses = append(r.losses, loss)
}

func (r *recovery) indexedMessages(base Pos) (uint64, bool) {
	row, ok, err := r.l.segmentRow(base)
	return row.Messages, ok && err == nil
}

// startActive continues the last segment after a clean end. Otherwise it
// begins a new one behind every position that may have been used: a power cut
// may have taken records that somebody has seen.
func (r *recovery) startActive() error {
	l := r.l
	l.boot = r.boot + 1
	if n := len(r.open); n > 0 && r.clean {
		last := &r.open[n-1]
		seg, err := segment.Reopen(l.o.FS, last.path, last.rec.Head, last.rec.End)
		if err == nil && seg.Limit() == r.limit && last.rec.Torn == 0 {
			r.reopened = seg
			r.open = r.open[:n-1]
		} else if err == nil {
			err = seg.Abandon()
		}
		if err != nil {
			l.log.Warn("cannot continue the last segment; beginning a new one", "error", err)
		}
	}
	for i := range r.open {
		o := &r.open[i]
		var err error
		if o.seg, err = segment.Reopen(l.o.FS, o.path, o.rec.Head, o.rec.End); err != nil {
			// Shorter than reserved: it can be read but not sealed in place.
			l.log.Warn("an unsealed segment is shorter than it was", "segment", o.path, "error", err)
			l.set.AddSealed(o.path, o.rec.Head, o.rec.End)
			r.sealedBase = append(r.sealedBase, o.rec.Head.Base)
			continue
		}
		l.set.Add(o.seg)
	}
	active := r.reopened
	if active == nil {
		var err error
		if active, err = l.createSegment(max(r.limit, segment.FirstBase), l.o.SegmentSize); err != nil {
			return err
		}
	}
	// Only now that there is a segment behind them.
	for _, path := range r.unused {
		if err := l.o.FS.Remove(path); err != nil {
			l.log.Warn("cannot remove an unused segment", "segment", path, "error", err)
		}
	}
	r.end = active.End()
	l.recoveredEnd = r.end
	l.set.Add(active)
	l.seq.active = active
	l.seq.unsynced = append(l.seq.unsynced, active)
	l.seq.synced = active.End()
	l.seq.room = make(chan struct{})
	l.syncer.synced = active.End()
	l.head.Store(uint64(active.End()))
	l.committed.Store(uint64(active.End()))
	return r.startView(active)
}

func (r *recovery) startView(active *segment.Segment) error {
	v := &r.l.view
	if err := r.l.set.PinSegment(active); err != nil {
		return err
	}
	v.seg, v.pos, v.partial = active, active.End(), r.reopened != nil
	v.routed.Store(uint64(v.pos))
	return nil
}

// afterStart does what needs the running log: the boot mark, the ledger's
// rows, and sealing what the crash left open.
func (r *recovery) afterStart() error {
	l := r.l
	var e encoder
	e.byte(bit(r.clean, 1))
	e.uint(uint64(r.end))
	if _, _, err := l.AppendEvents(Event{Kind: KindBoot, Body: e.b}); err != nil {
		return err
	}
	if r.clean {
		// Until this record is on the disk, the shutdown record before it
		// would let positions be used again after a power cut.
		if err := l.Sync(); err != nil {
			return err
		}
	}
	l.Advance()
	for i := range r.damages {
		l.ReportDamage(&r.damages[i])
	}
	l.Advance()
	for _, x := range r.losses {
		if err := l.RecordLoss(x); err != nil {
			l.log.Error("cannot write the loss ledger", "error", err)
		}
	}
	for i := range r.open {
		if seg := r.open[i].seg; seg != nil {
			l.keeper.seal(sealJob{seg: seg, partial: true})
		}
	}
	l.keeper.poke(&l.keeper.rolled)
	return nil
}

// Close ends the log in order: what was appended is routed, the checkpoint
// written, the log marked as closed and synced. Appending has ended.
func (l *Log) Close() error {
	if l.keeper.closing.Swap(true) {
		return ErrClosed
	}
	l.keeper.wait()
	l.Advance()
	l.keeper.stop()
	var err error
	if l.Err() == nil {
		// The index is not what the log's end depends on.
		err = l.Checkpoint()
		_, _, e := l.appendEvents(theKeeper, Event{Kind: KindShutdown})
		if e == nil {
			e = l.Sync()
		}
		err = errors.Join(err, e)
	}
	return errors.Join(err, l.stop())
}

// stop ends the goroutines and lets go of everything, in the order of
// dependence.
func (l *Log) stop() error {
	l.seq.Lock()
	l.seq.closed = true
	l.seq.attempted.Broadcast()
	l.seq.Unlock()
	l.keeper.stop()
	close(l.syncer.quit)
	<-l.syncer.done
	close(l.view.quit)
	<-l.view.done
	l.seq.Lock()
	next := l.seq.next
	l.seq.next = nil
	l.seq.Unlock()
	var err error
	if next != nil {
		err = next.Discard(l.o.FS)
	}
	l.view.Lock()
	if l.view.seg != nil {
		l.view.seg.Unpin()
		l.view.seg = nil
	}
	l.view.Unlock()
	return errors.Join(err, l.release())
}

// release closes files.
func (l *Log) release() error {
	var err error
	if l.index != nil {
		err = l.index.Close()
	}
	return errors.Join(err, l.set.Close(), l.unlock())
}
