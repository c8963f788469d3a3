package broker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/packet"
	proto "cairnmq/mqtt/session"
	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// serve is the life of a connection: CONNECT, packets, end. It runs on the
// connection's own goroutine, or, once the connection was parked, on others.
func (b *Broker) serve(c *conn, server *server) (parked bool) {
	log := b.clientLog.With(logging.KeyPeer, c.peer, logging.KeyServer, server.Name)
	if c.who.TLS != "" {
		log = log.With("tls", c.who.TLS)
	}
	if c.who.Identity != "" {
		log = log.With("identity", c.who.Identity)
	}
	p, err := b.awaitConnect(c)
	if err == nil {
		err = b.redirect()
	}
	var w who
	if err == nil {
		w, err = b.authenticate(c, p, server)
	}
	if err != nil {
		if p.HasUsername {
			log = log.With("claims", p.Username) // perhaps wrongly
		}
		if !closedByPeer(err) {
			log.Info("connection refused", logging.KeyClient, p.ClientID, logging.KeyPacket, "CONNECT", logging.KeyReason, err.Error())
		}
		b.refuse(c, p, err) // [MQTT-3.1.4-1], [MQTT-3.1.4-2]
		return false
	}
	if w.user != "" {
		log = log.With("user", w.user)
	}
	s, err := b.openSession(c, p, server, w, log)
	if err != nil {
		log.Warn("connection refused", logging.KeyClient, p.ClientID, logging.KeyPacket, "CONNECT", logging.KeyReason, err.Error())
		b.refuse(c, p, asRefusal(err))
		return false
	}
	s.log.Info("client connected", "version", s.version.String(), "resumed", s.present, logging.KeyPacket, "CONNECT", "keepalive", s.keepAlive.String(), "expiry", expiryText(s.expiry))
	s.resumeFn = func() {
		if !s.converse() {
			b.gone(c, server)
		}
	}
	return s.converse()
}

// converse handles packets until the connection is over, or parked.
func (s *session) converse() (parked bool) {
	err := s.readLoop()
	if err == errParked {
		return true
	}
	s.received()
	s.finish(err)
	return false
}

func expiryText(seconds uint32) string {
	if seconds == storage.Never {
		return "never"
	}
	return (time.Duration(seconds) * time.Second).String()
}

// awaitConnect reads the first packet.
func (b *Broker) awaitConnect(c *conn) (*packet.Connect, error) {
	p := &packet.Connect{}
	for { // admit has set the deadline
		if c.w > c.r {
			f, ok, err := c.frame()
			if err != nil {
				return p, err
			}
			if f.Type != 0 && f.Type != packet.CONNECT || c.buf[c.r]>>4 != byte(packet.CONNECT) {
				return p, &packet.Error{Code: packet.ProtocolError, Reason: "the first packet is not CONNECT", Cite: "MQTT-3.1.0-1"}
			}
			if ok {
				if err := p.Decode(f.Flags, f.Body); err != nil {
					return p, err
				}
				c.consumed(f.Size)
				return p, b.checkConnect(p)
			}
		}
		if err := c.fill(); err != nil {
			return p, err
		}
	}
}

// checkConnect judges a well-formed CONNECT.
func (b *Broker) checkConnect(p *packet.Connect) error {
	if len(p.ClientID) > b.cfg.Sessions.MaxClientID {
		return &packet.Error{Code: packet.ClientIdentifierNotValid, Reason: fmt.Sprintf("client identifier of %d bytes is longer than %d", len(p.ClientID), b.cfg.Sessions.MaxClientID), Cite: "MQTT-3.1.3-8"} // [MQTT311-3.1.3-9]
	}
	if w := p.Will; w != nil {
		if f := w.Props.PayloadFormat; f != nil && !b.formatHolds(*f, w.Payload) {
			return &packet.Error{Code: packet.PayloadFormatInvalid, Reason: "the will's payload is not the text that its format indicator says"}
		}
		if code := b.refusal([]byte(w.Topic)); code != 0 {
			return &packet.Error{Code: code, Reason: fmt.Sprintf("nobody may publish to the will's topic %q", w.Topic)}
		}
	}
	return nil
}

// refuse answers a CONNECT that is not accepted. Before MQTT 5 a malformed
// one gets no answer [MQTT311-3.1.4-1]. A CONNACK is all that is ever sent
// [MQTT-3.14.0-1], what follows is not handled [MQTT-3.1.4-6],
// [MQTT311-3.1.4-5], and the caller closes [MQTT-3.2.2-7], [MQTT311-3.2.2-5],
// [MQTT-4.13.2-1].
func (b *Broker) refuse(c *conn, p *packet.Connect, err error) {
	var e *packet.Error
	if !errors.As(err, &e) {
		return
	}
	if p.Version != packet.V5 {
		if _, ok := e.Code.ConnectReturn(); !ok || !p.Version.Valid() && e.Code != packet.UnsupportedProtocolVersion {
			return
		}
	} else if e.Code == packet.ProtocolError && e.Cite == "MQTT-3.1.0-1" {
		return
	}
	if p.Version == 0 {
		return // not even the version is known
	}
	ack := packet.Connack{Code: e.Code}
	if p.Version == packet.V5 && wantsProblem(p) {
		ack.Props.ReasonString = &e.Reason
	}
	ack.Props.ServerReference = b.reference(e.Code)
	if out, ok := ack.AppendLimited(nil, p.Version, clientLimit(p)); ok { // [MQTT-3.2.2-19], [MQTT-3.2.2-20]
		_ = c.write(out, farewellTime)
		c.hangUp()
	}
}

// redirect refuses every client while the configuration sends them elsewhere.
func (b *Broker) redirect() error {
	switch b.cfg.Redirect.Connect {
	case config.UseAnotherServer:
		return &packet.Error{Code: packet.UseAnotherServer, Reason: "clients are served elsewhere for now"}
	case config.ServerMoved:
		return &packet.Error{Code: packet.ServerMoved, Reason: "the server has moved"}
	}
	return nil
}

// reference is where a client is to go that gets this reason code.
func (b *Broker) reference(code packet.ReasonCode) *string {
	to := b.cfg.Redirect.Server
	if to == "" || code != packet.UseAnotherServer && code != packet.ServerMoved {
		return nil
	}
	return &to
}

// clientLimit is the largest packet that the client takes.
func clientLimit(p *packet.Connect) int {
	if m := p.Props.MaximumPacketSize; m != nil {
		return int(min(*m, packet.MaxPacketSize))
	}
	return packet.MaxPacketSize
}

// asRefusal is the answer to a client whose session could not be opened.
func asRefusal(err error) error {
	var e *packet.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, storage.ErrFull):
		return &packet.Error{Code: packet.QuotaExceeded, Reason: err.Error()}
	}
	return &packet.Error{Code: packet.ServerUnavailable, Reason: err.Error()}
}

func wantsProblem(p *packet.Connect) bool {
	return p.Props.RequestProblemInfo == nil || *p.Props.RequestProblemInfo // [MQTT-3.1.2-29]
}

// capExpiry applies the server's limit.
func (b *Broker) capExpiry(seconds uint32) uint32 {
	if b.maxExpiry == 0 {
		return seconds
	}
	return min(seconds, b.maxExpiry)
}

func newClientID() string {
	var r [12]byte
	_, _ = rand.Read(r[:]) // never fails
	return "cairn-" + hex.EncodeToString(r[:])
}

// openSession makes the session of an accepted CONNECT: whoever has the
// client id now is put out first, then the stored state is taken up or thrown
// away, the log is told, and the client gets its CONNACK.
func (b *Broker) openSession(c *conn, p *packet.Connect, server *server, w who, log logger) (*session, error) {
	assigned := p.ClientID == ""
	if assigned {
		p.ClientID = newClientID() // [MQTT-3.1.3-6], [MQTT-3.2.2-16], [MQTT311-3.1.3-6]
	}
	s := b.newSession(c, p, server, log)
	s.who = w
	unlock := b.clients.claim(p.ClientID)
	defer unlock()
	if old := b.clients.get(p.ClientID); old != nil { // [MQTT-3.1.4-3], [MQTT311-3.1.4-2], [MQTT-3.1.3-2], [MQTT311-3.1.3-2]
		old.end(closeReason{code: packet.SessionTakenOver, text: "the same client identifier has connected from " + c.peer, takeover: true, cleanStart: p.CleanStart})
		<-old.done
	}
	if err := b.clients.room(b.cfg.Limits.MaxConnections); err != nil {
		return nil, err
	}
	row, err := b.takeUp(s, p)
	if err != nil {
		return nil, err
	}
	if s.ctrl = s.connack(p, assigned); s.ctrl == nil { // [MQTT-3.2.0-1], [MQTT-3.1.4-5], [MQTT311-3.2.0-1], [MQTT311-3.1.4-4]
		return nil, &packet.Error{Code: packet.PacketTooLarge, Reason: "the CONNACK is above the client's Maximum Packet Size", Cite: "MQTT-3.1.2-24"}
	}
	c.touch()
	if err := c.setDeadline(c.nc.SetReadDeadline, time.Time{}); err != nil {
		return nil, err
	}
	// From here on others see the session: it is complete but for the router.
	if err := b.clients.add(s, b.cfg.Limits.MaxConnections); err != nil {
		return nil, err
	}
	b.log.AttachSession(s.id, s)
	if err := b.opened(s, row); err != nil {
		b.clients.remove(s)
		return nil, err
	}
	b.subscribeRow(s, row)
	b.stats.packetsIn.Add(1)
	b.stats.packetsOut.Add(1)
	b.groups.resume(s)
	s.kick(false)
	return s, nil
}

func (b *Broker) newSession(c *conn, p *packet.Connect, server *server, log logger) *session {
	s := &session{
		b: b, id: p.ClientID, version: p.Version, c: c, limits: &server.Server,
		log:     log.With(logging.KeyClient, p.ClientID),
		subs:    make(map[string]*subscription),
		problem: wantsProblem(p),
		done:    make(chan struct{}),
	}
	s.syncInit()
	s.reader.Init(b.log)
	limit := b.cfg.Sessions.MaxInflight
	switch {
	case p.Version == packet.V5:
		if e := p.Props.SessionExpiry; e != nil {
			s.connExpiry = *e // [MQTT-3.1.2-23]
			s.expiry = b.capExpiry(*e)
		}
		limit = 65535
		if m := p.Props.ReceiveMaximum; m != nil {
			limit = int(*m) // [MQTT-4.9.0-1]
		}
		limit = min(limit, b.cfg.Sessions.MaxInflight)
		s.maxPacket = clientLimit(p)
		if m := p.Props.TopicAliasMaximum; m != nil {
			s.outAliases = newOutAliases(min(int(*m), b.cfg.Limits.MaxTopicAliasOut))
		}
	case !p.CleanStart:
		s.expiry = b.capExpiry(storage.Never) // [MQTT311-3.1.2-4]
	}
	s.win.SetLimit(limit)
	keep := time.Duration(p.KeepAlive) * time.Second
	if lim := s.limits.MaxKeepAlive.Std(); lim > 0 && p.Version == packet.V5 && (keep == 0 || keep > lim) {
		keep = lim
	}
	s.keepAlive = keep
	s.will = storedWill(p.Will) // [MQTT-3.1.2-7]
	s.logged = s.expiry > 0 || s.will != nil
	return s
}

// takeUp brings in what is stored about the session, or throws it away.
func (b *Broker) takeUp(s *session, p *packet.Connect) (*storage.SessionRow, error) {
	row, ok, err := b.log.LoadSession(s.id)
	if err != nil {
		s.log.Error("the stored session cannot be read; beginning a new one", "error", err)
		ok = false
	}
	if ok {
		if at, expires := row.Expires(); expires && !b.now().Before(at) || p.CleanStart {
			if err := b.endSession(row); err != nil { // [MQTT-3.1.2-4], [MQTT-3.1.4-4], [MQTT-3.2.2-2], [MQTT311-3.1.2-6], [MQTT311-3.1.4-3], [MQTT311-3.2.2-1]
				return nil, err
			}
			ok = false
		} else if err := b.dueWill(row, b.now()); err != nil { // only one that still waits is cancelled [MQTT-3.1.3-9]
			return nil, err
		}
	}
	if !ok {
		row = &storage.SessionRow{ID: s.id, Next: b.log.Routed()} // [MQTT-3.1.2-6]
	}
	s.present = ok // [MQTT-3.2.2-3], [MQTT-3.1.2-5], [MQTT311-3.2.2-2], [MQTT311-3.2.2-3]
	s.mode, s.readPos, s.next, s.skipQoS0 = catching, row.Next, row.Next, row.SkipQoS0
	for _, x := range row.Subs {
		if s.shares.restore(s, x) {
			continue
		}
		s.subs[x.Filter] = &subscription{Sub: x, match: newMatch(&x)}
		if wantsSys(x.Filter) {
			s.wantsSys.Store(true)
		}
	}
	if !b.cfg.Sessions.QueueQoS0 {
		s.skipQoS0 = b.log.Routed()
	}
	for _, f := range row.Inflight {
		s.win.Restore(f.ID, proto.Entry{
			Pos: uint64(f.Pos), QoS: f.QoS, Retained: f.Retained, Received: f.Received, Tag: s.shares.tagOf(f.Group, &s.win),
		})
	}
	s.resend = len(row.Inflight) > 0
	for _, id := range row.Inbound {
		s.inbound.Add(id)
	}
	s.logged = s.logged || ok
	return row, nil
}

// opened writes down that the session is open. A checkpoint may come at any
// time, so the session is attached by now. If the log does not take it,
// everything is as it was.
func (b *Broker) opened(s *session, row *storage.SessionRow) error {
	if !s.logged {
		return nil
	}
	s.mu.Lock()
	s.beginAppendLocked()
	s.mu.Unlock()
	defer s.endAppend()
	err := b.appendEvents(storage.EventOpened(s.id, uint8(s.version), !s.present, s.expiry, s.will, row.Next))
	switch {
	case err == nil:
		return nil
	case s.present:
		return errors.Join(err, b.log.StoreSession(row))
	}
	return errors.Join(err, b.log.DeleteSession(row))
}

// subscribeRow gives the router the subscriptions of a resumed session and
// finds out whether it has to catch up.
func (b *Broker) subscribeRow(s *session, row *storage.SessionRow) {
	b.log.WithView(func(pos storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for filter, sub := range s.subs {
			b.router.trie.Set(filter, s, sub)
		}
		if len(s.subs) > 0 {
			b.router.changed()
		}
		if row.Next >= pos || len(s.subs) == 0 {
			s.mode = live
			s.next = max(s.next, pos)
		}
	})
}

// responseInfo is the beginning of the topics on which the client should ask
// for answers. A name that has no place in a topic gets none.
func (s *session) responseInfo() *string {
	pattern := s.b.cfg.Sessions.ResponseInformation
	if pattern == "" {
		return nil
	}
	info := strings.NewReplacer("%c", s.id, "%u", s.who.user).Replace(pattern)
	if topic.ValidateName([]byte(info)) != nil {
		return nil
	}
	return &info
}

// connack is the answer to an accepted CONNECT, nil if the client's limit does
// not let it through. What is ours alone, no client has to know [MQTT311-7.0.0-2].
func (s *session) connack(p *packet.Connect, assigned bool) []byte {
	ack := packet.Connack{SessionPresent: s.present}
	if s.version == packet.V5 {
		cfg := s.b.cfg
		x := &ack.Props
		if assigned {
			x.AssignedClientID = &s.id // [MQTT-3.1.3-7]
		}
		if r := p.Props.RequestResponseInfo; r != nil && *r { // [MQTT-3.1.2-28]
			x.ResponseInfo = s.responseInfo()
		}
		if s.who.method != nil { // [MQTT-4.12.0-5], and no method without [MQTT-4.12.0-6]
			x.AuthMethod, x.AuthData = p.Props.AuthMethod, s.who.data
		}
		if s.expiry != s.connExpiry {
			x.SessionExpiry = &s.expiry
		}
		if n := uint16(s.limits.ReceiveMaximum); n != 65535 {
			x.ReceiveMaximum = &n
		}
		if n := uint16(cfg.Limits.MaxTopicAlias); n > 0 {
			x.TopicAliasMaximum = &n
		}
		if n := uint32(s.b.maxPacket(s.c)); n < packet.MaxPacketSize {
			x.MaximumPacketSize = &n
		}
		if k := uint16(s.keepAlive / time.Second); k != p.KeepAlive {
			x.ServerKeepAlive = &k // [MQTT-3.1.2-21], [MQTT-3.2.2-22]
		}
	}
	out, ok := ack.AppendLimited(nil, s.version, s.limit())
	if !ok {
		return nil
	}
	return out
}

// finish ends a session's connection: what still waits to leave gets its
// moment, the flusher ends, and the state goes to the index.
func (s *session) finish(err error) {
	s.farewellFor(err)
	s.c.leave()
	s.mu.Lock()
	s.farewell = true
	s.mu.Unlock()
	s.kick(false)
	s.mu.Lock()
	for s.flushing {
		s.cond.Wait() // the deadline bounds it
	}
	s.closed = true
	reason := s.reason
	s.mu.Unlock()
	if reason.code == 0 { // [MQTT-3.14.4-2]; else the client has been told something
		_ = s.c.nc.Close()
	}
	s.reader.Release()
	s.c.setBuf(nil)
	s.logEnd(reason)
	s.reportLosses()
	s.noteRefused()
	s.b.groups.depart(s)
	s.storeEnd(reason)
	close(s.done)
	s.c.hangUp()
}

// farewellFor turns the error that ended the read loop into a reason.
func (s *session) farewellFor(err error) {
	var e *packet.Error
	switch {
	case errors.As(err, &e):
		s.end(closeReason{code: e.Code, text: e.Reason, err: err}) // [MQTT-4.13.1-1], [MQTT311-4.8.0-1]
	case errors.Is(err, errDisconnect):
		s.end(closeReason{text: "client disconnected"})
	case errors.Is(err, storage.ErrFull):
		s.end(closeReason{code: packet.QuotaExceeded, text: "the log has no room", err: err})
	case s.b.log.Err() != nil:
		s.end(closeReason{code: packet.UnspecifiedError, text: "the log has failed", err: err}) // [MQTT311-4.8.0-2]
	default:
		s.end(closeReason{text: "connection lost", err: err})
	}
}

func (s *session) logEnd(r closeReason) {
	args := []any{logging.KeyReason, r.text}
	if r.code != 0 {
		args = append(args, "code", r.code.String())
	}
	var e *packet.Error
	switch {
	case r.normal || r.err == nil || closedByPeer(r.err):
		s.log.Info("client gone", args...)
	case errors.As(r.err, &e):
		s.log.Warn("client sent what it must not: closed", append(args, logging.KeyPacket, s.at.String(), "cite", e.Cite)...)
	default:
		s.log.Info("client gone", append(args, logging.Err(r.err))...)
	}
}
