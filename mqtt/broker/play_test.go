package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
	"cairnmq/segment/segmenttest"
	"cairnmq/storage"
	"cairnmq/storage/storagetest"
)

// player plays a sequence of operations against a broker on a simulated disk
// and against the model. An operation is a line of words, and one that makes
// no sense where it stands does nothing, so that any part of a sequence is a
// sequence.
type player struct {
	*rig
	model   *model
	disk    *storagetest.Disk
	clients map[string]*modelClient
	n       int // messages published
	cuts    uint64
}

// modelClient is a client of the model's: it acknowledges at once, or holds its
// acknowledgements back.
type modelClient struct {
	p       *player
	id      string
	version packet.Version
	nc      net.Conn
	buf     []byte
	s       *modelSession
	hold    bool
	lastID  uint16
	// waits are the answers that must come.
	waits map[string]bool
	// open are QoS 2 messages that it has published and not released.
	open []*packet.Publish
}

var modelVersions = map[string]packet.Version{"a": packet.V5, "b": packet.V311, "c": packet.V5}

func newPlayer(t testing.TB) *player {
	disk := storagetest.New()
	r := startOn(t, disk, func(c *config.Config) {
		c.Durability.Default = config.ClassAlways
		c.Sessions.Outbox = 16
	})
	p := &player{rig: r, model: newModel(), disk: disk, clients: map[string]*modelClient{}}
	for id, v := range modelVersions {
		p.clients[id] = &modelClient{p: p, id: id, version: v}
	}
	return p
}

// play returns the first thing that is wrong.
func (p *player) play(ops []string) error {
	for i, op := range ops {
		err := p.do(strings.Fields(op))
		if err == nil {
			err = p.settle()
		}
		if err != nil {
			return fmt.Errorf("operation %d, %s: %w", i+1, op, err)
		}
	}
	return nil
}

// num is the number that a word is.
func num(s string) int { n, _ := strconv.Atoi(s); return n }

// do carries out one operation.
func (p *player) do(w []string) error {
	switch w[0] {
	case "pass":
		d := time.Duration(num(w[1])) * time.Second
		p.pass(d)
		p.model.pass(d)
		return nil
	case "restart", "kill", "power":
		return p.end(w[0])
	case "checkpoint":
		return p.Broker.log.Checkpoint()
	}
	c := p.clients[w[1]]
	if w[0] == "connect" {
		return c.connect(w[2:])
	}
	if c.nc == nil {
		return nil
	}
	switch w[0] {
	case "disconnect", "drop", "will":
		return c.leave(w[0])
	case "subscribe":
		return c.subscribe(w[2:])
	case "unsubscribe":
		return c.unsubscribe(w[2])
	case "publish", "cut":
		return c.publish(w[0] == "cut", w[2:])
	case "again", "finish":
		return c.goOn(w[0] == "again")
	case "hold":
		c.hold = true
	case "half", "ack":
		return c.acknowledge(w[0] == "half")
	default:
		return fmt.Errorf("what is %q?", w[0])
	}
	return nil
}

// connect: keep|clean [will QOS RETAIN DELAY] [limit N]
func (c *modelClient) connect(w []string) error {
	keep := w[0] == "keep"
	o := []mqtttest.Option{func(p *packet.Connect) { p.CleanStart = !keep }}
	if keep && c.version == packet.V5 {
		o = append(o, mqtttest.Expiry(uint32(sessionLife/time.Second)))
	}
	var will *note
	var delay time.Duration
	limit := c.p.cfg.Sessions.MaxInflight
	for w = w[1:]; len(w) > 0; {
		switch w[0] {
		case "limit":
			if n := num(w[1]); c.version == packet.V5 {
				limit = n
				o = append(o, mqtttest.ReceiveMaximum(uint16(n)))
			}
			w = w[2:]
		case "will":
			c.p.n++
			will = &note{topic: "t/w" + c.id, payload: fmt.Sprintf("will%d", c.p.n), qos: byte(num(w[1])), retain: w[2] == "1", publisher: c.id}
			x := packet.Will{Topic: will.topic, Payload: []byte(will.payload), QoS: will.qos, Retain: will.retain}
			if d := uint32(num(w[3])); d > 0 && c.version == packet.V5 {
				x.Props.WillDelay, delay = &d, time.Duration(d)*time.Second
			}
			o = append(o, mqtttest.Will(x))
			w = w[4:]
		}
	}
	nc, err := net.Dial("tcp", c.p.Addr("main").String())
	if err != nil {
		return err
	}
	old := c.nc
	if err := send(nc, c.version, mqtttest.ConnectPacket(c.id, c.version, o...)); err != nil {
		return err
	}
	present := c.p.model.connect(c.id, c.version, keep, will, delay, limit)
	if old != nil {
		_ = old.Close()
	}
	c.nc, c.buf, c.hold, c.waits = nc, nil, false, map[string]bool{}
	c.s = c.p.model.sessions[c.id]
	if !present {
		c.open = nil
	}
	got, err := c.next()
	if err != nil {
		return err
	}
	if ack, ok := got.(*packet.Connack); !ok || ack.Code != packet.Success || ack.SessionPresent != present { // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
		return fmt.Errorf("got %s, session present is %v", mqtttest.Words(got), present)
	}
	return nil
}

// leave ends the connection, and waits until the broker knows.
func (c *modelClient) leave(how string) error {
	m := c.p.model
	switch {
	case how == "disconnect":
		if err := send(c.nc, c.version, &packet.Disconnect{}); err != nil {
			return err
		}
		c.gone()
		m.disconnected(c.s)
		return nil
	case how == "will" && c.version == packet.V5:
		if err := send(c.nc, c.version, &packet.Disconnect{Code: packet.DisconnectWithWill}); err != nil {
			return err
		}
	}
	c.gone()
	m.lost(c.s, true)
	return nil
}

func (c *modelClient) gone() {
	_ = c.nc.Close()
	c.nc = nil
	c.p.away(c.id)
}

// subscribe: FILTER QOS NOLOCAL RAP HANDLING ID
func (c *modelClient) subscribe(w []string) error {
	sub := modelSub{Subscription: packet.Subscription{Filter: w[0], QoS: byte(num(w[1]))}}
	p := &packet.Subscribe{PacketID: c.nextID()}
	if c.version == packet.V5 {
		sub.NoLocal, sub.RetainAsPublished, sub.RetainHandling = w[2] == "1", w[3] == "1", byte(num(w[4]))
		if sub.id = uint32(num(w[5])); sub.id > 0 {
			p.Props.SubscriptionIDs = []uint32{sub.id}
		}
	}
	p.Subscriptions = []packet.Subscription{sub.Subscription}
	c.p.model.subscribe(c.s, sub)
	return c.ask(p, &packet.Suback{PacketID: p.PacketID, Codes: []packet.ReasonCode{packet.ReasonCode(sub.QoS)}})
}

func (c *modelClient) unsubscribe(filter string) error {
	p := &packet.Unsubscribe{PacketID: c.nextID(), Filters: []string{filter}}
	code := packet.Success
	if !c.p.model.unsubscribe(c.s, filter) {
		code = packet.NoSubscriptionExisted
	}
	return c.ask(p, &packet.Unsuback{PacketID: p.PacketID, Codes: []packet.ReasonCode{code}})
}

// nextID is one of a few, so that identifiers are used again.
func (c *modelClient) nextID() uint16 {
	for {
		c.lastID = c.lastID%8 + 1
		if !slices.ContainsFunc(c.open, func(p *packet.Publish) bool { return p.PacketID == c.lastID }) {
			return c.lastID
		}
	}
}

// ask sends a packet whose answer must come.
func (c *modelClient) ask(p, answer packet.Packet) error {
	c.waits[string(answer.Append(nil, c.version))] = true
	return send(c.nc, c.version, p)
}

// publish: TOPIC QOS RETAIN EMPTY EXPIRY. With cut the connection ends right
// behind the packet, or in the middle of it.
func (c *modelClient) publish(cut bool, w []string) error {
	c.p.n++
	n := &note{topic: w[0], payload: fmt.Sprintf("m%d", c.p.n), qos: byte(num(w[1])), retain: w[2] == "1", publisher: c.id}
	if w[3] == "1" && n.retain {
		n.payload = ""
	}
	p := &packet.Publish{Topic: []byte(n.topic), Payload: []byte(n.payload), QoS: n.qos, Retain: n.retain}
	if x := num(w[4]); x > 0 && c.version == packet.V5 {
		n.expires = c.p.model.now + time.Duration(x)*time.Second
		p.Props = binary.BigEndian.AppendUint32([]byte{0x02}, uint32(x))
	}
	if p.QoS > 0 {
		p.PacketID = c.nextID()
	}
	if cut {
		return c.publishAndGo(p, n)
	}
	c.p.model.publish(n)
	return c.sendPublish(p)
}

func (c *modelClient) sendPublish(p *packet.Publish) error {
	answer := &packet.Ack{Type: packet.PUBACK, PacketID: p.PacketID}
	switch p.QoS {
	case 0:
		return send(c.nc, c.version, p)
	case 2:
		answer.Type = packet.PUBREC
		if c.s.inbound[p.PacketID] = true; !p.Dup {
			c.open = append(c.open, p)
		}
	}
	return c.ask(p, answer)
}

// publishAndGo: whether the broker has taken the message, its log says. What
// follows from that is the model's.
func (c *modelClient) publishAndGo(p *packet.Publish, n *note) error {
	head := c.p.Broker.log.Head()
	b := p.Append(nil, c.version)
	if c.p.n%3 == 0 {
		b = b[:len(b)/2]
	}
	if _, err := c.nc.Write(b); err != nil {
		return err
	}
	c.gone()
	if c.p.taken(head, p) {
		if p.QoS == 2 {
			c.s.inbound[p.PacketID] = true
		}
		c.p.model.publish(n)
	}
	if p.QoS == 2 {
		c.open = append(c.open, p)
	}
	c.p.model.lost(c.s, true)
	return nil
}

// taken looks for a message behind a position.
func (p *player) taken(from storage.Pos, want *packet.Publish) bool {
	r := p.Broker.log.NewReader()
	defer r.Release()
	for {
		rec, next, err := r.Next(from)
		if err != nil {
			return false
		}
		if m, err := storage.DecodeMessage(&rec); rec.Kind == storage.KindMessage && err == nil && bytes.Equal(m.Payload, want.Payload) && bytes.Equal(m.Topic, want.Topic) {
			return true
		}
		from = next
	}
}

// goOn sends the QoS 2 messages that are not released again, or releases them.
func (c *modelClient) goOn(again bool) error {
	for _, p := range c.open {
		if again {
			if !c.s.inbound[p.PacketID] { // the broker has not had it
				n := &note{topic: string(p.Topic), payload: string(p.Payload), qos: 2, retain: p.Retain, publisher: c.id}
				if len(p.Props) > 0 {
					n.expires = c.p.model.now + time.Duration(binary.BigEndian.Uint32(p.Props[1:]))*time.Second
				}
				c.p.model.publish(n)
			}
			p.Dup = true
			if err := c.sendPublish(p); err != nil {
				return err
			}
			continue
		}
		answer := &packet.Ack{Type: packet.PUBCOMP, PacketID: p.PacketID}
		if !c.s.inbound[p.PacketID] {
			answer.Code = packet.PacketIdentifierNotFound
		}
		delete(c.s.inbound, p.PacketID)
		if err := c.ask(&packet.Ack{Type: packet.PUBREL, PacketID: p.PacketID}, answer); err != nil {
			return err
		}
	}
	if !again {
		c.open = nil
	}
	return nil
}

// acknowledge sends what hold has held back: all, or only PUBRECs, so that
// messages stay between PUBREC and PUBCOMP.
func (c *modelClient) acknowledge(half bool) error {
	if !half {
		c.hold = false
	}
	for _, f := range slices.Clone(c.s.flights) {
		if half && (f.qos == 1 || f.received) {
			continue
		}
		if err := c.answer(f); err != nil {
			return err
		}
	}
	return nil
}

// answer is the receiver's next step for a message.
func (c *modelClient) answer(f *flight) error {
	typ := packet.PUBACK
	switch {
	case f.acked || f.again || f.received && !f.released:
		return nil // there is no next step yet
	case f.released:
		typ = packet.PUBCOMP
		f.acked = true
	case f.qos == 2:
		typ = packet.PUBREC
		f.received = true
	default:
		f.acked = true
	}
	return send(c.nc, c.version, &packet.Ack{Type: typ, PacketID: f.id})
}

// answerUnlessHeld answers a PUBLISH or a PUBREL.
func (c *modelClient) answerUnlessHeld(id uint16) error {
	i := slices.IndexFunc(c.s.flights, func(f *flight) bool { return f.id == id })
	switch {
	case i < 0: // completed before a crash
		return send(c.nc, c.version, &packet.Ack{Type: packet.PUBCOMP, PacketID: id})
	case c.hold:
		return nil
	}
	return c.answer(c.s.flights[i])
}

// take judges a packet and answers it. done: it was the PINGRESP.
func (c *modelClient) take(got packet.Packet) (done bool, err error) {
	m := c.p.model
	switch x := got.(type) {
	case *packet.Pingresp:
		return true, nil
	case *packet.Publish:
		if _, err := m.delivered(c.s, x); err != nil {
			return false, fmt.Errorf("%s gets %s: %w", c.id, mqtttest.Words(x), err)
		}
		if x.QoS > 0 {
			return false, c.answerUnlessHeld(x.PacketID)
		}
		return false, nil
	case *packet.Ack:
		if x.Type == packet.PUBREL {
			if err := m.released(c.s, x.PacketID); err != nil {
				return false, fmt.Errorf("%s: %w", c.id, err)
			}
			return false, c.answerUnlessHeld(x.PacketID)
		}
	}
	key := string(got.Append(nil, c.version))
	if !c.waits[key] {
		return false, fmt.Errorf("%s gets %s, which is nobody's answer", c.id, mqtttest.Words(got))
	}
	delete(c.waits, key)
	return false, nil
}

// settle lets everything come, and compares with the model.
func (p *player) settle() error {
	// A quiet round means that the broker has read everything and that nobody
	// has answered anything since. When it is at rest after that, the next
	// round gets all that there is.
	for quiet, deadline := false, time.Now().Add(mqtttest.Patience); ; {
		idle := quiet && p.idle()
		quiet = true
		for _, c := range p.clients {
			if c.nc == nil {
				continue
			}
			n, err := c.drain()
			if err != nil {
				return err
			}
			quiet = quiet && n == 0
		}
		if idle && quiet {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("the broker does not come to rest")
		}
	}
	for _, c := range p.clients {
		if c.nc == nil {
			continue
		}
		for key := range c.waits {
			return fmt.Errorf("%s has no answer % x", c.id, key)
		}
		if err := p.model.missing(c.s); err != nil {
			return err
		}
	}
	return nil
}

// drain takes what is there: all that comes before the answer to a PINGREQ.
func (c *modelClient) drain() (n int, err error) {
	if err := send(c.nc, c.version, &packet.Pingreq{}); err != nil {
		return 0, fmt.Errorf("%s: %w", c.id, err)
	}
	for ; ; n++ {
		got, err := c.next()
		if err != nil {
			return n, fmt.Errorf("%s: the connection has ended: %w", c.id, err)
		}
		if done, err := c.take(got); err != nil || done {
			return n, err
		}
	}
}

// idle: the broker has routed everything and no session has anything to send.
func (p *player) idle() bool {
	if p.Broker.log.Routed() < p.Broker.log.Head() {
		return false
	}
	for _, s := range p.Broker.clients.all() {
		s.mu.Lock()
		busy := s.flushing || s.hasWorkLocked()
		s.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}

// end ends the broker and begins another one with what is left.
func (p *player) end(how string) error {
	if how == "restart" {
		p.close()
		p.model.lostAll()
		for _, c := range p.clients {
			if c.nc != nil {
				if err := c.rest(); err != nil {
					return err
				}
			}
		}
	} else {
		p.cuts++
		// The next start takes the time of the last record for that of the
		// end, so there is one.
		if err := p.appendEvents(storage.EventReleased(nil, "nobody", nil)); err != nil {
			return err
		}
		disk := p.disk.Copy()
		if how == "power" {
			disk = p.disk.Cut(segmenttest.Mixed, p.cuts)
		}
		p.crashed()
		p.close()
		p.disk = disk
	}
	p.machine = func(o *storage.Options) { o.FS, o.IndexFS = p.disk.Log, p.disk.IndexFS() }
	p.open()
	p.checkDue(p.now())
	return nil
}

// crashed: what the clients have acknowledged at QoS 1 may come again, because
// the broker writes that down in groups.
func (p *player) crashed() {
	for _, c := range p.clients {
		if c.nc != nil {
			_ = c.nc.Close()
			c.nc = nil
		}
	}
	for _, s := range p.model.sessions {
		var again []*awaited
		for _, f := range s.flights {
			switch {
			case !s.connected || !f.acked:
			case f.qos == 2:
				s.mayRelease[f.id] = true
			default:
				again = append(again, &awaited{note: &note{topic: f.topic, payload: f.payload, qos: f.qos}, qos: f.qos, optional: true, sent: true, loose: true, repeat: true})
			}
		}
		s.queue = append(again, s.queue...)
	}
	p.model.crash()
}

// rest takes what the broker had sent before it ended in order.
func (c *modelClient) rest() error {
	c.hold = true
	for {
		got, err := c.next()
		if err != nil {
			c.nc = nil
			return nil
		}
		if p, ok := got.(*packet.Publish); ok {
			if _, err := c.p.model.delivered(c.s, p); err != nil {
				return fmt.Errorf("%s gets %s: %w", c.id, mqtttest.Words(p), err)
			}
			if n := len(c.s.flights); p.QoS > 0 {
				c.s.flights[n-1].again = true
			}
		}
	}
}

func send(nc net.Conn, v packet.Version, p packet.Packet) error {
	_ = nc.SetDeadline(time.Now().Add(mqtttest.Patience))
	_, err := nc.Write(p.Append(nil, v))
	return err
}

// next reads a packet.
func (c *modelClient) next() (packet.Packet, error) {
	for {
		f, _, ok, err := packet.ReadFrame(c.buf, 0)
		if err != nil {
			return nil, err
		}
		if ok {
			f.Body = bytes.Clone(f.Body)
			c.buf = c.buf[f.Size:]
			return packet.Decode(c.version, f)
		}
		b := make([]byte, 4096)
		_ = c.nc.SetReadDeadline(time.Now().Add(mqtttest.Patience))
		n, err := c.nc.Read(b)
		c.buf = append(c.buf, b[:n]...)
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return nil, err
		}
	}
}
