//go:build unix

package listener_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/logging"
)

func TestSocketOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := config.Default().Servers[0]
	s.Type, s.Listen, s.SocketOwner = config.Unix, path, "no-such-user"
	o := listener.Options{Logger: logging.New(io.Discard, logging.Options{}).For(logging.Listener)}
	if _, err := listener.Open(s, o); err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("got %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root may give a socket away")
	}
	s.SocketOwner = "1234:5678"
	l, err := listener.Open(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 5678 {
		t.Errorf("owned by %d:%d", st.Uid, st.Gid)
	}
}
