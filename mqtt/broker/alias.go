package broker

import (
	"bytes"
	"hash/maphash"

	"cairnmq/mqtt/packet"
)

// outAliases are the topic aliases that the broker uses towards one client.
// They hold as long as the connection, and belong to its flusher.
//
// Each topic has one alias that it may get, by its hash. It gets it when it
// comes twice without another one of the same hash in between. So topics that
// come once cost nothing, those that come often drive out those that no longer
// do, and two that come in turns do not drive out each other.
type outAliases struct {
	max   int
	slots []aliasSlot // made when the first message leaves
}

type aliasSlot struct {
	topic []byte // what the client takes the alias for; empty: nothing yet
	next  uint32 // of the hash of the topic that would get it
}

const (
	// minAliased is the shortest topic for which an alias, three bytes, is
	// worth it; maxAliased bounds the memory.
	minAliased = 5
	maxAliased = 1024
)

var aliasSeed = maphash.MakeSeed()

// newOutAliases returns nil if there are to be none [MQTT-3.1.2-27].
func newOutAliases(n int) *outAliases {
	if n == 0 {
		return nil
	}
	return &outAliases{max: n} // so none is above the client's maximum [MQTT-3.1.2-26], [MQTT-3.3.2-11]
}

// apply puts an alias in the place of the topic, or beside it so that the
// client learns it, if the packet stays within limit.
func (a *outAliases) apply(d *packet.Delivery, limit int) {
	if len(d.Topic) < minAliased || len(d.Topic) > maxAliased {
		return
	}
	if a.slots == nil {
		a.slots = make([]aliasSlot, a.max)
	}
	h := maphash.Bytes(aliasSeed, d.Topic)
	i := uint32(h) % uint32(len(a.slots))
	x := &a.slots[i]
	switch next := uint32(h >> 32); {
	case bytes.Equal(x.topic, d.Topic):
		d.Alias, d.Topic = uint16(i+1), nil
		x.next = 0
	case x.next != next:
		x.next = next
	default:
		if d.Alias = uint16(i + 1); d.Size(packet.V5) > limit { // [MQTT-3.1.2-24]
			d.Alias = 0
			return
		}
		x.topic = append(x.topic[:0], d.Topic...)
	}
}
