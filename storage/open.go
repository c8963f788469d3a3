package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

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
func Open(dir string, o Options) (_ *Log, err error) {
	o = o.withDefaults()
	l := &Log{dir: dir, o: o, opened: o.Now(), log: o.Logger, dead: make(chan struct{}), rules: newRules(&o)}
	l.set = segment.NewSet(o.FS, o.MappedSegments)
	l.sources.open = make(map[string]Source)
	l.syncer.init()
	l.keeper.init()
	l.seq.attempted = sync.NewCond(&l.seq)
	l.view.topics = make(map[string]*Topic)
	l.view.retained = make(map[string]Pos)
	if err := l.lockDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.release())
		}
	}()
	r := recovery{l: l}
	if err := r.run(); err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	go l.syncer.run(l)
	go l.keeper.run(l)
	if err := r.afterStart(); err != nil {
		l.stop()
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) lockDir() error {
	for _, d := range []string{l.dir, l.segmentDir(), l.damagedDir()} {
		if err := l.o.FS.MkdirAll(d); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	l.lock = flock.New(filepath.Join(l.dir, lockName))
	ok, err := l.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrLocked, l.dir)
	}
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
	lastHead   segment.Head
	end        Pos // behind the last sound record
	reopened   *segment.Segment
	damages    []segment.Damage
	sealedBase []Pos
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
	mark := filepath.Join(l.dir, rebuildMark)
	if _, err := os.Stat(mark); err == nil {
		r.setIndexAside(errors.New("an earlier run found it damaged"))
		if err := l.o.FS.Remove(mark); err != nil {
			return err
		}
	}
	var err error
	open := func() error {
		l.index, err = index.Open(l.indexDir(), index.Options{Logger: l.log, CacheBytes: l.o.IndexCache})
		if err == nil {
			r.meta, _, err = l.index.Meta()
			if err != nil {
				err = errors.Join(err, l.index.Close())
				l.index = nil
			}
		}
		return err
	}
	if open(); errors.Is(err, index.ErrDamaged) {
		r.setIndexAside(err)
		open()
	}
	return err
}

func (r *recovery) setIndexAside(why error) {
	l := r.l
	to := filepath.Join(l.damagedDir(), fmt.Sprintf("index-%d", l.o.Now().UnixNano()))
	err := l.o.FS.Rename(l.indexDir(), to)
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
	for _, f := range files {
		base, ok := segment.ParseFileName(f.Name)
		if !ok || f.Dir {
			continue
		}
		if base < r.limit {
			r.setAside(f, base, fmt.Errorf("%w: overlaps the segment before it", segment.ErrDamaged))
			continue
		}
		if r.fromIndex(f, base) {
			continue
		}
		if err := r.examine(f, base); err != nil {
			return err
		}
	}
	if l.id == [16]byte{} {
		if _, err := rand.Read(l.id[:]); err != nil {
			return err
		}
	}
	if !known {
		r.rebuild = r.rebuild || r.limit != 0
		r.meta = index.Meta{Format: 1, LogID: l.id}
	}
	return nil
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
	for _, x := range row.Rules {
		for _, rule := range l.rules.retention {
			if rule.Filter == x.filter {
				rule.bytes.Add(x.bytes)
			}
		}
	}
	return true
}

// examine looks into a segment file.
func (r *recovery) examine(f segment.FileInfo, base Pos) error {
	l := r.l
	path := filepath.Join(l.segmentDir(), f.Name)
	if f.Size < segment.FileHeadLen {
		r.setAside(f, base, fmt.Errorf("%w: file has %d bytes", segment.ErrDamaged, f.Size))
		return nil
	}
	m, err := l.o.FS.Map(path, false)
	if err != nil {
		r.setAside(f, base, err)
		return nil
	}
	defer func() { _ = m.Unmap() }()
	data := m.Bytes()
	h, err := segment.DecodeFileHead(data)
	switch {
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
	r.lastHead.Boot = max(r.lastHead.Boot, h.Boot)
	if tail := len(data) - segment.SealLen; tail >= segment.FileHeadLen {
		if seal, ok := segment.ReadSeal(data[tail:], h.Salt); ok && seal.End == int64(tail) {
			l.set.AddSealed(path, h, seal.End)
			r.sealedBase = append(r.sealedBase, base)
			return nil
		}
	}
	from := int64(0)
	if c := Pos(r.meta.Checkpoint); !r.rebuild && c > base && c <= base+Pos(len(data)) {
		from = int64(c - base)
	}
	var last Kind
	rec, err := segment.Recover(path, data, from, func(rec Record) error {
		last, r.lastHead = rec.Kind, rec.Head
		return nil
	})
	if err != nil {
		return err
	}
	if rec.End == segment.FileHeadLen && len(rec.Damages) == 0 && rec.Torn == 0 {
		// Prepared and never used, or all of it lost to a power cut: its
		// positions stay used.
		return l.o.FS.Remove(path)
	}
	r.clean = last == KindShutdown
	r.damages = append(r.damages, rec.Damages...)
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
	l.boot = r.lastHead.Boot + 1
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
	l.keeper.wait()
	var err error
	if l.Err() == nil {
		l.Advance()
		err = l.Checkpoint()
		if err == nil {
			_, _, err = l.AppendEvents(Event{Kind: KindShutdown})
		}
		if err == nil {
			err = l.Sync()
		}
	}
	return errors.Join(err, l.stop())
}

// stop ends the goroutines and lets go of everything, in the order of
// dependence.
func (l *Log) stop() error {
	l.seq.Lock()
	l.seq.closed = true
	next := l.seq.next
	l.seq.next = nil
	l.seq.attempted.Broadcast()
	l.seq.Unlock()
	close(l.keeper.quit)
	<-l.keeper.done
	close(l.syncer.quit)
	<-l.syncer.done
	var err error
	if next != nil {
		err = next.Discard(l.o.FS)
	}
	if l.view.seg != nil {
		l.view.seg.Unpin()
		l.view.seg = nil
	}
	return errors.Join(err, l.release())
}

// release closes files.
func (l *Log) release() error {
	var err error
	if l.index != nil {
		err = l.index.Close()
	}
	return errors.Join(err, l.set.Close(), l.lock.Unlock())
}
