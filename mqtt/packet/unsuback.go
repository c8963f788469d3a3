package packet

// Unsuback answers UNSUBSCRIBE, in MQTT 5 with a code for each filter, in their
// order [MQTT-3.11.3-1].
type Unsuback struct {
	PacketID uint16
	Codes    []ReasonCode
	Props    Properties
}

// Decode reads an UNSUBACK.
func (u *Unsuback) Decode(v Version, flags byte, body []byte) error {
	*u = Unsuback{}
	if e := checkFlags(v, UNSUBACK, flags); e != nil {
		return e
	}
	r := reader{b: body}
	u.PacketID = r.packetID()
	if v == V5 {
		u.Props.decode(&r, ackProps)
		u.Codes = decodeCodes(&r, UNSUBACK)
	}
	return r.end()
}

// Append appends the packet; before MQTT 5 without the codes.
func (u *Unsuback) Append(dst []byte, v Version) []byte { return u.append(dst, v, &u.Props) }

// AppendLimited is Append within limit bytes [MQTT-3.11.2-1], [MQTT-3.11.2-2]; see
// [Connack.AppendLimited].
func (u *Unsuback) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, &u.Props, func(dst []byte, props *Properties) []byte {
		return u.append(dst, v, props)
	})
}

func (u *Unsuback) append(dst []byte, v Version, props *Properties) []byte {
	dst = append(dst, byte(UNSUBACK)<<4)
	at := len(dst)
	dst = append(dst, byte(u.PacketID>>8), byte(u.PacketID))
	if v == V5 {
		dst = props.append(dst, ackProps)
		for _, c := range u.Codes {
			dst = append(dst, byte(c))
		}
	}
	return insertLength(dst, at)
}
