package listener

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"cairnmq/mqtt/config"
)

// listenUnix makes a socket that has its rights from the moment it can be connected to.
func listenUnix(cfg config.Server) (net.Listener, error) {
	uid, gid, err := cfg.SocketOwnerIDs()
	if err != nil {
		return nil, err
	}
	removeStaleSocket(cfg.Listen)
	var lc net.ListenConfig
	var mode uint32
	if cfg.SocketMode != "" {
		if mode, err = config.ParseMode(cfg.SocketMode); err != nil {
			return nil, err
		}
		lc.Control = func(_, _ string, c syscall.RawConn) error { return narrow(c, mode) }
	}
	ln, err := lc.Listen(context.Background(), "unix", cfg.Listen)
	if err != nil {
		return nil, err
	}
	if uid >= 0 || gid >= 0 {
		err = os.Chown(cfg.Listen, uid, gid)
	}
	if mode != 0 && err == nil {
		err = os.Chmod(cfg.Listen, os.FileMode(mode)) // what the umask took away
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// removeStaleSocket removes the socket of a broker that was killed: nobody answers on it. Anything else stays, and
// listening says what is wrong.
func removeStaleSocket(path string) {
	if st, err := os.Lstat(path); err != nil || st.Mode()&os.ModeSocket == 0 {
		return
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}
