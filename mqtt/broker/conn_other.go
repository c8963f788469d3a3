//go:build !unix

package broker

const rawSupported = false

func (c *conn) rawRead(uintptr) bool  { return true }
func (c *conn) rawWrite(uintptr) bool { return true }
