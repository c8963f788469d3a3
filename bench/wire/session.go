package wire

import "encoding/binary"

// Will is the message that the server publishes when the connection is lost.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Delay   uint32 // seconds, of MQTT 5
}

func (w *Will) flags() byte {
	flags := 0x04 | w.QoS<<3
	if w.Retain {
		flags |= 0x20
	}
	return flags
}

func (w *Will) append(dst []byte, v Version) []byte {
	if v == V5 && w.Delay > 0 {
		dst = binary.BigEndian.AppendUint32(append(dst, 5, propWillDelay), w.Delay)
	} else if v == V5 {
		dst = append(dst, 0)
	}
	dst = appendString(dst, w.Topic)
	return appendString(dst, string(w.Payload))
}

// Publish is a whole PUBLISH.
type Publish struct {
	Topic   string
	Payload []byte
	QoS     byte
	Dup     bool
	Retain  bool
	ID      uint16 // at QoS 1 and 2
	Expiry  uint32 // seconds, of MQTT 5; zero: none
}

// Append appends the packet.
func (p *Publish) Append(dst []byte, v Version) []byte {
	var props []byte
	if v == V5 {
		if props = append(props, 0); p.Expiry > 0 {
			props = binary.BigEndian.AppendUint32([]byte{5, propMessageExpiry}, p.Expiry)
		}
	}
	bodyLen := 2 + len(p.Topic) + len(props) + len(p.Payload)
	if p.QoS > 0 {
		bodyLen += 2
	}
	first := byte(TypePublish<<4) | p.QoS<<1
	if p.Dup {
		first |= 0x08
	}
	if p.Retain {
		first |= 0x01
	}
	dst = appendString(appendLen(append(dst, first), bodyLen), p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.ID)
	}
	return append(append(dst, props...), p.Payload...)
}

// AppendUnsubscribe appends an UNSUBSCRIBE with one filter.
func AppendUnsubscribe(dst []byte, v Version, id uint16, filter string) []byte {
	bodyLen := 2 + 2 + len(filter)
	if v == V5 {
		bodyLen++
	}
	dst = appendLen(append(dst, TypeUnsubscribe<<4|0x02), bodyLen)
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V5 {
		dst = append(dst, 0)
	}
	return appendString(dst, filter)
}

// AppendDisconnectWithWill appends a DISCONNECT of MQTT 5 that asks for the
// will to be published.
func AppendDisconnectWithWill(dst []byte) []byte {
	return append(dst, TypeDisconnect<<4, 1, 0x04)
}
