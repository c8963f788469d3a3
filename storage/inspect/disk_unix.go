//go:build unix

package inspect

import (
	"io/fs"
	"syscall"
)

// onDisk is the space that a file takes up.
func onDisk(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}
