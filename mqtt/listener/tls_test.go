package listener_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// withTLS is a server with a certificate.
func withTLS(cert, key string, more ...func(*config.Server)) func(*config.Server) {
	return func(s *config.Server) {
		s.Type, s.TLS.Cert, s.TLS.Key = config.TLS, cert, key
		for _, f := range more {
			f(s)
		}
	}
}

func dialTLS(t testing.TB, addr string, cfg *tls.Config) (*tls.Conn, error) {
	t.Helper()
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: mqtttest.Patience}, "tcp", addr, cfg)
	if err == nil {
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(mqtttest.Patience))
	}
	return nc, err
}

func mustTLS(t testing.TB, addr string, cfg *tls.Config) *tls.Conn {
	t.Helper()
	nc, err := dialTLS(t, addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestAllVersionsOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key))
	for _, v := range versions {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool, MaxVersion: version}), v)
			exchange(c, "c")
			c.Disconnect()
		}
	}
}

// A large message needs many records, both ways.
func TestLargeMessagesOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key))
	c := mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool}), packet.V5)
	c.Connect("c")
	c.Subscribe(0, "big")
	large := strings.Repeat("0123456789abcdef", 50_000)
	for range 3 {
		c.Send(mqtttest.Message("big", large, 0))
		c.Receive("big", large, 0)
	}
}

// What is refused for its version is refused in the handshake.
func TestMinimumVersion(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key, func(s *config.Server) { s.TLS.MinVersion = "1.3" }))
	if _, err := dialTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
	mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool})
}

// A new certificate is for new connections. The old connection does not notice.
func TestCertificateIsTakenUpAndNobodyIsDropped(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	newCert, newKey, pair := ca.issue("renewed")
	r := start(t, withTLS(cert, key))
	old := mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool}), packet.V5)
	exchange(old, "old")
	replace(t, newKey, key)
	replace(t, newCert, cert)
	eventually(t, "the new certificate", func() bool {
		nc, err := dialTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		return nc.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(pair.Leaf.SerialNumber) == 0
	})
	old.Ping()
	exchange(mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool}), packet.V5), "new")
}

// serial is that of the certificate which a listener shows now.
func (b *bare) serial(cfg *tls.Config) string {
	b.t.Helper()
	ready := b.next()
	nc := mustTLS(b.t, b.Addr().String(), cfg)
	defer func() { _ = nc.Close() }()
	if o := <-ready; o.err != nil {
		b.t.Fatal(o.err)
	}
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// Files that cannot be used, such as a certificate whose key has not come yet, change nothing and are complained of
// once. When they are whole again, they count.
func TestBrokenFilesKeepTheOldCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, pair := ca.issue("server")
	newCert, newKey, newPair := ca.issue("renewed")
	b := open(t, withTLS(cert, key))
	client := &tls.Config{RootCAs: ca.pool}
	old := pair.Leaf.SerialNumber.String()

	replace(t, newCert, cert)
	if got := b.serial(client); got != old {
		t.Errorf("within the interval the certificate is number %s, want %s", got, old)
	}
	for range 5 {
		b.skew.Add(int64(2 * time.Second))
		if got := b.serial(client); got != old {
			t.Errorf("with a key that does not fit the certificate is number %s, want %s", got, old)
		}
	}
	const complaint = "cannot be used"
	if n := b.log.Count(complaint); n != 1 {
		t.Errorf("%d complaints, want 1:\n%s", n, b.log)
	}
	replace(t, newKey, key)
	b.skew.Add(int64(2 * time.Second))
	if got, want := b.serial(client), newPair.Leaf.SerialNumber.String(); got != want {
		t.Errorf("with the key the certificate is number %s, want %s", got, want)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	b.skew.Add(int64(2 * time.Second))
	if got, want := b.serial(client), newPair.Leaf.SerialNumber.String(); got != want {
		t.Errorf("without the file of the key the certificate is number %s, want %s", got, want)
	}
	if n := b.log.Count(complaint); n != 2 {
		t.Errorf("%d complaints, want 2:\n%s", n, b.log)
	}
}

func TestEndOfTheCertificateIsLogged(t *testing.T) {
	ca := newAuthority(t, "ca")
	until := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-100*24*time.Hour), time.Now().Add(d)
		}
	}
	for name, test := range map[string]struct {
		left time.Duration
		want []string
	}{
		"long":  {100*24*time.Hour + time.Minute, []string{`"level":"INFO","msg":"certificate"`, `"days":100`}},
		"short": {20*24*time.Hour + time.Minute, []string{`"level":"WARN","msg":"the certificate expires soon"`, `"days":20`}},
		"over":  {-time.Minute, []string{`"level":"WARN","msg":"the certificate has expired`}},
	} {
		cert, key, _ := ca.issue(name, until(test.left))
		b := open(t, withTLS(cert, key))
		for _, want := range test.want {
			if b.log.Count(want) == 0 {
				t.Errorf("%s: no %q in\n%s", name, want, b.log)
			}
		}
		if name == "long" && b.log.Count("WARN") > 0 {
			t.Errorf("a warning:\n%s", b.log)
		}
	}
}

// A broker that runs for months warns too.
func TestEndOfTheCertificateIsLoggedWhenItComesNear(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(40*24*time.Hour)
	})
	b := open(t, withTLS(cert, key))
	for range 3 {
		b.skew.Store(int64(15 * 24 * time.Hour))
		b.serial(&tls.Config{RootCAs: ca.pool})
	}
	if n := b.log.Count("expires soon"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, b.log)
	}
}

// mutual is a server that knows its clients by certificate.
func mutual(ca *authority, edit func(*config.ServerTLS)) func(*config.Server) {
	cert, key, _ := ca.issue("server")
	return withTLS(cert, key, func(s *config.Server) {
		s.TLS.ClientAuth, s.TLS.ClientCA, s.TLS.Identity = config.ClientAuthRequire, ca.file(), config.IdentityCN
		edit(&s.TLS)
	})
}

// admitted connects with a certificate, or without, and reports whether MQTT was possible. In TLS 1.3 a client learns
// only when it reads that it was refused.
func admitted(t testing.TB, addr string, roots *x509.CertPool, version uint16, certs ...tls.Certificate) bool {
	t.Helper()
	// Not by Certificates: of those the client would leave out what the server's list does not name.
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}
	nc, err := dialTLS(t, addr, &tls.Config{RootCAs: roots, MaxVersion: version, GetClientCertificate: show})
	if err != nil {
		return false
	}
	defer func() { _ = nc.Close() }()
	p := mqtttest.ConnectPacket("c", packet.V5)
	if _, err := nc.Write(p.Append(nil, packet.V5)); err != nil {
		return false
	}
	n, err := nc.Read(make([]byte, 64))
	return err == nil && n > 0
}

func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	_, _, good := ca.issue("good")
	_, _, bad := ca.issue("bad")
	_, _, foreign := other.issue("foreign")
	_, _, nameless := ca.issue("nameless", func(c *x509.Certificate) { c.Subject.CommonName = "" })
	_, _, old := ca.issue("old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	})
	_, _, serverOnly := ca.issue("serveronly", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	crl := filepath.Join(ca.dir, "crl.pem")
	ca.revoke(crl, bad)
	for _, auth := range []config.ClientAuth{config.ClientAuthRequire, config.ClientAuthRequest} {
		r := start(t, mutual(ca, func(s *config.ServerTLS) { s.ClientAuth, s.CRL = auth, crl }))
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, test := range []struct {
				who   string
				certs []tls.Certificate
				want  bool
			}{
				{"a good certificate", []tls.Certificate{good}, true},
				{"no certificate", nil, auth == config.ClientAuthRequest},
				{"one of another authority", []tls.Certificate{foreign}, false},
				{"a revoked one", []tls.Certificate{bad}, false},
				{"one without a name", []tls.Certificate{nameless}, false},
				{"one that has expired", []tls.Certificate{old}, false},
				{"one for servers", []tls.Certificate{serverOnly}, false},
			} {
				if got := admitted(t, r.addr(), ca.pool, version, test.certs...); got != test.want {
					t.Errorf("client_auth %s, %s, with %s: admitted %v", auth, tls.VersionName(version), test.who, got)
				}
			}
		}
		if r.log.Count(`"identity":"good"`) == 0 {
			t.Errorf("the identity is not logged")
		}
	}
}

func TestIdentities(t *testing.T) {
	ca := newAuthority(t, "ca")
	_, _, client := ca.issue("device-7")
	for from, want := range map[config.Identity]string{
		config.IdentityNone: "", config.IdentityCN: "device-7", config.IdentitySANDNS: "device-7.example", config.IdentitySANEmail: "device-7@example.com",
	} {
		b := open(t, mutual(ca, func(s *config.ServerTLS) { s.Identity = from }))
		ready := b.next()
		mustTLS(t, b.Addr().String(), &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{client}})
		o := <-ready
		if o.err != nil || o.peer.Identity != want || o.peer.TLS != "TLS 1.3" {
			t.Errorf("%q: %+v, %v; want %q", from, o.peer, o.err, want)
		}
	}
}

// A revocation counts from when the list is there, also for a client that could resume its TLS session.
func TestRevocationListIsTakenUp(t *testing.T) {
	ca := newAuthority(t, "ca")
	_, _, client := ca.issue("client")
	crl := filepath.Join(ca.dir, "crl.pem")
	ca.revoke(crl)
	b := open(t, mutual(ca, func(s *config.ServerTLS) { s.CRL = crl }))
	cfg := &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{client}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	connect := func() error {
		ready := b.next()
		nc := mustTLS(t, b.Addr().String(), cfg)
		o := <-ready
		if o.err == nil {
			_, _ = o.nc.Write([]byte("x"))
		}
		_, _ = nc.Read(make([]byte, 1)) // takes the session ticket, if there is one
		_ = nc.Close()
		return o.err
	}
	for range 2 {
		if err := connect(); err != nil {
			t.Fatal(err)
		}
	}
	ca.revoke(crl, client)
	b.skew.Add(int64(2 * time.Second))
	if err := connect(); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("after the revocation: %v", err)
	}
}

// Clients that begin a handshake and go no further are nobody's concern, and do not stay.
func TestSlowHandshakesHoldUpNobody(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key, func(s *config.Server) { s.ConnectTimeout = config.Duration(500 * time.Millisecond) }))
	var slow []net.Conn
	for i := range 20 {
		nc := r.dial()
		if i%2 == 0 {
			if _, err := nc.Write([]byte{22, 3, 1, 1, 0, 1}); err != nil { // the first bytes of a ClientHello
				t.Fatal(err)
			}
		}
		slow = append(slow, nc)
	}
	exchange(mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool}), packet.V5), "quick")
	for _, nc := range slow {
		if _, err := nc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection without a handshake stays")
		}
	}
}

// The time to CONNECT begins with the connection, not with the handshake's end.
func TestConnectTimeoutCoversHandshakeAndConnect(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key, func(s *config.Server) { s.ConnectTimeout = config.Duration(200 * time.Millisecond) }))
	nc := mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool})
	begin := time.Now()
	if _, err := nc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a connection without CONNECT stays")
	}
	if took := time.Since(begin); took > mqtttest.Patience/2 {
		t.Errorf("it took %v", took)
	}
}

// What speaks no TLS is told nothing, and the log says what it was.
func TestPlainMQTTOnATLSServer(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key))
	nc := r.dial()
	if _, err := nc.Write(mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection stays")
	}
	eventually(t, "the reason is logged", func() bool { return r.log.Count("does not look like a TLS handshake") == 1 })
}

// A broker that is closed does not wait for handshakes.
func TestCloseDuringAHandshake(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key))
	nc := r.dial()
	exchange(mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool}), packet.V5), "later") // so nc is accepted
	begin := time.Now()
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	_, _ = nc.Read(make([]byte, 1))
}

func TestFilesThatDoNotServe(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	cert, key, _ := ca.issue("server")
	_, otherKey, _ := ca.issue("another")
	crl, foreignCRL := filepath.Join(ca.dir, "crl.pem"), filepath.Join(other.dir, "crl.pem")
	ca.revoke(crl)
	other.revoke(foreignCRL)
	for _, test := range []struct {
		edit func(*config.ServerTLS)
		want string
	}{
		{func(s *config.ServerTLS) { s.Cert = "/nowhere" }, "server main: cert: stat /nowhere: no such file"},
		{func(s *config.ServerTLS) { s.Cert = key }, "no PEM certificate"},
		{func(s *config.ServerTLS) { s.Key = otherKey }, "private key does not match"},
		{func(s *config.ServerTLS) { s.Key = cert }, "key: " + cert},
		{func(s *config.ServerTLS) { s.ClientCA = t.TempDir() }, "is not a file of certificates"},
		{func(s *config.ServerTLS) { s.CRL = cert }, "no revocation list"},
		{func(s *config.ServerTLS) { s.CRL = foreignCRL }, "is not signed by a certificate of client_ca"},
	} {
		s := config.Server{Name: "main", Type: config.TLS, Listen: "127.0.0.1:0", TLS: config.ServerTLS{
			Cert: cert, Key: key, ClientCA: ca.file(), CRL: crl, ClientAuth: config.ClientAuthRequire, MinVersion: "1.2",
		}}
		test.edit(&s.TLS)
		l, err := listener.Open(s, listener.Options{Logger: logging.New(io.Discard, logging.Options{}).For(logging.Listener)})
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

func TestMosquittoOverTLS(t *testing.T) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed")
	}
	ca := newAuthority(t, "ca")
	_, _, own := ca.issue("own")
	clientCert, clientKey, _ := ca.issue("mosquitto")
	r := start(t, mutual(ca, func(*config.ServerTLS) {}))
	c := mqtttest.Over(t, mustTLS(t, r.addr(), &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{own}}), packet.V5)
	c.Connect("own")
	c.Subscribe(1, "m/#")
	_, port, _ := net.SplitHostPort(r.addr())
	for _, v := range []string{"31", "311", "5"} {
		out, err := exec.Command(pub, "-h", "localhost", "-p", port, "-V", "mqttv"+v, "-q", "1", "-t", "m/"+v, "-m", "hi",
			"--cafile", ca.file(), "--cert", clientCert, "--key", clientKey).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_pub -V mqttv%s: %v\n%s", v, err, out)
		}
		c.Receive("m/"+v, "hi", 1)
	}
	if r.log.Count(`"identity":"mosquitto"`) == 0 {
		t.Error("the identity is not logged")
	}
}
