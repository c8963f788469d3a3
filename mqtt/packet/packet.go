package packet

// Packet is any control packet that can be written.
type Packet interface {
	Append(dst []byte, v Version) []byte
}

// Decode decodes a frame of any type, for clients, tools and tests; a broker knows
// what it expects and uses the types themselves. A PUBLISH is read as one from a
// server, and the version of a CONNECT is its own.
func Decode(v Version, f Frame) (Packet, error) {
	var p interface {
		Packet
		Decode(v Version, flags byte, body []byte) error
	}
	switch f.Type {
	case CONNECT:
		c := new(Connect)
		return c, c.Decode(f.Flags, f.Body)
	case PUBLISH:
		m := new(Publish)
		return m, m.DecodeFromServer(v, f.Flags, f.Body)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		a := new(Ack)
		return a, a.Decode(v, f.Type, f.Flags, f.Body)
	case CONNACK:
		p = new(Connack)
	case SUBSCRIBE:
		p = new(Subscribe)
	case SUBACK:
		p = new(Suback)
	case UNSUBSCRIBE:
		p = new(Unsubscribe)
	case UNSUBACK:
		p = new(Unsuback)
	case PINGREQ:
		p = new(Pingreq)
	case PINGRESP:
		p = new(Pingresp)
	case DISCONNECT:
		p = new(Disconnect)
	case AUTH:
		p = new(Auth)
	default:
		return nil, errReservedType
	}
	return p, p.Decode(v, f.Flags, f.Body)
}
