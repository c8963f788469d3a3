package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/listener"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

type logger = *slog.Logger

// Broker is a running broker.
type Broker struct {
	cfg       *config.Config
	log       *storage.Log
	router    *router
	clients   *clients
	gate      *gate
	sys       *sysTree
	stats     stats
	groups    *groups
	brokerLog *slog.Logger
	clientLog *slog.Logger
	logs      *logging.Root

	ctx    context.Context // ends when the broker is told to stop
	cancel context.CancelFunc

	maxExpiry      uint32 // seconds; 0: none
	outboxLimit    int
	syncedSessions bool // session events wait for a sync
	clock          func() time.Time

	servers   []*server
	receipt   *receipt
	accepting sync.WaitGroup // listeners
	wg        sync.WaitGroup // connections
	keeper    chan struct{}  // wakes the housekeeper
	kept      sync.WaitGroup

	lot *lot // silent connections; nil where there can be none

	// the housekeeper's
	sweep      []*session
	unused     int   // connections parked since memory was given back
	giveBackAt int64 // not before this instant again
}

// server is one listener.
type server struct {
	config.Server
	ln *listener.Listener

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Run opens the log, serves until ctx ends, and closes everything in order.
func Run(ctx context.Context, cfg *config.Config, logs *logging.Root) error {
	b, err := Open(cfg, logs)
	if err != nil {
		return err
	}
	var failed error
	select {
	case <-ctx.Done():
	case <-b.log.Failed():
		failed = fmt.Errorf("%w: %w", storage.ErrFailed, b.log.Err())
	}
	return errors.Join(failed, b.Close())
}

// Open starts a broker: log first, listeners last.
func Open(cfg *config.Config, logs *logging.Root) (*Broker, error) {
	return open(cfg, logs, time.Now)
}

// open is Open with what tests put in the place of the machine's clock and
// disk.
func open(cfg *config.Config, logs *logging.Root, clock func() time.Time, machine ...func(*storage.Options)) (*Broker, error) {
	o, err := storageOptions(cfg, logs)
	if err != nil {
		return nil, err
	}
	o.Now = clock
	for _, edit := range machine {
		edit(&o)
	}
	g, err := openGate(cfg, logs, clock)
	if err != nil {
		return nil, err
	}
	l, err := storage.Open(cfg.Storage.Dir, o)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, log: l, router: newRouter(l), clients: newClients(), logs: logs,
		brokerLog: logs.For("broker"), clientLog: logs.For("client"),
		outboxLimit:    cfg.Sessions.Outbox,
		maxExpiry:      uint32(min(cfg.Sessions.MaxExpiry.Std()/time.Second, 1<<32-2)),
		syncedSessions: l.SessionClass() == storage.ClassAlways,
		clock:          clock,
		gate:           g,
		sys:            newSysTree(clock()),
		keeper:         make(chan struct{}, 1),
		receipt:        newReceipt(int(cfg.ReceiveMemory()), stallTime),
		lot:            newLot(),
	}
	b.groups = newGroups(b)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	l.SetSink(b.router)
	l.Advance()
	b.sayClasses()
	b.kept.Add(1)
	go b.housekeeping()
	if cfg.Sys.Interval > 0 {
		b.kept.Add(1)
		go b.reporting()
	}
	if err := b.listen(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func storageOptions(cfg *config.Config, logs *logging.Root) (storage.Options, error) {
	o := storage.Options{
		SegmentSize: int64(cfg.Storage.SegmentSize), MaxBytes: int64(cfg.Storage.MaxBytes),
		MaxAge: cfg.Storage.MaxAge.Std(), SyncInterval: cfg.Durability.Interval.Std(),
		CheckpointBytes: int64(cfg.Storage.CheckpointBytes), CheckpointInterval: cfg.Storage.CheckpointInterval.Std(),
		MappedSegments: cfg.Storage.MappedSegments, Logger: logs.For("storage"),
	}
	class := func(c config.Class) (*storage.Class, error) {
		v, err := storage.ParseClass(string(c))
		return &v, err
	}
	var err error
	if o.DefaultClass, err = class(cfg.Durability.Default); err != nil {
		return o, err
	}
	if o.SessionClass, err = class(cfg.Durability.SessionClass()); err != nil {
		return o, err
	}
	for _, r := range cfg.Durability.Rules {
		c, err := class(r.Class)
		if err != nil {
			return o, err
		}
		o.ClassRules = append(o.ClassRules, storage.ClassRule{Filter: r.Filter, Class: *c})
	}
	for _, r := range cfg.Retention {
		o.Retention = append(o.Retention, storage.RetentionRule{
			Filter: r.Filter, MaxBytes: int64(r.MaxBytes), MaxAge: r.MaxAge.Std(), RejectNew: r.OnFull == config.RejectNew,
		})
	}
	return o, nil
}

// sayClasses prints what may be lost, so that nobody has to guess.
func (b *Broker) sayClasses() {
	say := func(what string, c storage.Class) {
		b.brokerLog.Info("durability", "for", what, "class", c.String(), "kill", "loses nothing", "power cut", "loses "+b.log.LossWindow(c))
	}
	for _, r := range b.cfg.Durability.Rules {
		say(r.Filter, b.log.ClassFor(r.Filter))
	}
	def, _ := storage.ParseClass(string(b.cfg.Durability.Default))
	say("everything else", def)
	say("sessions", b.log.SessionClass())
}

func (b *Broker) now() time.Time { return b.clock() }

// maxPacket is the largest packet that is taken from a connection.
func (b *Broker) maxPacket(c *conn) int { return c.maxPacket }

// listen opens the listeners and their goroutines.
func (b *Broker) listen() error {
	for _, x := range b.cfg.Servers {
		x = b.cfg.Effective(x)
		ln, err := listener.Open(x, listener.Options{Logger: b.logs.For(logging.Listener)})
		if err != nil {
			return err
		}
		s := &server{Server: x, ln: ln, conns: make(map[*conn]struct{})}
		b.servers = append(b.servers, s)
		b.accepting.Add(1)
		go b.accept(s)
		b.brokerLog.Info("listening", logging.KeyServer, x.Name, "type", string(x.Type), "address", ln.Addr().String())
	}
	return nil
}

// accept is a listener's goroutine. It does nothing that can block but
// accept, so a slow client holds up nobody.
func (b *Broker) accept(s *server) {
	defer b.accepting.Done()
	for {
		guest, err := s.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			b.brokerLog.Warn("accept", logging.KeyServer, s.Name, "error", err)
			select { // out of descriptors, most likely: let some go
			case <-time.After(100 * time.Millisecond):
			case <-b.ctx.Done():
				return
			}
			continue
		}
		b.stats.sockets.Add(1)
		c := newConn(guest.Socket, &b.stats)
		c.maxPacket = int(s.MaxPacketSize)
		if !s.add(c) {
			_ = guest.Socket.Close()
			b.brokerLog.Warn("connection refused: too many on this server", logging.KeyServer, s.Name, logging.KeyPeer, guest.Addr())
			continue
		}
		b.wg.Add(1)
		go func() {
			if b.admit(c, s, guest) && b.serve(c, s) {
				return // parked: whoever goes on with it ends it
			}
			b.gone(c, s)
		}()
	}
}

// gone forgets a connection that is over.
func (b *Broker) gone(c *conn, s *server) {
	_ = c.nc.Close()
	s.drop(c)
	b.wg.Done()
}

// admit does what comes before MQTT on the connection's own goroutine. The time to CONNECT runs from here, over all of
// it.
func (b *Broker) admit(c *conn, s *server, guest *listener.Guest) bool {
	c.connectBy = time.Now().Add(s.ConnectTimeout.Std())
	if err := c.setDeadline(guest.Socket.SetDeadline, c.connectBy); err != nil {
		_ = guest.Socket.Close()
		return false
	}
	nc, peer, err := guest.Ready()
	if err != nil {
		if !closedByPeer(err) {
			b.clientLog.Info("connection refused", logging.KeyPeer, peer.Addr, logging.KeyServer, s.Name, logging.KeyReason, err.Error())
		}
		c.hangUp()
		return false
	}
	c.become(nc, peer)
	if err := c.setDeadline(nc.SetWriteDeadline, time.Time{}); err != nil {
		_ = nc.Close()
		return false
	}
	return true
}

func (s *server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.MaxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Addr is where a server listens, by its name.
func (b *Broker) Addr(name string) net.Addr {
	for _, s := range b.servers {
		if s.Name == name {
			return s.ln.Addr()
		}
	}
	return nil
}

// Close ends the broker in order: listeners, connections, housekeeper, log.
func (b *Broker) Close() error {
	b.cancel()
	for _, s := range b.servers {
		_ = s.ln.Close()
	}
	b.accepting.Wait()
	code := packet.ServerShuttingDown
	if b.cfg.Redirect.Shutdown {
		code = packet.UseAnotherServer
	}
	for _, s := range b.clients.shut() {
		s.end(closeReason{code: code, text: "the server is shutting down"})
	}
	for _, s := range b.servers {
		s.closeWaiting()
	}
	b.wg.Wait()
	b.kept.Wait()
	b.lot.close()
	err := b.log.Close()
	b.brokerLog.Info("stopped")
	return err
}

// closeWaiting ends connections that have not sent their CONNECT yet; the
// others have been told.
func (s *server) closeWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.leave()
	}
}
