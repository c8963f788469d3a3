package segment

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve allocates the blocks, so that a full disk is an error here and not
// a signal in the middle of a write to the mapping.
func reserve(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return reserveByWriting(f, size)
		}
		return err
	}
}

// populate faults the pages in for writing with one call in place of one
// fault per page. Kernels before 5.14 do not know it; then each page faults
// when it is written, which is slower and just as right.
func populate(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }

// forget drops the pages from this process's view. The mapping is shared, so
// their content stays in the page cache.
func forget(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// evict asks the kernel to let go of a file's cached pages. Those that are on
// stable storage go; others stay.
func evict(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	_ = f.Close()
}

func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
