//go:build linux

package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/wire"
)

// TestTLSAndPassword loads a broker through TLS with a user and a password.
func TestTLSAndPassword(t *testing.T) {
	server := httptest.NewTLSServer(nil) // only for its certificate
	t.Cleanup(server.Close)
	connects := make(chan []byte, 10)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	addr := serveFake(t, l, &fake{
		faulty:   func(_ int, b []byte) [][]byte { return [][]byte{b} },
		connects: connects,
	})
	s := Default()
	s.Warm, s.Measure, s.Size = 0, 50*time.Millisecond, 100_000
	if err := s.SetName("pair"); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	target := Target{Addr: addr, User: "anna", Password: "geheim", TLS: &tls.Config{RootCAs: pool, ServerName: "example.com"}}
	r := Run(s, target)
	if r.Failed() || r.Phases[0].Messages == 0 {
		t.Fatal(r.String())
	}
	for range 2 {
		if c := <-connects; !bytes.HasSuffix(c, []byte("\x00\x04anna\x00\x06geheim")) {
			t.Errorf("CONNECT %q", c)
		}
	}
	target.TLS = &tls.Config{ServerName: "example.com"}
	if r := Run(s, target); !strings.Contains(r.Error, "certificate") {
		t.Errorf("an unknown authority: %q", r.Error)
	}
}

// TestCleanUp wants a broker as it was before, after scenarios that leave
// sessions and retained messages behind.
func TestCleanUp(t *testing.T) {
	target := startMosquitto(t)
	for _, name := range []string{"store", "offline3", "retained50", "idle20", "beside1"} {
		s := Default()
		s.Warm, s.Measure, s.Count = 0, 50*time.Millisecond, 50
		s.Persistent, s.CleanUp = true, true
		s.Rate, s.SlowRate = 1000, 1e5
		if name != "beside1" {
			s.Rate = 0
		}
		if err := s.SetName(name); err != nil {
			t.Fatal(err)
		}
		if r := Run(s, target); r.Failed() {
			t.Fatal(r.String())
		}
	}
	l, err := NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := &subscriber{traffic: &traffic{}, check: NewChecker(1, 1)}
	var clients []client
	for _, id := range []string{"bench-sub-0", "bench-sub-2", "bench-idle-19", "bench-backlog-sub-0"} {
		clients = append(clients, client{id: id, filters: []string{"#"}, role: seen})
	}
	conns, err := l.connect(target, wire.V311, clients)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if c.sessionPresent {
			t.Errorf("%s has a session", c.clientID)
		}
	}
	// An answer to a second subscription comes behind what is retained.
	for i, c := range conns {
		if err := l.subscribe(c, clients[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.run(handshakeLimit, "subscribe", allOf(conns, func(c *conn) bool { return c.granted >= 0 })); err != nil {
		t.Fatal(err)
	}
	if seen.received != 0 {
		t.Errorf("%d retained messages are left", seen.received)
	}
}

// TestKillFindsLoss runs against mosquitto, which keeps nothing when killed.
func TestKillFindsLoss(t *testing.T) {
	spec := mosquittoSpec(t)
	s := Default()
	if err := s.SetName("kill100"); err != nil {
		t.Fatal(err)
	}
	r, _, err := RunFresh(t.Context(), s, spec, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Error, "session is gone") || r.Faults.Lost != 100 || len(r.Phases) != 2 || r.Phases[1].Name != Restarted {
		t.Errorf("%s\n%+v", r.String(), r)
	}
	if r := Run(s, startMosquitto(t)); !strings.Contains(r.Error, "started here") {
		t.Errorf("a broker that is not ours to kill: %q", r.Error)
	}
}

// TestInterrupted wants a run that is told to stop to end, and its broker too.
func TestInterrupted(t *testing.T) {
	spec := mosquittoSpec(t)
	s := Default()
	s.Measure = time.Hour
	if err := s.SetName("pair"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	r, _, err := RunFresh(ctx, s, spec, dir)
	if err != nil || !strings.Contains(r.Error, "interrupted") {
		t.Errorf("%q, %v", r.Error, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestTooManyFiles wants a scenario that the system does not permit left out,
// and not failed.
func TestTooManyFiles(t *testing.T) {
	s := Default()
	if err := s.SetName("idle2000000000"); err != nil {
		t.Fatal(err)
	}
	if r := Run(s, Target{}); r.Skipped == "" || r.Failed() {
		t.Errorf("%+v", r)
	}
}

// TestSubackOfTheWrongLength wants to hear of it.
func TestSubackOfTheWrongLength(t *testing.T) {
	c := &conn{asked: 1, granted: -1}
	if err := c.receive(&wire.Packet{Type: wire.TypeSuback, Codes: []byte{1, 1}}, 0); err == nil || c.granted >= 0 {
		t.Errorf("%v, granted %d", err, c.granted)
	}
}

func mosquittoSpec(t *testing.T) broker.Spec {
	t.Helper()
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skip("mosquitto is not installed")
	}
	spec, err := broker.ParseSpec(mosquitto)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// startMosquitto starts one that ends with the test.
func startMosquitto(t *testing.T) Target {
	t.Helper()
	port, err := broker.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := Start(mosquittoSpec(t), t.TempDir(), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return TargetOf(p)
}
