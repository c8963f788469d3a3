package index

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// history is a random sequence of batches, each of which sets the checkpoint
// to its number, and what the index holds after each.
type history struct {
	seed   uint64
	states []model // by number of batches applied
}

// next puts batch number len(states) into b.
func (h *history) next(b *Batch) {
	n := uint64(len(h.states))
	r := rand.New(rand.NewPCG(h.seed, n))
	state := newModel()
	if n > 0 {
		state = maps.Clone(h.states[n-1])
		for range 1 + r.IntN(20) {
			state.change(r, b)
		}
		b.SetMeta(Meta{Format: 1, Checkpoint: n})
		state[string(keyMeta)] = string(appendMeta(nil, Meta{Format: 1}))
		state[string(keyCheckpoint)] = string(appendPosKey(nil, 0, n)[1:])
	}
	h.states = append(h.states, state)
}

// check fails unless x holds a state of h, not older than floor.
func (h *history) check(x *Index, floor uint64) (checkpoint uint64, err error) {
	meta, _, err := x.Meta()
	if err != nil {
		return 0, err
	}
	got, err := dump(x)
	if err != nil {
		return 0, err
	}
	n := meta.Checkpoint
	if n < floor || n >= uint64(len(h.states)) {
		return n, fmt.Errorf("state after batch %d, want at least %d and less than %d", n, floor, len(h.states))
	}
	if !maps.Equal(got, h.states[n]) {
		return n, fmt.Errorf("not the state after batch %d: %d rows, want %d", n, len(got), len(h.states[n]))
	}
	return n, nil
}

// The promise of the package: power is cut at a random moment, also within a
// flush or a compaction; what is found is what some prefix of the batches made,
// no shorter than the last Flush that returned. Then life goes on.
func TestCrashLeavesAPrefixNoShorterThanTheLastFlush(t *testing.T) {
	rounds := 120
	if testing.Short() {
		rounds = 20
	}
	r := rand.New(rand.NewPCG(11, 12))
	ahead := 0
	for round := range rounds {
		files := vfs.NewCrashableMem()
		h := &history{seed: uint64(round)}
		h.next(nil)
		floor := uint64(0)
		for range 4 { // lives
			x := mustOpen(t, "index", Options{FS: files, MemTableBytes: 32 << 10})
			n, err := h.check(x, floor)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if n > floor {
				ahead++
			}
			h.states = h.states[:n+1]
			must(t, x.Verify())
			floor, files = live(t, x, h, r, files)
		}
	}
	if ahead == 0 {
		t.Error("no crash was ahead of the last Flush: the memtables are too large to test that")
	}
}

// live applies and flushes until the power is cut, and returns what is certain
// then and what the disk holds.
func live(t *testing.T, x *Index, h *history, r *rand.Rand, files *vfs.MemFS) (floor uint64, after *vfs.MemFS) {
	cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 100}[r.IntN(3)], RNG: rand.New(rand.NewPCG(r.Uint64(), 0))}
	var flushed atomic.Uint64
	flushed.Store(uint64(len(h.states) - 1))
	if meta, ok, err := x.Meta(); err != nil || ok && meta.Checkpoint != flushed.Load() {
		t.Fatalf("checkpoint %d, %v", meta.Checkpoint, err)
	}
	type cut struct {
		floor uint64
		files *vfs.MemFS
	}
	cuts := make(chan cut, 1)
	delay := time.Duration(r.IntN(3000)) * time.Microsecond
	go func() {
		time.Sleep(delay) // not waiting for anything: a random moment
		f := flushed.Load()
		cuts <- cut{f, files.CrashClone(cfg)}
	}()
	b := x.NewBatch()
	for {
		h.next(b)
		must(t, b.Apply())
		if r.IntN(30) == 0 {
			n := uint64(len(h.states) - 1)
			must(t, x.Flush())
			flushed.Store(n)
		}
		select {
		case c := <-cuts:
			must(t, x.Close()) // its writes do not reach the clone
			return c.floor, c.files
		default:
		}
	}
}

func TestCloseDoesNotFlush(t *testing.T) {
	files := vfs.NewCrashableMem()
	x := mustOpen(t, "index", Options{FS: files})
	apply(t, x, func(b *Batch) { b.SetMeta(Meta{Checkpoint: 1}) })
	must(t, x.Flush())
	apply(t, x, func(b *Batch) { b.SetCheckpoint(2) })
	must(t, x.Close())
	x = closing(t, mustOpen(t, "index", Options{FS: files}))
	if m, ok, err := x.Meta(); m.Checkpoint != 1 || !ok || err != nil {
		t.Errorf("checkpoint %d, %v %v", m.Checkpoint, ok, err)
	}
}

// failing is a file system whose operations on some files fail while on is set.
type failing struct {
	on    atomic.Bool
	match func(op errorfs.Op) bool
	err   error
	times atomic.Int64
}

func (f *failing) MaybeError(op errorfs.Op) error {
	if f.on.Load() && f.match(op) {
		f.times.Add(1)
		return f.err
	}
	return nil
}

func (f *failing) String() string { return "failing" }

func TestFlushFailsWhileTheDiskIsFullAndSucceedsLater(t *testing.T) {
	mem := vfs.NewCrashableMem()
	full := &failing{err: syscall.ENOSPC, match: func(op errorfs.Op) bool {
		return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst")
	}}
	x := closing(t, mustOpen(t, "index", Options{FS: errorfs.Wrap(mem, full), MemTableBytes: 64 << 10}))
	full.on.Store(true)
	apply(t, x, func(b *Batch) { b.SetMeta(Meta{Checkpoint: 1}) })
	for range 20 { // each would queue a memtable more, and in the end hang
		if err := x.Flush(); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrFatal) {
			t.Fatalf("Flush on a full disk: %v", err)
		}
	}
	// Apply must come to refuse rather than wait.
	b := x.NewBatch()
	var applied uint64
	for {
		b.SetSession(fmt.Sprint(applied), make([]byte, 1000))
		b.SetCheckpoint(applied)
		if err := b.Apply(); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("Apply on a full disk: %v", err)
			}
			break
		}
		applied++
	}
	if x.Err() != nil {
		t.Errorf("a full disk is not a failure: %v", x.Err())
	}
	if full.times.Load() > 1000 {
		t.Errorf("the disk was asked %d times", full.times.Load())
	}
	if _, ok, err := x.Session("0"); !ok || err != nil {
		t.Errorf("reading on a full disk: %v %v", ok, err)
	}

	full.on.Store(false)
	must(t, x.Flush())
	must(t, b.Apply()) // the batch that was refused is still whole
	must(t, x.Flush())
	after := mem.CrashClone(vfs.CrashCloneCfg{})
	y := closing(t, mustOpen(t, "index", Options{FS: after}))
	if m, _, err := y.Meta(); m.Checkpoint != applied || err != nil {
		t.Errorf("checkpoint %d after a crash, want %d; %v", m.Checkpoint, applied, err)
	}
}

// A failed sync of the MANIFEST is where Pebble ends the process.
func TestFailedManifestSyncIsReportedAndFinal(t *testing.T) {
	mem := vfs.NewCrashableMem()
	broken := &failing{err: syscall.EIO, match: func(op errorfs.Op) bool {
		return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.Contains(op.Path, "MANIFEST")
	}}
	x := mustOpen(t, "index", Options{FS: errorfs.Wrap(mem, broken)})
	apply(t, x, func(b *Batch) { b.SetMeta(Meta{Checkpoint: 1}) })
	must(t, x.Flush())
	broken.on.Store(true)
	b := x.NewBatch()
	b.SetCheckpoint(2)
	must(t, b.Apply())
	if err := x.Flush(); !errors.Is(err, ErrFatal) {
		t.Fatalf("Flush: %v", err)
	}
	<-x.Failed()
	broken.on.Store(false)
	if !errors.Is(x.Err(), ErrFatal) {
		t.Errorf("Err: %v", x.Err())
	}
	b.SetCheckpoint(3)
	if err := b.Apply(); !errors.Is(err, ErrFatal) {
		t.Errorf("Apply afterwards: %v", err)
	}
	if err := x.Flush(); !errors.Is(err, ErrFatal) {
		t.Errorf("Flush afterwards: %v", err)
	}
	if m, _, err := x.Meta(); m.Checkpoint != 2 || err != nil {
		t.Errorf("reading afterwards: %d, %v", m.Checkpoint, err)
	}
	_ = x.Metrics()
	if err := x.Close(); !errors.Is(err, ErrFatal) {
		t.Errorf("Close: %v", err)
	}
	y := closing(t, mustOpen(t, "index", Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})}))
	if m, _, err := y.Meta(); m.Checkpoint != 1 || err != nil {
		t.Errorf("after a restart: checkpoint %d, %v", m.Checkpoint, err)
	}
}

func TestOpenReportsAManifestThatCannotBeSynced(t *testing.T) {
	broken := &failing{err: syscall.EIO, match: func(op errorfs.Op) bool {
		return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.Contains(op.Path, "MANIFEST")
	}}
	broken.on.Store(true)
	if x, err := Open("index", Options{FS: errorfs.Wrap(vfs.NewMem(), broken)}); err == nil {
		x.Close()
		t.Error("opens")
	}
}

// Power is cut while Pebble goes over to a new MANIFEST, and of what the
// directory was to learn the disk has kept the new marker and not the new
// MANIFEST. This used to be taken for damage. Found by the power cuts of
// package storage.
func TestMarkerOfAManifestThatDidNotComeIsNotDamage(t *testing.T) {
	files := vfs.NewCrashableMem()
	x := mustOpen(t, "index", Options{FS: files})
	apply(t, x, func(b *Batch) {
		b.SetMeta(Meta{Checkpoint: 7})
		b.SetSession("c", []byte("row"))
	})
	must(t, x.Flush())
	must(t, x.Close())
	for _, number := range []string{"000900", "000901"} {
		f, err := files.Create("index/marker.manifest."+number+".MANIFEST-"+number, vfs.WriteCategoryUnspecified)
		must(t, err)
		must(t, f.Close())
	}
	if x, err := Open("index", Options{FS: files, ReadOnly: true}); !errors.Is(err, ErrDamaged) {
		_ = x.Close()
		t.Errorf("for reading only, where nothing can be put right: %v", err)
	}
	for range 2 {
		x = mustOpen(t, "index", Options{FS: files})
		m, _, err := x.Meta()
		row, ok, rowErr := x.Session("c")
		if m.Checkpoint != 7 || err != nil || string(row) != "row" || !ok || rowErr != nil {
			t.Errorf("checkpoint %d, %v; row %q, %v", m.Checkpoint, err, row, rowErr)
		}
		must(t, x.Verify())
		must(t, x.Close())
		files = files.CrashClone(vfs.CrashCloneCfg{})
	}
}
