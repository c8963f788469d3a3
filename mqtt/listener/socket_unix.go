//go:build unix

package listener

import "syscall"

// narrow limits the rights that a socket is born with. Systems other than Linux may not know this; there the rights
// come a moment later.
func narrow(c syscall.RawConn, mode uint32) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), mode) })
}
