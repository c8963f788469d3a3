// Package indextest is a disk for the index that loses power.
//
// # Promise
//
// A Disk holds the files of an index and keeps apart what was written and what
// was synced. Cut yields a disk as a power cut may leave it: what was synced is
// there; each block of 4 KiB that was not is as it was or as it was written;
// each directory entry that was not synced is as it was or as it became. Step
// is called before every operation of Pebble's own that changes something, so
// that a cut can come before or after each, and the operation can be made to
// fail. Nothing of it touches a real disk.
package indextest

import (
	"io/fs"
	"math/rand/v2"
	"path"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"cairnmq/index"
)

// Disk is a simulated disk with the files of an index.
type Disk struct {
	mem *vfs.MemFS

	// Step, if set, is called before every operation that changes something,
	// and may make it fail. It is called on Pebble's goroutines, at times with
	// Pebble's locks held, so it must not use the index on this disk. It is set
	// before the disk is used.
	Step func(op, path string) error
	// Read, if set, is called before every reading operation, in the same way.
	Read func(op, path string) error
}

// New returns an empty disk with the directory root on it.
func New(root string) *Disk {
	d := &Disk{mem: vfs.NewCrashableMem()}
	if err := d.MkdirAll(root); err != nil {
		panic(err) // memory is never full
	}
	return d
}

// FS is what index.Options.FS wants.
func (d *Disk) FS() index.FS { return errorfs.Wrap(d.mem, errorfs.InjectorFunc(d.before)) }

var changes = map[errorfs.OpKind]string{
	errorfs.OpCreate: "create", errorfs.OpLink: "link", errorfs.OpRemove: "remove", errorfs.OpRemoveAll: "remove",
	errorfs.OpRename: "rename", errorfs.OpReuseForWrite: "reuse", errorfs.OpMkdirAll: "mkdir", errorfs.OpFileWrite: "write",
	errorfs.OpFileWriteAt: "write", errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "sync", errorfs.OpFileSyncTo: "sync",
}

var reads = map[errorfs.OpKind]string{
	errorfs.OpOpen: "open", errorfs.OpFileRead: "read", errorfs.OpFileReadAt: "read",
}

func (d *Disk) before(op errorfs.Op) error {
	if name, ok := changes[op.Kind]; ok && d.Step != nil {
		return d.Step(name, op.Path)
	}
	if name, ok := reads[op.Kind]; ok && d.Read != nil {
		return d.Read(name, op.Path)
	}
	return nil
}

// Cut returns the disk as a power cut at this moment may leave it: each thing
// not synced is there with a probability of keep percent.
func (d *Disk) Cut(keep int, rng *rand.Rand) *Disk {
	return &Disk{mem: d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng})}
}

// Rename renames a file or directory.
func (d *Disk) Rename(from, to string) error {
	if err := d.before(errorfs.Op{Kind: errorfs.OpRename, Path: from}); err != nil {
		return err
	}
	return d.mem.Rename(from, to)
}

// RemoveAll removes a file or a directory with all that is in it.
func (d *Disk) RemoveAll(name string) error { return d.mem.RemoveAll(name) }

// SyncDir makes the entries of a directory durable.
func (d *Disk) SyncDir(dir string) error {
	f, err := d.mem.OpenDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// MkdirAll makes a directory and those above it, with durable entries.
func (d *Disk) MkdirAll(dir string) error {
	if err := d.mem.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for at := path.Dir(dir); ; at = path.Dir(at) {
		if err := d.SyncDir(at); err != nil {
			return err
		}
		if at == path.Dir(at) {
			return nil
		}
	}
}

// List describes what is in a directory.
func (d *Disk) List(dir string) ([]fs.FileInfo, error) {
	names, err := d.mem.List(dir)
	if err != nil {
		return nil, err
	}
	out := make([]fs.FileInfo, 0, len(names))
	for _, name := range names {
		info, err := d.mem.Stat(path.Join(dir, name))
		if err == nil {
			out = append(out, info)
		}
	}
	return out, nil
}
