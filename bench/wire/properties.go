package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// PublishProperties are the properties of MQTT 5 that a message carries, one
// of most kinds, and which a broker must hand on as they are.
type PublishProperties struct {
	block []byte
	each  [][]byte // the properties in the block, one by one
}

// NewPublishProperties returns a message expiry of an hour, content type,
// response topic, correlation data and two user properties.
func NewPublishProperties() *PublishProperties {
	p := &PublishProperties{}
	add := func(property ...byte) {
		p.each = append(p.each, property)
		p.block = append(p.block, property...)
	}
	add(binary.BigEndian.AppendUint32([]byte{propMessageExpiry}, 3600)...)
	add(appendString([]byte{propContentType}, "application/octet-stream")...)
	add(appendString([]byte{propResponseTopic}, "bench/reply")...)
	add(appendString([]byte{propCorrelation}, "\x00\x01\x02\x03\xfc\xfd\xfe\xff")...)
	add(appendString(appendString([]byte{propUser}, "site"), "north")...)
	add(appendString(appendString([]byte{propUser}, "unit"), "pump-7")...)
	return p
}

// Block returns the properties as AppendPublishHeader wants them. A nil
// receiver has none.
func (p *PublishProperties) Block() []byte {
	if p == nil {
		return nil
	}
	return p.block
}

// Arrived reports whether a received block says the same: the expiry may have
// become less [MQTT-3.3.2-6], user properties must keep their order
// [MQTT-3.3.2-18], and a topic alias or a subscription identifier may come on
// top.
func (p *PublishProperties) Arrived(block []byte) bool {
	if bytes.Equal(block, p.Block()) {
		return true
	}
	var want [][]byte
	if p != nil {
		want = slices.Clone(p.each)
	}
	for len(block) > 0 {
		n := propertyLen(block)
		if n == 0 || n > len(block) {
			return false
		}
		property := block[:n]
		block = block[n:]
		if property[0] == propTopicAlias || property[0] == propSubscriptionID {
			continue
		}
		// The first one of its kind that is still wanted.
		i := slices.IndexFunc(want, func(w []byte) bool { return w[0] == property[0] })
		if i < 0 || !sameProperty(property, want[i]) {
			return false
		}
		want = slices.Delete(want, i, i+1)
	}
	return len(want) == 0
}

func sameProperty(got, want []byte) bool {
	if got[0] == propMessageExpiry {
		return binary.BigEndian.Uint32(got[1:]) <= binary.BigEndian.Uint32(want[1:])
	}
	return bytes.Equal(got, want)
}
