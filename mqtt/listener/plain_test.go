package listener_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// The broker waits on the descriptor of a plain connection without a buffer, so that must come out as it came in.
func TestPlainConnectionsKeepTheirDescriptor(t *testing.T) {
	for _, edit := range []func(*config.Server){
		func(*config.Server) {},
		func(s *config.Server) { s.Type, s.Listen = config.Unix, filepath.Join(t.TempDir(), "s") },
	} {
		b := open(t, edit)
		ready := b.next()
		b.dial()
		o := <-ready
		if o.err != nil {
			t.Fatal(o.err)
		}
		if _, ok := o.nc.(syscall.Conn); !ok {
			t.Errorf("a %T hides its descriptor", o.nc)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	unix := func(s *config.Server) { s.Type, s.Listen, s.SocketMode = config.Unix, path, "0620" }
	r := start(t, unix)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o620 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	for _, v := range versions {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c := mqtttest.Over(t, nc, v)
		exchange(c, "c")
		c.Disconnect()
	}
	if r.log.Count(`"peer":"unix:`+path) == 0 {
		t.Error("the log does not say where the client came from")
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket stays when the broker goes")
	}
}

// A socket that nobody answers on is what a killed broker left. One that somebody answers on, or another file, is not
// ours to remove.
func TestOnlyAStaleSocketIsRemoved(t *testing.T) {
	dir := t.TempDir()
	stale, live, file := filepath.Join(dir, "stale"), filepath.Join(dir, "live"), filepath.Join(dir, "file")
	for _, path := range []string{stale, live} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { _ = l.Close() })
		if path == stale {
			_ = l.Close()
		}
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{stale: true, live: false, file: false} {
		s := config.Default().Servers[0]
		s.Type, s.Listen = config.Unix, path
		l, err := listener.Open(s, listener.Options{Logger: logging.New(io.Discard, logging.Options{}).For(logging.Listener)})
		if err == nil {
			_ = l.Close()
		} else if _, gone := os.Stat(path); gone != nil {
			t.Errorf("%s was removed", path)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// expectEnd expects that a connection ends without a byte.
func expectEnd(t testing.TB, nc net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(nc); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("got % x, %v, want the end", b, err)
	}
}

func TestConnectionLimit(t *testing.T) {
	r := start(t, func(s *config.Server) { s.MaxConnections = 2 })
	a := mqtttest.Over(t, r.dial(), packet.V5)
	exchange(a, "a")
	exchange(mqtttest.Over(t, r.dial(), packet.V5), "b")
	expectEnd(t, r.dial())
	a.Disconnect()
	eventually(t, "there is room again", func() bool {
		nc := r.dial()
		_, _ = nc.Write(mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5))
		n, err := nc.Read(make([]byte, 1))
		return n == 1 && err == nil
	})
}

func TestConnectionRate(t *testing.T) {
	b := open(t, func(s *config.Server) { s.ConnectionRate, s.ConnectionBurst = 1, 3 })
	for range 3 {
		ready := b.next()
		b.dial()
		if o := <-ready; o.err != nil {
			t.Fatal(o.err)
		}
	}
	ready := b.next()
	expectEnd(t, b.dial()) // the fourth in one second
	b.skew.Add(int64(time.Second))
	b.dial()
	if o := <-ready; o.err != nil {
		t.Fatal(o.err)
	}
	if n := b.log.Count("connection_rate"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, b.log)
	}
}
