//go:build linux

package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connectLimit is how long the kernel may take to open a connection.
const connectLimit = 10 * time.Second

// perAddress is how many connections come from one address. A broker's port
// takes some 28,000 from each; on loopback there are many addresses.
const perAddress = 20_000

// dial opens a socket to the target.
func (l *Loop) dial(t Target) (*conn, error) {
	fd, err := l.open(t.Addr)
	if err == nil && t.TLS != nil {
		fd, err = l.relay(fd, t.TLS)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.Addr, err)
	}
	c := &conn{fd: fd, slot: len(l.conns), granted: -1}
	if err := errors.Join(
		unix.SetNonblock(fd, true),
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.slot)}),
	); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", t.Addr, err)
	}
	l.conns = append(l.conns, c)
	return c, nil
}

// open connects a TCP socket and waits for it: on loopback the kernel answers
// at once, and over a network the loop has nothing better to do yet.
func (l *Loop) open(addr netip.AddrPort) (int, error) {
	to := addr.Addr().Unmap()
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: to.As16()}
	if to.Is4() {
		family = unix.AF_INET
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: to.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if n := l.dialled / perAddress; err == nil && n > 0 && to.Is4() && to.IsLoopback() {
		from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + n%250)}}
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), unix.Bind(fd, from))
	}
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	if err == unix.EINPROGRESS || err == unix.EINTR {
		err = connected(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	l.dialled++
	return fd, nil
}

// connected waits until a socket is connected and returns how that went.
func connected(fd int) error {
	end := time.Now().Add(connectLimit)
	for {
		left := time.Until(end)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n == 1 {
			break
		}
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// relay puts TLS between the socket and the one that it returns, which the
// loop then uses like any other. Two goroutines copy; both end when either
// socket is closed, and Close waits for them.
func (l *Loop) relay(fd int, config *tls.Config) (int, error) {
	outer, err := connOf(fd)
	if err != nil {
		return 0, err
	}
	secure := tls.Client(outer, config)
	ctx, cancel := context.WithTimeout(context.Background(), connectLimit)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = outer.Close()
		return 0, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		_ = outer.Close()
		return 0, err
	}
	inner, err := connOf(pair[1])
	if err != nil {
		_ = outer.Close()
		_ = unix.Close(pair[0])
		return 0, err
	}
	for _, way := range [][2]net.Conn{{secure, inner}, {inner, secure}} {
		l.relays.Go(func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{way[0]}, struct{ io.Reader }{way[1]}, make([]byte, writeBatch))
			// How it ended the loop sees when it reads.
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	return pair[0], nil
}

// connOf makes a connected socket a net.Conn, which takes it over.
func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn has a copy
	return net.FileConn(f)
}

// raiseFileLimit lets this process, and those it starts, open as many files as
// the system permits, and says so if that is less than n.
func raiseFileLimit(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit on open files: %w", err)
	}
	if limit.Max < uint64(n) {
		return fmt.Errorf("%w: %d open files needed, and the limit is %d (ulimit -Hn)", ErrNotHere, n, limit.Max)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Errorf("raise the limit on open files: %w", err)
		}
	}
	return nil
}
