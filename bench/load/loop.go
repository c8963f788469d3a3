//go:build linux

package load

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cairnmq/bench/wire"
)

const (
	// writeBatch is how much a publisher gathers before it must be flushed.
	writeBatch = 64 << 10
	// readBatch is how much is asked for in one read.
	readBatch = 128 << 10
	// thinBatch is what a pass must bring to be followed by the next at once.
	thinBatch = 16 << 10
	// maxNap is how many pauses may be made into one.
	maxNap = 5
)

// Loop owns the sockets of all clients. One goroutine uses it; it should be
// locked to its thread, since the loop makes its non-blocking system calls
// behind the scheduler's back.
type Loop struct {
	// Pause is how long a pass sleeps when nothing has arrived. With 0 it
	// waits for the next packet instead: less delay, more work per message.
	// While the broker is far behind the pauses grow, up to maxNap of them.
	Pause time.Duration

	stop    <-chan struct{} // closed when run is to fail; nil is never
	epoll   int
	conns   []*conn // by slot, nil once closed
	dirty   []*conn // with bytes to write
	slow    []*conn // that are read from at a limited rate
	sources []source
	first   int // source to begin the next pass with
	events  [256]unix.EpollEvent
	scratch []byte
	packet  wire.Packet
	got     int            // bytes read in the last pass
	nap     time.Duration  // the last pause
	dialled int            // sockets so far
	relays  sync.WaitGroup // of connections with TLS; end with the sockets
	origin  time.Time
	now     int64 // ns since origin, as of the last pass
}

// source is what writes of its own accord in each pass.
type source interface {
	// fill writes what may be written now.
	fill(now int64) error
	// next says when there is more to do; 0 if only an arrival can say.
	next() int64
	// hungry reports whether the broker may soon have nothing left to do
	// that came from here.
	hungry() bool
}

// NewLoop returns a loop without sockets.
func NewLoop(pause time.Duration) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &Loop{
		Pause:   pause,
		epoll:   epoll,
		scratch: make([]byte, readBatch),
		origin:  time.Now(),
	}, nil
}

// Close closes all sockets without saying goodbye.
func (l *Loop) Close() {
	for _, c := range l.conns {
		if c != nil {
			l.drop(c)
		}
	}
	_ = unix.Close(l.epoll)
	l.relays.Wait()
}

// drop closes a socket at once.
func (l *Loop) drop(c *conn) {
	_ = unix.Close(c.fd) // also leaves the epoll set
	l.conns[c.slot] = nil
	if c.dirty {
		l.dirty = slices.DeleteFunc(l.dirty, func(d *conn) bool { return d == c })
	}
	if c.slowRate > 0 {
		l.slow = slices.DeleteFunc(l.slow, func(d *conn) bool { return d == c })
	}
}

// run makes passes until done says so, or fails at the given time.
func (l *Loop) run(limit time.Duration, what string, done func() bool) error {
	l.tick()
	end := l.now + int64(limit)
	for !done() {
		select {
		case <-l.stop:
			return fmt.Errorf("%s: %w", what, ErrInterrupted)
		default:
		}
		if l.now > end {
			return fmt.Errorf("%s: not done after %v", what, limit)
		}
		if err := l.pass(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func (l *Loop) tick() { l.now = int64(time.Since(l.origin)) }

// pass lets the sources write, flushes, and handles what has arrived.
func (l *Loop) pass() error {
	l.nap = min(max(2*l.nap, l.Pause), maxNap*l.Pause)
	if len(l.sources) == 0 || slices.ContainsFunc(l.sources, source.hungry) {
		l.nap = l.Pause
	}
	for i := range l.sources {
		if err := l.sources[(l.first+i)%len(l.sources)].fill(l.now); err != nil {
			return err
		}
	}
	if len(l.sources) > 0 {
		l.first = (l.first + 1) % len(l.sources)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if err := l.resume(); err != nil {
		return err
	}
	n, err := l.await()
	if err != nil {
		return fmt.Errorf("wait for packets: %w", err)
	}
	l.tick()
	l.got = 0
	for _, event := range l.events[:n] {
		c := l.conns[event.Fd]
		if c == nil {
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 {
			if err := l.block(c, false); err != nil {
				return err
			}
		}
		if event.Events&^unix.EPOLLOUT == 0 {
			continue
		}
		if err := l.read(c); err != nil {
			return fmt.Errorf("client %s: %w", c.clientID, err)
		}
	}
	return nil
}

// await returns how many sockets have something to read. If there is none, or
// if the last pass brought little, it first lets time pass.
func (l *Loop) await() (int, error) {
	if l.Pause == 0 || l.got >= thinBatch {
		if n, err := l.poll(0); n > 0 || err != nil {
			return n, err
		}
	}
	if l.Pause > 0 {
		ts := unix.NsecToTimespec(int64(l.nap))
		_, _, _ = unix.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) // an interrupted sleep is short, that is all
		return l.poll(0)
	}
	wait := int64(10 * time.Millisecond)
	for _, s := range l.sources {
		if at := s.next(); at > 0 {
			l.tick()
			wait = min(wait, max(at-l.now, 0))
		}
	}
	for _, c := range l.slow {
		if c.paused {
			wait = min(wait, max(c.resumeAt-l.now, 0))
		}
	}
	return l.poll(time.Duration(wait))
}

// poll asks which sockets have something to read, waiting at most that long.
func (l *Loop) poll(wait time.Duration) (int, error) {
	var n uintptr
	var errno unix.Errno
	if wait == 0 {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll),
			uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
	} else {
		ts := unix.NsecToTimespec(int64(wait))
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll),
			uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// flush writes what the clients have gathered. What a socket does not take
// waits until it has room, of which the kernel tells when it is worth while.
func (l *Loop) flush() error {
	kept := l.dirty[:0]
	for _, c := range l.dirty {
		if c.blocked {
			kept = append(kept, c)
			continue
		}
		n, errno := rawIO(unix.SYS_WRITE, c.fd, c.out[c.written:])
		switch errno {
		case 0:
			c.written += n
		case unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("client %s: write: %w", c.clientID, errno)
		}
		if c.written < len(c.out) {
			kept = append(kept, c)
			if err := l.block(c, true); err != nil {
				return err
			}
			continue
		}
		c.out, c.written, c.dirty = c.out[:0], 0, false
	}
	l.dirty = kept
	return nil
}

// block notes that a socket is full, or no longer, and has the kernel tell
// when it has room.
func (l *Loop) block(c *conn, full bool) error {
	c.blocked = full
	return l.watch(c)
}

// watch tells the kernel what about a socket is of interest.
func (l *Loop) watch(c *conn) error {
	event := unix.EpollEvent{Fd: int32(c.slot)}
	if !c.paused {
		event.Events |= unix.EPOLLIN
	}
	if c.blocked {
		event.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, c.fd, &event); err != nil {
		return fmt.Errorf("client %s: watch socket: %w", c.clientID, err)
	}
	return nil
}

// slowDown limits how fast a client reads, in bytes a second.
func (l *Loop) slowDown(c *conn, rate float64) {
	c.slowRate = rate
	l.slow = append(l.slow, c)
}

// speedUp ends that.
func (l *Loop) speedUp(c *conn) error {
	l.slow = slices.DeleteFunc(l.slow, func(d *conn) bool { return d == c })
	c.slowRate, c.paused = 0, false
	return l.watch(c)
}

// resume lets slow clients read again whose time has come.
func (l *Loop) resume() error {
	for _, c := range l.slow {
		if c.paused && c.resumeAt <= l.now {
			c.paused = false
			if err := l.watch(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// read takes one batch from a socket and hands its packets on.
func (l *Loop) read(c *conn) error {
	if len(c.rest) == len(l.scratch) {
		l.scratch = make([]byte, 2*len(l.scratch)) // a packet longer than all before
	}
	kept := copy(l.scratch, c.rest)
	n, errno := rawIO(unix.SYS_READ, c.fd, l.scratch[kept:])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case c.leaving && (errno == unix.ECONNRESET || errno == 0 && n == 0):
		l.drop(c)
		return nil
	case errno != 0:
		return fmt.Errorf("read: %w", errno)
	case n == 0:
		return fmt.Errorf("the broker closed the connection: %w", io.ErrUnexpectedEOF)
	}
	l.got += n
	if c.slowRate > 0 {
		c.paused, c.resumeAt = true, l.now+int64(float64(n)/c.slowRate*1e9)
		if err := l.watch(c); err != nil {
			return err
		}
	}
	b := l.scratch[:kept+n]
	for {
		packetLen, err := wire.Decode(b, c.version, &l.packet)
		if err != nil {
			return err
		}
		if packetLen == 0 {
			break
		}
		if err := c.receive(&l.packet, l.now); err != nil {
			return err
		}
		b = b[packetLen:]
	}
	c.rest = append(c.rest[:0], b...)
	if len(c.out) > 0 {
		l.mark(c)
	}
	return nil
}

// mark notes that c has something to write.
func (l *Loop) mark(c *conn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

// rawIO reads or writes a non-blocking socket. It does not tell the scheduler,
// which saves about a tenth of the cost of a small call.
func rawIO(call uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
