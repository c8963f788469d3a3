package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
)

// Listener is one server's listening socket.
type Listener struct {
	cfg     config.Server
	ln      net.Listener
	log     *slog.Logger
	now     func() time.Time
	rate    *bucket // of Accept's caller alone; nil: no limit
	trusted []netip.Prefix
	certs   *certs // nil without TLS

	compressed atomic.Int64 // connections that have compression now
}

// Options are what a listener is given by its broker.
type Options struct {
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Open listens. The files of a TLS server are read first, so that what it could not serve it does not accept.
func Open(cfg config.Server, o Options) (*Listener, error) {
	l := &Listener{cfg: cfg, log: o.Logger.With(logging.KeyServer, cfg.Name), now: o.Now}
	if l.now == nil {
		l.now = time.Now
	}
	if cfg.ConnectionRate > 0 {
		l.rate = newBucket(cfg.ConnectionRate, cfg.ConnectionBurst)
	}
	for _, network := range cfg.TrustedProxies {
		p, err := config.ParseNetwork(network)
		if err != nil {
			return nil, fmt.Errorf("server %s: trusted_proxies: %w", cfg.Name, err)
		}
		l.trusted = append(l.trusted, p)
	}
	if cfg.Type.Encrypted() {
		var err error
		if l.certs, err = newCerts(cfg, l.log, l.now); err != nil {
			return nil, fmt.Errorf("server %s: %w", cfg.Name, err)
		}
	}
	var err error
	if cfg.Type == config.Unix {
		l.ln, err = listenUnix(cfg)
	} else {
		var lc net.ListenConfig // TCP keeps bytes and their order [MQTT-4.2.0-1], [MQTT311-7.1.1-1]
		l.ln, err = lc.Listen(context.Background(), "tcp", cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", cfg.Name, err)
	}
	return l, nil
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Close ends accepting. Connections stay.
func (l *Listener) Close() error { return l.ln.Close() }

// Accept waits for the next connection that the rate admits. It belongs to one goroutine.
func (l *Listener) Accept() (*Guest, error) {
	for {
		nc, err := l.ln.Accept()
		if err != nil {
			return nil, err
		}
		if l.rate != nil && !l.rate.take(l.now()) {
			// To keep it waiting would not help it: while others wait before it, its own patience ends.
			l.log.Warn("connection refused: connection_rate", logging.KeyPeer, nc.RemoteAddr().String())
			_ = nc.Close()
			continue
		}
		return &Guest{Socket: nc, l: l}, nil
	}
}

// Guest is an accepted connection of which nothing has been read yet.
type Guest struct {
	// Socket is the bare connection. Its deadlines hold for Ready too, and closing it ends Ready.
	Socket net.Conn
	l      *Listener
}

// Peer is what is known of the other end once its connection is ready.
type Peer struct {
	Addr     string // of the client itself, if a proxy tells
	Identity string // from its certificate, as the configuration wants it; empty: none
	TLS      string // the version; empty: none
}

// Addr is the other end of the socket, for messages about a guest that does not become ready.
func (g *Guest) Addr() string {
	if g.l.cfg.Type == config.Unix {
		return "unix:" + g.l.cfg.Listen // the other end of a Unix socket has no name
	}
	return g.Socket.RemoteAddr().String()
}

// Ready does what comes before MQTT and returns the connection that carries it. It waits for the client. After an
// error there may be an answer on its way, so the socket should be closed with some care.
func (g *Guest) Ready() (net.Conn, Peer, error) {
	nc, peer := g.Socket, Peer{Addr: g.Addr()}
	if g.l.cfg.ProxyProtocol {
		addr, err := g.l.readProxy(nc)
		if err != nil {
			return nil, peer, fmt.Errorf("PROXY header: %w", err)
		}
		if addr != "" {
			peer.Addr = addr
		}
	}
	if g.l.certs != nil {
		s, err := g.l.certs.handshake(nc, &peer)
		if err != nil {
			return nil, peer, fmt.Errorf("TLS: %w", err)
		}
		nc = s
	}
	if g.l.cfg.Type.WebSocket() {
		framed, err := g.l.upgrade(nc)
		if err != nil {
			if s, ok := nc.(*secured); ok {
				_ = s.CloseWrite() // says that the answer was whole
			}
			return nil, peer, fmt.Errorf("WebSocket: %w", err)
		}
		nc = framed
	}
	return nc, peer, nil
}

// errNotTrusted is a connection to a server with a proxy that does not come from one.
var errNotTrusted = errors.New("not from an address of trusted_proxies")
