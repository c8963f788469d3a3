package packet

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var versions = []Version{V31, V311, V5}

func mustFrame(tb testing.TB, b []byte) Frame {
	tb.Helper()
	f, _, ok, err := ReadFrame(b, 0)
	if !ok || err != nil || f.Size != len(b) {
		tb.Fatalf("%x is not one frame: ok %v, %v", b, ok, err)
	}
	return f
}

func wantError(t *testing.T, err error, code ReasonCode, what string) {
	t.Helper()
	var violation *Error
	if !errors.As(err, &violation) || violation.Code != code {
		t.Errorf("%s: got %v, want %v", what, err, code)
	}
}

func TestReadFrame(t *testing.T) {
	for _, row := range []struct {
		what string
		in   string
		max  int
		need int
		size int
		code ReasonCode
	}{
		{"nothing", "", 0, 1, 0, 0},
		{"first byte", "\x30", 0, 2, 0, 0},
		{"length unfinished", "\x30\x80", 0, 3, 0, 0},
		{"length unfinished at its fourth byte", "\x30\xff\xff\xff", 0, 5, 0, 0},
		{"body missing", "\x30\x05a", 0, 7, 0, 0},
		{"largest announced", "\x30\xff\xff\xff\x7f", 0, MaxPacketSize, 0, 0},
		{"whole", "\xc0\x00", 0, 0, 2, 0},
		{"whole and more", "\xc0\x00\xc0\x00", 0, 0, 2, 0},
		{"exactly the limit", "\x30\x03abc", 5, 0, 5, 0},
		{"over the limit, body missing", "\x30\x04", 5, 0, 0, PacketTooLarge},
		{"fifth length byte [MQTT-1.5.5-1]", "\x30\x80\x80\x80\x80", 0, 0, 0, MalformedPacket},
		{"length not shortest [MQTT-1.5.5-1]", "\x30\x80\x00", 0, 0, 0, MalformedPacket},
		{"reserved type", "\x00\x00", 0, 0, 0, MalformedPacket},
	} {
		f, need, ok, err := ReadFrame([]byte(row.in), row.max)
		switch {
		case row.code != 0:
			wantError(t, err, row.code, row.what)
		case err != nil || ok != (row.size > 0) || f.Size != row.size || !ok && need != row.need:
			t.Errorf("%s: %+v need %d ok %v %v", row.what, f, need, ok, err)
		}
	}
}

func TestVarintRoundTrip(t *testing.T) {
	for _, x := range []uint32{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, maxVarint} {
		b := AppendVarint(nil, x)
		got, n, err := ReadVarint(b)
		if got != x || n != len(b) || n != varintLen(x) || err != nil {
			t.Errorf("%d: %x reads as %d, %d bytes, %v", x, b, got, n, err)
		}
	}
}

// fullProperties has every property once.
func fullProperties() Properties {
	return Properties{
		PayloadFormat: new(byte(1)), MessageExpiry: new(uint32(3600)), ContentType: new("text/plain"),
		ResponseTopic: new("re/ply"), CorrelationData: []byte{}, SubscriptionIDs: []uint32{maxVarint},
		SessionExpiry: new(uint32(1 << 31)), AssignedClientID: new(""), ServerKeepAlive: new(uint16(9)),
		AuthMethod: new("SCRAM"), AuthData: []byte{0, 1}, RequestProblemInfo: new(false),
		WillDelay: new(uint32(5)), RequestResponseInfo: new(true), ResponseInfo: new("here"),
		ServerReference: new("other"), ReasonString: new("why"), ReceiveMaximum: new(uint16(10)),
		TopicAliasMaximum: new(uint16(11)), TopicAlias: new(uint16(12)), MaximumQoS: new(byte(1)),
		RetainAvailable: new(true), User: []UserProperty{{"k", "1"}, {"k", "2"}, {"", "ü"}},
		MaximumPacketSize: new(uint32(1 << 20)), WildcardSubAvailable: new(true),
		SubIDAvailable: new(false), SharedSubAvailable: new(true),
	}
}

// only returns fullProperties without those a packet may not carry.
func only(allowed propertySet) Properties {
	full := fullProperties()
	for id := PropertyID(1); id <= lastProperty; id++ {
		if field := full.field(id); field != nil && !allowed.has(id) {
			reflect.ValueOf(field).Elem().SetZero()
		}
	}
	return full
}

// samples returns packets of all types as version v can express them.
func samples(v Version) []Packet {
	props := func(allowed propertySet) (p Properties) {
		if v == V5 {
			p = only(allowed)
		}
		return p
	}
	var all []Packet
	will := &Will{Topic: "last/words", Payload: []byte("bye"), QoS: 2, Retain: true, Props: props(willProps)}
	all = append(all,
		&Connect{Version: v, CleanStart: true, ClientID: "a"},
		&Connect{Version: v, KeepAlive: 65535, ClientID: "ü", Will: will, Username: "u", HasUsername: true,
			Password: []byte{0, 255}, HasPassword: true, Props: props(connectProps)},
		&Connack{},
		&Connack{Code: NotAuthorized, Props: props(connackProps)},
		&Subscribe{PacketID: 1, Props: props(subscribeProps), Subscriptions: []Subscription{{Filter: "a/#", QoS: 1}, {Filter: "+", QoS: 2}}},
		&Suback{PacketID: 2, Props: props(ackProps), Codes: []ReasonCode{GrantedQoS0, GrantedQoS2, UnspecifiedError}},
		&Unsubscribe{PacketID: 3, Props: props(unsubscribeProps), Filters: []string{"a", "b/#"}},
		&Pingreq{}, &Pingresp{}, &Disconnect{},
	)
	for t := PUBACK; t <= PUBCOMP; t++ {
		all = append(all, &Ack{Type: t, PacketID: 65535})
	}
	publish := &Publish{QoS: 1, Dup: true, Retain: true, Topic: []byte("a/b"), PacketID: 7, Payload: []byte("hello")}
	if v != V5 {
		return append(all, publish, &Unsuback{PacketID: 4})
	}
	full := only(publishProps)
	publish.Props = full.AppendPublish(nil)
	for t := PUBACK; t <= PUBCOMP; t++ {
		all = append(all, &Ack{Type: t, PacketID: 1, Code: Success, Props: new(only(ackProps))})
	}
	return append(all, publish,
		&Subscribe{PacketID: 1, Subscriptions: []Subscription{{"x", 1, true, true, 2}}},
		&Unsuback{PacketID: 4, Props: props(ackProps), Codes: []ReasonCode{Success, NoSubscriptionExisted}},
		&Disconnect{Code: DisconnectWithWill},
		&Disconnect{Code: NormalDisconnection, Props: props(disconnectProps)},
		&Auth{Code: Reauthenticate, Props: props(authProps)})
}

func TestRoundTrip(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			// Something stands before the packet, as it does in a write buffer.
			b := p.Append([]byte("before"), v)
			b, found := bytes.CutPrefix(b, []byte("before"))
			if !found {
				t.Fatalf("%v %T overwrote what stood before", v, p)
			}
			f := mustFrame(t, b)
			got, err := Decode(v, f)
			if err != nil {
				t.Errorf("%v %v: %v", v, f.Type, err)
				continue
			}
			if m, ok := got.(*Publish); ok {
				if again := m.Append(nil, v); !bytes.Equal(again, b) {
					t.Errorf("%v PUBLISH: %x became %x", v, b, again)
				}
				continue
			}
			if !reflect.DeepEqual(got, p) {
				t.Errorf("%v %v:\n got %+v\nwant %+v", v, f.Type, got, p)
			}
		}
	}
}

// propertyPackets says for each packet type how to wrap raw properties.
var propertyPackets = []struct {
	t       Type
	allowed string // identifiers, as the table of properties in the standard has them
	before  string
	after   string
}{
	{CONNECT, "\x11\x15\x16\x17\x19\x21\x22\x26\x27", "\x00\x04MQTT\x05\x02\x00\x00", "\x00\x01a"},
	{CONNACK, "\x11\x12\x13\x15\x16\x1a\x1c\x1f\x21\x22\x24\x25\x26\x27\x28\x29\x2a", "\x00\x00", ""},
	{PUBLISH, "\x01\x02\x03\x08\x09\x0b\x23\x26", "\x00\x01a", ""},
	{PUBACK, "\x1f\x26", "\x00\x01\x00", ""},
	{PUBREC, "\x1f\x26", "\x00\x01\x00", ""},
	{PUBREL, "\x1f\x26", "\x00\x01\x00", ""},
	{PUBCOMP, "\x1f\x26", "\x00\x01\x00", ""},
	{SUBSCRIBE, "\x0b\x26", "\x00\x01", "\x00\x01a\x00"},
	{SUBACK, "\x1f\x26", "\x00\x01", "\x00"},
	{UNSUBSCRIBE, "\x26", "\x00\x01", "\x00\x01a"},
	{UNSUBACK, "\x1f\x26", "\x00\x01", "\x00"},
	{DISCONNECT, "\x11\x1c\x1f\x26", "\x00", ""},
	{AUTH, "\x15\x16\x1f\x26", "\x18", ""},
}

// TestPropertyMatrix tries every property on every packet, once and twice.
func TestPropertyMatrix(t *testing.T) {
	full := fullProperties()
	full.User, full.TopicAlias = full.User[:1], new(uint16(1))
	for _, row := range propertyPackets {
		for id := PropertyID(0); id < 64; id++ {
			what := fmt.Sprintf("%v with %v", row.t, id)
			raw := []byte{byte(id), 0, 0, 0, 0}
			if full.field(id) != nil {
				raw = full.appendOne(nil, id)
			}
			help := "" // what the property cannot do without
			if id != PropAuthMethod && (row.t == AUTH || id == PropAuthData) && strings.Contains(row.allowed, "\x15") {
				help = "\x15\x00\x01m"
			}
			decode := func(props string) error {
				body := row.before + string(AppendVarint(nil, uint32(len(help+props)))) + help + props + row.after
				_, err := Decode(V5, Frame{Type: row.t, Flags: reservedFlags(row.t), Body: []byte(body)})
				return err
			}
			once, twice := decode(string(raw)), decode(string(raw)+string(raw))
			if !strings.Contains(row.allowed, string(rune(id))) {
				wantError(t, once, MalformedPacket, what)
				continue
			}
			if once != nil {
				t.Errorf("%s: %v", what, once)
			}
			if repeatable := id == PropUser || id == PropSubscriptionID && row.t == PUBLISH; repeatable {
				if twice != nil {
					t.Errorf("%s twice: %v", what, twice)
				}
				continue
			}
			wantError(t, twice, ProtocolError, what+" twice")
		}
	}
}

// TestReasonCodeMatrix tries every code on every packet that has one
// [MQTT-3.2.2-8], [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1],
// [MQTT-3.9.3-2], [MQTT-3.11.3-2], [MQTT-3.14.2-1], [MQTT-3.15.2-1].
func TestReasonCodeMatrix(t *testing.T) {
	for _, row := range []struct {
		t             Type
		before, after string
		listed        string
	}{
		{CONNACK, "\x00", "\x00", "\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f"},
		{PUBACK, "\x00\x01", "", "\x00\x10\x80\x83\x87\x90\x91\x97\x99"},
		{PUBREC, "\x00\x01", "", "\x00\x10\x80\x83\x87\x90\x91\x97\x99"},
		{PUBREL, "\x00\x01", "", "\x00\x92"},
		{PUBCOMP, "\x00\x01", "", "\x00\x92"},
		{SUBACK, "\x00\x01\x00", "", "\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2"},
		{UNSUBACK, "\x00\x01\x00", "", "\x00\x11\x80\x83\x87\x8f\x91"},
		{DISCONNECT, "", "", "\x00\x04\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2"},
		{AUTH, "", "\x04\x15\x00\x01m", "\x00\x18\x19"},
	} {
		for code := range 256 {
			body := row.before + string([]byte{byte(code)}) + row.after
			_, err := Decode(V5, Frame{Type: row.t, Flags: reservedFlags(row.t), Body: []byte(body)})
			listed := strings.IndexByte(row.listed, byte(code)) >= 0
			if listed != (err == nil) || listed != ReasonCode(code).Listed(row.t) {
				t.Errorf("%v with code 0x%02x: %v", row.t, code, err)
			}
			if !listed {
				wantError(t, err, ProtocolError, row.t.String())
			}
		}
	}
}

// TestReservedFlags tries every value of the header flags on every packet but
// PUBLISH [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1],
// [MQTT-3.14.1-1], [MQTT-3.15.1-1].
func TestReservedFlags(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			f := mustFrame(t, p.Append(nil, v))
			if f.Type == PUBLISH {
				continue
			}
			for flags := range byte(16) {
				right := flags == reservedFlags(f.Type)
				if v == V31 && reservedFlags(f.Type) != 0 {
					right = flags&0b0110 == 0b0010
				}
				f.Flags = flags
				_, err := Decode(v, f)
				if right && err != nil {
					t.Errorf("%v %v with flags %04b: %v", v, f.Type, flags, err)
				}
				if !right {
					wantError(t, err, MalformedPacket, fmt.Sprintf("%v %v with flags %04b", v, f.Type, flags))
				}
			}
		}
	}
}

// TestTrailingAndMissingBytes adds a byte to, and cuts bytes off, the body of every
// packet. Nothing may panic; what cannot be complete must be refused.
func TestTrailingAndMissingBytes(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			f := mustFrame(t, p.Append(nil, v))
			body := f.Body
			for cut := range body {
				f.Body = body[:cut:cut]
				_, _ = Decode(v, f)
			}
			switch f.Type {
			case PUBLISH, SUBACK, UNSUBACK, DISCONNECT, AUTH: // another byte can have a meaning
				if v == V5 || f.Type == PUBLISH || f.Type == SUBACK {
					continue
				}
			case PUBACK, PUBREC, PUBREL, PUBCOMP:
				if v == V5 {
					continue
				}
			}
			f.Body = append(bytes.Clone(body), 0)
			if _, err := Decode(v, f); err == nil {
				t.Errorf("%v %v with a byte too many was accepted", v, f.Type)
			}
		}
	}
}

func TestRefusedConnectNamesTheAnswersVersion(t *testing.T) {
	for level, want := range map[byte]Version{0: V311, 1: V311, 2: V311, 3: V31, 4: V311, 5: V5, 6: V5, 0x83: V31, 0x84: V311, 0x85: V5, 255: V5} {
		var c Connect
		// The name fits no level.
		err := c.Decode(0, append([]byte("\x00\x04mqtt"), level, 2, 0, 0, 0, 1, 'a'))
		wantError(t, err, UnsupportedProtocolVersion, fmt.Sprint("level ", level)) // [MQTT-3.1.2-1]
		if c.Version != want {
			t.Errorf("level %d is answered as %v, want %v", level, c.Version, want)
		}
		var violation *Error
		if err := c.Decode(0, []byte("\x00\x04MQ")); !errors.As(err, &violation) || c.Version != V311 {
			t.Errorf("nameless CONNECT: %v, %v", err, c.Version)
		}
	}
}

func TestOldConnackReturnCodes(t *testing.T) {
	for code := range 6 {
		c := Connack{Code: connectReturns[code]}
		if got := c.Append(nil, V311); !bytes.Equal(got, []byte{0x20, 2, 0, byte(code)}) {
			t.Errorf("%v goes out as %x", c.Code, got)
		}
	}
	c := Connack{Code: MalformedPacket} // [MQTT311-3.2.2-6]
	if got := c.Append(nil, V311); len(got) != 0 {
		t.Errorf("a code without a translation goes out as %x", got)
	}
	c = Connack{Code: NotAuthorized, SessionPresent: true} // [MQTT-3.2.2-6]
	if got := c.Append(nil, V5); got[2] != 0 {
		t.Errorf("refusal with session present: %x", got)
	}
}

func TestOldSubackKnowsOneFailure(t *testing.T) {
	s := Suback{PacketID: 1, Codes: []ReasonCode{GrantedQoS1, NotAuthorized, TopicFilterInvalid}}
	for _, v := range []Version{V31, V311} { // [MQTT311-3.9.3-2]
		if got := s.Append(nil, v); !bytes.Equal(got, []byte{0x90, 5, 0, 1, 1, 0x80, 0x80}) {
			t.Errorf("%v: %x", v, got)
		}
	}
}

// TestAppendLimited holds every packet with reason string and user properties
// against all limits [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.4.2-2],
// [MQTT-3.4.2-3], [MQTT-3.9.2-1], [MQTT-3.11.2-1], [MQTT-3.14.2-3],
// [MQTT-3.15.2-2].
func TestAppendLimited(t *testing.T) {
	type limited interface {
		Packet
		AppendLimited(dst []byte, v Version, limit int) ([]byte, bool)
	}
	for _, p := range samples(V5) {
		p, ok := p.(limited)
		if !ok {
			continue
		}
		whole := p.Append(nil, V5)
		for limit := 1; limit <= len(whole)+1; limit++ {
			before := []byte("before")
			b, ok := p.AppendLimited(before, V5, limit)
			b = b[len(before):]
			f, _, _, _ := ReadFrame(whole, 0)
			switch {
			case !ok && len(b) != 0:
				t.Errorf("%v in %d: refused, yet wrote %x", f.Type, limit, b)
			case ok && len(b) > limit:
				t.Errorf("%v in %d: wrote %d bytes", f.Type, limit, len(b))
			case ok && limit >= len(whole) && !bytes.Equal(b, whole):
				t.Errorf("%v in %d: dropped something without need", f.Type, limit)
			case ok:
				if _, err := Decode(V5, mustFrame(t, b)); err != nil {
					t.Errorf("%v in %d: %v", f.Type, limit, err)
				}
			}
		}
		if b, ok := p.AppendLimited(nil, V5, 0); !ok || !bytes.Equal(b, whole) {
			t.Errorf("%T without limit: %v", p, ok)
		}
	}
	d := Disconnect{Code: ProtocolError, Props: Properties{ReasonString: new("long story"), User: []UserProperty{{"a", "b"}}}}
	if b, ok := d.AppendLimited(nil, V5, 12); !ok || !bytes.Equal(b, []byte("\xe0\x09\x82\x07\x26\x00\x01a\x00\x01b")) {
		t.Errorf("the reason string goes first, the user property stays: %v %x", ok, b)
	}
}

func TestDecodedPacketsOwnTheirBytes(t *testing.T) {
	for _, p := range samples(V5) {
		b := p.Append(nil, V5)
		f := mustFrame(t, b)
		if f.Type == PUBLISH {
			continue
		}
		got, err := Decode(V5, f)
		if err != nil {
			t.Fatal(err)
		}
		clear(b) // the read buffer is used again
		if !reflect.DeepEqual(got, p) {
			t.Errorf("%v changed with the read buffer: %+v", f.Type, got)
		}
	}
}

func TestNames(t *testing.T) {
	if got := (&Error{Code: MalformedPacket, Reason: "why", Cite: "MQTT-1.5.4-2"}).Error(); got != "Malformed Packet: why [MQTT-1.5.4-2]" {
		t.Error(got)
	}
	if PUBREL.String() != "PUBREL" || SessionTakenOver.String() != "Session taken over" || V311.String() != "3.1.1" {
		t.Error("wrong names")
	}
	if DisconnectWithWill.IsError() || !UnspecifiedError.IsError() {
		t.Error("0x80 is the first error")
	}
}
