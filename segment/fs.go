package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// FS is everything the log asks of a file system. It is a seam: tests put a
// file system under the log that loses power.
type FS interface {
	// Create makes a new file of the given size with its blocks reserved,
	// syncs it, and maps it for writing. It fails if the file exists. The
	// directory entry is not durable until SyncDir.
	Create(path string, size int64) (Mapping, error)
	// Map maps a whole existing file.
	Map(path string, writable bool) (Mapping, error)
	// Truncate cuts or extends a file and syncs it.
	Truncate(path string, size int64) error
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
	// List names the files of a directory with their sizes.
	List(dir string) ([]FileInfo, error)
	// MkdirAll makes a directory and those above it that do not exist, with
	// durable entries.
	MkdirAll(dir string) error
	// Free is the space that a user may still fill, in bytes; negative if unknown.
	Free(dir string) int64
	// Lock takes a file for this process alone, until unlock or the end of the
	// process. The error is ErrLocked if another one has it.
	Lock(path string) (unlock func() error, err error)
}

// ErrLocked: another process has the file.
var ErrLocked = errors.New("locked by another process")

// Evicter is an FS that can let go of what memory holds of a file. It is a
// hint: the bytes can still be read, from the disk.
type Evicter interface {
	Evict(path string)
}

// Evict implements Evicter.
func (OS) Evict(path string) { evict(path) }

// FileInfo is one row of a directory.
type FileInfo struct {
	Name string
	Size int64
	Dir  bool
}

// Mapping is a file in memory. Bytes must not be touched after Unmap.
type Mapping interface {
	Bytes() []byte
	// Flush puts [from, to) on stable storage.
	Flush(from, to int) error
	// Populate says that [from, to), which holds zeros, is going to be written
	// through Bytes, so that the system can have the memory ready. With fast
	// it may do so in large pieces, which are cheaper to fill, and are written
	// to the disk whole, however little of them has changed.
	Populate(from, to int, fast bool)
	// Shrink lets go of such pieces in [from, to), which was synced, so that
	// what is written next goes to the disk page by page.
	Shrink(from, to int)
	// Forget lets the process drop its view of [from, to) to keep the
	// resident set small; the bytes stay in the kernel and can be read again.
	Forget(from, to int)
	Unmap() error
}

// OS is the real file system.
type OS struct{}

// Create implements FS.
func (OS) Create(path string, size int64) (m Mapping, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			if m != nil {
				err = errors.Join(err, m.Unmap())
			}
			m = nil
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := reserve(f, size); err != nil {
		return nil, fmt.Errorf("reserve %d bytes for %s: %w", size, path, err)
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", path, err)
	}
	return mapFile(f, true)
}

// Map implements FS.
func (OS) Map(path string, writable bool) (Mapping, error) {
	flag := os.O_RDONLY
	if writable {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // a mapping outlives its descriptor
	return mapFile(f, writable)
}

// Truncate implements FS.
func (OS) Truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(path string) error { return os.Remove(path) }

// MkdirAll implements FS.
func (o OS) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// List implements FS.
func (OS) List(dir string) ([]FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since: a running broker's directory moves
		}
		if err != nil {
			return nil, err
		}
		out = append(out, FileInfo{Name: e.Name(), Size: info.Size(), Dir: e.IsDir()})
	}
	return out, nil
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error { return syncDir(filepath.Clean(dir)) }

// Lock implements FS.
func (OS) Lock(path string) (unlock func() error, err error) {
	f := flock.New(path)
	switch ok, err := f.TryLock(); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, ErrLocked
	}
	return f.Unlock, nil
}

// Free implements FS.
func (OS) Free(dir string) int64 { return freeSpace(dir) }
