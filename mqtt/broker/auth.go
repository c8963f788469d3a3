package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairnmq/mqtt/auth"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/packet"
)

// gate decides who may connect.
type gate struct {
	users   *auth.Users // nil: there are none
	methods map[string]auth.Authenticator
	guesses *auth.Guesses

	// Tests replace these two, so that they know when somebody waits.
	check func(ctx context.Context, user string, password []byte) error
	pause func(ctx context.Context, d time.Duration) error
}

// who is what a client has proved to be.
type who struct {
	user   string             // empty: anonymous
	method auth.Authenticator // of enhanced authentication; nil: none
	data   []byte             // its last word, for the CONNACK
}

func openGate(cfg *config.Config, logs *logging.Root, clock func() time.Time) (*gate, error) {
	g := &gate{methods: make(map[string]auth.Authenticator), guesses: auth.NewGuesses(), pause: pause}
	if cfg.Auth.PasswordFile == "" {
		return g, nil
	}
	var err error
	g.users, err = auth.Open(cfg.Auth.PasswordFile, auth.Options{Logger: logs.For(logging.Client), Now: clock, Checks: cfg.Auth.Checks})
	if err != nil {
		return nil, fmt.Errorf("auth.password_file: %w", err)
	}
	g.check = g.users.Check
	scram, err := auth.NewSCRAM256(g.users)
	if err != nil {
		return nil, err
	}
	g.methods[scram.Method()] = scram
	return g, nil
}

// refresh looks whether the password file has changed.
func (g *gate) refresh() {
	if g.users != nil {
		g.users.Refresh()
	}
}

// authenticate finds out who sent a CONNECT. Nothing of the client is handled meanwhile but the packets of the exchange,
// and nobody else waits for it.
func (b *Broker) authenticate(c *conn, p *packet.Connect, s *server) (who, error) {
	var w who
	var err error
	switch {
	case p.Props.AuthMethod != nil:
		w, err = b.enhanced(c, p)
	case c.who.Identity != "":
		// The certificate says it, whatever user name comes with it.
	case b.gate.users != nil && (p.HasUsername || p.HasPassword):
		w, err = b.checkPassword(c, p)
	case s.Anonymous == config.AnonymousRefuse:
		err = &packet.Error{Code: packet.NotAuthorized, Reason: "this server wants a user name and a password"}
	}
	if err != nil {
		return who{}, err
	}
	if id := c.who.Identity; id != "" {
		if w.user != "" && w.user != id {
			return who{}, &packet.Error{Code: packet.NotAuthorized, Reason: fmt.Sprintf("the certificate is of another user than %q", w.user)}
		}
		w.user = id
	}
	return w, nil
}

func (b *Broker) checkPassword(c *conn, p *packet.Connect) (who, error) {
	c.idle() // while it waits it takes no buffer
	ctx, cancel := context.WithDeadline(b.ctx, c.connectBy)
	defer cancel()
	if err := b.slowDown(ctx, c); err != nil {
		return who{}, err
	}
	err := auth.ErrDenied
	if p.HasUsername && p.HasPassword {
		err = b.gate.check(ctx, p.Username, p.Password)
	}
	if err == nil {
		return who{user: p.Username}, nil
	}
	if errors.Is(err, auth.ErrDenied) {
		b.gate.guesses.Wrong(c.peer, b.now())
		return who{}, &packet.Error{Code: packet.BadUserNameOrPassword, Reason: auth.ErrDenied.Error()}
	}
	return who{}, &packet.Error{Code: packet.ServerBusy, Reason: err.Error()}
}

// slowDown lets those wait from whose address wrong passwords have come.
func (b *Broker) slowDown(ctx context.Context, c *conn) error {
	wait, done, ok := b.gate.guesses.Begin(c.peer, b.now())
	if !ok {
		return &packet.Error{Code: packet.ConnectionRateExceeded, Reason: "too many wrong passwords from this address"}
	}
	defer done()
	if wait > 0 && b.gate.pause(ctx, wait) != nil {
		return &packet.Error{Code: packet.ServerBusy, Reason: "too many wrong passwords from this address"}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enhanced goes through the exchange of the method that the CONNECT names.
func (b *Broker) enhanced(c *conn, p *packet.Connect) (who, error) {
	name := *p.Props.AuthMethod
	method := b.gate.methods[name]
	if method == nil { // [MQTT-4.12.0-1]
		return who{}, &packet.Error{Code: packet.BadAuthenticationMethod, Reason: fmt.Sprintf("authentication method %q is not known", name), Cite: "MQTT-4.12.0-1"}
	}
	ctx, cancel := context.WithDeadline(b.ctx, c.connectBy)
	defer cancel()
	if err := b.slowDown(ctx, c); err != nil {
		return who{}, err
	}
	x := method.Start()
	for data := p.Props.AuthData; ; {
		step, err := x.Continue(data)
		if err != nil { // [MQTT-4.12.0-4]
			return who{}, b.denied(c, err)
		}
		if step.Done {
			return who{user: step.User, method: method, data: step.Data}, nil
		}
		out, ok := authPacket(packet.ContinueAuthentication, name, step).AppendLimited(nil, p.Version, clientLimit(p)) // [MQTT-4.12.0-2]
		if !ok {
			return who{}, &packet.Error{Code: packet.PacketTooLarge, Reason: "the AUTH is above the client's Maximum Packet Size", Cite: "MQTT-3.1.2-24"}
		}
		if err := c.write(out, time.Until(c.connectBy)); err != nil {
			return who{}, err
		}
		a, err := awaitAuth(c)
		if err == nil {
			err = checkAuth(a, name, packet.ContinueAuthentication) // [MQTT-4.12.0-3]
		}
		if err != nil {
			return who{}, err
		}
		data = a.Props.AuthData
	}
}

// denied counts a failed exchange. What exactly was wrong is for the log alone.
func (b *Broker) denied(c *conn, err error) error {
	b.gate.guesses.Wrong(c.peer, b.now())
	b.clientLog.Info("authentication failed", logging.KeyPeer, c.peer, logging.KeyReason, err.Error())
	return &packet.Error{Code: packet.NotAuthorized, Reason: "authentication failed"}
}

func authPacket(code packet.ReasonCode, method string, step auth.Step) *packet.Auth { // [MQTT-4.12.0-5]
	return &packet.Auth{Code: code, Props: packet.Properties{AuthMethod: &method, AuthData: step.Data}}
}

// awaitAuth reads the next packet of a client that has not got its CONNACK yet.
func awaitAuth(c *conn) (*packet.Auth, error) {
	for {
		if c.w > c.r {
			if t := packet.Type(c.buf[c.r] >> 4); t != packet.AUTH && t != packet.DISCONNECT {
				return nil, &packet.Error{Code: packet.ProtocolError, Reason: t.String() + " before the CONNACK", Cite: "MQTT-3.1.2-30"}
			}
			f, ok, err := c.frame()
			if err != nil {
				return nil, err
			}
			if ok && f.Type == packet.DISCONNECT {
				return nil, errDisconnect
			}
			if ok {
				a := &packet.Auth{}
				if err := a.Decode(packet.V5, f.Flags, f.Body); err != nil {
					return nil, err
				}
				c.consumed(f.Size)
				return a, nil
			}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// checkAuth judges an AUTH: its code, and that it goes on with the method of the CONNECT.
func checkAuth(a *packet.Auth, method string, code packet.ReasonCode) error {
	switch {
	case a.Code != code:
		return &packet.Error{Code: packet.ProtocolError, Reason: fmt.Sprintf("AUTH with reason code 0x%02X, not 0x%02X", byte(a.Code), byte(code)), Cite: "MQTT-4.12.0-3"}
	case a.Props.AuthMethod == nil || *a.Props.AuthMethod != method:
		return &packet.Error{Code: packet.ProtocolError, Reason: "AUTH with another method than the CONNECT", Cite: "MQTT-4.12.0-5"}
	}
	return nil
}

// handleAuth authenticates a client again. Meanwhile everything goes on as before.
func (s *session) handleAuth(f packet.Frame) error {
	if s.version != packet.V5 {
		return &packet.Error{Code: packet.MalformedPacket, Reason: "packet type 15 is reserved", Cite: "MQTT311 2.2.1"}
	}
	if s.who.method == nil {
		return &packet.Error{Code: packet.ProtocolError, Reason: "AUTH without an authentication method in CONNECT", Cite: "MQTT-4.12.0-7"}
	}
	var a packet.Auth
	if err := a.Decode(s.version, f.Flags, f.Body); err != nil {
		return err
	}
	want := packet.ContinueAuthentication
	if s.reauth == nil {
		want = packet.Reauthenticate
	}
	method := s.who.method.Method()
	if err := checkAuth(&a, method, want); err != nil { // [MQTT-4.12.1-1]
		return err
	}
	if s.reauth == nil {
		s.reauth = s.who.method.Start()
	}
	step, err := s.reauth.Continue(a.Props.AuthData)
	if err == nil && step.Done && step.User != s.who.user {
		err = fmt.Errorf("%w: it was %q and is %q now", auth.ErrDenied, s.who.user, step.User)
	}
	if err != nil { // [MQTT-4.12.1-2]
		return s.b.denied(s.c, err)
	}
	code := packet.ContinueAuthentication
	if step.Done {
		code, s.reauth = packet.Success, nil
		s.log.Info("authenticated again", "user", s.who.user)
	}
	return s.replyLimited(authPacket(code, method, step))
}
