package mqtttest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"cairnmq/mqtt/packet"
)

// Patience is how long a client waits for something that must come. It is
// not a part of any test's meaning, so it is long.
const Patience = 20 * time.Second

// Client is one connection. It belongs to one goroutine.
type Client struct {
	T       testing.TB
	Version packet.Version
	Conn    net.Conn
	ID      string // of the last Connect

	r      *bufio.Reader
	lastID uint16
}

// Dial opens a connection, which is closed at the end of the test.
func Dial(t testing.TB, addr string, v packet.Version) *Client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return Over(t, nc, v)
}

// Over speaks MQTT over a connection, which is closed at the end of the test.
func Over(t testing.TB, nc net.Conn, v packet.Version) *Client {
	t.Cleanup(func() { _ = nc.Close() })
	return &Client{T: t, Version: v, Conn: nc, r: bufio.NewReader(nc)}
}

// Option changes the CONNECT.
type Option func(*packet.Connect)

// Resume asks for the session of an earlier connection.
func Resume(p *packet.Connect) { p.CleanStart = false }

// KeepAlive sets the keep alive, in seconds.
func KeepAlive(seconds uint16) Option {
	return func(p *packet.Connect) { p.KeepAlive = seconds }
}

// Expiry sets the session expiry interval of MQTT 5, in seconds.
func Expiry(seconds uint32) Option {
	return func(p *packet.Connect) { p.Props.SessionExpiry = &seconds }
}

// ReceiveMaximum sets the client's receive maximum of MQTT 5.
func ReceiveMaximum(n uint16) Option {
	return func(p *packet.Connect) { p.Props.ReceiveMaximum = &n }
}

// MaximumPacketSize sets the client's limit of MQTT 5.
func MaximumPacketSize(n uint32) Option {
	return func(p *packet.Connect) { p.Props.MaximumPacketSize = &n }
}

// Will sets the will.
func Will(w packet.Will) Option {
	return func(p *packet.Connect) { p.Will = &w }
}

// ConnectPacket is the CONNECT that Connect sends: with clean start.
func ConnectPacket(id string, v packet.Version, options ...Option) *packet.Connect {
	p := &packet.Connect{Version: v, CleanStart: true, ClientID: id}
	for _, o := range options {
		o(p)
	}
	return p
}

// Connect sends a CONNECT and expects that it is accepted.
func (c *Client) Connect(id string, options ...Option) *packet.Connack {
	c.T.Helper()
	c.ID = id
	c.Send(ConnectPacket(id, c.Version, options...))
	ack := Expect[*packet.Connack](c)
	if ack.Code != packet.Success {
		c.T.Fatalf("%s: CONNACK with %v", id, ack.Code)
	}
	return ack
}

// Send writes packets in one piece.
func (c *Client) Send(packets ...packet.Packet) {
	c.T.Helper()
	var b []byte
	for _, p := range packets {
		b = p.Append(b, c.Version)
	}
	c.SendRaw(b)
}

// SendRaw writes bytes as they are.
func (c *Client) SendRaw(b []byte) {
	c.T.Helper()
	c.deadline()
	if _, err := c.Conn.Write(b); err != nil {
		c.T.Fatalf("%s: write: %v", c.ID, err)
	}
}

func (c *Client) deadline() { _ = c.Conn.SetDeadline(time.Now().Add(Patience)) }

// frame reads the bytes of the next packet.
func (c *Client) frame() ([]byte, error) {
	c.deadline()
	for n := 2; ; n++ {
		head, err := c.r.Peek(n)
		if err != nil {
			return nil, err
		}
		_, need, ok, err := packet.ReadFrame(head, 0)
		if err != nil {
			return nil, fmt.Errorf("%w in % x", err, head)
		}
		if !ok && need == n+1 && n < 5 && head[n-1] >= 0x80 {
			continue // the length goes on
		}
		b := make([]byte, need)
		_, err = io.ReadFull(c.r, b)
		return b, err
	}
}

// Stream is what comes next, for packets that are not to be in memory as a
// whole.
func (c *Client) Stream() io.Reader { return c.r }

// Read returns the next packet, or why there is none.
func (c *Client) Read() (packet.Packet, error) {
	p, _, err := c.next()
	return p, err
}

// Bytes returns the next packet as it came.
func (c *Client) Bytes() []byte {
	c.T.Helper()
	b, err := c.frame()
	if err != nil {
		c.T.Fatalf("%s: waiting for a packet: %v", c.ID, err)
	}
	return b
}

// Next returns the next packet.
func (c *Client) Next() packet.Packet {
	c.T.Helper()
	p, _, err := c.next()
	if err != nil {
		c.T.Fatalf("%s: waiting for a packet: %v", c.ID, err)
	}
	return p
}

// TryNext is Next for a goroutine that is not the test's: the error says that
// the connection has ended.
func (c *Client) TryNext() (packet.Packet, error) {
	p, _, err := c.next()
	return p, err
}

// TrySend is Send in the same way.
func (c *Client) TrySend(p packet.Packet) error {
	c.deadline()
	_, err := c.Conn.Write(p.Append(nil, c.Version))
	return err
}

func (c *Client) next() (packet.Packet, []byte, error) {
	b, err := c.frame()
	if err != nil {
		return nil, nil, err
	}
	f, _, _, err := packet.ReadFrame(b, 0)
	if err != nil {
		return nil, b, err
	}
	p, err := packet.Decode(c.Version, f)
	if err != nil {
		return nil, b, fmt.Errorf("%w in % x", err, b)
	}
	return p, b, nil
}

// Expect is the next packet, which must be a P.
func Expect[P packet.Packet](c *Client) P {
	c.T.Helper()
	p := c.Next()
	want, ok := p.(P)
	if !ok {
		c.T.Fatalf("%s: got %s, want a %T", c.ID, Words(p), want)
	}
	return want
}

// Expect compares the next packets with what is wanted, byte by byte.
func (c *Client) Expect(want ...packet.Packet) {
	c.T.Helper()
	for _, w := range want {
		p, b, err := c.next()
		if err != nil {
			c.T.Fatalf("%s: waiting for %s: %v", c.ID, Words(w), err)
		}
		if !bytes.Equal(b, w.Append(nil, c.Version)) {
			c.T.Fatalf("%s: got %s\nwant %s", c.ID, Words(p), Words(w))
		}
	}
}

// Words shows a packet.
func Words(p packet.Packet) string {
	if m, ok := p.(*packet.Publish); ok {
		payload := m.Payload
		if len(payload) > 64 {
			payload = append(append([]byte(nil), payload[:64]...), "..."...)
		}
		return fmt.Sprintf("PUBLISH{qos %d, dup %v, retain %v, id %d, topic %q, payload %q, expiry %v %d, ids %d, props % x}",
			m.QoS, m.Dup, m.Retain, m.PacketID, m.Topic, payload, m.HasExpiry, m.Expiry, m.SubscriptionIDs, m.Props)
	}
	return fmt.Sprintf("%T%+v", p, p)
}

// ExpectClosed expects the end of the connection and nothing before it.
func (c *Client) ExpectClosed() {
	c.T.Helper()
	p, _, err := c.next()
	switch {
	case p != nil:
		c.T.Fatalf("%s: got %s, want the end of the connection", c.ID, Words(p))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.T.Fatalf("%s: the connection is still open", c.ID)
	}
}

// ExpectDisconnect expects a DISCONNECT with this code, in MQTT 5, and the end
// of the connection.
func (c *Client) ExpectDisconnect(code packet.ReasonCode) {
	c.T.Helper()
	if c.Version == packet.V5 {
		if d := Expect[*packet.Disconnect](c); d.Code != code {
			c.T.Fatalf("%s: DISCONNECT with %v, want %v", c.ID, d.Code, code)
		}
	}
	c.ExpectClosed()
}

// Ping sends a PINGREQ and expects its answer.
func (c *Client) Ping() {
	c.T.Helper()
	c.Send(&packet.Pingreq{})
	c.Expect(&packet.Pingresp{})
}

// ExpectNothing expects that nothing is on its way. Control packets overtake
// messages, but not those of an earlier turn, hence more than one.
func (c *Client) ExpectNothing() {
	c.T.Helper()
	for range 3 {
		c.Ping()
	}
}

// NextID is a packet identifier that this client has not used.
func (c *Client) NextID() uint16 {
	c.lastID++
	return c.lastID
}

// Subscribe subscribes to filters with a QoS and expects that it is granted.
func (c *Client) Subscribe(qos byte, filters ...string) {
	c.T.Helper()
	p := &packet.Subscribe{PacketID: c.NextID()}
	codes := make([]packet.ReasonCode, len(filters))
	for i, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: f, QoS: qos})
		codes[i] = packet.ReasonCode(qos)
	}
	c.Send(p)
	c.Expect(&packet.Suback{PacketID: p.PacketID, Codes: codes})
}

// SubscribeWith sends one subscription and returns its code.
func (c *Client) SubscribeWith(id uint32, s packet.Subscription) packet.ReasonCode {
	c.T.Helper()
	p := &packet.Subscribe{PacketID: c.NextID(), Subscriptions: []packet.Subscription{s}}
	if id != 0 {
		p.Props.SubscriptionIDs = []uint32{id}
	}
	c.Send(p)
	ack := Expect[*packet.Suback](c)
	if ack.PacketID != p.PacketID || len(ack.Codes) != 1 {
		c.T.Fatalf("%s: got %s for %s", c.ID, Words(ack), Words(p))
	}
	return ack.Codes[0]
}

// Publish sends a message and goes through the handshake of its QoS.
func (c *Client) Publish(p *packet.Publish) {
	c.T.Helper()
	if p.QoS > 0 && p.PacketID == 0 {
		p.PacketID = c.NextID()
	}
	c.Send(p)
	switch p.QoS {
	case 1:
		c.Expect(&packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID})
	case 2:
		c.Expect(&packet.Ack{Type: packet.PUBREC, PacketID: p.PacketID})
		c.Send(&packet.Ack{Type: packet.PUBREL, PacketID: p.PacketID})
		c.Expect(&packet.Ack{Type: packet.PUBCOMP, PacketID: p.PacketID})
	}
}

// Message is a PUBLISH.
func Message(topic, payload string, qos byte) *packet.Publish {
	return &packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
}

// Retained is a PUBLISH with the retain flag.
func Retained(topic, payload string, qos byte) *packet.Publish {
	p := Message(topic, payload, qos)
	p.Retain = true
	return p
}

// Receive expects a message with this topic and payload, answers as its QoS
// wants, and returns it.
func (c *Client) Receive(topic, payload string, qos byte) *packet.Publish {
	c.T.Helper()
	p := Expect[*packet.Publish](c)
	if string(p.Topic) != topic || string(p.Payload) != payload || p.QoS != qos {
		c.T.Fatalf("%s: got %s\nwant topic %q, payload %q, qos %d", c.ID, Words(p), topic, payload, qos)
	}
	c.Acknowledge(p)
	return p
}

// Acknowledge goes through the receiver's part of the handshake.
func (c *Client) Acknowledge(p *packet.Publish) {
	c.T.Helper()
	switch p.QoS {
	case 1:
		c.Send(&packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID})
	case 2:
		c.Send(&packet.Ack{Type: packet.PUBREC, PacketID: p.PacketID})
		c.Expect(&packet.Ack{Type: packet.PUBREL, PacketID: p.PacketID})
		c.Send(&packet.Ack{Type: packet.PUBCOMP, PacketID: p.PacketID})
	}
}

// Disconnect ends the connection in order and waits until the broker has
// closed it.
func (c *Client) Disconnect() {
	c.T.Helper()
	c.Send(&packet.Disconnect{})
	c.ExpectClosed()
}

// Drop ends the connection without a word.
func (c *Client) Drop() { _ = c.Conn.Close() }
