package broker

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/packet"
)

// readBufSize is the size of the shared read buffers. A connection holds one
// only while it has bytes that are not yet handled.
const readBufSize = 64 << 10

var readBufs = sync.Pool{New: func() any { b := make([]byte, readBufSize); return &b }}

// conn is a network connection with its read buffer. Reading belongs to the
// goroutine of the connection, writing to the session's flusher.
type conn struct {
	nc   net.Conn        // the socket, and once it is ready for MQTT what was made of it
	raw  syscall.RawConn // nil if the transport has no descriptor of its own
	peer string
	who  listener.Peer
	// traffic is where bytes are counted.
	traffic *stats
	wait    []byte // what an empty connection without raw waits with, see readWrapped

	// buf[r:w] are bytes that were read and not yet handled. pooled is the
	// buffer to give back, nil if buf was made for a large packet, which then
	// is all that it will hold: need bytes.
	buf    []byte
	r, w   int
	need   int // of the packet that is being received, as far as that is known
	pooled *[]byte
	shared bool // the session holds a share of Broker.receipt

	maxPacket int       // bytes
	connectBy time.Time // until when the client must have got its CONNACK

	// deadlines guards those of the socket: once the connection is to end,
	// nobody gives it more time.
	deadlines struct {
		sync.Mutex
		leaving bool
		parking parking
	}

	lastRead atomic.Int64 // instant of the last bytes, for the keep alive

	// for the callbacks of raw, which are made once so that they cost nothing
	readFn  func(fd uintptr) bool
	readN   int
	readErr error

	writeFn  func(fd uintptr) bool
	writeBuf []byte
	writeN   int
	writeErr error
}

func newConn(nc net.Conn, traffic *stats) *conn {
	c := &conn{traffic: traffic}
	c.become(nc, listener.Peer{Addr: nc.RemoteAddr().String()})
	return c
}

// become hands over to what a listener made of the socket. Whoever ends the connection meanwhile (leave) ends the one
// or the other, and both are the same socket.
func (c *conn) become(nc net.Conn, who listener.Peer) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.who, c.peer = who, who.Addr; nc == c.nc {
		return
	}
	c.nc, c.raw = nc, nil
	if sc, ok := nc.(syscall.Conn); ok && rawSupported {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.readFn, c.writeFn = c.rawRead, c.rawWrite
		}
	}
}

// space makes sure that there is room behind w for at least one byte.
func (c *conn) space() {
	if c.buf == nil {
		c.pooled = readBufs.Get().(*[]byte)
		c.buf = *c.pooled
		c.r, c.w = 0, 0
	}
	if c.w < len(c.buf) {
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
		return
	}
	// A packet larger than the buffer: grow with what has really come, so
	// that an announced length costs nothing, and not beyond the packet's end.
	size := 2 * c.w
	if c.need > c.w && c.need < size+size/4 { // no further step for a little
		size = c.need
	}
	grown := make([]byte, size)
	copy(grown, c.buf[:c.w])
	c.setBuf(grown)
}

// maxControl bounds every packet but PUBLISH, on top of the limit for all.
// What is decoded of them takes several times their size, and none that means
// something comes near it.
const maxControl = 1 << 20

// frame looks for one whole packet among what was read.
func (c *conn) frame() (f packet.Frame, ok bool, err error) {
	limit := c.maxPacket
	if c.buf[c.r]>>4 != byte(packet.PUBLISH) {
		limit = min(limit, maxControl)
	}
	f, c.need, ok, err = packet.ReadFrame(c.buf[c.r:c.w], limit)
	return f, ok, err
}

func (c *conn) setBuf(b []byte) {
	if c.pooled != nil {
		readBufs.Put(c.pooled)
		c.pooled = nil
	}
	c.buf = b
}

// consumed says that n more bytes are handled.
func (c *conn) consumed(n int) {
	if c.r += n; c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// idle gives the buffer back if it is empty.
func (c *conn) idle() {
	if c.r == c.w && c.buf != nil {
		c.setBuf(nil)
		c.r, c.w = 0, 0
	}
}

// fill waits for bytes. While it waits, an empty connection holds no buffer.
func (c *conn) fill() error {
	n, err := c.read()
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	c.traffic.bytesIn.Add(int64(n))
	c.w += n
	return nil
}

func (c *conn) read() (int, error) {
	if c.raw == nil {
		return c.readWrapped()
	}
	c.idle()
	if err := c.raw.Read(c.readFn); err != nil {
		return 0, err
	}
	return c.readN, c.readErr
}

// waitSize is enough for what most connections get while they are idle.
const waitSize = 256

// readWrapped reads from a transport that cannot say when bytes are there, such as TLS. To wait, an empty connection
// takes a few bytes of its own instead of a whole buffer.
func (c *conn) readWrapped() (int, error) {
	if c.idle(); c.buf != nil {
		c.space()
		return c.nc.Read(c.buf[c.w:])
	}
	if c.wait == nil {
		c.wait = make([]byte, waitSize)
	}
	n, err := c.nc.Read(c.wait)
	if n > 0 {
		c.space()
		copy(c.buf[c.w:], c.wait[:n])
	}
	return n, err
}

// tryWrite writes what the socket takes at once. more is what it did not.
func (c *conn) tryWrite(b []byte) (more []byte, err error) {
	if c.raw == nil {
		return b, nil
	}
	c.writeBuf = b
	err = c.raw.Write(c.writeFn)
	c.writeBuf = nil
	if err != nil {
		return b, err // writeFn was not called
	}
	c.traffic.bytesOut.Add(int64(c.writeN))
	return b[c.writeN:], c.writeErr
}

// writePart is how much may take the write timeout: a client that takes a
// large message slowly is slow, and not gone.
const writePart = 256 << 10

// write writes all of b, or fails.
func (c *conn) write(b []byte, timeout time.Duration) error {
	for len(b) > writePart {
		if err := c.writeAtOnce(b[:writePart], timeout); err != nil {
			return err
		}
		b = b[writePart:]
	}
	return c.writeAtOnce(b, timeout)
}

func (c *conn) writeAtOnce(b []byte, timeout time.Duration) error {
	if len(b) == 0 {
		return nil
	}
	if timeout > 0 {
		if err := c.setDeadline(c.nc.SetWriteDeadline, time.Now().Add(timeout)); err != nil {
			return err
		}
	}
	n, err := c.nc.Write(b)
	c.traffic.bytesOut.Add(int64(n))
	if timeout > 0 && err == nil {
		err = c.setDeadline(c.nc.SetWriteDeadline, time.Time{}) // or the next write of tryWrite would be late
	}
	return err
}

// setDeadline sets a deadline unless the connection is to end.
func (c *conn) setDeadline(set func(time.Time) error, at time.Time) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.deadlines.leaving {
		return nil
	}
	return set(at)
}

// leave ends reading now, and gives what waits to be written a last moment.
func (c *conn) leave() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.deadlines.leaving {
		return
	}
	c.deadlines.leaving = true
	now := time.Now()
	if c.nc.SetReadDeadline(now) != nil || c.nc.SetWriteDeadline(now.Add(farewellTime)) != nil {
		_ = c.nc.Close()
	}
	c.unparkLocked(0) // somebody has to see the end
}

// close closes the socket at once; its reader sees that.
func (c *conn) close() {
	_ = c.nc.Close()
	c.unpark(0)
}

// hangUp closes the connection so that a last packet arrives: closing with
// bytes unread would reset it, and what was just sent might be lost with them.
func (c *conn) hangUp() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = c.nc.SetReadDeadline(time.Now().Add(farewellTime))
		_, _ = io.Copy(io.Discard, c.nc)
	}
	_ = c.nc.Close()
}

// epoch is what instants of the monotonic clock count from: a wall clock that
// jumps must not end connections.
var epoch = time.Now()

func instant() int64 { return int64(time.Since(epoch)) }

// touch notes that the peer has just been heard.
func (c *conn) touch() { c.lastRead.Store(instant()) }

// silence is how long ago that was.
func (c *conn) silence() time.Duration { return time.Duration(instant() - c.lastRead.Load()) }

// closedByPeer tells an end that needs no mention from an error that does.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
