//go:build unix

package broker

import (
	"errors"
	"syscall"
)

// rawSupported: the descriptor can be read and written without blocking, so
// that a buffer is taken only when there are bytes for it.
const rawSupported = true

func (c *conn) rawRead(fd uintptr) bool {
	c.space()
	for {
		c.readN, c.readErr = syscall.Read(int(fd), c.buf[c.w:])
		if c.readErr == syscall.EINTR {
			continue
		}
		break
	}
	if errors.Is(c.readErr, syscall.EAGAIN) {
		c.readN, c.readErr = 0, nil
		c.idle()
		return false // wait, without a buffer
	}
	return true
}

func (c *conn) rawWrite(fd uintptr) bool {
	c.writeN = 0
	c.writeErr = nil
	for c.writeN < len(c.writeBuf) {
		n, err := syscall.Write(int(fd), c.writeBuf[c.writeN:])
		switch {
		case err == syscall.EINTR:
			continue
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			c.writeErr = err
			return true
		}
		c.writeN += n
	}
	return true
}
