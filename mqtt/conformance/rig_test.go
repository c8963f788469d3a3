package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cairnmq/mqtt/broker"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Short names for what every test here is made of.
type (
	client = mqtttest.Client
	packs  = []packet.Packet
)

const (
	v31, v311, v5 = packet.V31, packet.V311, packet.V5

	silentTopic = "nothing/before/this/"
)

var (
	versions = []packet.Version{v31, v311, v5}
	message  = mqtttest.Message
	retained = mqtttest.Retained
	proves   = mqtttest.Proves
)

// server is the broker under test.
type server struct {
	t    testing.TB
	addr string
	// ours is nil for another broker.
	ours  *broker.Broker
	cfg   *config.Config
	log   *mqtttest.Lines
	close func() error // once
}

// start opens a broker with nothing in it.
func start(t testing.TB, edit ...func(*config.Config)) *server {
	t.Helper()
	if command := os.Getenv("MQTT_BROKER"); command != "" {
		if len(edit) > 0 {
			t.Skip("needs settings of CairnMQ")
		}
		return startOther(t, command)
	}
	cfg := config.Default()
	cfg.Storage.Dir = t.TempDir()
	cfg.Storage.SegmentSize = 2 * config.MiB
	cfg.Storage.MaxBytes = 64 * config.MiB
	cfg.Limits.MaxPacketSize = config.MiB
	cfg.Servers[0].Listen = "127.0.0.1:0"
	for _, f := range edit {
		f(cfg)
	}
	s := &server{t: t, cfg: cfg, log: &mqtttest.Lines{}}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the broker:\n%s", s.log.Tail(8<<10))
		}
	})
	s.open()
	return s
}

func (s *server) open() {
	s.t.Helper()
	b, err := broker.Open(s.cfg, logging.New(s.log, logging.Options{PerSecond: -1}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.ours, s.addr, s.close = b, b.Addr("main").String(), sync.OnceValue(b.Close)
}

// startOther starts another broker on a port that is free.
func startOther(t testing.TB, command string) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: ln.Addr().String()}
	_ = ln.Close()
	_, port, _ := net.SplitHostPort(s.addr)
	words := strings.Fields(strings.ReplaceAll(command, "{port}", port))
	var out bytes.Buffer
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", command, out.Bytes())
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(mqtttest.Patience); ; <-tick.C {
		if nc, err := net.Dial("tcp", s.addr); err == nil {
			_ = nc.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on %s:\n%s", command, s.addr, out.Bytes())
		}
	}
}

// ourChoice skips a test of what the standard leaves open, against others.
func ourChoice(t testing.TB) {
	t.Helper()
	if os.Getenv("MQTT_BROKER") != "" {
		t.Skip("the choice of CairnMQ")
	}
}

// each runs a test for each version of MQTT.
func each(t *testing.T, f func(t *testing.T, v packet.Version)) {
	for _, v := range versions {
		t.Run("MQTT "+v.String(), func(t *testing.T) { f(t, v) })
	}
}

func (s *server) dial(t testing.TB, v packet.Version) *client {
	t.Helper()
	return mqtttest.Dial(t, s.addr, v)
}

// connect begins a session.
func (s *server) connect(t testing.TB, v packet.Version, id string, options ...mqtttest.Option) *client {
	t.Helper()
	c := s.dial(t, v)
	c.Connect(id, options...)
	return c
}

// resume connects with a session that stays.
func (s *server) resume(t testing.TB, v packet.Version, id string, options ...mqtttest.Option) *client {
	t.Helper()
	c := s.dial(t, v)
	c.Connect(id, append(kept(v), options...)...)
	return c
}

// kept are the options of a session that outlives its connection.
func kept(v packet.Version) []mqtttest.Option {
	o := []mqtttest.Option{mqtttest.Resume}
	if v == v5 {
		o = append(o, mqtttest.Expiry(3600))
	}
	return o
}

// silent expects that a client gets nothing of what was sent before. A message that it sends itself now would come
// behind it.
func silent(c *client) {
	c.T.Helper()
	topic := silentTopic + c.ID
	id := c.NextID()
	c.Send(&packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: topic}}})
	c.Expect(&packet.Suback{PacketID: id, Codes: []packet.ReasonCode{0}})
	c.Send(message(topic, "nothing before this", 0))
	c.Receive(topic, "nothing before this", 0)
}

// ack is an acknowledgement, with success unless a code is given.
func ack(t packet.Type, id uint16, code ...packet.ReasonCode) *packet.Ack {
	a := &packet.Ack{Type: t, PacketID: id}
	if len(code) > 0 {
		a.Code = code[0]
	}
	return a
}

// numbered is a message with a packet identifier.
func numbered(id uint16, m *packet.Publish) *packet.Publish {
	m.PacketID = id
	return m
}

// with is a message with properties.
func with(m *packet.Publish, props packet.Properties) *packet.Publish {
	m.Props = props.AppendPublish(nil)
	return m
}

// properties are those of a message.
func properties(t testing.TB, m *packet.Publish) packet.Properties {
	t.Helper()
	p, err := m.Properties()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// text is a string with its length before it.
func text(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

// raw is a packet put together by hand.
func raw(first byte, parts ...any) []byte {
	var body []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			body = append(body, byte(p))
		case rune:
			body = append(body, byte(p))
		case string:
			body = append(body, text(p)...)
		case []byte:
			body = append(body, p...)
		default:
			panic(fmt.Sprintf("%T in a packet", p))
		}
	}
	return append(packet.AppendVarint([]byte{first}, uint32(len(body))), body...)
}

// forVersion leaves out the parts that only MQTT 5 has.
func forVersion(v packet.Version, old, new []byte) []byte {
	if v == v5 {
		return new
	}
	return old
}

// refused expects that the connection ends because of what the client sent: in MQTT 5 with a DISCONNECT of one of
// these codes, before with nothing. A broker may also close without a word [MQTT-4.13.1-1]; CairnMQ says why.
func refused(c *client, codes ...packet.ReasonCode) {
	c.T.Helper()
	if c.Version == v5 {
		if os.Getenv("MQTT_BROKER") != "" {
			gone(c)
			return
		}
		d := mqtttest.Expect[*packet.Disconnect](c)
		for _, code := range codes {
			if d.Code == code {
				c.ExpectClosed()
				return
			}
		}
		c.T.Fatalf("%s: DISCONNECT with %v, want %v", c.ID, d.Code, codes)
	}
	c.ExpectClosed()
}

// gone expects the end of the connection, whatever comes before it.
func gone(c *client) {
	c.T.Helper()
	_ = c.Conn.SetDeadline(deadline())
	if _, err := io.Copy(io.Discard, c.Conn); errors.Is(err, os.ErrDeadlineExceeded) {
		c.T.Fatalf("%s: the connection is still open", c.ID)
	}
}

func deadline() time.Time { return time.Now().Add(mqtttest.Patience) }

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// publish sends messages and goes through their handshakes. That nobody has subscribed is a success, too.
func publish(c *client, messages ...*packet.Publish) {
	c.T.Helper()
	answer := func(want packet.Type, id uint16) {
		c.T.Helper()
		if a := mqtttest.Expect[*packet.Ack](c); a.Type != want || a.PacketID != id || a.Code.IsError() {
			c.T.Fatalf("%s: got %s, want %v for %d", c.ID, mqtttest.Words(a), want, id)
		}
	}
	for _, m := range messages {
		if m.QoS > 0 && m.PacketID == 0 {
			m.PacketID = c.NextID()
		}
		c.Send(m)
		switch m.QoS {
		case 1:
			answer(packet.PUBACK, m.PacketID)
		case 2:
			answer(packet.PUBREC, m.PacketID)
			c.Send(ack(packet.PUBREL, m.PacketID))
			answer(packet.PUBCOMP, m.PacketID)
		}
	}
}

// receive takes n messages, with their handshakes going on beside each other.
func receive(c *client, n int) []*packet.Publish {
	c.T.Helper()
	var got []*packet.Publish
	for open := 0; len(got) < n || open > 0; {
		switch p := c.Next().(type) {
		case *packet.Publish:
			got = append(got, p)
			switch p.QoS {
			case 1:
				c.Send(ack(packet.PUBACK, p.PacketID))
			case 2:
				c.Send(ack(packet.PUBREC, p.PacketID))
				open++
			}
		case *packet.Ack:
			if p.Type != packet.PUBREL || p.Code != packet.Success {
				c.T.Fatalf("%s: got %s, want a message or PUBREL", c.ID, mqtttest.Words(p))
			}
			c.Send(ack(packet.PUBCOMP, p.PacketID))
			open--
		default:
			c.T.Fatalf("%s: got %s, want a message or PUBREL", c.ID, mqtttest.Words(p))
		}
	}
	return got
}
