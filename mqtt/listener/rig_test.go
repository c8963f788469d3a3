package listener_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairnmq/mqtt/broker"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

var versions = []packet.Version{packet.V31, packet.V311, packet.V5}

// rig is a broker with one server, called main.
type rig struct {
	*broker.Broker
	t     testing.TB
	log   *mqtttest.Lines
	close func() error // once
}

func start(t testing.TB, edit ...func(*config.Server)) *rig {
	t.Helper()
	cfg := config.Default()
	cfg.Storage.Dir = t.TempDir()
	cfg.Storage.SegmentSize = 2 * config.MiB
	cfg.Storage.MaxBytes = 64 * config.MiB
	cfg.Limits.MaxPacketSize = config.MiB
	cfg.Servers[0].Listen = "127.0.0.1:0"
	for _, f := range edit {
		f(&cfg.Servers[0])
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, log: &mqtttest.Lines{}}
	b, err := broker.Open(cfg, logging.New(r.log, logging.Options{PerSecond: -1}))
	if err != nil {
		t.Fatal(err)
	}
	r.Broker, r.close = b, sync.OnceValue(b.Close)
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the broker:\n%s", r.log)
		}
	})
	return r
}

func (r *rig) addr() string { return r.Addr("main").String() }

// dial opens a bare connection.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	nc, err := net.DialTimeout("tcp", r.addr(), mqtttest.Patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(mqtttest.Patience))
	return nc
}

// exchange sends a message through the broker, from a client to itself.
func exchange(c *mqtttest.Client, id string) {
	c.T.Helper()
	c.Connect(id)
	c.Subscribe(1, "x/"+id)
	p := mqtttest.Message("x/"+id, "hello", 1)
	p.PacketID = c.NextID()
	c.Send(p)
	for range 2 { // in either order
		switch p := c.Next().(type) {
		case *packet.Ack:
		case *packet.Publish:
			if string(p.Payload) != "hello" {
				c.T.Fatalf("got %s", mqtttest.Words(p))
			}
			c.Acknowledge(p)
		default:
			c.T.Fatalf("got %s", mqtttest.Words(p))
		}
	}
	c.Ping()
}

// bare is a listener without a broker, with a clock that the test moves.
type bare struct {
	*listener.Listener
	t    testing.TB
	log  *mqtttest.Lines
	skew atomic.Int64
}

func open(t testing.TB, edit func(*config.Server)) *bare {
	t.Helper()
	cfg := config.Default().Servers[0]
	cfg.Listen = "127.0.0.1:0"
	edit(&cfg)
	b := &bare{t: t, log: &mqtttest.Lines{}}
	l, err := listener.Open(cfg, listener.Options{
		Logger: logging.New(b.log, logging.Options{PerSecond: -1}).For(logging.Listener),
		Now:    func() time.Time { return time.Now().Add(time.Duration(b.skew.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b.Listener = l
	return b
}

// outcome is what Ready returned.
type outcome struct {
	nc   net.Conn
	peer listener.Peer
	err  error
}

// next accepts a connection and makes it ready beside the test.
func (b *bare) next() <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		g, err := b.Accept()
		if err != nil {
			c <- outcome{err: err}
			return
		}
		b.t.Cleanup(func() { _ = g.Socket.Close() })
		_ = g.Socket.SetDeadline(time.Now().Add(mqtttest.Patience))
		nc, peer, err := g.Ready()
		if err != nil {
			_ = g.Socket.Close()
		}
		c <- outcome{nc, peer, err}
	}()
	return c
}

func (b *bare) dial() net.Conn {
	b.t.Helper()
	nc, err := net.DialTimeout(b.Addr().Network(), b.Addr().String(), mqtttest.Patience)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(mqtttest.Patience))
	return nc
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(mqtttest.Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// authority signs certificates.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	last int64 // serial number
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	a.key = newKey(t)
	der := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name),
	}, &a.key.PublicKey)
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PublicKey) []byte {
	a.t.Helper()
	a.last++
	c.SerialNumber = big.NewInt(a.last)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour)
	}
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// issue writes a certificate and its key, and returns both.
func (a *authority) issue(name string, edit ...func(*x509.Certificate)) (certFile, keyFile string, pair tls.Certificate) {
	a.t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		EmailAddresses: []string{name + "@example.com"},
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range edit {
		f(c)
	}
	key := newKey(a.t)
	der := a.sign(c, &key.PublicKey)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	writePEM(a.t, certFile, "CERTIFICATE", der)
	writePEM(a.t, keyFile, "EC PRIVATE KEY", keyDER)
	pair, err = tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		a.t.Fatal(err)
	}
	return certFile, keyFile, pair
}

// file is the authority's own certificate.
func (a *authority) file() string {
	path := filepath.Join(a.dir, "ca.pem")
	writePEM(a.t, path, "CERTIFICATE", a.cert.Raw)
	return path
}

// revoke writes a list of certificates.
func (a *authority) revoke(path string, certs ...tls.Certificate) {
	a.t.Helper()
	a.last++
	list := &x509.RevocationList{Number: big.NewInt(a.last), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, path, "X509 CRL", der)
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in the place of another in one step.
func replace(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
