package packet

import (
	"encoding/binary"
	"fmt"
)

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type Ack struct {
	Type     Type
	PacketID uint16
	Code     ReasonCode
	Props    *Properties // nil without properties
}

// Decode reads a packet of type t. It allocates only for properties.
func (a *Ack) Decode(v Version, t Type, flags byte, body []byte) error {
	return asError(a.decode(v, t, flags, body))
}

func (a *Ack) decode(v Version, t Type, flags byte, body []byte) *Error {
	*a = Ack{Type: t}
	if t < PUBACK || t > PUBCOMP {
		return protocolError("", fmt.Sprintf("%v is not an acknowledgement of PUBLISH", t))
	}
	if e := checkFlags(v, t, flags); e != nil { // [MQTT-3.6.1-1], [MQTT311-3.6.1-1]
		return e
	}
	if len(body) < 2 {
		return errShort
	}
	a.PacketID = binary.BigEndian.Uint16(body)
	if a.PacketID == 0 { // [MQTT-2.2.1-5]: no PUBLISH has identifier 0
		return protocolError("MQTT-2.2.1-5", "packet identifier is 0")
	}
	if len(body) == 2 { // MQTT 5 leaves out a success without properties
		return nil
	}
	if v != V5 {
		return malformed("", "bytes after the end of the packet")
	}
	a.Code = ReasonCode(body[2])
	if e := checkReason(t, a.Code); e != nil { // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
		return e
	}
	if len(body) == 3 || len(body) == 4 && body[3] == 0 {
		return nil
	}
	return a.decodeProps(body[3:])
}

func (a *Ack) decodeProps(b []byte) *Error {
	r := reader{b: b}
	props := new(Properties)
	props.decode(&r, ackProps)
	if len(r.b) > 0 {
		r.fail(malformed("", "bytes after the end of the packet"))
	}
	a.Props = props
	return r.err
}

// Append appends the packet in its shortest form.
func (a *Ack) Append(dst []byte, v Version) []byte { return a.append(dst, v, a.Props) }

// AppendLimited is Append within limit bytes [MQTT-3.4.2-2], [MQTT-3.4.2-3],
// [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2],
// [MQTT-3.7.2-3]; see [Connack.AppendLimited].
func (a *Ack) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, a.Props, func(dst []byte, props *Properties) []byte {
		return a.append(dst, v, props)
	})
}

func (a *Ack) append(dst []byte, v Version, props *Properties) []byte {
	if v != V5 || props == nil || props.ReasonString == nil && len(props.User) == 0 {
		return AppendAck(dst, v, a.Type, a.PacketID, a.Code)
	}
	dst = append(dst, byte(a.Type)<<4|reservedFlags(a.Type))
	at := len(dst)
	dst = append(dst, byte(a.PacketID>>8), byte(a.PacketID), byte(a.Code))
	return insertLength(props.append(dst, ackProps), at)
}

// AppendAck appends an acknowledgement without properties in its shortest form.
// Versions before 5 have no reason code, so code is left out for them.
func AppendAck(dst []byte, v Version, t Type, id uint16, code ReasonCode) []byte {
	first := byte(t)<<4 | reservedFlags(t)
	if v != V5 || code == Success {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), byte(code))
}
