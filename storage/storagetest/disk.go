// Package storagetest is a machine's disk for tests, that loses power.
//
// # Promise
//
// A Disk holds a whole data directory: the log on a segmenttest.Disk, the index
// on an indextest.Disk, and no real file. Cut cuts both at the same instant.
// Step sees every operation of either that changes something, so a test that
// cuts at each of them has cut everywhere.
package storagetest

import (
	"math/rand/v2"

	"cairnmq/index"
	"cairnmq/index/indextest"
	"cairnmq/segment"
	"cairnmq/segment/segmenttest"
)

// Dir is the data directory on every Disk.
const Dir = "/data"

// Disk is a simulated disk with a data directory.
type Disk struct {
	Log   *segmenttest.Disk // what storage.Options.FS wants
	Index *indextest.Disk
}

// New returns an empty disk.
func New() *Disk { return of(segmenttest.NewBeside(Dir, &beside{indextest.New(Dir)})) }

func of(log *segmenttest.Disk) *Disk {
	return &Disk{Log: log, Index: log.Beside().(*beside).Disk}
}

// IndexFS is what storage.Options.IndexFS wants.
func (d *Disk) IndexFS() index.FS { return d.Index.FS() }

// SetStep has step called before every operation that changes something, on
// whatever goroutine that happens and at times with locks of Pebble's held:
// step may cut the power, and must not use the log that is on this disk. It is
// set before the disk is used.
func (d *Disk) SetStep(step func(op, path string)) {
	d.Log.Step = func(op segmenttest.Op, path string) {
		if op != segmenttest.Map {
			step(string(op), path)
		}
	}
	d.Index.Step = func(op, path string) error {
		step("index "+op, path)
		return nil
	}
}

// Cut returns the disk as a power cut at this moment may leave it.
func (d *Disk) Cut(mode segmenttest.Mode, seed uint64) *Disk { return of(d.Log.Cut(Dir, mode, seed)) }

// Copy returns the disk as the death of the process leaves it.
func (d *Disk) Copy() *Disk { return of(d.Log.Copy(Dir)) }

// beside lets an index disk stand beside a disk of segments.
type beside struct{ *indextest.Disk }

func (b *beside) Cut(mode segmenttest.Mode, rng *rand.Rand) segmenttest.Beside {
	keep := map[segmenttest.Mode]int{segmenttest.Lost: 0, segmenttest.Mixed: 50, segmenttest.Kept: 100}[mode]
	return &beside{b.Disk.Cut(keep, rng)}
}

func (b *beside) Copy() segmenttest.Beside {
	return &beside{b.Disk.Cut(100, rand.New(rand.NewPCG(0, 0)))}
}

func (b *beside) List(dir string) ([]segment.FileInfo, error) {
	infos, err := b.Disk.List(dir)
	out := make([]segment.FileInfo, 0, len(infos))
	for _, x := range infos {
		out = append(out, segment.FileInfo{Name: x.Name(), Size: x.Size(), Dir: x.IsDir()})
	}
	return out, err
}
