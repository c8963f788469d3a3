package packet

import "fmt"

// Connect is a client's first packet.
type Connect struct {
	Version     Version
	CleanStart  bool // clean session before MQTT 5
	KeepAlive   uint16
	ClientID    string
	Will        *Will
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Props       Properties
}

// Will is the message that the server publishes when the connection ends without
// DISCONNECT.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Props   Properties
}

const (
	connectReserved   = 0x01
	connectClean      = 0x02
	connectWill       = 0x04
	connectWillQoS    = 0x18
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80
)

// Decode reads a CONNECT of any version. After an error only c.Version means
// anything: the version in which to refuse. When the packet did not get as far as
// naming one, that is V311.
func (c *Connect) Decode(flags byte, body []byte) error {
	*c = Connect{Version: V311}
	if e := checkFlags(V311, CONNECT, flags); e != nil {
		return e
	}
	r := reader{b: body}
	c.decodeVersion(&r)
	connectFlags := c.decodeFlags(&r)
	c.KeepAlive = r.uint16()
	if c.Version == V5 {
		c.Props.decode(&r, connectProps)
	}
	c.decodePayload(&r, connectFlags)
	if err := r.end(); err != nil {
		return err
	}
	return asError(c.check())
}

func (c *Connect) decodeVersion(r *reader) {
	name := string(r.take(int(r.uint16())))
	level := r.byte()
	if r.err != nil {
		return
	}
	c.Version = answerVersion(level)
	wantName := "MQTT"
	if level == byte(V31) {
		wantName = "MQIsdp"
	}
	if name != wantName { // [MQTT-3.1.2-1], [MQTT311-3.1.2-1]
		r.fail(&Error{UnsupportedProtocolVersion, fmt.Sprintf("protocol name %.20q with level %d", name, level), "MQTT-3.1.2-1"})
	} else if level != byte(c.Version) { // [MQTT-3.1.2-2], [MQTT311-3.1.2-2]
		r.fail(&Error{UnsupportedProtocolVersion, fmt.Sprintf("protocol level %d", level), "MQTT-3.1.2-2"})
	}
}

// answerVersion guesses the form of answer that the sender of a protocol level
// understands. The Mosquitto bridge sets bit 7 of levels 3 and 4 and, when
// refused, tries again without it.
func answerVersion(level byte) Version {
	if v := Version(level &^ 0x80); v == V31 || v == V311 {
		return v
	}
	if level >= byte(V5) {
		return V5
	}
	return V311
}

func (c *Connect) decodeFlags(r *reader) byte {
	flags := r.byte()
	if r.err != nil {
		return 0
	}
	c.CleanStart = flags&connectClean != 0
	qos := flags & connectWillQoS >> 3
	switch {
	case flags&connectReserved != 0 && c.Version != V31: // in 3.1 the bit is not used, without a value prescribed
		r.fail(malformed("MQTT-3.1.2-3", "reserved connect flag is set")) // [MQTT-3.1.2-3], [MQTT311-3.1.2-3]
	case flags&connectWill == 0 && qos != 0:
		r.fail(malformed("MQTT-3.1.2-11", "will QoS without a will")) // [MQTT-3.1.2-11], [MQTT311-3.1.2-13]
	case flags&connectWill == 0 && flags&connectWillRetain != 0:
		r.fail(malformed("MQTT-3.1.2-13", "will retain without a will")) // [MQTT-3.1.2-13], [MQTT311-3.1.2-15]
	case qos == 3:
		r.fail(malformed("MQTT-3.1.2-12", "will QoS 3")) // [MQTT-3.1.2-12], [MQTT311-3.1.2-14]
	case c.Version != V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		r.fail(malformed("MQTT311-3.1.2-22", "password without user name")) // [MQTT311-3.1.2-22]
	}
	if r.err != nil {
		return 0
	}
	if flags&connectWill != 0 {
		c.Will = &Will{QoS: qos, Retain: flags&connectWillRetain != 0}
	}
	return flags
}

// decodePayload reads the fields in their fixed order [MQTT-3.1.3-1].
func (c *Connect) decodePayload(r *reader, flags byte) {
	c.ClientID = r.string() // [MQTT-3.1.3-3], [MQTT-3.1.3-4]
	if c.Will != nil {      // [MQTT-3.1.2-9], [MQTT311-3.1.2-9]
		c.Will.decode(r, c.Version)
	}
	// A 3.1 packet may promise a user name or password and end before it: the
	// remaining length takes precedence there.
	promised := func(flag byte) bool {
		return flags&flag != 0 && (c.Version != V31 || r.more())
	}
	if promised(connectUsername) { // [MQTT-3.1.2-17], [MQTT-3.1.3-12]
		c.Username, c.HasUsername = r.string(), true
	}
	if promised(connectPassword) { // [MQTT-3.1.2-19]
		c.Password, c.HasPassword = r.binary(), true
	}
}

func (w *Will) decode(r *reader, v Version) {
	if v == V5 {
		w.Props.decode(r, willProps)
	}
	topic := r.rawString() // [MQTT-3.1.3-11]
	if r.err == nil && (len(topic) == 0 || hasWildcard(topic)) {
		r.fail(&Error{TopicNameInvalid, fmt.Sprintf("will topic %.100q is no topic name", topic), "MQTT-4.7.0-1"}) // [MQTT-4.7.0-1], [MQTT-4.7.3-1]
	}
	w.Topic = string(topic)
	w.Payload = r.binary()
}

// check looks at what can only be judged once the whole packet is read.
func (c *Connect) check() *Error {
	if c.Props.AuthData != nil && c.Props.AuthMethod == nil {
		return protocolError("", "authentication data without authentication method")
	}
	if c.ClientID != "" {
		return nil // any length: [MQTT-3.1.3-5], [MQTT311-3.1.3-5] names the least that a server has to accept
	}
	if c.Version == V311 && !c.CleanStart { // [MQTT311-3.1.3-7], [MQTT311-3.1.3-8]
		return &Error{ClientIdentifierNotValid, "empty client identifier without clean session", "MQTT311-3.1.3-8"}
	}
	if c.Version == V31 { // 3.1 knows no empty identifiers
		return &Error{ClientIdentifierNotValid, "empty client identifier in MQTT 3.1", ""}
	}
	return nil
}

// Append appends the packet as version v, whatever c.Version says.
func (c *Connect) Append(dst []byte, v Version) []byte {
	name := "MQTT"
	if v == V31 {
		name = "MQIsdp"
	}
	dst = append(dst, byte(CONNECT)<<4)
	at := len(dst)
	dst = appendString(dst, name)
	dst = append(dst, byte(v), c.flags(), byte(c.KeepAlive>>8), byte(c.KeepAlive))
	if v == V5 {
		dst = c.Props.append(dst, connectProps)
	}
	dst = appendString(dst, c.ClientID)
	if c.Will != nil {
		if v == V5 {
			dst = c.Will.Props.append(dst, willProps)
		}
		dst = appendString(dst, c.Will.Topic)
		dst = appendString(dst, c.Will.Payload)
	}
	if c.HasUsername {
		dst = appendString(dst, c.Username)
	}
	if c.HasPassword {
		dst = appendString(dst, c.Password)
	}
	return insertLength(dst, at)
}

func (c *Connect) flags() byte {
	flags := bit(c.CleanStart, 1) | bit(c.HasPassword, 6) | bit(c.HasUsername, 7)
	if c.Will != nil {
		flags |= connectWill | c.Will.QoS<<3&connectWillQoS | bit(c.Will.Retain, 5)
	}
	return flags
}

// AppendEndToEnd appends the properties that the will's subscribers get, in the
// form of [Publish.AppendEndToEnd]: all but will delay and expiry. User properties
// keep their order [MQTT-3.1.3-10].
func (w *Will) AppendEndToEnd(dst []byte) []byte {
	return w.Props.appendAll(dst, willProps&publishProps&^hopByHopProps)
}
