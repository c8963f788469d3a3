// Package segmenttest is a disk for tests that loses power.
//
// # Promise
//
// A Disk is a segment.FS that keeps apart what was written and what was
// synced. Cut yields a disk as a power cut may leave it under the assumptions
// of package segment: what was synced is there; each sector of 512 bytes that
// was not is as it was or as it was written; each directory entry that was
// not synced is there or is not. Copy yields what the death of the process
// leaves: everything.
//
// Files below the directory "index" are not the log's. They are passed on to
// what stands beside the disk: the real file system, or another simulation,
// which then loses power at the same moment.
package segmenttest

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"cairnmq/segment"
)

const sector = 512

// Beside is a file system for what is not the log's.
type Beside interface {
	Rename(from, to string) error
	SyncDir(dir string) error
	List(dir string) ([]segment.FileInfo, error)
	MkdirAll(dir string) error
	// Cut is what a power cut at this moment may leave, and Copy what the death
	// of the process leaves. Both are called with the disk standing still.
	Cut(mode Mode, rng *rand.Rand) Beside
	Copy() Beside
}

// realFiles is the real file system as it stands beside a Disk. It does not
// lose power: whoever uses it copies files by himself.
type realFiles struct{ segment.OS }

func (realFiles) SyncDir(string) error        { return nil }
func (realFiles) Cut(Mode, *rand.Rand) Beside { return realFiles{} }
func (realFiles) Copy() Beside                { return realFiles{} }
func (realFiles) MkdirAll(dir string) error   { return os.MkdirAll(dir, 0o750) }

// Disk is a simulated disk. Paths below root are on it.
type Disk struct {
	root   string
	beside Beside

	mu      sync.Mutex
	live    map[string]*file // by path relative to root
	durable map[string]*file
	faults  map[Op][]fault
	counts  map[Op]int
	room    int64 // bytes for files; zero: no limit
	locked  map[string]bool

	// Step, if set, is called before every operation that a crash can come
	// before or after, without locks. It is set before the disk is used.
	Step func(op Op, path string)
}

// Op is a kind of operation.
type Op string

// The operations.
const (
	Create   Op = "create"
	Map      Op = "map"
	Flush    Op = "flush"
	Truncate Op = "truncate"
	Rename   Op = "rename"
	Remove   Op = "remove"
	SyncDir  Op = "syncdir"
)

type fault struct {
	at  int // which call, counted from now on
	err error
}

// file is what a name refers to. data is shared by all mappings; synced is
// what a power cut leaves at least.
type file struct {
	data   []byte
	synced []byte
}

// New returns an empty disk. root is a real directory, for what is passed on.
func New(root string) *Disk { return NewBeside(root, realFiles{}) }

// NewBeside returns an empty disk at root, which need not exist elsewhere.
func NewBeside(root string, b Beside) *Disk {
	return &Disk{root: root, beside: b, live: map[string]*file{}, durable: map[string]*file{}, faults: map[Op][]fault{},
		counts: map[Op]int{}, locked: map[string]bool{}}
}

// Beside is what was given to NewBeside, or what a cut has left of it.
func (d *Disk) Beside() Beside { return d.beside }

// Fail makes the n-th call of op from now on (the next is 1) return err.
func (d *Disk) Fail(op Op, n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[op] = append(d.faults[op], fault{d.counts[op] + n, err})
}

// SetRoom bounds the bytes of all files; zero is no bound.
func (d *Disk) SetRoom(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = n
}

// Used is what the files take.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked()
}

func (d *Disk) usedLocked() (n int64) {
	for _, f := range d.live {
		n += int64(len(f.data))
	}
	return n
}

// step counts an operation and returns the error that it is to have.
func (d *Disk) step(op Op, path string) error {
	if d.Step != nil {
		d.Step(op, path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[op]++
	for _, f := range d.faults[op] {
		if f.at == d.counts[op] {
			return &fs.PathError{Op: string(op), Path: path, Err: f.err}
		}
	}
	return nil
}

func (d *Disk) rel(path string) string {
	r, err := filepath.Rel(d.root, path)
	if err != nil || strings.HasPrefix(r, "..") {
		panic(fmt.Sprintf("%s is not on the disk at %s", path, d.root))
	}
	return filepath.ToSlash(r)
}

// passedOn reports whether a path is not the log's.
func (d *Disk) passedOn(path string) bool {
	r := d.rel(path)
	return r == "index" || strings.HasPrefix(r, "index/") || strings.HasPrefix(r, "damaged/index-")
}

// Mode is a kind of remains.
type Mode int

// What becomes of what was not synced.
const (
	Lost  Mode = iota // all of it is gone
	Kept              // all of it is there
	Mixed             // by the seed
)

// Cut returns the disk as a power cut at this moment may leave it. root is
// the directory of the new disk.
func (d *Disk) Cut(root string, mode Mode, seed uint64) *Disk {
	rng := rand.New(rand.NewPCG(seed, 1))
	keep := func() bool {
		switch mode {
		case Lost:
			return false
		case Kept:
			return true
		}
		return rng.IntN(2) == 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// Nothing happens on this disk until both are cut.
	out := NewBeside(root, d.beside.Cut(mode, rng))
	names := slices.Collect(maps.Keys(d.live))
	for name := range d.durable {
		if d.live[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names) // so that a seed means the same every time
	for _, name := range names {
		f := d.durable[name]
		if d.live[name] != f && keep() {
			f = d.live[name]
		}
		if f != nil {
			g := &file{data: f.cut(keep)}
			g.synced = slices.Clone(g.data)
			out.live[name], out.durable[name] = g, g
		}
	}
	return out
}

// cut chooses sector by sector between what was synced and what was written.
func (f *file) cut(keep func() bool) []byte {
	out := slices.Clone(f.synced)
	if len(out) < len(f.data) && keep() {
		out = append(out, make([]byte, len(f.data)-len(out))...)
	}
	for at := 0; at < min(len(out), len(f.data)); at += sector {
		end := min(at+sector, len(out), len(f.data))
		if string(out[at:end]) != string(f.data[at:end]) && keep() {
			copy(out[at:end], f.data[at:end])
		}
	}
	return out
}

// Copy returns the disk as the death of the process leaves it.
func (d *Disk) Copy(root string) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := NewBeside(root, d.beside.Copy())
	for name, f := range d.live {
		out.live[name] = &file{data: slices.Clone(f.data), synced: slices.Clone(f.synced)}
		if d.durable[name] == f {
			out.durable[name] = out.live[name]
		}
	}
	return out
}

// Names lists the files, sorted.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.live))
}

// Bytes is the content of a file, to be looked at and to be damaged.
func (d *Disk) Bytes(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live[name].data
}

// Put gives a file another content; nil removes it.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if data == nil {
		delete(d.live, name)
		delete(d.durable, name)
		return
	}
	f := &file{data: data, synced: slices.Clone(data)}
	d.live[name], d.durable[name] = f, f
}

// Create implements segment.FS.
func (d *Disk) Create(path string, size int64) (segment.Mapping, error) {
	if err := d.step(Create, path); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.rel(path)
	if d.live[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if d.room > 0 && d.usedLocked()+size > d.room {
		return nil, &fs.PathError{Op: "create", Path: path, Err: syscall.ENOSPC}
	}
	f := &file{data: make([]byte, size), synced: make([]byte, size)}
	d.live[name] = f
	return &mapping{d: d, f: f, path: path, b: f.data}, nil
}

// Map implements segment.FS.
func (d *Disk) Map(path string, _ bool) (segment.Mapping, error) {
	if err := d.step(Map, path); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.live[d.rel(path)]
	if f == nil {
		return nil, &fs.PathError{Op: "map", Path: path, Err: fs.ErrNotExist}
	}
	return &mapping{d: d, f: f, path: path, b: f.data}, nil
}

// Truncate implements segment.FS.
func (d *Disk) Truncate(path string, size int64) error {
	if err := d.step(Truncate, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.live[d.rel(path)]
	if f == nil {
		return &fs.PathError{Op: "truncate", Path: path, Err: fs.ErrNotExist}
	}
	f.data = f.data[:size:size]
	f.synced = f.synced[:min(int(size), len(f.synced))]
	return nil
}

// Rename implements segment.FS.
func (d *Disk) Rename(from, to string) error {
	if d.passedOn(from) {
		return d.beside.Rename(from, to)
	}
	if err := d.step(Rename, from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.live[d.rel(from)]
	if f == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(d.live, d.rel(from))
	d.live[d.rel(to)] = f
	return nil
}

// Remove implements segment.FS.
func (d *Disk) Remove(path string) error {
	if err := d.step(Remove, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[d.rel(path)] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	delete(d.live, d.rel(path))
	return nil
}

// SyncDir implements segment.FS.
func (d *Disk) SyncDir(dir string) error {
	if err := d.step(SyncDir, dir); err != nil {
		return err
	}
	if err := d.beside.SyncDir(dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	in := func(name string) bool { return filepath.ToSlash(filepath.Dir(name)) == d.rel(dir) }
	maps.DeleteFunc(d.durable, func(name string, _ *file) bool { return in(name) })
	for name, f := range d.live {
		if in(name) {
			d.durable[name] = f
		}
	}
	return nil
}

// List implements segment.FS.
func (d *Disk) List(dir string) ([]segment.FileInfo, error) {
	out, err := d.beside.List(dir)
	if d.passedOn(dir) {
		return out, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.live {
		if filepath.ToSlash(filepath.Dir(name)) == d.rel(dir) {
			out = append(out, segment.FileInfo{Name: filepath.Base(name), Size: int64(len(f.data))})
		}
	}
	return out, nil
}

// MkdirAll implements segment.FS. Directories are durable at once.
func (d *Disk) MkdirAll(dir string) error { return d.beside.MkdirAll(dir) }

// Lock implements segment.FS.
func (d *Disk) Lock(path string) (unlock func() error, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.rel(path)
	if d.locked[name] {
		return nil, segment.ErrLocked
	}
	d.locked[name] = true
	return func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.locked, name)
		return nil
	}, nil
}

// Free implements segment.FS.
func (d *Disk) Free(string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room == 0 {
		return -1
	}
	return d.room - d.usedLocked()
}

type mapping struct {
	d    *Disk
	f    *file
	path string
	b    []byte
}

func (m *mapping) Bytes() []byte             { return m.b }
func (m *mapping) Populate(_, _ int, _ bool) {}

func (m *mapping) Shrink(_, _ int) {}
func (m *mapping) Forget(_, _ int) {}

// Flush syncs whole pages, and fails for good: what was to be synced may be
// gone, so a later success says nothing about it.
func (m *mapping) Flush(from, to int) error {
	if err := m.d.step(Flush, m.path); err != nil {
		return err
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	const page = 4096
	from, to = from&^(page-1), min((to+page-1)&^(page-1), len(m.f.data))
	if from < to {
		m.f.writeBack(from, to)
	}
	return nil
}

// writeBack copies pages as the kernel does: without asking who writes to
// them. So the race detector sees the log's own goroutines and not the disk.
//
//go:norace
func (f *file) writeBack(from, to int) {
	dst, src := f.synced[from:to], f.data[from:to]
	//lint:ignore S1001 copy would tell the detector
	for i := range src {
		dst[i] = src[i]
	}
}

// Unmap makes a late read a fault that a test notices.
func (m *mapping) Unmap() error {
	if m.b == nil {
		return fmt.Errorf("%s was unmapped twice", m.path)
	}
	m.b = nil
	return nil
}
