package packet

import "fmt"

// Suback answers SUBSCRIBE with a code for each filter, in their order
// [MQTT-3.9.3-1], [MQTT311-3.9.3-1].
type Suback struct {
	PacketID uint16
	Codes    []ReasonCode
	Props    Properties
}

// Decode reads a SUBACK.
func (s *Suback) Decode(v Version, flags byte, body []byte) error {
	*s = Suback{}
	if e := checkFlags(v, SUBACK, flags); e != nil {
		return e
	}
	r := reader{b: body}
	s.PacketID = r.packetID()
	if v == V5 {
		s.Props.decode(&r, ackProps)
	}
	s.Codes = decodeCodes(&r, SUBACK)
	if v != V5 && r.err == nil {
		for _, c := range s.Codes {
			if c > GrantedQoS2 && c != UnspecifiedError { // [MQTT311-3.9.3-2]
				r.fail(protocolError("MQTT311-3.9.3-2", fmt.Sprintf("SUBACK with return code 0x%02X", byte(c))))
			}
		}
	}
	return r.end()
}

// decodeCodes reads reason codes up to the end of the packet, at least one.
func decodeCodes(r *reader, t Type) []ReasonCode {
	if r.err != nil {
		return nil
	}
	if !r.more() { // [MQTT-3.8.4-6], [MQTT-3.11.3-2]
		r.fail(protocolError(reasonRules[t].cite, t.String()+" without a reason code"))
		return nil
	}
	raw := r.take(len(r.b))
	codes := make([]ReasonCode, len(raw))
	for i, c := range raw {
		codes[i] = ReasonCode(c)
		if e := checkReason(t, codes[i]); e != nil { // [MQTT-3.9.3-2], [MQTT-3.11.3-2]
			r.fail(e)
			return nil
		}
	}
	return codes
}

// Append appends the packet. Before MQTT 5 all failures are 0x80.
func (s *Suback) Append(dst []byte, v Version) []byte { return s.append(dst, v, &s.Props) }

// AppendLimited is Append within limit bytes [MQTT-3.9.2-1], [MQTT-3.9.2-2]; see
// [Connack.AppendLimited].
func (s *Suback) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, &s.Props, func(dst []byte, props *Properties) []byte {
		return s.append(dst, v, props)
	})
}

func (s *Suback) append(dst []byte, v Version, props *Properties) []byte {
	dst = append(dst, byte(SUBACK)<<4)
	at := len(dst)
	dst = append(dst, byte(s.PacketID>>8), byte(s.PacketID))
	if v == V5 {
		dst = props.append(dst, ackProps)
	}
	for _, c := range s.Codes {
		if v != V5 && c.IsError() { // [MQTT311-3.9.3-2]
			c = UnspecifiedError
		}
		dst = append(dst, byte(c))
	}
	return insertLength(dst, at)
}
