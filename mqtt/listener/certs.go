package listener

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/reload"
)

const (
	// soon is when the end of a certificate is worth a warning, which comes once a day.
	soon = 30 * day
	day  = 24 * time.Hour
)

// certs holds what the files of a TLS server said when they were last good.
type certs struct {
	cfg     config.ServerTLS
	log     *slog.Logger
	now     func() time.Time
	current atomic.Pointer[tls.Config]

	// look guards what follows. Whoever finds it taken goes on with current.
	look      sync.Mutex
	files     *config.TLSFiles
	watch     *reload.Watch
	complaint string // the error that was logged last, while it lasts
	warned    time.Time
}

func newCerts(s config.Server, log *slog.Logger, now func() time.Time) (*certs, error) {
	c := &certs{cfg: s.TLS, log: log, now: now, watch: reload.New(s.TLS.Paths(), now)}
	files, err := s.TLS.Read()
	if err != nil {
		return nil, err
	}
	c.use(files)
	return c, nil
}

// refresh takes up changed files.
func (c *certs) refresh() {
	if !c.look.TryLock() {
		return
	}
	defer c.look.Unlock()
	if !c.watch.Due() {
		return
	}
	if now := c.now(); now.Sub(c.warned) >= day {
		c.warn(now)
	}
	if !c.watch.Changed() {
		return
	}
	files, err := c.cfg.Read()
	if err != nil {
		if c.complaint != err.Error() {
			c.complaint = err.Error()
			c.log.Error("the TLS files have changed and cannot be used; going on with what was read before", logging.Err(err))
		}
		return
	}
	c.complaint = ""
	if files.Sum != c.files.Sum {
		c.use(files)
	}
}

// use makes files current.
func (c *certs) use(files *config.TLSFiles) {
	c.files = files
	c.current.Store(c.build(files))
	leaf := files.Certificate.Leaf
	c.log.Info("certificate", "subject", leaf.Subject.String(), "names", strings.Join(leaf.DNSNames, " "),
		"expires", leaf.NotAfter.UTC().Format(time.DateOnly), "days", days(leaf.NotAfter.Sub(c.now())))
	c.warn(c.now())
}

func days(d time.Duration) int { return int(d / day) }

// warn says what will end soon, or has ended.
func (c *certs) warn(now time.Time) {
	c.warned = now
	leaf := c.files.Certificate.Leaf
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		c.log.Warn("the certificate has expired; clients will refuse it", "expired", leaf.NotAfter.UTC().Format(time.DateOnly))
	case left < soon:
		c.log.Warn("the certificate expires soon", "expires", leaf.NotAfter.UTC().Format(time.DateOnly), "days", days(left))
	case now.Before(leaf.NotBefore):
		c.log.Warn("the certificate is not valid yet; clients will refuse it", "from", leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	for _, list := range c.files.CRLs {
		if next := list.NextUpdate; !next.IsZero() && now.After(next) {
			c.log.Warn("a revocation list is out of date; what was revoked since is not known", "issuer", list.Issuer.String(),
				"due", next.UTC().Format(time.DateOnly))
		}
	}
}

// build makes the configuration of handshakes.
func (c *certs) build(files *config.TLSFiles) *tls.Config {
	t := &tls.Config{
		Certificates: []tls.Certificate{files.Certificate},
		MinVersion:   tls.VersionTLS12,
		ClientCAs:    files.ClientCAs,
	}
	if c.cfg.MinVersion == "1.3" {
		t.MinVersion = tls.VersionTLS13
	}
	if c.cfg.ClientAuth == config.ClientAuthNone {
		return t
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	if c.cfg.ClientAuth == config.ClientAuthRequire {
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	// A resumed session would stand for a certificate that was looked at earlier, by other rules perhaps.
	t.SessionTicketsDisabled = true
	revoked := revocations(files.CRLs)
	t.VerifyConnection = func(s tls.ConnectionState) error { return revoked.check(s.VerifiedChains) }
	return t
}

// handshake is the TLS handshake, which waits for the client.
func (c *certs) handshake(nc net.Conn, peer *Peer) (*secured, error) {
	c.refresh()
	s := &secured{Conn: tls.Server(nc, c.current.Load()), socket: nc}
	if err := s.Handshake(); err != nil {
		return nil, err
	}
	state := s.ConnectionState()
	peer.TLS = tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 && c.cfg.Identity != config.IdentityNone {
		var err error
		if peer.Identity, err = identity(state.PeerCertificates[0], c.cfg.Identity); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// secured is a TLS connection whose end does not wait for a client that takes nothing: the library gives its last
// record five seconds.
type secured struct {
	*tls.Conn
	socket net.Conn
}

// Close ends the connection, with a last record if the client takes it soon.
func (s *secured) Close() error {
	defer time.AfterFunc(farewellTime, s.cut).Stop()
	return s.Conn.Close()
}

// CloseWrite sends the last record.
func (s *secured) CloseWrite() error {
	defer time.AfterFunc(farewellTime, s.cut).Stop()
	return s.Conn.CloseWrite()
}

func (s *secured) cut() { _ = s.socket.Close() }

// identity is the name that a certificate gives its holder.
func identity(cert *x509.Certificate, from config.Identity) (string, error) {
	var names []string
	switch from {
	case config.IdentityCN:
		names = []string{cert.Subject.CommonName}
	case config.IdentitySANDNS:
		names = cert.DNSNames
	case config.IdentitySANEmail:
		names = cert.EmailAddresses
	}
	if len(names) == 0 || names[0] == "" {
		return "", fmt.Errorf("the certificate of %s has no %s to name it by", cert.Subject, from)
	}
	if name := names[0]; utf8.ValidString(name) && !strings.ContainsRune(name, 0) {
		return name, nil
	}
	return "", fmt.Errorf("the %s of the certificate is not text", from) // MQTT could not carry it as a user name
}

// revoked is the set of revoked certificates, by issuer and serial number.
type revoked map[string]struct{}

func revocations(lists []*x509.RevocationList) revoked {
	r := make(revoked)
	for _, list := range lists {
		for _, e := range list.RevokedCertificateEntries {
			r[string(list.RawIssuer)+"\x00"+e.SerialNumber.String()] = struct{}{}
		}
	}
	return r
}

var errRevoked = errors.New("the client's certificate is revoked")

// check accepts a client that has a chain without a revoked certificate. One that showed none has no chains.
func (r revoked) check(chains [][]*x509.Certificate) error {
	if len(r) == 0 || len(chains) == 0 {
		return nil
	}
	for _, chain := range chains {
		if !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
			_, found := r[string(c.RawIssuer)+"\x00"+c.SerialNumber.String()]
			return found
		}) {
			return nil
		}
	}
	return errRevoked
}
