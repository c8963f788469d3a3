package packet

import "fmt"

// PropertyID names a property of MQTT 5. On the wire it is a variable byte
// integer; all that exist take one byte.
type PropertyID byte

const (
	PropPayloadFormat        PropertyID = 0x01
	PropMessageExpiry        PropertyID = 0x02
	PropContentType          PropertyID = 0x03
	PropResponseTopic        PropertyID = 0x08
	PropCorrelationData      PropertyID = 0x09
	PropSubscriptionID       PropertyID = 0x0B
	PropSessionExpiry        PropertyID = 0x11
	PropAssignedClientID     PropertyID = 0x12
	PropServerKeepAlive      PropertyID = 0x13
	PropAuthMethod           PropertyID = 0x15
	PropAuthData             PropertyID = 0x16
	PropRequestProblemInfo   PropertyID = 0x17
	PropWillDelay            PropertyID = 0x18
	PropRequestResponseInfo  PropertyID = 0x19
	PropResponseInfo         PropertyID = 0x1A
	PropServerReference      PropertyID = 0x1C
	PropReasonString         PropertyID = 0x1F
	PropReceiveMaximum       PropertyID = 0x21
	PropTopicAliasMaximum    PropertyID = 0x22
	PropTopicAlias           PropertyID = 0x23
	PropMaximumQoS           PropertyID = 0x24
	PropRetainAvailable      PropertyID = 0x25
	PropUser                 PropertyID = 0x26
	PropMaximumPacketSize    PropertyID = 0x27
	PropWildcardSubAvailable PropertyID = 0x28
	PropSubIDAvailable       PropertyID = 0x29
	PropSharedSubAvailable   PropertyID = 0x2A

	lastProperty = PropSharedSubAvailable
)

var propertyNames = [lastProperty + 1]string{
	PropPayloadFormat:        "payload format indicator",
	PropMessageExpiry:        "message expiry interval",
	PropContentType:          "content type",
	PropResponseTopic:        "response topic",
	PropCorrelationData:      "correlation data",
	PropSubscriptionID:       "subscription identifier",
	PropSessionExpiry:        "session expiry interval",
	PropAssignedClientID:     "assigned client identifier",
	PropServerKeepAlive:      "server keep alive",
	PropAuthMethod:           "authentication method",
	PropAuthData:             "authentication data",
	PropRequestProblemInfo:   "request problem information",
	PropWillDelay:            "will delay interval",
	PropRequestResponseInfo:  "request response information",
	PropResponseInfo:         "response information",
	PropServerReference:      "server reference",
	PropReasonString:         "reason string",
	PropReceiveMaximum:       "receive maximum",
	PropTopicAliasMaximum:    "topic alias maximum",
	PropTopicAlias:           "topic alias",
	PropMaximumQoS:           "maximum QoS",
	PropRetainAvailable:      "retain available",
	PropUser:                 "user property",
	PropMaximumPacketSize:    "maximum packet size",
	PropWildcardSubAvailable: "wildcard subscription available",
	PropSubIDAvailable:       "subscription identifier available",
	PropSharedSubAvailable:   "shared subscription available",
}

func (id PropertyID) String() string {
	if id <= lastProperty && propertyNames[id] != "" {
		return propertyNames[id]
	}
	return fmt.Sprintf("property 0x%02X", byte(id))
}

// propertySet is a set of property identifiers, one bit each.
type propertySet uint64

func properties(ids ...PropertyID) propertySet {
	var s propertySet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propertySet) has(id PropertyID) bool { return id <= lastProperty && s&(1<<id) != 0 }

// Which packets may carry which properties.
var (
	connectProps = properties(PropSessionExpiry, PropReceiveMaximum, PropMaximumPacketSize, PropTopicAliasMaximum,
		PropRequestResponseInfo, PropRequestProblemInfo, PropUser, PropAuthMethod, PropAuthData)
	willProps = properties(PropWillDelay, PropPayloadFormat, PropMessageExpiry, PropContentType,
		PropResponseTopic, PropCorrelationData, PropUser)
	connackProps = properties(PropSessionExpiry, PropReceiveMaximum, PropMaximumQoS, PropRetainAvailable,
		PropMaximumPacketSize, PropAssignedClientID, PropTopicAliasMaximum, PropReasonString, PropUser,
		PropWildcardSubAvailable, PropSubIDAvailable, PropSharedSubAvailable, PropServerKeepAlive,
		PropResponseInfo, PropServerReference, PropAuthMethod, PropAuthData)
	publishProps = properties(PropPayloadFormat, PropMessageExpiry, PropTopicAlias, PropResponseTopic,
		PropCorrelationData, PropUser, PropSubscriptionID, PropContentType)
	ackProps         = properties(PropReasonString, PropUser)
	subscribeProps   = properties(PropSubscriptionID, PropUser)
	unsubscribeProps = properties(PropUser)
	disconnectProps  = properties(PropSessionExpiry, PropReasonString, PropUser, PropServerReference)
	authProps        = properties(PropAuthMethod, PropAuthData, PropReasonString, PropUser)

	// hopByHopProps concern one connection and are made anew for the next.
	hopByHopProps = properties(PropTopicAlias, PropMessageExpiry, PropSubscriptionID)
)

// UserProperty is a name and a value without meaning to the protocol. A name may
// occur more than once, and the order is kept.
type UserProperty struct {
	Name  string
	Value string
}

// Properties are the properties of a packet other than PUBLISH, and of a will.
// A nil field is a property that is not there; empty binary data is not nil.
// Encoders leave out what the packet at hand may not carry.
type Properties struct {
	PayloadFormat        *byte
	MessageExpiry        *uint32 // seconds
	ContentType          *string
	ResponseTopic        *string
	CorrelationData      []byte
	SubscriptionIDs      []uint32
	SessionExpiry        *uint32 // seconds
	AssignedClientID     *string
	ServerKeepAlive      *uint16 // seconds
	AuthMethod           *string
	AuthData             []byte
	RequestProblemInfo   *bool
	WillDelay            *uint32 // seconds
	RequestResponseInfo  *bool
	ResponseInfo         *string
	ServerReference      *string
	ReasonString         *string
	ReceiveMaximum       *uint16
	TopicAliasMaximum    *uint16
	TopicAlias           *uint16
	MaximumQoS           *byte
	RetainAvailable      *bool
	User                 []UserProperty
	MaximumPacketSize    *uint32 // bytes
	WildcardSubAvailable *bool
	SubIDAvailable       *bool
	SharedSubAvailable   *bool
}

// field returns a pointer to the field of a property. Its type is the property's
// type on the wire, so that decoder and encoder have one table between them.
func (p *Properties) field(id PropertyID) any {
	switch id {
	case PropPayloadFormat:
		return &p.PayloadFormat
	case PropMessageExpiry:
		return &p.MessageExpiry
	case PropContentType:
		return &p.ContentType
	case PropResponseTopic:
		return &p.ResponseTopic
	case PropCorrelationData:
		return &p.CorrelationData
	case PropSubscriptionID:
		return &p.SubscriptionIDs
	case PropSessionExpiry:
		return &p.SessionExpiry
	case PropAssignedClientID:
		return &p.AssignedClientID
	case PropServerKeepAlive:
		return &p.ServerKeepAlive
	case PropAuthMethod:
		return &p.AuthMethod
	case PropAuthData:
		return &p.AuthData
	case PropRequestProblemInfo:
		return &p.RequestProblemInfo
	case PropWillDelay:
		return &p.WillDelay
	case PropRequestResponseInfo:
		return &p.RequestResponseInfo
	case PropResponseInfo:
		return &p.ResponseInfo
	case PropServerReference:
		return &p.ServerReference
	case PropReasonString:
		return &p.ReasonString
	case PropReceiveMaximum:
		return &p.ReceiveMaximum
	case PropTopicAliasMaximum:
		return &p.TopicAliasMaximum
	case PropTopicAlias:
		return &p.TopicAlias
	case PropMaximumQoS:
		return &p.MaximumQoS
	case PropRetainAvailable:
		return &p.RetainAvailable
	case PropUser:
		return &p.User
	case PropMaximumPacketSize:
		return &p.MaximumPacketSize
	case PropWildcardSubAvailable:
		return &p.WildcardSubAvailable
	case PropSubIDAvailable:
		return &p.SubIDAvailable
	case PropSharedSubAvailable:
		return &p.SharedSubAvailable
	}
	return nil
}

// decode reads a property length and that many bytes of properties.
func (p *Properties) decode(r *reader, allowed propertySet) {
	props := reader{b: r.take(int(r.varint()))}
	p.decodeAll(&props, allowed, properties(PropUser))
	if props.err != nil {
		r.fail(props.err)
	}
}

func (p *Properties) decodeAll(r *reader, allowed, repeatable propertySet) {
	var seen propertySet
	for r.more() {
		id := PropertyID(r.byte())
		if !allowed.has(id) {
			r.fail(malformed("", id.String()+" does not belong here"))
			return
		}
		if seen.has(id) && !repeatable.has(id) {
			r.fail(protocolError("", id.String()+" occurs twice"))
			return
		}
		seen |= 1 << id
		p.decodeOne(r, id)
	}
}

func (p *Properties) decodeOne(r *reader, id PropertyID) {
	switch field := p.field(id).(type) {
	case **byte:
		x := r.byte()
		checkNumber(r, id, uint32(x))
		*field = &x
	case **bool:
		x := r.byte()
		if x > 1 {
			r.fail(protocolError("", fmt.Sprintf("%v is %d, neither 0 nor 1", id, x)))
		}
		*field = new(x == 1)
	case **uint16:
		x := r.uint16()
		checkNumber(r, id, uint32(x))
		*field = &x
	case **uint32:
		x := r.uint32()
		checkNumber(r, id, x)
		*field = &x
	case *[]uint32:
		x := r.varint()
		checkNumber(r, id, x)
		*field = append(*field, x)
	case **string:
		x := r.rawString()
		if id == PropResponseTopic && r.err == nil {
			if e := checkResponseTopic(x); e != nil {
				r.fail(e)
			}
		}
		*field = new(string(x))
	case *[]byte:
		*field = r.binary()
	case *[]UserProperty:
		// Both halves are strings of their own [MQTT-1.5.7-1].
		*field = append(*field, UserProperty{Name: r.string(), Value: r.string()})
	}
}

// checkNumber refuses numbers outside a property's range.
func checkNumber(r *reader, id PropertyID, x uint32) {
	if r.err != nil {
		return
	}
	if e := numberError(id, x); e != nil {
		r.fail(e)
	}
}

func numberError(id PropertyID, x uint32) *Error {
	switch id {
	case PropReceiveMaximum, PropMaximumPacketSize, PropSubscriptionID:
		if x == 0 {
			return protocolError("", id.String()+" is 0")
		}
	case PropTopicAlias:
		if x == 0 { // [MQTT-3.3.2-8]
			return &Error{Code: TopicAliasInvalid, Reason: "topic alias is 0", Cite: "MQTT-3.3.2-8"}
		}
	case PropMaximumQoS, PropPayloadFormat:
		if x > 1 {
			return protocolError("", fmt.Sprintf("%v is %d, neither 0 nor 1", id, x))
		}
	}
	return nil
}

// append writes the property length and the allowed properties; none is written
// as length 0 [MQTT-2.2.2-1]. A nil p has none.
func (p *Properties) append(dst []byte, allowed propertySet) []byte {
	at := len(dst)
	return insertLength(p.appendAll(dst, allowed), at)
}

// appendAll writes the allowed properties in the order of their identifiers,
// those that repeat in their own.
func (p *Properties) appendAll(dst []byte, allowed propertySet) []byte {
	if p == nil {
		return dst
	}
	for id := PropertyID(1); id <= lastProperty; id++ {
		if allowed.has(id) {
			dst = p.appendOne(dst, id)
		}
	}
	return dst
}

func (p *Properties) appendOne(dst []byte, id PropertyID) []byte {
	tag := byte(id)
	switch field := p.field(id).(type) {
	case **byte:
		if x := *field; x != nil {
			dst = append(dst, tag, *x)
		}
	case **bool:
		if x := *field; x != nil {
			dst = append(dst, tag, bit(*x, 0))
		}
	case **uint16:
		if x := *field; x != nil {
			dst = append(dst, tag, byte(*x>>8), byte(*x))
		}
	case **uint32:
		if x := *field; x != nil {
			dst = append(dst, tag, byte(*x>>24), byte(*x>>16), byte(*x>>8), byte(*x))
		}
	case *[]uint32:
		for _, x := range *field {
			dst = AppendVarint(append(dst, tag), x)
		}
	case **string:
		if x := *field; x != nil {
			dst = appendString(append(dst, tag), *x)
		}
	case *[]byte:
		if x := *field; x != nil {
			dst = appendString(append(dst, tag), x)
		}
	case *[]UserProperty:
		for _, x := range *field {
			dst = appendString(append(dst, tag), x.Name)
			dst = appendString(dst, x.Value)
		}
	}
	return dst
}

// AppendPublish appends the properties that a PUBLISH may carry, raw and without
// the length prefix, in the form of [Publish.Props].
func (p *Properties) AppendPublish(dst []byte) []byte {
	return p.appendAll(dst, publishProps)
}

// DropProblemInformation removes reason string and user properties: a client that
// asks for no problem information gets them on PUBLISH, CONNACK and DISCONNECT
// only [MQTT-3.1.2-29].
func (p *Properties) DropProblemInformation() {
	p.ReasonString, p.User = nil, nil
}

// appendLimited appends what encode makes of props. If that is more than limit
// bytes it does without the reason string, then without the user properties as
// well, and if even that is too long it appends nothing and returns false. Limit
// 0 is no limit.
func appendLimited(dst []byte, limit int, props *Properties, encode func([]byte, *Properties) []byte) ([]byte, bool) {
	at := len(dst)
	fits := func() bool { return limit <= 0 || len(dst)-at <= limit }
	dst = encode(dst, props)
	if !fits() && props != nil {
		less := *props
		less.ReasonString = nil // [MQTT-3.2.2-19], [MQTT-3.4.2-2] and their like
		dst = encode(dst[:at], &less)
		if !fits() {
			less.User = nil // [MQTT-3.2.2-20], [MQTT-3.4.2-3] and their like
			dst = encode(dst[:at], &less)
		}
	}
	if !fits() { // [MQTT-3.1.2-24]
		return dst[:at], false
	}
	return dst, true
}

// bit returns 1<<shift if set, else 0.
func bit(set bool, shift int) byte {
	if set {
		return 1 << shift
	}
	return 0
}
