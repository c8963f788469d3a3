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
	TypeConnect     = 1
	TypeConnack     = 2
	TypePublish     = 3
	TypePuback      = 4
	TypePubrec      = 5
	TypePubrel      = 6
	TypePubcomp     = 7
	TypeSubscribe   = 8
	TypeSuback      = 9
	TypeUnsubscribe = 10
	TypeUnsuback    = 11
	TypePingreq     = 12
	TypePingresp    = 13
	TypeDisconnect  = 14
)

// Properties of MQTT 5 that are sent or understood here.
const (
	propMessageExpiry  = 0x02
	propContentType    = 0x03
	propResponseTopic  = 0x08
	propCorrelation    = 0x09
	propSubscriptionID = 0x0B
	propSessionExpiry  = 0x11
	propWillDelay      = 0x18
	propReceiveMaximum = 0x21
	propTopicAlias     = 0x23
	propUser           = 0x26
)

// never is the session expiry interval that means "does not expire".
const never = 0xFFFFFFFF

// Connect is what a CONNECT says.
type Connect struct {
	Version        Version
	ClientID       string
	Clean          bool
	KeepAlive      uint16 // seconds; 0 is off
	User, Password string // not sent where empty
	ReceiveMaximum uint16 // of MQTT 5; not sent where 0
	Will           *Will
}

// AppendConnect appends a CONNECT. A session that is not clean does not expire,
// in either version.
func AppendConnect(dst []byte, c Connect) []byte {
	var body []byte
	body = appendString(body, "MQTT")
	var flags byte
	if c.Clean {
		flags = 0x02
	}
	if c.User != "" {
		flags |= 0x80
	}
	if c.Password != "" {
		flags |= 0x40
	}
	if c.Will != nil {
		flags |= c.Will.flags()
	}
	body = append(body, byte(c.Version), flags)
	body = binary.BigEndian.AppendUint16(body, c.KeepAlive)
	if c.Version == V5 {
		var props []byte
		if !c.Clean {
			props = binary.BigEndian.AppendUint32(append(props, propSessionExpiry), never)
		}
		if c.ReceiveMaximum > 0 {
			props = binary.BigEndian.AppendUint16(append(props, propReceiveMaximum), c.ReceiveMaximum)
		}
		body = append(appendLen(body, len(props)), props...)
	}
	body = appendString(body, c.ClientID)
	if c.Will != nil {
		body = c.Will.append(body, c.Version)
	}
	if c.User != "" {
		body = appendString(body, c.User)
	}
	if c.Password != "" {
		body = appendString(body, c.Password)
	}
	dst = append(dst, TypeConnect<<4)
	dst = appendLen(dst, len(body))
	return append(dst, body...)
}

// AppendSubscribe appends a SUBSCRIBE with the filters, all of one QoS.
func AppendSubscribe(dst []byte, v Version, id uint16, qos byte, filters ...string) []byte {
	bodyLen := 2
	if v == V5 {
		bodyLen++
	}
	for _, filter := range filters {
		bodyLen += 2 + len(filter) + 1
	}
	dst = append(dst, TypeSubscribe<<4|0x02)
	dst = appendLen(dst, bodyLen)
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V5 {
		dst = append(dst, 0)
	}
	for _, filter := range filters {
		dst = append(appendString(dst, filter), qos)
	}
	return dst
}

// AppendPublishHeader appends everything of a PUBLISH that comes before its
// payload of payloadLen bytes. At QoS 1 and 2 the packet identifier is zero;
// idAt is where in dst to put it. The properties are a block without its length;
// version 3.1.1 has none.
func AppendPublishHeader(dst []byte, v Version, topic string, qos byte, retain bool, properties []byte, payloadLen int) (out []byte, idAt int) {
	bodyLen := 2 + len(topic) + payloadLen
	if qos > 0 {
		bodyLen += 2
	}
	if v == V5 {
		bodyLen += lenOfLen(len(properties)) + len(properties)
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
		dst = appendLen(dst, len(properties))
		dst = append(dst, properties...)
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

// lenOfLen returns how many bytes appendLen appends.
func lenOfLen(n int) int {
	bytes := 1
	for ; n >= 0x80; n >>= 7 {
		bytes++
	}
	return bytes
}
