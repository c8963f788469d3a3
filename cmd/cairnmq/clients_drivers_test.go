package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	packets5 "github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// inbox is what has come for a driver, without a bound: a client that does
// not take its messages would stop acknowledging them.
type inbox struct {
	out  chan message
	over chan struct{}
	once sync.Once

	mu   sync.Mutex
	more *sync.Cond
	list []message
}

func newInbox(t *testing.T) *inbox {
	b := &inbox{out: make(chan message), over: make(chan struct{})}
	b.more = sync.NewCond(&b.mu)
	done := make(chan struct{})
	t.Cleanup(func() { close(done); b.put(message{}) })
	go func() {
		for {
			b.mu.Lock()
			for len(b.list) == 0 {
				b.more.Wait()
			}
			m := b.list[0]
			b.list = b.list[1:]
			b.mu.Unlock()
			select {
			case b.out <- m:
			case <-done:
				return
			}
		}
	}()
	return b
}

func (b *inbox) put(m message) {
	b.mu.Lock()
	b.list = append(b.list, m)
	b.mu.Unlock()
	b.more.Signal()
}

func (b *inbox) messages() <-chan message { return b.out }
func (b *inbox) closed() <-chan struct{}  { return b.over }
func (b *inbox) isClosed()                { b.once.Do(func() { close(b.over) }) }

func payloadOf(m message) []byte {
	if m.Size > 0 {
		return []byte(strings.Repeat(m.Payload, m.Size))
	}
	return []byte(m.Payload)
}

func tlsOf(o connectOptions) (*tls.Config, error) {
	if o.CA == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, err
}

// pahoMQTT is Eclipse's Go client for MQTT 3.1 and 3.1.1.
type pahoMQTT struct {
	*inbox
	t *testing.T
	c paho3.Client
	// dialled is the newest connection.
	dialled *atomic.Pointer[net.Conn]
	// last is what came with an identifier: the client hands out a QoS 2
	// message again when it is repeated, and leaves it to its user to notice.
	// It calls back from one goroutine.
	last map[uint16]string
}

func (d *pahoMQTT) repeated(m paho3.Message) bool {
	if m.Qos() < 2 {
		return false
	}
	if m.Duplicate() && d.last[m.MessageID()] == string(m.Payload()) { // [MQTT-3.3.1-1]
		return true
	}
	d.last[m.MessageID()] = string(m.Payload())
	return false
}

func openPaho3(t *testing.T, o connectOptions) (driver, bool, error) {
	d := &pahoMQTT{inbox: newInbox(t), t: t, dialled: &atomic.Pointer[net.Conn]{}, last: map[uint16]string{}}
	config, err := tlsOf(o)
	if err != nil {
		return nil, false, err
	}
	p := paho3.NewClientOptions().AddBroker(o.URL).SetClientID(o.ID).SetProtocolVersion(uint(o.Version)).
		SetCleanSession(o.Clean).SetKeepAlive(time.Duration(o.KeepAlive) * time.Second).SetConnectTimeout(patience).
		SetUsername(o.User).SetPassword(o.Password).SetTLSConfig(config).SetOrderMatters(true).
		SetAutoReconnect(o.Reconnect).SetMaxReconnectInterval(20 * time.Millisecond).
		SetConnectionLostHandler(func(paho3.Client, error) { d.isClosed() }).
		SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
			if d.repeated(m) {
				return
			}
			d.put(message{Topic: m.Topic(), Payload: short(m.Payload()), QoS: m.Qos(), Retain: m.Retained()})
		})
	if o.Version == 3 {
		p.SetProtocolVersion(3)
	}
	if w := o.Will; w != nil {
		p.SetWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	if strings.HasPrefix(o.URL, "mqtt://") || strings.HasPrefix(o.URL, "mqtts://") {
		p.SetCustomOpenConnectionFn(func(u *url.URL, _ paho3.ClientOptions) (net.Conn, error) {
			nc, err := dialFor(u, config)
			if err == nil {
				d.dialled.Store(&nc)
			}
			return nc, err
		})
	} else {
		p.SetDialer(&net.Dialer{Timeout: patience})
		p.SetCustomOpenConnectionFn(func(u *url.URL, options paho3.ClientOptions) (net.Conn, error) {
			nc, err := paho3.NewWebsocket(u.String(), config, patience, nil, nil)
			if err == nil {
				d.dialled.Store(&nc)
			}
			return nc, err
		})
	}
	d.c = paho3.NewClient(p)
	token := d.c.Connect()
	if !token.WaitTimeout(patience) {
		return nil, false, errors.New("no CONNACK")
	}
	if token.Error() != nil {
		return nil, false, token.Error()
	}
	t.Cleanup(func() { d.c.Disconnect(0) })
	return d, token.(*paho3.ConnectToken).SessionPresent(), nil
}

func dialFor(u *url.URL, config *tls.Config) (net.Conn, error) {
	switch u.Scheme {
	case "unix":
		return net.DialTimeout("unix", u.Path, patience)
	case "mqtts":
		return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", u.Host, config)
	}
	return net.DialTimeout("tcp", u.Host, patience)
}

func (d *pahoMQTT) done(what string, token paho3.Token) {
	d.t.Helper()
	if !token.WaitTimeout(patience) || token.Error() != nil {
		d.t.Errorf("%s: %v", what, token.Error())
	}
}

func (d *pahoMQTT) subscribe(filter string, o subscribeOptions) byte {
	d.t.Helper()
	token := d.c.Subscribe(filter, o.QoS, nil)
	d.done("subscribe", token)
	return token.(*paho3.SubscribeToken).Result()[filter]
}

func (d *pahoMQTT) unsubscribe(filter string) {
	d.t.Helper()
	d.done("unsubscribe", d.c.Unsubscribe(filter))
}

func (d *pahoMQTT) publish(m message) {
	d.t.Helper()
	d.done("publish", d.c.Publish(m.Topic, m.QoS, m.Retain, payloadOf(m)))
}

func (d *pahoMQTT) end() { d.c.Disconnect(1000) }
func (d *pahoMQTT) cut() { _ = (*d.dialled.Load()).Close() }

// pahoGolang is Eclipse's Go client for MQTT 5.
type pahoGolang struct {
	*inbox
	t  *testing.T
	c  *paho5.Client
	nc net.Conn
}

func openPaho5(t *testing.T, o connectOptions) (driver, bool, error) {
	d := &pahoGolang{inbox: newInbox(t), t: t}
	config, err := tlsOf(o)
	if err != nil {
		return nil, false, err
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, false, err
	}
	if d.nc, err = dialFor(u, config); err != nil {
		return nil, false, err
	}
	if config != nil {
		d.nc = packets5.NewThreadSafeConn(d.nc) // it writes a packet in parts, from several goroutines
	}
	d.c = paho5.NewClient(paho5.ClientConfig{
		Conn: d.nc, PacketTimeout: patience,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(r paho5.PublishReceived) (bool, error) {
			d.put(fromPaho5(r.Packet))
			return true, nil
		}},
		OnClientError:      func(error) { d.isClosed() },
		OnServerDisconnect: func(*paho5.Disconnect) { d.isClosed() },
	})
	p := &paho5.Connect{
		ClientID: o.ID, CleanStart: o.Clean, KeepAlive: o.KeepAlive, Username: o.User, UsernameFlag: o.User != "",
		Password: []byte(o.Password), PasswordFlag: o.Password != "",
		Properties: &paho5.ConnectProperties{SessionExpiryInterval: &o.Expiry},
	}
	if o.ReceiveMaximum > 0 {
		p.Properties.ReceiveMaximum = &o.ReceiveMaximum
	}
	if w := o.Will; w != nil {
		p.WillMessage = &paho5.WillMessage{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS, Retain: w.Retain}
		p.WillProperties = &paho5.WillProperties{WillDelayInterval: &o.WillDelay}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := d.c.Connect(ctx, p)
	if err != nil {
		return nil, false, err
	}
	t.Cleanup(func() { _ = d.nc.Close() })
	return d, ack.SessionPresent, nil
}

func fromPaho5(p *paho5.Publish) message {
	m := message{Topic: p.Topic, Payload: short(p.Payload), QoS: p.QoS, Retain: p.Retain,
		ContentType: p.Properties.ContentType, ResponseTopic: p.Properties.ResponseTopic, Correlation: string(p.Properties.CorrelationData)}
	for _, u := range p.Properties.User {
		m.User = append(m.User, [2]string{u.Key, u.Value})
	}
	if e := p.Properties.MessageExpiry; e != nil {
		m.Expiry = *e
	}
	if id := p.Properties.SubscriptionIdentifier; id != nil {
		m.IDs = []int{*id} // it keeps the last one only
	}
	return m
}

func (d *pahoGolang) within(what string, do func(context.Context) error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := do(ctx); err != nil {
		d.t.Errorf("%s: %v", what, err)
	}
}

func (d *pahoGolang) subscribe(filter string, o subscribeOptions) (granted byte) {
	d.t.Helper()
	p := &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{
		Topic: filter, QoS: o.QoS, NoLocal: o.NoLocal, RetainAsPublished: o.RAP, RetainHandling: o.RH,
	}}}
	if o.SubID > 0 {
		p.Properties = &paho5.SubscribeProperties{SubscriptionIdentifier: &o.SubID}
	}
	d.within("subscribe", func(ctx context.Context) error {
		ack, err := d.c.Subscribe(ctx, p)
		if err == nil {
			granted = ack.Reasons[0]
		}
		return err
	})
	return granted
}

func (d *pahoGolang) unsubscribe(filter string) {
	d.t.Helper()
	d.within("unsubscribe", func(ctx context.Context) error {
		_, err := d.c.Unsubscribe(ctx, &paho5.Unsubscribe{Topics: []string{filter}})
		return err
	})
}

func (d *pahoGolang) publish(m message) {
	d.t.Helper()
	props := &paho5.PublishProperties{ContentType: m.ContentType, ResponseTopic: m.ResponseTopic}
	if m.Correlation != "" {
		props.CorrelationData = []byte(m.Correlation)
	}
	for _, u := range m.User {
		props.User.Add(u[0], u[1])
	}
	if m.Expiry > 0 {
		props.MessageExpiry = &m.Expiry
	}
	if m.Alias > 0 {
		props.TopicAlias = &m.Alias
	}
	d.within("publish", func(ctx context.Context) error {
		_, err := d.c.Publish(ctx, &paho5.Publish{Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Payload: payloadOf(m), Properties: props})
		return err
	})
}

func (d *pahoGolang) end() { _ = d.c.Disconnect(&paho5.Disconnect{}) }
func (d *pahoGolang) cut() { _ = d.nc.Close() }

// jsProcess is node with MQTT.js in it, which a test's connections share.
type jsProcess struct {
	t  *testing.T
	in io.WriteCloser

	mu      sync.Mutex
	last    int
	answers map[int]chan jsLine
	clients map[int]*mqttJS
}

// jsLine is what mqttjs.cjs says.
type jsLine struct {
	N       int      `json:"n"`
	C       int      `json:"c"`
	Error   string   `json:"error"`
	Present bool     `json:"present"`
	Granted []byte   `json:"granted"`
	Message *message `json:"message"`
	Closed  bool     `json:"closed"`
}

var installJS = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../testdata/clients")
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", err
	}
	// What npm installs is kept, until the lock file says something else.
	stamp := filepath.Join(dir, "node_modules", ".installed")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == string(lock) {
		return dir, nil
	}
	c := exec.Command("npm", "ci", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, os.WriteFile(stamp, lock, 0o600)
})

var jsProcesses sync.Map // by test

func startJS(t *testing.T) *jsProcess {
	t.Helper()
	if p, ok := jsProcesses.Load(t); ok {
		return p.(*jsProcess)
	}
	need(t, "node", "npm")
	dir, err := installJS()
	if err != nil {
		missing(t, err.Error())
	}
	c := exec.Command("node", filepath.Join(dir, "mqttjs.cjs"))
	c.Stderr = t.Output()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &jsProcess{t: t, in: in, answers: map[int]chan jsLine{}, clients: map[int]*mqttJS{}}
	jsProcesses.Store(t, p)
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(out)
	}()
	t.Cleanup(func() {
		jsProcesses.Delete(t)
		_ = c.Process.Kill()
		<-read
		_ = c.Wait()
	})
	return p
}

func (p *jsProcess) read(out io.Reader) {
	in := bufio.NewReader(out)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var line jsLine
		if err := json.Unmarshal(text, &line); err != nil {
			p.t.Errorf("node says %q: %v", text, err)
			return
		}
		p.mu.Lock()
		answer, client := p.answers[line.N], p.clients[line.C]
		delete(p.answers, line.N)
		p.mu.Unlock()
		switch {
		case line.N > 0 && answer != nil:
			answer <- line
		case line.Message != nil:
			client.put(*line.Message)
		case line.Closed:
			client.isClosed()
		}
	}
}

// ask sends a request and waits for the answer.
func (p *jsProcess) ask(op string, c int, more map[string]any) (jsLine, error) {
	request := map[string]any{"op": op, "c": c}
	for k, v := range more {
		request[k] = v
	}
	answer := make(chan jsLine, 1)
	p.mu.Lock()
	p.last++
	request["n"] = p.last
	p.answers[p.last] = answer
	text, err := json.Marshal(request)
	if err == nil {
		_, err = p.in.Write(append(text, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		return jsLine{}, err
	}
	select {
	case line := <-answer:
		if line.Error != "" {
			return line, errors.New(line.Error)
		}
		return line, nil
	case <-time.After(patience):
		return jsLine{}, fmt.Errorf("no answer to %s", op)
	}
}

// mqttJS is a connection of MQTT.js.
type mqttJS struct {
	*inbox
	p *jsProcess
	c int
}

func openMQTTjs(t *testing.T, o connectOptions) (driver, bool, error) {
	p := startJS(t)
	d := &mqttJS{inbox: newInbox(t), p: p}
	p.mu.Lock()
	d.c = len(p.clients) + 1
	p.clients[d.c] = d
	p.mu.Unlock()
	line, err := p.ask("connect", d.c, map[string]any{"options": o})
	return d, line.Present, err
}

func (d *mqttJS) ask(op string, more map[string]any) jsLine {
	d.p.t.Helper()
	line, err := d.p.ask(op, d.c, more)
	if err != nil {
		d.p.t.Errorf("%s: %v", op, err)
	}
	return line
}

func (d *mqttJS) subscribe(filter string, o subscribeOptions) byte {
	d.p.t.Helper()
	if line := d.ask("subscribe", map[string]any{"filter": filter, "options": o}); len(line.Granted) > 0 {
		return line.Granted[0]
	}
	return 0xff
}

func (d *mqttJS) unsubscribe(filter string) {
	d.p.t.Helper()
	d.ask("unsubscribe", map[string]any{"filter": filter})
}

func (d *mqttJS) publish(m message) {
	d.p.t.Helper()
	d.ask("publish", map[string]any{"message": m})
}

func (d *mqttJS) end() { d.ask("end", nil) }
func (d *mqttJS) cut() { d.ask("cut", nil) }

// front is an address that stays while the broker behind it comes and goes.
type front struct {
	ln net.Listener
	to atomic.Value // string
}

func newFront(t *testing.T) *front {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{ln: ln}
	f.to.Store("")
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go f.pass(in)
		}
	}()
	return f
}

// pass carries bytes both ways; the end of either is the end of both.
func (f *front) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	to := f.to.Load().(string)
	if to == "" {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	over := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			over <- struct{}{}
		}()
	}
	<-over
}

// certificates are files: an authority, and what it has issued to the server
// and to a client.
type certificates struct{ ca, cert, key, clientCert, clientKey string }

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	dir := t.TempDir()
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issue := func(name string, c *x509.Certificate, key *ecdsa.PrivateKey) (certFile, keyFile string) {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		writeFile(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
		return certFile, keyFile
	}
	var c certificates
	c.ca, _ = issue("ca", ca, caKey)
	for i, name := range []string{"server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, keyFile := issue(name, &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, key)
		if i == 0 {
			c.cert, c.key = cert, keyFile
		} else {
			c.clientCert, c.clientKey = cert, keyFile
		}
	}
	return &c
}
