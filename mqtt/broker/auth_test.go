package broker

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"

	"cairnmq/mqtt/auth"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// withUsers gives a broker users, each given as "name password".
func withUsers(t *testing.T, users ...string) func(*config.Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	writeUsers(t, path, users...)
	return func(c *config.Config) { c.Auth.PasswordFile = path }
}

func writeUsers(t *testing.T, path string, users ...string) {
	t.Helper()
	f, err := auth.ParseFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		name, password, _ := strings.Cut(u, " ")
		s, err := auth.NewSCRAM([]byte(password), auth.MinIterations)
		if err == nil {
			err = f.Set(name, s)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
}

// as is the user name and the password of a CONNECT.
func as(user, password string) mqtttest.Option {
	return func(p *packet.Connect) {
		p.Username, p.HasUsername = user, true
		p.Password, p.HasPassword = []byte(password), true
	}
}

// refused expects that a CONNECT is answered with this code, or its like in older versions.
func (r *rig) refused(v packet.Version, code packet.ReasonCode, options ...mqtttest.Option) {
	r.t.Helper()
	c := r.dial(v)
	c.Send(mqtttest.ConnectPacket("refused", v, options...))
	if v != packet.V5 {
		var ack packet.Connack
		n, _ := code.ConnectReturn()
		if err := ack.Decode(v, 0, []byte{0, n}); err != nil {
			r.t.Fatal(err)
		}
		code = ack.Code
	}
	if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != code {
		r.t.Errorf("%v: CONNACK with %v, want %v", v, ack.Code, code)
	}
	c.ExpectClosed()
}

func TestPasswordsOfEveryVersion(t *testing.T) {
	r := start(t, withUsers(t, "anna secret", "bert "))
	for _, v := range versions {
		r.connect(v, "a", as("anna", "secret")).Disconnect()
		r.connect(v, "a", as("bert", "")).Disconnect() // an empty password is one
		r.refused(v, packet.NotAuthorized)             // anonymous
	}
	if s := r.log.String(); !strings.Contains(s, `"user":"anna"`) || strings.Contains(s, "secret") {
		t.Errorf("the log should name the user and never the password:\n%s", s)
	}
}

// Each with a broker of its own: so many wrong passwords from one address would be slowed down.
func TestWrongPasswordsOfEveryVersion(t *testing.T) {
	for _, v := range versions {
		r := start(t, withUsers(t, "anna secret"))
		r.refused(v, packet.BadUserNameOrPassword, as("anna", "Secret"))
		r.refused(v, packet.BadUserNameOrPassword, as("nobody", "secret"))
		r.refused(v, packet.BadUserNameOrPassword, func(p *packet.Connect) { p.Username, p.HasUsername = "anna", true })
		r.connect(v, "a", as("anna", "secret")).Ping()
	}
	r := start(t, withUsers(t, "anna secret"))
	r.refused(packet.V5, packet.BadUserNameOrPassword, func(p *packet.Connect) { p.Password, p.HasPassword = []byte("secret"), true })
}

func TestWhoMayBeAnonymous(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"), strict(func(s *config.Server) { s.Anonymous = config.AnonymousRefuse }),
		func(c *config.Config) { c.Auth.Anonymous = config.AnonymousAllow })
	r.connect(packet.V5, "a").Ping()
	r.connect(packet.V5, "b", as("anna", "secret")).Ping()
	r.refused(packet.V5, packet.BadUserNameOrPassword, as("anna", "wrong")) // a wrong name is worse than none
	c := r.on("strict", packet.V5)
	c.Send(mqtttest.ConnectPacket("c", packet.V5))
	if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != packet.NotAuthorized {
		t.Errorf("anonymous at the strict server: %v", ack.Code)
	}
	// Without users a name is only a name.
	r = start(t)
	r.connect(packet.V311, "a", as("anna", "anything")).Ping()
}

func TestUsersComeAndGoWithoutARestart(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"))
	c := r.connect(packet.V5, "a", as("anna", "secret"))
	writeUsers(t, r.cfg.Auth.PasswordFile, "bert other")
	r.skew.Add(int64(time.Minute))
	r.connect(packet.V5, "b", as("bert", "other")).Ping()
	r.refused(packet.V5, packet.BadUserNameOrPassword, as("anna", "secret"))
	c.Ping() // who is there stays
	if err := os.WriteFile(r.cfg.Auth.PasswordFile, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.skew.Add(int64(time.Minute))
	r.connect(packet.V5, "b", as("bert", "other")).Ping()
	if r.log.Count("password file has changed and cannot be used") != 1 {
		t.Errorf("no complaint:\n%s", r.log)
	}
}

// meddle changes the gate before the next connection comes.
func (r *rig) meddle(change func(*gate)) {
	s := r.servers[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	change(r.gate)
}

// Who has guessed wrong too often waits, and few at a time.
func TestGuessingIsSlowedDown(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"))
	for range 20 {
		r.gate.guesses.Wrong("127.0.0.1:1", r.now())
	}
	waits, over := make(chan time.Duration), make(chan struct{})
	r.meddle(func(g *gate) {
		g.pause = func(_ context.Context, d time.Duration) error {
			waits <- d
			<-over
			return nil
		}
	})
	var waiting []*mqtttest.Client
	for i := range 4 {
		c := r.dial(packet.V5)
		password := "wrong"
		if i == 3 {
			password = "secret"
		}
		c.Send(mqtttest.ConnectPacket("w", packet.V5, as("anna", password)))
		if d := <-waits; d < time.Second {
			t.Errorf("waits %v only", d)
		}
		waiting = append(waiting, c)
	}
	r.refused(packet.V5, packet.ConnectionRateExceeded, as("anna", "wrong"))
	r.refused(packet.V311, packet.ServerUnavailable, as("anna", "wrong"))
	close(over)
	for i, c := range waiting {
		want := packet.BadUserNameOrPassword
		if i == 3 {
			want = packet.Success
		}
		if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != want {
			t.Errorf("CONNACK with %v, want %v", ack.Code, want)
		}
	}
	r.skew.Add(int64(time.Hour))
	r.connect(packet.V5, "a", as("anna", "secret")).Ping()
}

// While passwords are being checked, those who are there go on and others come in; and the broker ends when it is told.
func TestAFloodOfPasswordsHoldsUpNobody(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"))
	there := r.connect(packet.V5, "there", as("anna", "secret"))
	waiting := make(chan struct{})
	r.meddle(func(g *gate) {
		check := g.check
		g.check = func(ctx context.Context, user string, password []byte) error {
			if user != "slow" {
				return check(ctx, user, password)
			}
			waiting <- struct{}{}
			<-ctx.Done()
			return auth.ErrBusy
		}
	})
	for range 20 {
		c := r.dial(packet.V5)
		c.Send(mqtttest.ConnectPacket("flood", packet.V5, as("slow", "x")))
		<-waiting
	}
	for _, c := range r.servers[0].snapshot() {
		if c.peer != there.Conn.LocalAddr().String() && c.buf != nil {
			t.Error("a client that waits holds a buffer")
		}
	}
	there.Ping()
	r.connect(packet.V5, "again", as("anna", "secret")).Ping()
	r.close()
}

func TestWhoWaitsTooLongIsToldSo(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"))
	r.meddle(func(g *gate) {
		g.check = func(context.Context, string, []byte) error { return auth.ErrBusy }
	})
	r.refused(packet.V5, packet.ServerBusy, as("anna", "secret"))
	r.refused(packet.V311, packet.ServerUnavailable, as("anna", "secret"))
}

func TestMosquittoPubWithAPassword(t *testing.T) {
	tool, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed")
	}
	r := start(t, withUsers(t, "anna secret"))
	host, port, _ := strings.Cut(r.Addr("main").String(), ":")
	s := r.connect(packet.V5, "s", as("anna", "secret"))
	s.Subscribe(1, "a")
	for v, name := range map[string]string{"31": "mqttv31", "311": "mqttv311", "5": "mqttv5"} {
		pub := func(password string) ([]byte, error) {
			return exec.Command(tool, "-h", host, "-p", port, "-V", name, "-u", "anna", "-P", password, "-q", "1", "-t", "a", "-m", v).CombinedOutput()
		}
		if out, err := pub("secret"); err != nil {
			t.Fatalf("%s: %v %s", name, err, out)
		}
		s.Receive("a", v, 1)
		r.skew.Add(int64(time.Hour)) // earlier guesses are forgotten
		if out, err := pub("wrong"); err == nil || !strings.Contains(strings.ToLower(string(out)), "bad user") && !strings.Contains(string(out), "not authorised") {
			t.Errorf("%s with a wrong password: %v %s", name, err, out)
		}
	}
	s.ExpectNothing()
}

// scramClient goes through an exchange over a connection.
type scramClient struct {
	*mqtttest.Client
	conv *scram.ClientConversation
	said string // the server's last word
}

func (c *scramClient) begin(user, password string) {
	c.T.Helper()
	x, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		c.T.Fatal(err)
	}
	c.conv, c.said = x.NewConversation(), ""
}

// step is what to send for what the server has said.
func (c *scramClient) step() *string {
	c.T.Helper()
	out, err := c.conv.Step(c.said)
	if err != nil {
		c.T.Fatalf("the client: %v", err)
	}
	return &out
}

func method(name string, data *string) packet.Properties {
	p := packet.Properties{AuthMethod: &name}
	if data != nil {
		p.AuthData = []byte(*data)
	}
	return p
}

func (c *scramClient) auth(code packet.ReasonCode) *packet.Auth {
	c.T.Helper()
	return &packet.Auth{Code: code, Props: method("SCRAM-SHA-256", c.step())}
}

// challenged expects the server's challenge.
func (c *scramClient) challenged() {
	c.T.Helper()
	a := mqtttest.Expect[*packet.Auth](c.Client)
	if a.Code != packet.ContinueAuthentication || a.Props.AuthMethod == nil || *a.Props.AuthMethod != "SCRAM-SHA-256" { // [MQTT-4.12.0-2], [MQTT-4.12.0-5]
		c.T.Fatalf("got %s", mqtttest.Words(a))
	}
	c.said = string(a.Props.AuthData)
}

// believe checks the server's last word.
func (c *scramClient) believe(data []byte) {
	c.T.Helper()
	c.said = string(data)
	if c.step(); !c.conv.Valid() {
		c.T.Fatal("the server does not know the password either")
	}
}

func (r *rig) scram(user, password string) *scramClient {
	r.t.Helper()
	c := &scramClient{Client: r.dial(packet.V5)}
	c.begin(user, password)
	return c
}

// hello sends the CONNECT of an exchange.
func (c *scramClient) hello(id string) {
	c.T.Helper()
	c.ID = id
	first := c.step()
	c.Send(mqtttest.ConnectPacket(id, packet.V5, func(p *packet.Connect) { p.Props = method("SCRAM-SHA-256", first) }))
}

// enter goes through all of it.
func (r *rig) enter(id, user, password string) *scramClient {
	r.t.Helper()
	c := r.scram(user, password)
	c.hello(id)
	c.challenged()
	c.Send(c.auth(packet.ContinueAuthentication)) // [MQTT-4.12.0-3]
	ack := mqtttest.Expect[*packet.Connack](c.Client)
	if ack.Code != packet.Success || ack.Props.AuthMethod == nil || *ack.Props.AuthMethod != "SCRAM-SHA-256" { // [MQTT-4.12.0-5]
		r.t.Fatalf("got %s", mqtttest.Words(ack))
	}
	c.believe(ack.Props.AuthData)
	return c
}

func TestSCRAM(t *testing.T) {
	mqtttest.Proves(t, "MQTT-4.12.0-2 MQTT-4.12.0-3 MQTT-4.12.0-5 MQTT-4.12.0-6 MQTT-3.2.0-1")
	r := start(t, withUsers(t, "anna secret"))
	c := r.enter("a", "anna", "secret")
	c.Ping()
	if s := r.clients.get("a"); s.who.user != "anna" {
		t.Errorf("the client is %q", s.who.user)
	}
	// Who does without gets no method [MQTT-4.12.0-6].
	d := r.dial(packet.V5)
	if ack := d.Connect("b", as("anna", "secret")); ack.Props.AuthMethod != nil || ack.Props.AuthData != nil {
		t.Errorf("got %s", mqtttest.Words(ack))
	}
}

func TestSCRAMWithAWrongPassword(t *testing.T) {
	mqtttest.Proves(t, "MQTT-4.12.0-4 MQTT-3.1.4-2")
	r := start(t, withUsers(t, "anna secret"))
	for _, user := range []string{"anna", "nobody"} {
		c := r.scram(user, "wrong")
		c.hello("a")
		c.challenged()
		c.Send(c.auth(packet.ContinueAuthentication))
		if ack := mqtttest.Expect[*packet.Connack](c.Client); ack.Code != packet.NotAuthorized { // [MQTT-4.12.0-4]
			t.Errorf("%s: got %s", user, mqtttest.Words(ack))
		}
		c.ExpectClosed()
	}
}

func TestAnUnknownMethodIsRefused(t *testing.T) { // [MQTT-4.12.0-1]
	mqtttest.Proves(t, "MQTT-4.12.0-1")
	for _, edit := range []func(*config.Config){withUsers(t, "anna secret"), func(*config.Config) {}} {
		r := start(t, edit)
		for _, name := range []string{"SCRAM-SHA-1", "scram-sha-256", ""} {
			r.refused(packet.V5, packet.BadAuthenticationMethod, func(p *packet.Connect) { p.Props = method(name, nil) })
		}
	}
}

// What else can come where an AUTH is awaited, and what it is answered with.
func TestTheExchangeBeforeTheCONNACK(t *testing.T) {
	mqtttest.Proves(t, "MQTT-3.1.2-30 MQTT-4.12.0-5 MQTT-3.1.4-6")
	r := start(t, withUsers(t, "anna secret"), func(c *config.Config) { c.Auth.Anonymous = config.AnonymousAllow })
	watcher := r.connect(packet.V5, "watcher")
	watcher.Subscribe(2, "#")
	other, data := "PLAIN", ""
	for name, row := range map[string]struct {
		send packet.Packet
		code packet.ReasonCode
	}{
		"PUBLISH":          {mqtttest.Message("a", "must not be there", 1), packet.ProtocolError}, // [MQTT-3.1.2-30]
		"SUBSCRIBE":        {&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#"}}}, packet.ProtocolError},
		"PINGREQ":          {&packet.Pingreq{}, packet.ProtocolError},
		"second CONNECT":   {mqtttest.ConnectPacket("x", packet.V5), packet.ProtocolError},
		"re-authenticate":  {&packet.Auth{Code: packet.Reauthenticate, Props: method("SCRAM-SHA-256", &data)}, packet.ProtocolError},
		"success":          {&packet.Auth{Code: packet.Success, Props: method("SCRAM-SHA-256", &data)}, packet.ProtocolError},
		"another method":   {&packet.Auth{Code: packet.ContinueAuthentication, Props: method(other, &data)}, packet.ProtocolError}, // [MQTT-4.12.0-5]
		"no method":        {&packet.Auth{Code: packet.ContinueAuthentication}, packet.ProtocolError},
		"AUTH without all": {&packet.Auth{}, packet.ProtocolError},
		"nonsense":         {&packet.Auth{Code: packet.ContinueAuthentication, Props: method("SCRAM-SHA-256", &other)}, packet.NotAuthorized},
	} {
		r.skew.Add(int64(time.Hour))
		c := r.scram("anna", "secret")
		c.hello("a")
		c.challenged()
		if m, ok := row.send.(*packet.Publish); ok {
			m.PacketID = 1
		}
		c.Send(row.send)
		if ack := mqtttest.Expect[*packet.Connack](c.Client); ack.Code != row.code {
			t.Errorf("%s: got %s", name, mqtttest.Words(ack))
		}
		c.ExpectClosed()
	}
	c := r.scram("anna", "secret")
	c.hello("a")
	c.challenged()
	c.Send(&packet.Disconnect{})
	c.ExpectClosed()
	watcher.ExpectNothing()
	if r.clients.get("a") != nil {
		t.Error("the client is in")
	}
}

func TestReauthentication(t *testing.T) {
	mqtttest.Proves(t, "MQTT-4.12.1-1 MQTT-4.12.1-2 MQTT-4.12.0-7")
	r := start(t, withUsers(t, "anna secret", "bert other"))
	c := r.enter("a", "anna", "secret")
	again := func(user, password string) {
		t.Helper()
		c.begin(user, password)
		c.Send(c.auth(packet.Reauthenticate)) // [MQTT-4.12.1-1]
		c.challenged()
		c.Publish(mqtttest.Message("a", "in between", 1)) // goes on as before
		c.Send(c.auth(packet.ContinueAuthentication))
	}
	for range 2 {
		again("anna", "secret")
		a := mqtttest.Expect[*packet.Auth](c.Client)
		if a.Code != packet.Success || a.Props.AuthMethod == nil || *a.Props.AuthMethod != "SCRAM-SHA-256" {
			t.Fatalf("got %s", mqtttest.Words(a))
		}
		c.believe(a.Props.AuthData)
	}
	c.Ping()
	again("bert", "other") // right, but somebody else
	c.ExpectDisconnect(packet.NotAuthorized)
	c = r.enter("a", "anna", "secret")
	again("anna", "wrong") // [MQTT-4.12.1-2]
	c.ExpectDisconnect(packet.NotAuthorized)

	other, data := "PLAIN", "x"
	for name, send := range map[string]*packet.Auth{
		"another method":         {Code: packet.Reauthenticate, Props: method(other, &data)}, // [MQTT-4.12.1-1]
		"continuing what is not": {Code: packet.ContinueAuthentication, Props: method("SCRAM-SHA-256", &data)},
		"success":                {Code: packet.Success, Props: method("SCRAM-SHA-256", &data)},
		"nothing":                {},
	} {
		c := r.enter("a", "anna", "secret")
		c.Send(send)
		if d := mqtttest.Expect[*packet.Disconnect](c.Client); d.Code != packet.ProtocolError {
			t.Errorf("%s: got %s", name, mqtttest.Words(d))
		}
		c.ExpectClosed()
	}
	c = r.enter("a", "anna", "secret")
	c.begin("anna", "secret")
	first := c.auth(packet.Reauthenticate)
	c.Send(first, first) // one at a time
	c.challenged()
	c.ExpectDisconnect(packet.ProtocolError)
	d := r.connect(packet.V5, "b", as("anna", "secret"))
	d.Send(first) // [MQTT-4.12.0-7]
	d.ExpectDisconnect(packet.ProtocolError)
}

// pahoSCRAM is the hook of Paho for enhanced authentication.
type pahoSCRAM struct {
	conv *scram.ClientConversation
	done chan struct{}
}

func (p *pahoSCRAM) Authenticate(a *paho5.Auth) *paho5.Auth {
	out, err := p.conv.Step(string(a.Properties.AuthData))
	if err != nil {
		return nil
	}
	return &paho5.Auth{ReasonCode: 0x18, Properties: &paho5.AuthProperties{AuthMethod: "SCRAM-SHA-256", AuthData: []byte(out)}}
}

func (p *pahoSCRAM) Authenticated() { close(p.done) }

func TestPahoAuthenticatesWithSCRAM(t *testing.T) {
	r := start(t, withUsers(t, "anna secret"))
	x, err := scram.SHA256.NewClient("anna", "secret", "")
	if err != nil {
		t.Fatal(err)
	}
	hook := &pahoSCRAM{conv: x.NewConversation(), done: make(chan struct{})}
	first, err := hook.conv.Step("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), mqtttest.Patience)
	defer cancel()
	c := paho5.NewClient(paho5.ClientConfig{Conn: r.dial(packet.V5).Conn, AuthHandler: hook})
	ack, err := c.Connect(ctx, &paho5.Connect{ClientID: "paho", CleanStart: true, KeepAlive: 30,
		Properties: &paho5.ConnectProperties{AuthMethod: "SCRAM-SHA-256", AuthData: []byte(first)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hook.conv.Step(string(ack.Properties.AuthData)); err != nil || !hook.conv.Valid() {
		t.Errorf("the server's last word: %v", err)
	}
	if _, err := c.Publish(ctx, &paho5.Publish{Topic: "a", QoS: 1, Payload: []byte("x")}); err != nil {
		t.Error(err)
	}
	_ = c.Disconnect(&paho5.Disconnect{})
}

// Chapter 3.15, byte by byte.
func TestAUTHThatBreaksTheRules(t *testing.T) {
	mqtttest.Proves(t, "MQTT-3.15.1-1 MQTT-3.15.2-1 MQTT-3.15.2-2 MQTT-3.15.2-3")
	r := start(t, withUsers(t, "anna secret"), func(c *config.Config) { c.Auth.Anonymous = config.AnonymousAllow })
	method := append([]byte{0x15, 0, 13}, "SCRAM-SHA-256"...)
	body := func(code byte) []byte { return append([]byte{code, byte(len(method))}, method...) }
	auth := func(first byte, body []byte) []byte { return append([]byte{first, byte(len(body))}, body...) }
	for name, row := range map[string]struct {
		bytes []byte
		code  packet.ReasonCode
	}{
		"header flags":               {auth(0xf1, body(0x18)), packet.MalformedPacket},
		"header flags, nothing else": {[]byte{0xf2, 0}, packet.MalformedPacket},
		"a code of its own making":   {auth(0xf0, body(0x17)), packet.ProtocolError},
		"a failure":                  {auth(0xf0, body(0x80)), packet.ProtocolError},
		"cut short":                  {auth(0xf0, body(0x18)[:5]), packet.MalformedPacket},
	} {
		r.skew.Add(int64(time.Hour))
		c := r.scram("anna", "secret")
		c.hello("before")
		c.challenged()
		c.SendRaw(row.bytes)
		if ack := mqtttest.Expect[*packet.Connack](c.Client); ack.Code != row.code {
			t.Errorf("%s, before the CONNACK: %v, want %v", name, ack.Code, row.code)
		}
		c.ExpectClosed()
		c = r.enter("after", "anna", "secret")
		c.SendRaw(row.bytes)
		if d := mqtttest.Expect[*packet.Disconnect](c.Client); d.Code != row.code {
			t.Errorf("%s: %v, want %v", name, d.Code, row.code)
		}
		c.ExpectClosed()
	}
	// The server's own AUTH has nothing to leave out, and is not sent where it does not fit.
	for _, limit := range []uint32{0, 40} {
		c := r.scram("anna", "secret")
		first := c.step()
		c.Send(mqtttest.ConnectPacket("small", packet.V5, func(p *packet.Connect) {
			p.Props = packet.Properties{AuthMethod: new("SCRAM-SHA-256"), AuthData: []byte(*first)}
			if limit > 0 {
				p.Props.MaximumPacketSize = &limit
			}
		}))
		switch p := c.Next().(type) {
		case *packet.Auth:
			if limit > 0 || p.Props.ReasonString != nil || len(p.Props.User) > 0 {
				t.Errorf("limit %d: got %s", limit, mqtttest.Words(p))
			}
		case *packet.Connack:
			if limit == 0 || p.Code != packet.PacketTooLarge {
				t.Errorf("limit %d: got %s", limit, mqtttest.Words(p))
			}
			c.ExpectClosed()
		default:
			t.Errorf("limit %d: got %s", limit, mqtttest.Words(p))
		}
	}
}
