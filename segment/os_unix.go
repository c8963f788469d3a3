//go:build unix

package segment

import (
	"errors"
	"os"
)

// flushParts: any range of whole pages can be synced.
const flushParts = true

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
