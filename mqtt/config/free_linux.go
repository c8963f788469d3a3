package config

import "syscall"

// freeSpace is what an ordinary user may still write to the disk of dir.
func freeSpace(dir string) (Size, bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, false
	}
	return Size(fs.Bavail) * Size(fs.Bsize), true
}
