package packet

// Auth is one step of an extended authentication; MQTT 5 only.
type Auth struct {
	Code  ReasonCode
	Props Properties
}

// Decode reads an AUTH. One without any body stands for success without
// properties, as the standard says, although it also asks for an authentication
// method in every AUTH: who compares the method with the CONNECT's will miss it.
func (a *Auth) Decode(v Version, flags byte, body []byte) error {
	*a = Auth{}
	if v != V5 {
		return protocolError("", "AUTH before MQTT 5")
	}
	if e := checkFlags(v, AUTH, flags); e != nil { // [MQTT-3.15.1-1]
		return e
	}
	r := reader{b: body}
	if !r.more() {
		return nil
	}
	a.Code = ReasonCode(r.byte())
	if e := checkReason(AUTH, a.Code); e != nil { // [MQTT-3.15.2-1]
		return e
	}
	a.Props.decode(&r, authProps)
	if r.err == nil && a.Props.AuthMethod == nil { // [MQTT-4.12.0-5]
		r.fail(protocolError("MQTT-4.12.0-5", "AUTH without authentication method"))
	}
	return r.end()
}

// Append appends the packet. Before MQTT 5 there is none, and it appends nothing.
func (a *Auth) Append(dst []byte, v Version) []byte { return a.append(dst, v, &a.Props) }

// AppendLimited is Append within limit bytes [MQTT-3.15.2-2], [MQTT-3.15.2-3]; see
// [Connack.AppendLimited].
func (a *Auth) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, &a.Props, func(dst []byte, props *Properties) []byte {
		return a.append(dst, v, props)
	})
}

func (a *Auth) append(dst []byte, v Version, props *Properties) []byte {
	if v != V5 {
		return dst
	}
	return appendCodeAndProps(dst, AUTH, a.Code, props, authProps)
}
