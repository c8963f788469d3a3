package broker

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lot is where connections are parked that have long been silent: what is
// left of them waits in one epoll set, without a goroutine and its stack.
type lot struct {
	file *os.File // the epoll set; itself waited for by the runtime
	raw  syscall.RawConn

	mu     sync.Mutex
	lastID uint64
	parked map[uint64]*conn
	done   chan struct{}
}

// newLot returns nil if there can be none: then every connection keeps its
// goroutine.
func newLot() *lot {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	_ = unix.SetNonblock(fd, true) // so that os hands it to the runtime's poller
	l := &lot{file: os.NewFile(uintptr(fd), "epoll"), parked: make(map[uint64]*conn), done: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil
	}
	go l.run()
	return l
}

// run is the goroutine that wakes the connections that have something to read.
func (l *lot) run() {
	defer close(l.done)
	events := make([]unix.EpollEvent, 128)
	n := 0
	wait := func(fd uintptr) bool {
		var err error
		if n, err = unix.EpollWait(int(fd), events, 0); err != nil {
			n = 0
		}
		return n > 0
	}
	for l.raw.Read(wait) == nil {
		for _, e := range events[:n] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			l.mu.Lock()
			c := l.parked[id]
			l.mu.Unlock()
			if c != nil {
				c.unpark(id)
			}
		}
	}
}

func (l *lot) close() {
	if l == nil {
		return
	}
	_ = l.file.Close()
	<-l.done
}

// add puts c, whose deadlines are locked, into the set.
func (l *lot) add(c *conn) (id uint64, err error) {
	l.mu.Lock()
	l.lastID++
	id = l.lastID
	l.parked[id] = c
	l.mu.Unlock()
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	if err = l.control(c, unix.EPOLL_CTL_ADD, &e); err != nil {
		l.forget(id)
	}
	return id, err
}

// remove takes c out of the set, unless its socket is closed and has left it
// by itself.
func (l *lot) remove(c *conn, id uint64) {
	l.forget(id)
	_ = l.control(c, unix.EPOLL_CTL_DEL, &unix.EpollEvent{})
}

func (l *lot) forget(id uint64) {
	l.mu.Lock()
	delete(l.parked, id)
	l.mu.Unlock()
}

func (l *lot) control(c *conn, op int, e *unix.EpollEvent) error {
	var err error
	failed := l.raw.Control(func(set uintptr) {
		failed := c.raw.Control(func(fd uintptr) { err = unix.EpollCtl(int(set), op, int(fd), e) })
		if failed != nil {
			err = failed
		}
	})
	if failed != nil {
		err = failed
	}
	return err
}
