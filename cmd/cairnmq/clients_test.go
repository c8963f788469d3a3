package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairnmq/mqtt/mqtttest"
)

// The clients that people use, against the real program. behaviours says what
// is driven, kinds by which client; the drivers are in client_*_test.go. In CI
// a client that is missing is a failure, elsewhere it is skipped.

// patience is how long a test waits for something that must come.
const patience = time.Minute

// message is what a driver publishes or has received.
type message struct {
	Topic         string      `json:"topic"`
	Payload       string      `json:"payload"`
	QoS           byte        `json:"qos"`
	Retain        bool        `json:"retain"`
	ContentType   string      `json:"contentType,omitempty"`
	ResponseTopic string      `json:"responseTopic,omitempty"`
	Correlation   string      `json:"correlation,omitempty"`
	User          [][2]string `json:"user,omitempty"`
	Expiry        uint32      `json:"expiry,omitempty"`
	IDs           []int       `json:"ids,omitempty"`   // subscription identifiers, received
	Alias         uint16      `json:"alias,omitempty"` // sent
	Size          int         `json:"size,omitempty"`  // sent: so many times the one byte of Payload
}

// connectOptions are those of a connection.
type connectOptions struct {
	URL            string   `json:"url"`
	Version        byte     `json:"version"`
	ID             string   `json:"id"`
	Clean          bool     `json:"clean"`
	Expiry         uint32   `json:"expiry"`
	KeepAlive      uint16   `json:"keepAlive,omitempty"`
	ReceiveMaximum uint16   `json:"receiveMaximum,omitempty"`
	Will           *message `json:"will,omitempty"`
	WillDelay      uint32   `json:"willDelay,omitempty"`
	User           string   `json:"user,omitempty"`
	Password       string   `json:"password,omitempty"`
	CA             string   `json:"ca,omitempty"`
	Cert           string   `json:"cert,omitempty"`
	Key            string   `json:"key,omitempty"`
	Reconnect      bool     `json:"reconnect,omitempty"` // by itself, with what is in flight
}

type subscribeOptions struct {
	QoS     byte `json:"qos"`
	NoLocal bool `json:"noLocal,omitempty"`
	RAP     bool `json:"rap,omitempty"`
	RH      byte `json:"rh,omitempty"`
	SubID   int  `json:"subID,omitempty"`
}

// driver is a connection of some client. Errors end the test.
type driver interface {
	subscribe(filter string, o subscribeOptions) (granted byte)
	unsubscribe(filter string)
	publish(m message) // returns when the handshake of its QoS is over
	messages() <-chan message
	closed() <-chan struct{} // the connection is over
	end()                    // DISCONNECT
	cut()                    // without a word
}

// kind is a client in one version of MQTT over one transport.
type kind struct {
	client    string
	version   byte // 3, 4, 5 as on the wire
	transport string
	// reconnects: the client comes back by itself and goes on with what was in
	// flight. paho.mqtt.golang does so, too, but it may then send a QoS 2
	// message again that it has released, which is a new one, and its calls
	// may end with the connection's error.
	reconnects bool
	open       func(t *testing.T, o connectOptions) (d driver, present bool, err error)
}

var names = map[byte]string{3: "3.1", 4: "3.1.1", 5: "5"}

func (k kind) String() string { return k.client + " " + names[k.version] + " " + k.transport }

// kinds are all that there are. One transport goes through every behaviour,
// the others through those that say so.
func kinds() []kind {
	var list []kind
	for _, transport := range []string{"tcp", "ws", "tls", "wss", "unix"} {
		for v := byte(3); v <= 5; v++ {
			if v < 5 && transport != "unix" {
				list = append(list, kind{"paho.mqtt.golang", v, transport, false, openPaho3})
			}
			if v == 5 && transport != "ws" && transport != "wss" {
				list = append(list, kind{"paho.golang", v, transport, false, openPaho5})
			}
			if transport != "unix" {
				list = append(list, kind{"MQTT.js", v, transport, true, openMQTTjs})
			}
		}
	}
	return list
}

// behaviours is what every client goes through.
var behaviours = []struct {
	name string
	// from is the first version that has it.
	from byte
	// everywhere: over every transport, not over TCP alone.
	everywhere bool
	// reconnects: only for clients that do.
	reconnects bool
	run        func(s *stage)
}{
	{"QoS 0, 1 and 2 both ways", 3, true, false, qosBothWays},
	{"retained messages are set, replaced and cleared", 3, false, false, retainedMessages},
	{"retain as published, retain handling, no local", 5, false, false, subscriptionOptions},
	{"a will after a cut, none after a goodbye", 3, true, false, wills},
	{"a delayed will comes when the session ends", 5, false, false, delayedWill},
	{"a session over SIGKILL, with messages queued meanwhile", 3, true, false, sessionOverKill},
	{"QoS 2 in flight over SIGKILL: each once", 4, false, true, inflightOverKill},
	{"a second connection takes over", 3, true, false, takeover},
	{"wildcards and unsubscribing", 3, false, false, wildcards},
	{"properties end to end", 5, true, false, properties},
	{"subscription identifiers", 5, false, false, subscriptionIDs},
	{"topic aliases of the client", 5, false, false, topicAliases},
	{"a receive maximum of one", 5, false, false, receiveMaximum},
	{"a message of 8 MiB", 3, true, false, largeMessage},
	{"keep-alive pings", 3, false, false, keepAlive},
}

func TestRealClients(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	for _, k := range kinds() {
		t.Run(strings.ReplaceAll(k.String(), " ", "/"), func(t *testing.T) {
			t.Parallel()
			b := startBroker(t)
			for i, x := range behaviours {
				if k.version < x.from || x.reconnects && !k.reconnects || !x.everywhere && k.transport != "tcp" {
					continue
				}
				t.Run(strings.ReplaceAll(x.name, " ", "_"), func(t *testing.T) {
					x.run(&stage{T: t, broker: b, kind: k, prefix: fmt.Sprintf("%s-%d-%s-%d", k.client[:4], k.version, k.transport, i)})
				})
			}
		})
	}
}

// mosquitto is one of the command line tools, connecting over a transport.
func (b *brokerProcess) mosquitto(tool, transport string, args ...string) *exec.Cmd {
	var o connectOptions
	b.address(transport, &o)
	all := []string{"--unix", b.socket}
	if transport != "unix" {
		host, port, _ := net.SplitHostPort(o.URL[strings.LastIndex(o.URL, "/")+1:])
		all = []string{"-h", host, "-p", port}
	}
	if o.CA != "" {
		all = append(all, "--cafile", o.CA, "--cert", o.Cert, "--key", o.Key)
	}
	return exec.CommandContext(b.t.Context(), tool, append(all, args...)...)
}

func (b *brokerProcess) pub(transport string, args ...string) {
	b.t.Helper()
	if out, err := b.mosquitto("mosquitto_pub", transport, args...).CombinedOutput(); err != nil || len(out) > 0 {
		b.t.Errorf("mosquitto_pub %q: %v: %s", args, err, out)
	}
}

// sub runs mosquitto_sub to its end, which the arguments say.
func (b *brokerProcess) sub(transport string, args ...string) string {
	b.t.Helper()
	out, err := b.mosquitto("mosquitto_sub", transport, append(args, "-W", "60")...).CombinedOutput()
	if err != nil {
		b.t.Errorf("mosquitto_sub %q: %v: %s", args, err, out)
	}
	return string(out)
}

// Mosquitto's tools: every version over every transport that they have, a
// session over SIGKILL, a will, and a request with its answer.
func TestMosquittoTools(t *testing.T) {
	need(t, "mosquitto_pub", "mosquitto_sub", "mosquitto_rr")
	b := startBroker(t)
	for _, transport := range []string{"tcp", "tls", "unix"} {
		for _, v := range []string{"mqttv31", "mqttv311", "mqttv5"} {
			topic := transport + "/" + v
			for qos, q := range []string{"0", "1", "2"} {
				b.pub(transport, "-V", v, "-t", topic, "-q", q, "-r", "-m", "kept "+q)
				want := fmt.Sprintf("%d 1 %s kept %s\n", qos, topic, q)
				if got := b.sub(transport, "-V", v, "-t", topic, "-q", "2", "-C", "1", "-F", "%q %r %t %p"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			away := []string{"-V", v, "-c", "-i", "away-" + v + transport, "-q", "2", "-t", topic + "/queue"}
			b.sub(transport, append(away, "-E")...)
			var want strings.Builder
			for i := range 5 {
				b.pub(transport, "-V", v, "-t", topic+"/queue", "-q", "2", "-m", fmt.Sprint(i))
				_, _ = fmt.Fprintln(&want, i)
			}
			b.kill()
			b.start()
			if got := b.sub(transport, append(away, "-C", "5")...); got != want.String() {
				t.Errorf("%s: after the kill: %q", topic, got)
			}
		}
	}
	s := &stage{T: t, broker: b, kind: kind{"paho.golang", 5, "tcp", false, openPaho5}, prefix: "m"}
	d := s.connect("d")
	d.subscribe(s.topic("#"), subscribeOptions{QoS: 1})
	b.pub("tcp", "-t", "x", "-q", "1", "-r", "-m", "there")
	mortal := b.mosquitto("mosquitto_sub", "tcp", "-t", "x", "--will-topic", s.topic("will"), "--will-payload", "gone", "--will-qos", "1")
	out, err := mortal.StdoutPipe()
	if err == nil {
		err = mortal.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if lines := bufio.NewScanner(out); !lines.Scan() || lines.Text() != "there" { // so it is connected
		t.Errorf("mosquitto_sub prints %q", lines.Text())
	}
	_ = mortal.Process.Kill()
	s.expect(d, "will", "gone", 1)
	_, _ = io.Copy(io.Discard, out)
	_ = mortal.Wait()

	asked := b.mosquitto("mosquitto_rr", "tcp", "-V", "mqttv5", "-t", s.topic("ask"), "-e", "answers", "-q", "1", "-m", "6 * 7", "-W", "60")
	answer := make(chan string, 1)
	go func() {
		out, err := asked.CombinedOutput()
		answer <- fmt.Sprint(string(out), err)
	}()
	m := s.expect(d, "ask", "6 * 7", 1)
	d.publish(message{Topic: m.ResponseTopic, Payload: "42", QoS: 1, Correlation: m.Correlation})
	if got := await(t, "the answer", answer); got != "42\n<nil>" {
		t.Errorf("mosquitto_rr: %q", got)
	}
	d.end()
}

// Every client with a user name and a password, and with a wrong one.
func TestRealClientsLogIn(t *testing.T) {
	b := startBrokerWith(t, func(dir string) string {
		file := filepath.Join(dir, "passwords")
		c := exec.Command(binary, "passwd", "--iterations", "4096", "-f", file, "anna")
		c.Env, c.Stdin = environment(), strings.NewReader("geheim\n")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("passwd: %v: %s", err, out)
		}
		return fmt.Sprintf("[auth]\npassword_file = %q\n", file)
	})
	for _, k := range kinds() {
		if k.transport != "tcp" {
			continue
		}
		t.Run(k.String(), func(t *testing.T) {
			s := &stage{T: t, broker: b, kind: k, prefix: strings.ReplaceAll(k.String(), " ", "-")}
			d := s.connect("good", func(o *connectOptions) { o.User, o.Password = "anna", "geheim" })
			d.subscribe(s.topic("a"), subscribeOptions{QoS: 1})
			d.publish(message{Topic: s.topic("a"), Payload: "x", QoS: 1})
			s.expect(d, "a", "x", 1)
			d.end()
			o := connectOptions{Version: k.version, ID: s.prefix + "bad", Clean: true, User: "anna", Password: "falsch"}
			b.address("tcp", &o)
			if _, _, err := k.open(t, o); err == nil {
				t.Error("connected with a wrong password")
			}
		})
	}
}

// need skips the test if a program is missing, and fails it in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s; in CI it must be", what)
	}
	t.Skip(what)
}

// stage is one behaviour with one client.
type stage struct {
	*testing.T
	broker *brokerProcess
	kind   kind
	prefix string // of client identifiers and topics
}

func (s *stage) topic(name string) string { return s.prefix + "/" + name }

// open connects, and says whether there was a session.
func (s *stage) open(id string, edit ...func(*connectOptions)) (driver, bool) {
	s.Helper()
	o := connectOptions{Version: s.kind.version, ID: s.prefix + id, Clean: true, KeepAlive: 60}
	s.broker.address(s.kind.transport, &o)
	for _, f := range edit {
		f(&o)
	}
	d, present, err := s.kind.open(s.T, o)
	if err != nil {
		s.Fatalf("%s: connect: %v", o.ID, err)
	}
	return d, present
}

func (s *stage) connect(id string, edit ...func(*connectOptions)) driver {
	s.Helper()
	d, _ := s.open(id, edit...)
	return d
}

// stays makes a session that outlives its connection.
func stays(o *connectOptions) { o.Clean, o.Expiry = false, 3600 }

func (s *stage) next(d driver) message {
	s.Helper()
	return await(s.T, "a message", d.messages())
}

// expect is the next message, which has this topic and payload.
func (s *stage) expect(d driver, name, payload string, qos byte) message {
	s.Helper()
	m := s.next(d)
	if m.Topic != s.topic(name) || m.Payload != payload || m.QoS != qos {
		s.Fatalf("got %+v, want topic %q, payload %q, qos %d", m, s.topic(name), payload, qos)
	}
	return m
}

// expectNothing says that nothing came before what is sent now.
func (s *stage) expectNothing(publisher, d driver) {
	s.Helper()
	if got := d.subscribe(s.topic("fence"), subscribeOptions{QoS: 1}); got != 1 {
		s.Fatalf("granted %d", got)
	}
	publisher.publish(message{Topic: s.topic("fence"), Payload: "fence", QoS: 1})
	s.expect(d, "fence", "fence", 1)
}

func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("still waiting for %s", what)
	}
	return v
}

func qosBothWays(s *stage) {
	p, d := s.connect("p"), s.connect("d")
	for qos := range byte(3) {
		if got := d.subscribe(s.topic(fmt.Sprint(qos)), subscribeOptions{QoS: qos}); got != qos {
			s.Fatalf("granted %d for %d", got, qos)
		}
		for sent := range byte(3) {
			name, text := fmt.Sprint(qos), fmt.Sprintf("%d to %d ↔", sent, qos)
			p.publish(message{Topic: s.topic(name), Payload: text, QoS: sent})
			s.expect(d, name, text, min(sent, qos))
		}
	}
	p.end()
	d.end()
}

func retainedMessages(s *stage) {
	p := s.connect("p")
	p.publish(message{Topic: s.topic("r/a"), Payload: "old", QoS: 1, Retain: true})
	p.publish(message{Topic: s.topic("r/a"), Payload: "new", QoS: 1, Retain: true})
	p.publish(message{Topic: s.topic("r/b"), Payload: "gone", QoS: 2, Retain: true})
	p.publish(message{Topic: s.topic("r/b"), QoS: 1, Retain: true})
	d := s.connect("d")
	d.subscribe(s.topic("r/#"), subscribeOptions{QoS: 1})
	if m := s.expect(d, "r/a", "new", 1); !m.Retain {
		s.Error("the retain flag is not set")
	}
	p.publish(message{Topic: s.topic("r/a"), Payload: "live", QoS: 1, Retain: true})
	if m := s.expect(d, "r/a", "live", 1); m.Retain {
		s.Error("the retain flag is set on a live message")
	}
	s.expectNothing(p, d)
	p.end()
	d.end()
}

func subscriptionOptions(s *stage) {
	p := s.connect("p")
	p.publish(message{Topic: s.topic("a"), Payload: "kept", QoS: 1, Retain: true})
	d := s.connect("d")
	d.subscribe(s.topic("a"), subscribeOptions{QoS: 1, RAP: true, RH: 1})
	s.expect(d, "a", "kept", 1)
	d.subscribe(s.topic("a"), subscribeOptions{QoS: 1, RAP: true, RH: 1}) // not again
	p.publish(message{Topic: s.topic("a"), Payload: "live", QoS: 1, Retain: true})
	if m := s.expect(d, "a", "live", 1); !m.Retain {
		s.Error("the retain flag as it was published is lost")
	}
	never := s.connect("never")
	never.subscribe(s.topic("a"), subscribeOptions{QoS: 1, RH: 2})
	s.expectNothing(p, never)
	p.subscribe(s.topic("own"), subscribeOptions{QoS: 1, NoLocal: true})
	p.publish(message{Topic: s.topic("own"), Payload: "mine", QoS: 1})
	d.publish(message{Topic: s.topic("own"), Payload: "another's", QoS: 1})
	s.expect(p, "own", "another's", 1)
	for _, x := range []driver{p, d, never} {
		x.end()
	}
}

func wills(s *stage) {
	d := s.connect("d")
	d.subscribe(s.topic("will/#"), subscribeOptions{QoS: 2})
	will := func(name string) func(*connectOptions) {
		return func(o *connectOptions) { o.Will = &message{Topic: s.topic("will/" + name), Payload: name, QoS: 2} }
	}
	s.connect("polite", will("polite")).end()
	s.connect("cut", will("cut")).cut()
	s.expect(d, "will/cut", "cut", 2)
	s.expectNothing(d, d)
	d.end()
}

func delayedWill(s *stage) {
	d := s.connect("d")
	d.subscribe(s.topic("will/#"), subscribeOptions{QoS: 1})
	edit := func(o *connectOptions) {
		stays(o)
		o.Will, o.WillDelay = &message{Topic: s.topic("will/later"), Payload: "later", QoS: 1}, 3600
	}
	s.connect("w", edit).cut()
	back, present := s.open("w", edit) // in time
	if !present {
		s.Error("no session")
	}
	back.cut()
	s.connect("w", func(o *connectOptions) { o.Clean = true }).end() // the end of the session
	s.expect(d, "will/later", "later", 1)
	s.expectNothing(d, d)
	d.end()
}

func sessionOverKill(s *stage) {
	d, present := s.open("d", stays)
	if present {
		s.Fatal("a session that cannot be")
	}
	d.subscribe(s.topic("q"), subscribeOptions{QoS: 2})
	d.end()
	p := s.connect("p")
	for i := range 30 {
		p.publish(message{Topic: s.topic("q"), Payload: fmt.Sprint(i), QoS: 1 + byte(i%2)})
	}
	s.broker.kill()
	await(s.T, "the loss of the connection", p.closed())
	s.broker.start()
	p = s.connect("p2")
	p.publish(message{Topic: s.topic("q"), Payload: "30", QoS: 2})
	d, present = s.open("d", stays)
	if !present && s.kind.version > 3 { // MQTT 3.1 has no flag to tell
		s.Error("the session is not there")
	}
	// Some clients hand out QoS 2 at the PUBREL: only each QoS has an order.
	got := map[byte][]string{}
	for range 31 {
		m := s.next(d)
		got[m.QoS] = append(got[m.QoS], m.Payload)
	}
	want := map[byte][]string{}
	for i := range 30 {
		want[1+byte(i%2)] = append(want[1+byte(i%2)], fmt.Sprint(i))
	}
	want[2] = append(want[2], "30")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("got  %v\nwant %v", got, want)
	}
	d.end()
	p.end()
}

func inflightOverKill(s *stage) {
	comeBack := func(o *connectOptions) { stays(o); o.Reconnect = true }
	d, p := s.connect("d", comeBack), s.connect("p", comeBack)
	d.subscribe(s.topic("q"), subscribeOptions{QoS: 2})
	const n, rounds = 200, 3
	var all sync.WaitGroup
	for i := range n * rounds {
		if i%n == 0 {
			// A client that loses its connection again while it takes up what
			// was in flight turns away what is published just then.
			all.Wait()
		}
		if i%n == n/2 {
			s.next(d) // so there is something under way
			s.broker.kill()
			s.broker.start()
		}
		all.Add(1)
		go func() {
			defer all.Done()
			p.publish(message{Topic: s.topic("q"), Payload: fmt.Sprint(i), QoS: 2})
		}()
	}
	all.Wait()
	seen := make(map[string]int)
	for len(seen) < n*rounds-rounds {
		m := s.next(d)
		if seen[m.Payload]++; seen[m.Payload] > 1 {
			s.Errorf("%q came twice", m.Payload)
		}
	}
	p.publish(message{Topic: s.topic("q"), Payload: "end", QoS: 2})
	if m := s.next(d); m.Payload != "end" {
		s.Errorf("%+v came once more", m)
	}
	d.end()
	p.end()
}

func takeover(s *stage) {
	first := s.connect("same", stays)
	first.subscribe(s.topic("a"), subscribeOptions{QoS: 1})
	second, present := s.open("same", stays)
	await(s.T, "the end of the first connection", first.closed())
	if !present && s.kind.version > 3 {
		s.Error("the session is not there")
	}
	second.publish(message{Topic: s.topic("a"), Payload: "x", QoS: 1})
	s.expect(second, "a", "x", 1)
	second.end()
}

func wildcards(s *stage) {
	p, d := s.connect("p"), s.connect("d")
	for _, filter := range []string{"+/x", "a/#"} {
		d.subscribe(s.topic(filter), subscribeOptions{QoS: 1})
	}
	for _, name := range []string{"b/x", "a/b/c/d", "b/y", "a", "b/x/y"} {
		p.publish(message{Topic: s.topic(name), Payload: name, QoS: 1})
	}
	for _, name := range []string{"b/x", "a/b/c/d", "a"} {
		s.expect(d, name, name, 1)
	}
	d.unsubscribe(s.topic("a/#"))
	p.publish(message{Topic: s.topic("a/b"), Payload: "no more", QoS: 1})
	s.expectNothing(p, d)
	p.end()
	d.end()
}

func properties(s *stage) {
	p, d := s.connect("p"), s.connect("d")
	d.subscribe(s.topic("#"), subscribeOptions{QoS: 2})
	want := message{Topic: s.topic("request"), Payload: "?", QoS: 2, ContentType: "text/plain", ResponseTopic: s.topic("answer"),
		Correlation: "no. 7", User: [][2]string{{"colour", "grün"}, {"size", "small"}}, Expiry: 3600}
	p.publish(want)
	got := s.next(d)
	if got.Expiry == 0 || got.Expiry > want.Expiry {
		s.Errorf("expiry %d of %d", got.Expiry, want.Expiry)
	}
	got.Expiry, got.IDs = want.Expiry, nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		s.Errorf("got  %+v\nwant %+v", got, want)
	}
	p.subscribe(got.ResponseTopic, subscribeOptions{QoS: 1})
	d.publish(message{Topic: got.ResponseTopic, Payload: "!", QoS: 1, Correlation: got.Correlation})
	if m := s.expect(p, "answer", "!", 1); m.Correlation != want.Correlation {
		s.Errorf("correlation data %q", m.Correlation)
	}
	p.end()
	d.end()
}

func subscriptionIDs(s *stage) {
	d := s.connect("d")
	d.subscribe(s.topic("a/+"), subscribeOptions{QoS: 1, SubID: 7})
	d.subscribe(s.topic("#"), subscribeOptions{QoS: 1, SubID: 268_435_455})
	for name, want := range map[string][]int{"a/b": {7, 268_435_455}, "b": {268_435_455}} {
		d.publish(message{Topic: s.topic(name), Payload: name, QoS: 1})
		m := s.expect(d, name, name, 1)
		slices.Sort(m.IDs)
		if s.kind.client == "paho.golang" && len(m.IDs) == 1 && slices.Contains(want, m.IDs[0]) {
			continue // it shows one of them only
		}
		if !slices.Equal(m.IDs, want) {
			s.Errorf("%s: identifiers %v, want %v", name, m.IDs, want)
		}
	}
	d.end()
}

func topicAliases(s *stage) {
	p, d := s.connect("p"), s.connect("d")
	d.subscribe(s.topic("#"), subscribeOptions{QoS: 1})
	p.publish(message{Topic: s.topic("long/name"), Payload: "sets it", QoS: 1, Alias: 3})
	p.publish(message{Topic: "", Payload: "uses it", QoS: 1, Alias: 3})
	p.publish(message{Topic: s.topic("other"), Payload: "sets it anew", QoS: 0, Alias: 3})
	p.publish(message{Topic: "", Payload: "uses it again", QoS: 1, Alias: 3})
	s.expect(d, "long/name", "sets it", 1)
	s.expect(d, "long/name", "uses it", 1)
	s.expect(d, "other", "sets it anew", 0)
	s.expect(d, "other", "uses it again", 1)
	p.end()
	d.end()
}

func receiveMaximum(s *stage) {
	p, d := s.connect("p"), s.connect("d", func(o *connectOptions) { o.ReceiveMaximum = 1 })
	d.subscribe(s.topic("q"), subscribeOptions{QoS: 2})
	const n = 100
	for i := range n {
		p.publish(message{Topic: s.topic("q"), Payload: fmt.Sprint(i), QoS: 1 + byte(i%2)})
	}
	for i := range n {
		s.expect(d, "q", fmt.Sprint(i), 1+byte(i%2))
	}
	p.end()
	d.end()
}

func largeMessage(s *stage) {
	p, d := s.connect("p"), s.connect("d")
	d.subscribe(s.topic("large"), subscribeOptions{QoS: 2})
	for qos := range byte(3) {
		p.publish(message{Topic: s.topic("large"), Payload: "x", Size: 8 << 20, QoS: qos})
		s.expect(d, "large", fmt.Sprint(8<<20, " xxxxxxxxxx"), qos)
	}
	p.end()
	d.end()
}

// short is the payload of a message, or of a large one its length and its
// beginning.
func short(payload []byte) string {
	if len(payload) > 1_000_000 {
		return fmt.Sprintf("%d %s", len(payload), payload[:10])
	}
	return string(payload)
}

func keepAlive(s *stage) {
	p, tap := newTap(s.T, s.broker.addr("tcp"))
	d := s.connect("d", func(o *connectOptions) {
		o.KeepAlive = 1
		o.URL = "mqtt://" + p
	})
	for range 3 {
		await(s.T, "a PINGREQ", tap)
	}
	d.subscribe(s.topic("a"), subscribeOptions{QoS: 1})
	d.publish(message{Topic: s.topic("a"), Payload: "still here", QoS: 1})
	s.expect(d, "a", "still here", 1)
	d.end()
}

// newTap passes one connection on and tells of the PINGREQs that go by.
func newTap(t *testing.T, to string) (addr string, pings <-chan struct{}) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	c := make(chan struct{}, 100)
	go func() {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = in.Close() }()
		out, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = out.Close() }()
		go func() {
			_, _ = io.Copy(in, out)
			_ = in.Close()
		}()
		b := make([]byte, 4096)
		for {
			n, err := in.Read(b)
			if err != nil {
				return
			}
			if bytes.Equal(b[:n], []byte{0xc0, 0}) {
				c <- struct{}{}
			}
			if _, err := out.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	return ln.Addr().String(), c
}

// brokerProcess is the program on a directory of the test, behind addresses
// that stay when it is killed and started again.
type brokerProcess struct {
	t      *testing.T
	config string
	socket string
	tls    *certificates
	cmd    *exec.Cmd
	log    *mqtttest.Lines
	ended  chan error
	fronts map[string]*front
}

const clientsConfig = `
[log]
format = "text"
level = "debug"
[storage]
dir = %q
segment_size = "1MiB"
max_bytes = "1GiB"
[servers.tcp]
listen = "127.0.0.1:0"
[servers.ws]
type = "ws"
listen = "127.0.0.1:0"
[servers.unix]
type = "unix"
listen = %q
[servers.tls]
type = "tls"
listen = "127.0.0.1:0"
tls = { cert = %q, key = %q, client_ca = %q, client_auth = "require" }
[servers.wss]
type = "wss"
listen = "127.0.0.1:0"
tls = { cert = %q, key = %q, client_ca = %q, client_auth = "require" }
`

func startBroker(t *testing.T) *brokerProcess {
	return startBrokerWith(t, func(string) string { return "" })
}

// startBrokerWith is startBroker with more in the configuration; a directory
// is there for its files.
func startBrokerWith(t *testing.T, more func(dir string) string) *brokerProcess {
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "cairnmq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	b := &brokerProcess{t: t, config: filepath.Join(dir, "c.toml"), socket: filepath.Join(sockets, "s"), tls: newCertificates(t), fronts: map[string]*front{}}
	c := b.tls
	writeFile(t, b.config, fmt.Sprintf(clientsConfig, filepath.Join(dir, "data"), b.socket, c.cert, c.key, c.ca, c.cert, c.key, c.ca)+more(dir))
	b.start()
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("the end of the broker's log:\n%s", b.log.Tail(32<<10))
		}
	})
	return b
}

var listening = regexp.MustCompile(`listening .*server=(\w+) .*address=(\S+)`)

func (b *brokerProcess) start() {
	b.t.Helper()
	b.cmd = exec.Command(binary, "serve", "-c", b.config)
	b.cmd.Env = environment()
	errs, err := b.cmd.StderrPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.log, b.ended = &mqtttest.Lines{}, make(chan error, 1)
	lines := bufio.NewScanner(errs)
	for found := 0; found < 5; {
		if !lines.Scan() {
			b.t.Fatalf("the broker does not start: %v\n%s", b.cmd.Wait(), b.log.Tail(4<<10))
		}
		_, _ = fmt.Fprintln(b.log, lines.Text())
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			if b.fronts[m[1]] == nil {
				b.fronts[m[1]] = newFront(b.t)
			}
			b.fronts[m[1]].to.Store(m[2])
			found++
		}
	}
	cmd, ended, log := b.cmd, b.ended, b.log
	go func() {
		for lines.Scan() {
			_, _ = fmt.Fprintln(log, lines.Text())
		}
		ended <- cmd.Wait()
	}()
}

// kill is SIGKILL, and the end of the process. Nobody is passed on any more to
// a port that may be somebody else's soon, such as another test's broker.
func (b *brokerProcess) kill() {
	for _, f := range b.fronts {
		f.to.Store("")
	}
	_ = b.cmd.Process.Kill()
	select {
	case err := <-b.ended:
		b.ended <- err
	case <-time.After(patience):
		b.t.Error("the broker survives SIGKILL")
	}
}

func (b *brokerProcess) addr(server string) string { return b.fronts[server].ln.Addr().String() }

// address says how to connect over a transport.
func (b *brokerProcess) address(transport string, o *connectOptions) {
	_, port, _ := net.SplitHostPort(b.fronts[transport].ln.Addr().String())
	switch transport {
	case "tcp":
		o.URL = "mqtt://127.0.0.1:" + port
	case "ws":
		o.URL = "ws://127.0.0.1:" + port + "/mqtt"
	case "unix":
		o.URL = "unix://" + b.socket
	case "tls":
		o.URL = "mqtts://localhost:" + port
	case "wss":
		o.URL = "wss://localhost:" + port + "/mqtt"
	}
	if transport == "tls" || transport == "wss" {
		o.CA, o.Cert, o.Key = b.tls.ca, b.tls.clientCert, b.tls.clientKey
	}
}
