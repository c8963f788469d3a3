package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every error Decode returns.
var ErrMalformed = errors.New("malformed packet")

// Packet is one packet as a client receives it. Which fields mean something
// depends on Type.
type Packet struct {
	Type   byte
	QoS    byte
	Dup    bool
	Retain bool
	// SessionPresent, of CONNACK.
	SessionPresent bool
	// Code is the return or reason code of CONNACK, DISCONNECT and the
	// acknowledgements; 0x80 and above is a failure.
	Code byte
	// ReceiveMaximum, of an MQTT 5 CONNACK; 65,535 if the server named none.
	ReceiveMaximum uint16
	ID             uint16
	// Topic, Properties (a block without its length) and Payload, of PUBLISH,
	// point into the decoded bytes, as does Codes, of SUBACK: one per filter.
	Topic      []byte
	Properties []byte
	Payload    []byte
	Codes      []byte
}

// Decode reads the packet at the start of b into p and returns its length on
// the wire. A length of 0 without an error means that b ends before the
// packet does.
func Decode(b []byte, v Version, p *Packet) (int, error) {
	if len(b) < 2 {
		return 0, nil
	}
	bodyLen, lenLen := 0, 0
	for shift := 0; ; shift += 7 {
		if lenLen == 4 {
			return 0, fmt.Errorf("%w: remaining length of more than 4 bytes", ErrMalformed)
		}
		if 1+lenLen == len(b) {
			return 0, nil
		}
		c := b[1+lenLen]
		lenLen++
		bodyLen |= int(c&0x7F) << shift
		if c < 0x80 {
			break
		}
	}
	total := 1 + lenLen + bodyLen
	if len(b) < total {
		return 0, nil
	}
	p.Type = b[0] >> 4
	if err := decodeBody(b[0], b[1+lenLen:total], v, p); err != nil {
		return 0, err
	}
	return total, nil
}

func decodeBody(first byte, body []byte, v Version, p *Packet) error {
	switch p.Type {
	case TypePublish:
		return decodePublish(first, body, v, p)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		if len(body) < 2 {
			return short(p.Type, body)
		}
		p.ID = binary.BigEndian.Uint16(body)
		p.Code = 0
		if v == V5 && len(body) > 2 {
			p.Code = body[2]
		}
	case TypeConnack:
		return decodeConnack(body, v, p)
	case TypeUnsuback:
		if len(body) < 2 {
			return short(p.Type, body)
		}
		p.ID = binary.BigEndian.Uint16(body)
		p.Code = 0
		if v == V5 { // behind the properties; none of ours is refused
			p.Code = body[len(body)-1]
		}
	case TypeSuback:
		return decodeSuback(body, v, p)
	case TypeDisconnect:
		p.Code = 0
		if len(body) > 0 {
			p.Code = body[0]
		}
	case TypePingresp:
	default:
		return fmt.Errorf("%w: type %d is not for a client", ErrMalformed, p.Type)
	}
	return nil
}

func decodePublish(first byte, body []byte, v Version, p *Packet) error {
	p.Dup = first&0x08 != 0
	p.QoS = first >> 1 & 3
	p.Retain = first&1 != 0
	p.ID = 0
	p.Properties = nil
	if len(body) < 2 {
		return short(p.Type, body)
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if at > len(body) {
		return short(p.Type, body)
	}
	p.Topic = body[2:at]
	if p.QoS > 0 {
		if at+2 > len(body) {
			return short(p.Type, body)
		}
		p.ID = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if v == V5 {
		props, n, err := properties(body[at:])
		if err != nil {
			return err
		}
		p.Properties = props
		at += n
	}
	p.Payload = body[at:]
	return nil
}

func decodeConnack(body []byte, v Version, p *Packet) error {
	if len(body) < 2 {
		return short(p.Type, body)
	}
	p.SessionPresent = body[0]&1 != 0
	p.Code = body[1]
	p.ReceiveMaximum = 65535
	if v != V5 || len(body) == 2 {
		return nil
	}
	props, _, err := properties(body[2:])
	if err != nil {
		return err
	}
	for len(props) > 0 {
		n := propertyLen(props)
		if n == 0 || n > len(props) {
			return fmt.Errorf("%w: property %#x in CONNACK", ErrMalformed, props[0])
		}
		if props[0] == propReceiveMaximum {
			p.ReceiveMaximum = binary.BigEndian.Uint16(props[1:])
		}
		props = props[n:]
	}
	return nil
}

func decodeSuback(body []byte, v Version, p *Packet) error {
	if len(body) < 3 {
		return short(p.Type, body)
	}
	p.ID = binary.BigEndian.Uint16(body)
	at := 2
	if v == V5 {
		_, n, err := properties(body[at:])
		if err != nil {
			return err
		}
		at += n
	}
	if at >= len(body) {
		return short(p.Type, body)
	}
	p.Codes = body[at:]
	return nil
}

// properties returns the property block at the start of b without its length,
// and the length of both.
func properties(b []byte) (props []byte, n int, err error) {
	blockLen, lenLen := binary.Uvarint(b)
	if lenLen <= 0 || lenLen > 4 || blockLen > uint64(len(b)-lenLen) {
		return nil, 0, fmt.Errorf("%w: property length", ErrMalformed)
	}
	n = lenLen + int(blockLen)
	return b[lenLen:n], n, nil
}

// propertyLen returns the length of the property of a CONNACK or PUBLISH at the
// start of b with its identifier, or 0 if it is none.
func propertyLen(b []byte) int {
	switch b[0] {
	case 0x01, 0x24, 0x25, 0x28, 0x29, 0x2A: // a byte
		return 2
	case 0x13, propReceiveMaximum, 0x22, propTopicAlias: // two
		return 3
	case propMessageExpiry, propSessionExpiry, 0x27: // four
		return 5
	case propContentType, propResponseTopic, propCorrelation, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F: // a string or bytes
		if len(b) < 3 {
			return 0
		}
		return 3 + int(binary.BigEndian.Uint16(b[1:]))
	case propSubscriptionID:
		_, n := binary.Uvarint(b[1:])
		if n <= 0 {
			return 0
		}
		return 1 + n
	case propUser: // a pair of strings
		if len(b) < 3 {
			return 0
		}
		keyLen := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 5+keyLen {
			return 0
		}
		return 5 + keyLen + int(binary.BigEndian.Uint16(b[3+keyLen:]))
	}
	return 0
}

func short(packetType byte, body []byte) error {
	return fmt.Errorf("%w: type %d with %d bytes", ErrMalformed, packetType, len(body))
}
