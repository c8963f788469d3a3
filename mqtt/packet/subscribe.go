package packet

import "fmt"

// Subscribe asks for messages. Whether a filter's wildcards make sense, and
// whether it may be combined with its options, is for others to judge.
type Subscribe struct {
	PacketID      uint16
	Props         Properties
	Subscriptions []Subscription
}

// Subscription is one filter with its options; versions before 5 have QoS alone.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// The options byte of MQTT 5:
//
//	  7 6       5 4          3        2      1 0
//	+-----+-----------------+-----+---------+-----+
//	| 0 0 | retain handling | RAP | no local| QoS |
//	+-----+-----------------+-----+---------+-----+
const (
	optionQoS               = 0x03
	optionNoLocal           = 0x04
	optionRetainAsPublished = 0x08
	optionRetainHandling    = 0x30
	optionReserved          = 0xC0
)

// Decode reads a SUBSCRIBE.
func (s *Subscribe) Decode(v Version, flags byte, body []byte) error {
	*s = Subscribe{}
	if e := checkFlags(v, SUBSCRIBE, flags); e != nil { // [MQTT-3.8.1-1], [MQTT311-3.8.1-1]
		return e
	}
	r := reader{b: body}
	s.PacketID = r.packetID()
	if v == V5 {
		s.Props.decode(&r, subscribeProps)
	}
	if r.err == nil && !r.more() { // [MQTT-3.8.3-2], [MQTT311-3.8.3-3]
		r.fail(protocolError("MQTT-3.8.3-2", "SUBSCRIBE without a filter"))
	}
	for r.more() {
		sub := Subscription{Filter: r.string()} // [MQTT-3.8.3-1]
		sub.decodeOptions(&r, v)
		s.Subscriptions = append(s.Subscriptions, sub)
	}
	return r.end()
}

func (s *Subscription) decodeOptions(r *reader, v Version) {
	options := r.byte()
	if r.err != nil {
		return
	}
	s.QoS = options & optionQoS
	if v != V5 {
		// The other bits are reserved in 3.1.1, and not used in 3.1, which
		// prescribes no value for them.
		if s.QoS == 3 || v == V311 && options&^optionQoS != 0 { // [MQTT311-3.8.3-4]
			r.fail(malformed("MQTT311-3.8.3-4", fmt.Sprintf("requested QoS byte 0x%02X", options)))
		}
		return
	}
	s.NoLocal = options&optionNoLocal != 0
	s.RetainAsPublished = options&optionRetainAsPublished != 0
	s.RetainHandling = options & optionRetainHandling >> 4
	switch {
	case options&optionReserved != 0: // [MQTT-3.8.3-5]
		r.fail(malformed("MQTT-3.8.3-5", "reserved subscription options are set"))
	case s.QoS == 3: // a protocol error in MQTT 5, not a malformed packet
		r.fail(protocolError("", "subscription with QoS 3"))
	case s.RetainHandling == 3: // the same
		r.fail(protocolError("", "subscription with retain handling 3"))
	}
}

// Append appends the packet.
func (s *Subscribe) Append(dst []byte, v Version) []byte {
	dst = append(dst, byte(SUBSCRIBE)<<4|reservedFlags(SUBSCRIBE))
	at := len(dst)
	dst = append(dst, byte(s.PacketID>>8), byte(s.PacketID))
	if v == V5 {
		dst = s.Props.append(dst, subscribeProps)
	}
	for i := range s.Subscriptions {
		sub := &s.Subscriptions[i]
		dst = appendString(dst, sub.Filter)
		dst = append(dst, sub.options(v))
	}
	return insertLength(dst, at)
}

func (s *Subscription) options(v Version) byte {
	options := s.QoS & optionQoS
	if v == V5 {
		options |= bit(s.NoLocal, 2) | bit(s.RetainAsPublished, 3) | s.RetainHandling<<4&optionRetainHandling
	}
	return options
}
