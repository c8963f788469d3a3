package wire

import "encoding/binary"

// Version is the protocol level as CONNECT carries it.
type Version byte

// The protocol levels spoken here.
const (
	V311 Version = 4
	V5   Version = 5
)

// Packet types, as in the upper half of a packet's first byte.
const (
	TypeConnect    = 1
	TypeConnack    = 2
	TypePublish    = 3
	TypePuback     = 4
	TypePubrec     = 5
	TypePubrel     = 6
	TypePubcomp    = 7
	TypeSubscribe  = 8
	TypeSuback     = 9
	TypePingreq    = 12
	TypePingresp   = 13
	TypeDisconnect = 14
)

// Properties of MQTT 5 that are sent or understood here.
const (
	propSessionExpiry  = 0x11
	propReceiveMaximum = 0x21
)

// never is the session expiry interval that means "does not expire".
const never = 0xFFFFFFFF

// AppendConnect appends a CONNECT with keep-alive off. A session that is not
// clean does not expire, in either version.
func AppendConnect(dst []byte, v Version, clientID string, clean bool) []byte {
	bodyLen := 2 + 4 + 1 + 1 + 2 + 2 + len(clientID)
	if v == V5 {
		bodyLen++
		if !clean {
			bodyLen += 5
		}
	}
	dst = append(dst, TypeConnect<<4)
	dst = appendLen(dst, bodyLen)
	dst = appendString(dst, "MQTT")
	var flags byte
	if clean {
		flags = 0x02
	}
	dst = append(dst, byte(v), flags, 0, 0)
	if v == V5 {
		if clean {
			dst = append(dst, 0)
		} else {
			dst = append(dst, 5, propSessionExpiry)
			dst = binary.BigEndian.AppendUint32(dst, never)
		}
	}
	return appendString(dst, clientID)
}

// AppendSubscribe appends a SUBSCRIBE with one filter.
func AppendSubscribe(dst []byte, v Version, id uint16, filter string, qos byte) []byte {
	bodyLen := 2 + 2 + len(filter) + 1
	if v == V5 {
		bodyLen++
	}
	dst = append(dst, TypeSubscribe<<4|0x02)
	dst = appendLen(dst, bodyLen)
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V5 {
		dst = append(dst, 0)
	}
	dst = appendString(dst, filter)
	return append(dst, qos)
}

// AppendPublishHeader appends everything of a PUBLISH that comes before its
// payload of payloadLen bytes. At QoS 1 and 2 the packet identifier is zero;
// idAt is where in dst to put it.
func AppendPublishHeader(dst []byte, v Version, topic string, qos byte, retain bool, payloadLen int) (out []byte, idAt int) {
	bodyLen := 2 + len(topic) + payloadLen
	if qos > 0 {
		bodyLen += 2
	}
	if v == V5 {
		bodyLen++
	}
	first := byte(TypePublish<<4) | qos<<1
	if retain {
		first |= 1
	}
	dst = append(dst, first)
	dst = appendLen(dst, bodyLen)
	dst = appendString(dst, topic)
	idAt = len(dst)
	if qos > 0 {
		dst = append(dst, 0, 0)
	}
	if v == V5 {
		dst = append(dst, 0)
	}
	return dst, idAt
}

// AppendAck appends PUBACK, PUBREC, PUBREL or PUBCOMP with the reason
// "success", which both versions write in the same four bytes.
func AppendAck(dst []byte, packetType byte, id uint16) []byte {
	first := packetType << 4
	if packetType == TypePubrel {
		first |= 0x02
	}
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// AppendDisconnect appends a normal DISCONNECT.
func AppendDisconnect(dst []byte) []byte {
	return append(dst, TypeDisconnect<<4, 0)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// appendLen appends a remaining length: seven bits a byte, lowest first.
func appendLen(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}
