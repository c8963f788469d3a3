package packet

import "fmt"

// Type is the type of a control packet, the high four bits of its first byte.
type Type byte

const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

var typeNames = [16]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string {
	if t <= AUTH {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", byte(t))
}

// MaxPacketSize is the size of the largest packet that the remaining length can
// express: one byte, four bytes of length, and the rest.
const MaxPacketSize = 1 + 4 + maxVarint

// Frame is one whole packet, not yet decoded. Body aliases the bytes it was found
// in.
//
//	+----------------+------------------+----------------------------------+
//	| type 4 | flags | remaining length | body                             |
//	| bits   4 bits  | 1 to 4 bytes     | as many bytes as the length says |
//	+----------------+------------------+----------------------------------+
type Frame struct {
	Type  Type
	Flags byte
	Body  []byte
	Size  int
}

var errReservedType = malformed("", "packet type 0 is reserved")

// ReadFrame looks for one whole packet at the start of b.
//
// With ok the frame is there, and its Size says where the next packet begins.
// Without ok and without an error b holds only a part, and at least need bytes
// are needed before asking again makes sense; need is the packet's exact size as
// soon as that is known. A packet of more than max bytes (0: as many as the
// protocol allows) is refused on sight of its header.
func ReadFrame(b []byte, max int) (f Frame, need int, ok bool, err error) {
	if len(b) == 0 {
		return Frame{}, 1, false, nil
	}
	if b[0]>>4 == 0 {
		return Frame{}, 0, false, errReservedType
	}
	remaining, lengthLen, err := ReadVarint(b[1:])
	if err == ErrIncomplete {
		return Frame{}, len(b) + 1, false, nil
	}
	if err != nil {
		return Frame{}, 0, false, err
	}
	headerLen := 1 + lengthLen
	size := headerLen + int(remaining)
	if max > 0 && size > max { // [MQTT-3.1.2-24] for a client, [MQTT-3.2.2-15] for a server
		return Frame{}, 0, false, &Error{
			Code:   PacketTooLarge,
			Reason: fmt.Sprintf("%v of %d bytes, the limit is %d", Type(b[0]>>4), size, max),
			Cite:   "MQTT-3.2.2-15",
		}
	}
	if size > len(b) {
		return Frame{}, size, false, nil
	}
	return Frame{
		Type:  Type(b[0] >> 4),
		Flags: b[0] & 15,
		Body:  b[headerLen:size:size],
		Size:  size,
	}, size, true, nil
}

// flagCites names the requirement about the reserved flags where a packet has one
// of its own.
var flagCites = [16]string{
	PUBREL:      "MQTT-3.6.1-1",
	SUBSCRIBE:   "MQTT-3.8.1-1",
	UNSUBSCRIBE: "MQTT-3.10.1-1",
	DISCONNECT:  "MQTT-3.14.1-1",
	AUTH:        "MQTT-3.15.1-1",
}

// reservedFlags returns what the flags of every packet but PUBLISH have to be.
func reservedFlags(t Type) byte {
	switch t {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 0b0010
	}
	return 0
}

// checkFlags holds the fixed header's flags against their prescribed values.
func checkFlags(v Version, t Type, flags byte) *Error {
	want := reservedFlags(t)
	if flags == want { // [MQTT-2.1.3-1], [MQTT311-2.2.2-1], [MQTT311-2.2.2-2]
		return nil
	}
	// MQTT 3.1 sends these three with QoS 1 and repeats them with DUP set; its
	// RETAIN bit has no meaning there.
	if v == V31 && want == 0b0010 && flags&0b0110 == want {
		return nil
	}
	cite := flagCites[t&15]
	if cite == "" {
		cite = "MQTT-2.1.3-1"
	}
	return malformed(cite, fmt.Sprintf("%v with header flags %04b", t, flags))
}
