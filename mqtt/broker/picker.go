package broker

import (
	"math/rand/v2"

	"cairnmq/mqtt/config"
)

// picker chooses the member of a group that gets a message. Who is full takes
// no more for now.
type picker struct {
	strategy config.Strategy
	at       int     // whose turn it is
	stuck    *member // of sticky
}

// patient reports whether a message belongs to one member, and waits for it
// rather than go to another: that is what keeps the order of a publisher or a
// topic.
func (p *picker) patient() bool {
	return p.strategy == config.HashClient || p.strategy == config.HashTopic
}

// pick returns nil if the member that the message belongs to takes no more, or
// nobody does.
func (p *picker) pick(members []*member, hash uint32) *member {
	switch p.strategy {
	case config.HashClient, config.HashTopic:
		if m := owner(members, hash); m != nil && !m.full {
			return m
		}
		return nil
	case config.LeastInflight:
		return p.idlest(members)
	case config.Random:
		p.at = rand.IntN(max(len(members), 1))
	case config.Sticky:
		if p.stuck == nil || p.stuck.full {
			p.stuck = p.next(members)
		}
		return p.stuck
	}
	return p.next(members)
}

// left is told when a member goes.
func (p *picker) left(m *member) {
	if p.stuck == m {
		p.stuck = nil
	}
}

// next is the first from p.at on that takes something; the turn goes on to
// the one behind it.
func (p *picker) next(members []*member) *member {
	for i := range members {
		at := (p.at + i) % len(members)
		if m := members[at]; !m.full {
			p.at = at + 1
			return m
		}
	}
	return nil
}

// idlest has the fewest messages in flight; among equals the turn decides.
func (p *picker) idlest(members []*member) (best *member) {
	at := 0
	for i := range members {
		j := (p.at + i) % len(members)
		if m := members[j]; !m.full && (best == nil || m.load < best.load) {
			best, at = m, j
		}
	}
	p.at = at + 1
	return best
}

// owner is the member that a hash falls to. Each member draws a number for
// each hash and the highest wins, so when somebody comes or goes only what is
// his moves.
func owner(members []*member, hash uint32) (best *member) {
	var top uint64
	for _, m := range members {
		x := mix(m.key ^ uint64(hash)*0x9E3779B97F4A7C15)
		if best == nil || x > top || x == top && m.s.id < best.s.id {
			best, top = m, x
		}
	}
	return best
}

// mix spreads every bit over all (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// hashOf is FNV-1a.
func hashOf[T ~string | ~[]byte](s T) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
