//go:build !linux

package segment

import "os"

// reserve writes zeros: the portable way to own the blocks.
func reserve(f *os.File, size int64) error { return reserveByWriting(f, size) }

func populate([]byte) {}

type filler struct{}

func (*filler) open(*os.File) {}

func (*filler) fill(_, _ int) {}

func (*filler) drop(_, _ int) {}

func (*filler) close() {}

func forget([]byte) {}

func evict(string) {}

func freeSpace(string) int64 { return -1 }
