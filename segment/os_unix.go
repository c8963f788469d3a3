//go:build unix

package segment

import (
	"errors"
	"os"

	"github.com/edsrzf/mmap-go"
)

// flushRange syncs the whole pages [from, to).
func flushRange(m mmap.MMap, from, to int) error { return m[from:to].Flush() }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
