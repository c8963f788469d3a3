//go:build linux

package load

import (
	"fmt"

	"cairnmq/bench/wire"
)

// subscriber acknowledges what it receives and checks it.
type subscriber struct {
	traffic  *traffic
	check    *Checker
	qos      byte
	retained bool       // whether messages come from the retained store
	topics   [][]string // by publisher and topic
	filler   []byte
	props    *wire.PublishProperties
	received uint64
}

func newSubscriber(s *Scenario, t *traffic, topics [][]string) *subscriber {
	return &subscriber{
		traffic: t,
		check:   NewChecker(len(topics), len(topics[0])),
		qos:     s.QoS,
		topics:  topics,
		filler:  newFiller(s.Size),
		props:   s.properties(),
	}
}

func (s *subscriber) receive(c *conn, p *wire.Packet, now int64) error {
	switch p.Type {
	case wire.TypePublish:
		s.deliver(p, now)
		switch p.QoS {
		case 1:
			c.out = wire.AppendAck(c.out, wire.TypePuback, p.ID)
		case 2:
			c.out = wire.AppendAck(c.out, wire.TypePubrec, p.ID)
		}
	case wire.TypePubrel:
		c.out = wire.AppendAck(c.out, wire.TypePubcomp, p.ID)
	default:
		return fmt.Errorf("packet type %d for a subscriber", p.Type)
	}
	return nil
}

func (s *subscriber) deliver(p *wire.Packet, now int64) {
	s.traffic.delivered++
	s.received++
	if p.QoS != s.qos || p.Retain != s.retained || !intact(p.Payload, s.filler) || !s.props.Arrived(p.Properties) {
		s.check.faults.Damaged++
		return
	}
	m := readStamp(p.Payload)
	if !s.check.Saw(m.stream, m.seq) {
		return
	}
	if string(p.Topic) != s.topics[m.publisher][m.topic] {
		s.check.faults.Damaged++
	}
	s.traffic.latency.addN(now-m.sent, 1)
}
