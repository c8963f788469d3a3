//go:build linux

package load

import (
	"fmt"
	"slices"

	"cairnmq/bench/wire"
)

// cleanUp ends the sessions that were left behind and clears the retained
// messages, so that a broker in use is as it was before.
func (r *runner) cleanUp() error {
	r.loop.stop = nil // an interrupted run cleans up, too
	r.loop.sources = nil
	r.loop.Pause = 0
	for _, c := range r.loop.conns {
		if c != nil {
			r.loop.drop(c) // the same client must not be there twice
		}
	}
	for sessions := range slices.Chunk(r.sessions, sessionGroup) {
		clients := make([]client, len(sessions))
		for i, id := range sessions {
			clients[i] = client{id: id, clean: true}
		}
		conns, err := r.loop.connect(r.target, r.Version, clients)
		if err == nil {
			err = r.loop.disconnect(conns)
		}
		if err != nil {
			return fmt.Errorf("end sessions: %w", err)
		}
	}
	if !r.retain || len(r.publishers) == 0 {
		return nil
	}
	s := &sweeper{}
	conns, err := r.loop.connect(r.target, r.Version, []client{{id: r.Prefix + "-sweep", clean: true, role: s}})
	if err != nil {
		return fmt.Errorf("clear retained messages: %w", err)
	}
	for topics := range slices.Chunk(slices.Concat(r.topics...), sweepBatch) {
		s.missing = len(topics)
		for i, topic := range topics {
			b, idAt := wire.AppendPublishHeader(conns[0].out, r.Version, topic, 1, true, nil, 0)
			b[idAt+1] = byte(i + 1)
			conns[0].out = b
		}
		r.loop.mark(conns[0])
		if err := r.loop.run(handshakeLimit, "clear retained messages", func() bool { return s.missing == 0 }); err != nil {
			return err
		}
	}
	return nil
}

// sweepBatch is how many empty messages are in flight.
const sweepBatch = 10

// sweeper counts the acknowledgements of empty messages.
type sweeper struct{ missing int }

func (s *sweeper) receive(_ *conn, p *wire.Packet, _ int64) error {
	if p.Type != wire.TypePuback || p.Code >= 0x80 {
		return fmt.Errorf("packet type %d with code %#x for an empty retained message", p.Type, p.Code)
	}
	s.missing--
	return nil
}
