package packet

import "fmt"

// Connack is the server's answer to CONNECT. Code is a code of MQTT 5 in all
// versions.
type Connack struct {
	SessionPresent bool
	Code           ReasonCode
	Props          Properties
}

// connectReturns are the return codes before MQTT 5, by their meaning in MQTT 5.
var connectReturns = [6]ReasonCode{
	Success, UnsupportedProtocolVersion, ClientIdentifierNotValid, ServerUnavailable, BadUserNameOrPassword, NotAuthorized,
}

// ConnectReturn translates c to a return code of MQTT 3.1 and 3.1.1. If none
// fits, the connection has to be closed without CONNACK [MQTT311-3.2.2-6].
func (c ReasonCode) ConnectReturn() (code byte, ok bool) {
	switch c {
	case Success:
		return 0, true
	case UnsupportedProtocolVersion:
		return 1, true
	case ClientIdentifierNotValid:
		return 2, true
	case ServerUnavailable, ServerBusy, QuotaExceeded, UseAnotherServer, ServerMoved, ConnectionRateExceeded:
		return 3, true
	case BadUserNameOrPassword:
		return 4, true
	case NotAuthorized, Banned, BadAuthenticationMethod:
		return 5, true
	}
	return 0, false
}

// Decode reads a CONNACK.
func (c *Connack) Decode(v Version, flags byte, body []byte) error {
	*c = Connack{}
	if e := checkFlags(v, CONNACK, flags); e != nil {
		return e
	}
	r := reader{b: body}
	ackFlags := r.byte()
	code := r.byte()
	if v == V31 { // 3.1 has no session present; the byte is not used
		ackFlags = 0
	}
	if r.err == nil && ackFlags > 1 { // [MQTT-3.2.2-1]
		r.fail(malformed("MQTT-3.2.2-1", "reserved connect acknowledge flags are set"))
	}
	c.SessionPresent = ackFlags == 1
	if v == V5 {
		c.Code = ReasonCode(code)
		if e := checkReason(CONNACK, c.Code); r.err == nil && e != nil { // [MQTT-3.2.2-8]
			r.fail(e)
		}
		c.Props.decode(&r, connackProps)
	} else if int(code) < len(connectReturns) {
		c.Code = connectReturns[code]
	} else {
		r.fail(protocolError("", fmt.Sprintf("CONNACK with return code %d", code)))
	}
	if r.err == nil && c.Code != Success && c.SessionPresent { // [MQTT-3.2.2-6], [MQTT311-3.2.2-4]
		r.fail(protocolError("MQTT-3.2.2-6", "refusing CONNACK with session present"))
	}
	return r.end()
}

// Append appends the packet. Before MQTT 5 there are codes that cannot be said
// ([ReasonCode.ConnectReturn]); then it appends nothing.
func (c *Connack) Append(dst []byte, v Version) []byte { return c.append(dst, v, &c.Props) }

// AppendLimited is Append within limit bytes, 0 meaning any number. It leaves out
// the reason string, then the user properties, to stay within it [MQTT-3.2.2-19],
// [MQTT-3.2.2-20]. If that is not enough it appends nothing and returns false.
func (c *Connack) AppendLimited(dst []byte, v Version, limit int) ([]byte, bool) {
	return appendLimited(dst, limit, &c.Props, func(dst []byte, props *Properties) []byte {
		return c.append(dst, v, props)
	})
}

func (c *Connack) append(dst []byte, v Version, props *Properties) []byte {
	sessionPresent := bit(c.SessionPresent && c.Code == Success && v != V31, 0) // [MQTT-3.2.2-6]
	if v != V5 {
		code, ok := c.Code.ConnectReturn()
		if !ok { // [MQTT311-3.2.2-6]
			return dst
		}
		return append(dst, byte(CONNACK)<<4, 2, sessionPresent, code)
	}
	dst = append(dst, byte(CONNACK)<<4)
	at := len(dst)
	dst = append(dst, sessionPresent, byte(c.Code))
	return insertLength(props.append(dst, connackProps), at)
}
