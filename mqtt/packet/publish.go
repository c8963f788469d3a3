package packet

import "encoding/binary"

// Publish is a decoded PUBLISH. Its slices alias the bytes it was decoded from;
// whoever keeps them longer copies them.
type Publish struct {
	Dup      bool
	QoS      byte
	Retain   bool
	Topic    []byte
	PacketID uint16
	Props    []byte // MQTT 5: the properties as they came, validated, without the length prefix
	Payload  []byte

	// What Props say about this hop and this message. Encoding looks at Props
	// alone.
	TopicAlias       uint16
	HasTopicAlias    bool
	HasExpiry        bool
	Expiry           uint32 // seconds
	PayloadFormat    byte
	HasPayloadFormat bool
	HopByHop         bool     // Props contain alias, expiry or subscription identifiers and cannot be forwarded as they are
	SubscriptionIDs  []uint32 // only from a server; the slice is reused by the next decode
}

const (
	publishDup    = 0b1000
	publishQoS    = 0b0110
	publishRetain = 0b0001
)

// Decode reads a PUBLISH that a client sent to a server.
func (p *Publish) Decode(v Version, flags byte, body []byte) error {
	return asError(p.decode(v, flags, body, false))
}

// DecodeFromServer reads a PUBLISH that a server sent to a client; it may carry
// subscription identifiers. They cost an allocation the first time.
func (p *Publish) DecodeFromServer(v Version, flags byte, body []byte) error {
	return asError(p.decode(v, flags, body, true))
}

func (p *Publish) decode(v Version, flags byte, body []byte, fromServer bool) *Error {
	ids := p.SubscriptionIDs[:0]
	*p = Publish{} // cleared and then filled: a literal would be built aside and copied
	p.SubscriptionIDs = ids
	p.Dup = flags&publishDup != 0
	p.QoS = flags & publishQoS >> 1
	p.Retain = flags&publishRetain != 0
	if p.QoS == 3 { // [MQTT-3.3.1-4], [MQTT311-3.3.1-4]
		return malformed("MQTT-3.3.1-4", "PUBLISH with QoS 3")
	}
	if p.Dup && p.QoS == 0 { // [MQTT-3.3.1-2], [MQTT311-3.3.1-2]
		return malformed("MQTT-3.3.1-2", "PUBLISH with DUP and QoS 0")
	}
	topic, at, ok := sliceAt(body, 0)
	if !ok {
		return errShort
	}
	if e := checkTopicName(topic); e != nil { // [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT311-3.3.2-1], [MQTT311-3.3.2-2]
		return e
	}
	p.Topic = topic
	if p.QoS > 0 { // a QoS 0 PUBLISH has no identifier [MQTT-2.2.1-2]
		if len(body) < at+2 {
			return errShort
		}
		p.PacketID = binary.BigEndian.Uint16(body[at:])
		if p.PacketID == 0 { // [MQTT-2.2.1-3], [MQTT-2.2.1-4], [MQTT311-2.3.1-1]
			return protocolError("MQTT-2.2.1-3", "packet identifier is 0")
		}
		at += 2
	}
	if v == V5 {
		propsLen, lengthLen, err := ReadVarint(body[at:])
		if err == ErrIncomplete {
			return errShort
		}
		if err != nil {
			return errVarint
		}
		at += lengthLen
		if len(body)-at < int(propsLen) {
			return errShort
		}
		end := at + int(propsLen)
		p.Props = body[at:end:end]
		at = end
		if e := p.decodeProps(fromServer); e != nil {
			return e
		}
	}
	if len(topic) == 0 && !p.HasTopicAlias { // [MQTT-4.7.3-1]
		return protocolError("MQTT-4.7.3-1", "PUBLISH with neither topic nor topic alias")
	}
	p.Payload = body[at:]
	return nil
}

// sliceAt returns the bytes behind the two-byte length at b[at], and where they
// end.
func sliceAt(b []byte, at int) (s []byte, end int, ok bool) {
	if len(b)-at < 2 {
		return nil, 0, false
	}
	at += 2
	end = at + int(binary.BigEndian.Uint16(b[at-2:]))
	if end > len(b) {
		return nil, 0, false
	}
	return b[at:end:end], end, true
}

// decodeProps validates p.Props and picks out what a broker needs of them.
func (p *Publish) decodeProps(fromServer bool) *Error {
	b := p.Props
	var seen propertySet
	for at := 0; at < len(b); {
		id := PropertyID(b[at])
		at++
		if !publishProps.has(id) {
			return malformed("", id.String()+" does not belong here")
		}
		if id == PropSubscriptionID {
			if !fromServer { // [MQTT-3.3.4-6]
				return protocolError("MQTT-3.3.4-6", "subscription identifier from a client")
			}
		} else if seen.has(id) && id != PropUser {
			return protocolError("", id.String()+" occurs twice")
		}
		seen |= 1 << id
		end, e := p.decodeProp(id, b, at)
		if e != nil {
			return e
		}
		at = end
	}
	p.HopByHop = seen&hopByHopProps != 0
	return nil
}

// decodeProp reads the value of property id at b[at] and returns where it ends.
func (p *Publish) decodeProp(id PropertyID, b []byte, at int) (end int, e *Error) {
	switch id {
	case PropUser: // both halves are strings of their own [MQTT-1.5.7-1]
		at, e = textEnd(b, at)
		if e != nil {
			return 0, e
		}
		return textEnd(b, at)
	case PropContentType: // [MQTT-3.3.2-19]
		return textEnd(b, at)
	case PropResponseTopic: // [MQTT-3.3.2-13]
		end, e = textEnd(b, at)
		if e == nil {
			e = checkResponseTopic(b[at+2 : end])
		}
		return end, e
	case PropCorrelationData:
		_, end, ok := sliceAt(b, at)
		if !ok {
			return 0, errShort
		}
		return end, nil
	case PropPayloadFormat:
		if len(b)-at < 1 {
			return 0, errShort
		}
		p.PayloadFormat, p.HasPayloadFormat = b[at], true
		return at + 1, numberError(id, uint32(p.PayloadFormat))
	case PropMessageExpiry:
		if len(b)-at < 4 {
			return 0, errShort
		}
		p.Expiry, p.HasExpiry = binary.BigEndian.Uint32(b[at:]), true
		return at + 4, nil
	case PropTopicAlias:
		if len(b)-at < 2 {
			return 0, errShort
		}
		p.TopicAlias, p.HasTopicAlias = binary.BigEndian.Uint16(b[at:]), true
		return at + 2, numberError(id, uint32(p.TopicAlias))
	default: // PropSubscriptionID, the only one left
		x, n, err := ReadVarint(b[at:])
		if err == ErrIncomplete {
			return 0, errShort
		}
		if err != nil {
			return 0, errVarint
		}
		p.SubscriptionIDs = append(p.SubscriptionIDs, x)
		return at + n, numberError(id, x)
	}
}

// textEnd checks the string at b[at] and returns where it ends.
func textEnd(b []byte, at int) (end int, e *Error) {
	s, end, ok := sliceAt(b, at)
	if !ok {
		return 0, errShort
	}
	return end, checkText(s)
}

// AppendEndToEnd appends the properties that travel on to the subscribers: p.Props
// without topic alias, expiry and subscription identifiers, in unchanged order
// [MQTT-3.3.2-17], [MQTT-3.3.2-18]. The rest of them is forwarded as it came
// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-20].
func (p *Publish) AppendEndToEnd(dst []byte) []byte {
	b := p.Props
	if !p.HopByHop {
		return append(dst, b...)
	}
	for at := 0; at < len(b); {
		id := PropertyID(b[at])
		end := propEnd(id, b, at+1)
		if !hopByHopProps.has(id) {
			dst = append(dst, b[at:end]...)
		}
		at = end
	}
	return dst
}

// propEnd returns where the value at b[at] ends, in properties that were validated
// before. Should they not have been, it stays within b.
func propEnd(id PropertyID, b []byte, at int) int {
	end, ok := at, true
	switch id {
	case PropUser:
		if _, end, ok = sliceAt(b, at); ok {
			_, end, ok = sliceAt(b, end)
		}
	case PropContentType, PropResponseTopic, PropCorrelationData:
		_, end, ok = sliceAt(b, at)
	case PropPayloadFormat:
		end = at + 1
	case PropMessageExpiry:
		end = at + 4
	case PropTopicAlias:
		end = at + 2
	case PropSubscriptionID:
		_, n, err := ReadVarint(b[at:])
		end, ok = at+n, err == nil
	default:
		ok = false
	}
	if !ok || end > len(b) {
		return len(b)
	}
	return end
}

// Properties returns Props in typed form, for callers with time: it copies.
func (p *Publish) Properties() (Properties, error) {
	var props Properties
	r := reader{b: p.Props}
	props.decodeAll(&r, publishProps, properties(PropUser, PropSubscriptionID))
	return props, r.end()
}

// Append appends the packet, with Props as they are.
func (p *Publish) Append(dst []byte, v Version) []byte {
	d := Delivery{Dup: p.Dup, QoS: p.QoS, Retain: p.Retain, Topic: p.Topic,
		PacketID: p.PacketID, Props: p.Props, Payload: p.Payload}
	return d.Append(dst, v)
}

// AppendPublishHeader appends the fixed header of a PUBLISH, which is the same in
// all versions.
func AppendPublishHeader(dst []byte, _ Version, flags byte, remaining int) []byte {
	if remaining < 0 || remaining > maxVarint {
		panic("packet: packet above the protocol's limit")
	}
	return AppendVarint(append(dst, byte(PUBLISH)<<4|flags&15), uint32(remaining))
}

// Delivery describes an outgoing PUBLISH whose topic, end-to-end properties and
// payload already lie somewhere else.
type Delivery struct {
	Dup             bool
	QoS             byte
	Retain          bool
	Topic           []byte
	PacketID        uint16
	Props           []byte // end-to-end properties, raw, as of Publish.AppendEndToEnd
	HasExpiry       bool
	Expiry          uint32 // seconds left [MQTT-3.3.2-6]
	SubscriptionIDs []uint32
	Alias           uint16 // 0: none; with an empty Topic the alias alone goes out
	Payload         []byte
}

// lengths returns the remaining length of the packet and the length of its
// properties.
func (d *Delivery) lengths(v Version) (remaining, propsLen int) {
	remaining = 2 + len(d.Topic) + len(d.Payload)
	if d.QoS > 0 {
		remaining += 2
	}
	if v != V5 {
		return remaining, 0
	}
	propsLen = len(d.Props)
	if d.HasExpiry {
		propsLen += 5
	}
	if d.Alias != 0 {
		propsLen += 3
	}
	for _, id := range d.SubscriptionIDs {
		propsLen += 1 + varintLen(id)
	}
	return remaining + varintLen(uint32(propsLen)) + propsLen, propsLen
}

// Size returns the size of the whole packet on the wire. A packet above the
// peer's limit, or above MaxPacketSize, must not be appended but dropped
// [MQTT-3.1.2-24], [MQTT-3.1.2-25].
func (d *Delivery) Size(v Version) int {
	remaining, _ := d.lengths(v)
	if remaining > maxVarint {
		return 1 + 5 + remaining
	}
	return 1 + varintLen(uint32(remaining)) + remaining
}

// AppendHead appends everything up to the payload, so that a large payload can be
// written from where it lies. idAt is where the packet identifier begins in b, for
// those who learn it later; zero with QoS 0.
func (d *Delivery) AppendHead(dst []byte, v Version) (b []byte, idAt int) {
	remaining, propsLen := d.lengths(v)
	flags := d.QoS<<1 | bit(d.Retain, 0)
	if d.QoS > 0 { // never DUP with QoS 0 [MQTT-3.3.1-2], [MQTT-4.3.1-1], [MQTT311-4.3.1-1]
		flags |= bit(d.Dup, 3)
	}
	dst = AppendPublishHeader(dst, v, flags, remaining)
	dst = appendString(dst, d.Topic)
	if d.QoS > 0 { // [MQTT-2.2.1-2], [MQTT311-2.3.1-5]
		idAt = len(dst)
		dst = append(dst, byte(d.PacketID>>8), byte(d.PacketID))
	}
	if v != V5 {
		return dst, idAt
	}
	dst = AppendVarint(dst, uint32(propsLen))
	if d.Alias != 0 {
		dst = append(dst, byte(PropTopicAlias), byte(d.Alias>>8), byte(d.Alias))
	}
	if d.HasExpiry {
		dst = append(dst, byte(PropMessageExpiry))
		dst = binary.BigEndian.AppendUint32(dst, d.Expiry)
	}
	for _, id := range d.SubscriptionIDs { // all of them in one copy [MQTT-3.3.4-4]
		dst = AppendVarint(append(dst, byte(PropSubscriptionID)), id)
	}
	return append(dst, d.Props...), idAt
}

// Append appends the whole packet.
func (d *Delivery) Append(dst []byte, v Version) []byte {
	b, _ := d.AppendHead(dst, v)
	return append(b, d.Payload...)
}
