//go:build linux

package load

import (
	"fmt"

	"cairnmq/bench/wire"
)

// traffic is what the publishers and subscribers of a run share: the bound on
// what is on its way, and the counts.
type traffic struct {
	fanout    uint64 // deliveries that one publish causes while running
	limit     uint64 // most deliveries outstanding
	published uint64
	acked     uint64 // of QoS 1 and 2: the whole exchange is over
	delivered uint64
	// latency is from publish to delivery, or to the last acknowledgement if
	// nobody is subscribed.
	latency Hist
	late    Hist   // how long after they were due messages were published
	faults  Faults // those that are no checker's
}

// room reports whether one more message may be published.
func (t *traffic) room() bool {
	return t.fanout == 0 || (t.published+1)*t.fanout <= t.delivered+max(t.limit, t.fanout)
}

// settled reports whether nothing is outstanding.
func (t *traffic) settled(qos byte) bool {
	return t.delivered >= t.published*t.fanout && (qos == 0 || t.acked >= t.published)
}

// publisher publishes to its topics in turn as fast as its window, the bound
// of the traffic and, if there is one, the schedule allow.
type publisher struct {
	loop    *Loop
	conn    *conn
	traffic *traffic
	index   uint16
	qos     byte
	// remaining messages to publish; 0 when it is to be silent.
	remaining uint64

	// By topic.
	headers   [][]byte
	idAt      []int
	published []uint32
	topic     int

	payload []byte   // stamp and filler; each message is a copy
	idle    []uint16 // ring of packet identifiers not in flight, oldest first
	head    int
	free    int
	refill  int     // wait for so many to be free: a few at a time cost too much
	sentAt  []int64 // by packet identifier; 0 when not in flight

	schedule *schedule
	due      []int64 // when scheduled messages became due that are not sent
}

// newPublisher returns a publisher with window packet identifiers.
func newPublisher(l *Loop, s *Scenario, t *traffic, index int, topics []string) *publisher {
	p := &publisher{
		loop:      l,
		traffic:   t,
		index:     uint16(index),
		qos:       s.QoS,
		payload:   append(make([]byte, MinPayload), newFiller(s.Size)...),
		idle:      make([]uint16, s.Window),
		free:      s.Window,
		sentAt:    make([]int64, s.Window+1),
		published: make([]uint32, len(topics)),
	}
	for i := range p.idle {
		p.idle[i] = uint16(i + 1)
	}
	props := s.properties().Block()
	for _, topic := range topics {
		header, idAt := wire.AppendPublishHeader(nil, s.Version, topic, s.QoS, s.retain, props, s.Size)
		p.headers = append(p.headers, header)
		p.idAt = append(p.idAt, idAt)
	}
	return p
}

// limitWindow, called once before anything is published, lowers the window to what an MQTT 5 broker said it can take.
func (p *publisher) limitWindow(receiveMaximum uint16) {
	p.free = min(p.free, int(receiveMaximum))
	p.refill = p.free / 4
}

func (p *publisher) fill(now int64) error {
	if p.schedule != nil {
		p.schedule.deal(now)
		for len(p.due) > 0 && p.may() {
			p.traffic.late.addN(now-p.due[0], 1)
			p.publish(p.due[0])
			p.due = p.due[:copy(p.due, p.due[1:])]
		}
		return nil
	}
	if p.qos > 0 && p.free < p.refill {
		return nil
	}
	for p.remaining > 0 && p.may() {
		p.remaining--
		p.publish(now)
	}
	return nil
}

func (p *publisher) next() int64 {
	if p.schedule != nil && p.schedule.running {
		return p.schedule.nextDue()
	}
	return 0
}

func (p *publisher) hungry() bool {
	if p.qos == 0 || p.remaining == 0 {
		return !p.conn.blocked
	}
	return p.free > 2*p.refill
}

// may reports whether one more message may be gathered now.
func (p *publisher) may() bool {
	return (p.qos == 0 || p.free > 0) && len(p.conn.out) < writeBatch && p.traffic.room()
}

func (p *publisher) publish(now int64) {
	at := len(p.conn.out)
	header := p.headers[p.topic]
	out := append(p.conn.out, header...)
	if p.qos > 0 {
		id := p.idle[p.head]
		p.head = (p.head + 1) % len(p.idle)
		p.free--
		p.sentAt[id] = max(now, 1)
		idAt := at + p.idAt[p.topic]
		out[idAt], out[idAt+1] = byte(id>>8), byte(id)
	}
	putStamp(p.payload, stamp{stream{p.index, uint16(p.topic)}, p.published[p.topic], now})
	p.conn.out = append(out, p.payload...)
	p.published[p.topic]++
	p.traffic.published++
	if p.topic++; p.topic == len(p.headers) {
		p.topic = 0
	}
	p.loop.mark(p.conn)
}

func (p *publisher) receive(c *conn, packet *wire.Packet, now int64) error {
	if packet.Code >= 0x80 {
		return fmt.Errorf("packet type %d refuses message %d with code %#x", packet.Type, packet.ID, packet.Code)
	}
	if int(packet.ID) >= len(p.sentAt) || p.sentAt[packet.ID] == 0 {
		p.traffic.faults.Damaged++ // acknowledges nothing
		return nil
	}
	switch {
	case p.qos == 1 && packet.Type == wire.TypePuback, p.qos == 2 && packet.Type == wire.TypePubcomp:
		p.traffic.acked++
		if p.traffic.fanout == 0 {
			p.traffic.latency.addN(now-p.sentAt[packet.ID], 1)
		}
		p.sentAt[packet.ID] = 0
		p.idle[(p.head+p.free)%len(p.idle)] = packet.ID
		p.free++
	case p.qos == 2 && packet.Type == wire.TypePubrec:
		c.out = wire.AppendAck(c.out, wire.TypePubrel, packet.ID)
	default:
		return fmt.Errorf("packet type %d for a publisher of QoS %d", packet.Type, p.qos)
	}
	return nil
}

// schedule makes messages due at a fixed rate over all publishers in turn,
// whether or not they can be sent. A message's time is the moment it was due,
// so what had to wait counts its waiting, even where it was this program that
// was late.
type schedule struct {
	publishers []*publisher
	interval   float64 // ns between two messages
	start      int64
	dealt      uint64
	running    bool
}

func (s *schedule) nextDue() int64 { return s.start + int64(float64(s.dealt)*s.interval) }

func (s *schedule) deal(now int64) {
	for s.running && s.nextDue() <= now {
		p := s.publishers[s.dealt%uint64(len(s.publishers))]
		p.due = append(p.due, s.nextDue())
		s.dealt++
	}
}
