package packet

// Disconnect is the last packet of a side. Before MQTT 5 only clients send it, and
// it is empty.
type Disconnect struct {
	Code  ReasonCode
	Props Properties
}

// Decode reads a DISCONNECT. It does not know who sent it: that a client must not
// name another server, or a server a session expiry [MQTT-3.14.2-2], is for the
// receiver to check.
func (d *Disconnect) Decode(v Version, flags byte, body []byte) error {
	*d = Disconnect{}
	if e := checkFlags(v, DISCONNECT, flags); e != nil { // [MQTT-3.14.1-1], [MQTT311-3.14.1-1]
		return e
	}
	r := reader{b: body}
	if v == V5 && r.more() { // nothing at all is a normal disconnection
		d.Code = ReasonCode(r.byte())
		if e := checkReason(DISCONNECT, d.Code); e != nil { // [MQTT-3.14.2-1]
			return e
		}
		if r.more() { // a code alone has no properties
			d.Props.decode(&r, disconnectProps)
		}
	}
	return r.end()
}

// Append appends the packet in its shortest form.
func (d *Disconnect) Append(dst []byte, v Version) []byte { return d.append(dst, v, &d.Props) }

// AppendLimited is Append within limit bytes [MQTT-3.14.2-3], [MQTT-3.14.2-4]; see
// [Connack.AppendLimited].
func (d *Disconnect) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, &d.Props, func(dst []byte, props *Properties) []byte {
		return d.append(dst, v, props)
	})
}

func (d *Disconnect) append(dst []byte, v Version, props *Properties) []byte {
	if v != V5 {
		return append(dst, byte(DISCONNECT)<<4, 0)
	}
	return appendCodeAndProps(dst, DISCONNECT, d.Code, props, disconnectProps)
}

// appendCodeAndProps writes DISCONNECT and AUTH of MQTT 5. A code of 0 without
// properties is left out, and so is the length of no properties where that is
// allowed.
func appendCodeAndProps(dst []byte, t Type, code ReasonCode, props *Properties, allowed propertySet) []byte {
	first := len(dst)
	dst = append(dst, byte(t)<<4)
	at := len(dst)
	dst = append(dst, byte(code))
	dst = props.append(dst, allowed)
	if noProps := len(dst) == at+2; noProps {
		if code == Success {
			return append(dst[:first], byte(t)<<4, 0)
		}
		if t == DISCONNECT {
			dst = dst[:at+1]
		}
	}
	return insertLength(dst, at)
}
