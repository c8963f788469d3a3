package packet

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func user(name, value string) []byte {
	return appendString(appendString([]byte{byte(PropUser)}, name), value)
}

// TestEndToEndKeepsOrder [MQTT-3.3.2-17], [MQTT-3.3.2-18].
func TestEndToEndKeepsOrder(t *testing.T) {
	format, alias := []byte("\x01\x01"), []byte("\x23\x00\x05")
	expiry, id := []byte("\x02\x00\x00\x00\x09"), []byte("\x0b\x80\x01")
	content := []byte("\x03\x00\x01c")
	for _, row := range []struct {
		what     string
		in, want [][]byte
		hop      bool
	}{
		{"nothing", nil, nil, false},
		{"end to end only", [][]byte{user("b", "1"), format, user("a", "2"), content}, [][]byte{user("b", "1"), format, user("a", "2"), content}, false},
		{"mixed", [][]byte{alias, user("b", "1"), id, format, expiry, user("b", "2"), id}, [][]byte{user("b", "1"), format, user("b", "2")}, true},
		{"hop by hop only", [][]byte{expiry, alias}, nil, true},
	} {
		in := Publish{Topic: []byte("t"), Props: bytes.Join(row.in, nil), Payload: []byte("p")}
		var p Publish
		if err := p.DecodeFromServer(V5, 0, mustFrame(t, in.Append(nil, V5)).Body); err != nil {
			t.Errorf("%s: %v", row.what, err)
			continue
		}
		got := p.AppendEndToEnd([]byte("x"))
		if want := append([]byte("x"), bytes.Join(row.want, nil)...); !bytes.Equal(got, want) || p.HopByHop != row.hop {
			t.Errorf("%s: %x hop %v, want %x", row.what, got, p.HopByHop, want)
		}
	}
}

func TestPublishPicksOutProperties(t *testing.T) {
	in := Publish{QoS: 2, PacketID: 5, Props: []byte("\x23\x01\x02\x02\x00\x00\x01\x00\x01\x01\x0b\x07\x0b\x80\x01")}
	var p Publish
	if err := p.DecodeFromServer(V5, 0b0100, mustFrame(t, in.Append(nil, V5)).Body); err != nil {
		t.Fatal(err)
	}
	if !p.HasTopicAlias || p.TopicAlias != 0x102 || !p.HasExpiry || p.Expiry != 256 || !p.HasPayloadFormat || p.PayloadFormat != 1 {
		t.Errorf("%+v", p)
	}
	if len(p.SubscriptionIDs) != 2 || p.SubscriptionIDs[0] != 7 || p.SubscriptionIDs[1] != 128 {
		t.Errorf("subscription identifiers %v", p.SubscriptionIDs)
	}
	if typed, err := p.Properties(); err != nil || *typed.TopicAlias != 0x102 {
		t.Errorf("%+v %v", typed, err)
	}
	wantError(t, p.Decode(V5, 0b0100, mustFrame(t, in.Append(nil, V5)).Body), ProtocolError, "the same from a client") // [MQTT-3.3.4-6]
	// The next packet leaves nothing of this one.
	if err := p.Decode(V5, 0, []byte("\x00\x01a\x00")); err != nil || p.HasTopicAlias || p.HasExpiry || len(p.SubscriptionIDs) > 0 || p.HopByHop {
		t.Errorf("%+v %v", p, err)
	}
}

func TestWillTravelsLikePublish(t *testing.T) {
	w := Will{Props: fullProperties()}
	var p Publish
	body := append([]byte("\x00\x01a"), insertLength(w.AppendEndToEnd(nil), 0)...)
	if err := p.Decode(V5, 0, body); err != nil {
		t.Fatal(err)
	}
	if p.HopByHop || !p.HasPayloadFormat || !bytes.Contains(p.Props, user("k", "2")) {
		t.Errorf("%+v", p) // [MQTT-3.1.3-10]
	}
}

func TestDeliveryMatchesItsSizeAndDecodes(t *testing.T) {
	for _, v := range versions {
		for _, payloadLen := range []int{0, 1, 100, 127, 128, 16383, 20000, 2097152} {
			for variant := range 32 {
				d := Delivery{QoS: byte(variant % 3), Dup: variant&1 != 0, Retain: variant&2 != 0, Topic: []byte("sensors/1/t"),
					PacketID: 9, Props: user("k", "v"), Payload: make([]byte, payloadLen)}
				if variant&4 != 0 {
					d.HasExpiry, d.Expiry = true, 77
				}
				if variant&8 != 0 {
					d.SubscriptionIDs = []uint32{1, 128, maxVarint}
				}
				if variant&16 != 0 && v == V5 {
					d.Alias, d.Topic = 3, nil
				}
				checkDelivery(t, v, &d)
			}
		}
	}
}

func checkDelivery(t *testing.T, v Version, d *Delivery) {
	t.Helper()
	b := d.Append(nil, v)
	head, idAt := d.AppendHead([]byte("before"), v)
	if len(b) != d.Size(v) || !bytes.Equal(b[:len(b)-len(d.Payload)], head[6:]) {
		t.Fatalf("%v %+v: size %d, wrote %d", v, d, d.Size(v), len(b))
	}
	if d.QoS == 0 && idAt != 0 || d.QoS > 0 && binary.BigEndian.Uint16(head[idAt:]) != d.PacketID {
		t.Fatalf("%v %+v: identifier at %d of % x", v, d, idAt, head)
	}
	f := mustFrame(t, b)
	var p Publish
	if err := p.DecodeFromServer(v, f.Flags, f.Body); err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	if p.QoS != d.QoS || p.Dup != (d.Dup && d.QoS > 0) || p.Retain != d.Retain || !bytes.Equal(p.Topic, d.Topic) || len(p.Payload) != len(d.Payload) {
		t.Fatalf("%v: %+v became %+v", v, d, p)
	}
	if v == V5 && (p.HasExpiry != d.HasExpiry || p.Expiry != d.Expiry || p.TopicAlias != d.Alias || len(p.SubscriptionIDs) != len(d.SubscriptionIDs)) {
		t.Fatalf("%v: %+v became %+v", v, d, p)
	}
}

// TestTopicNamePositions puts every suspicious byte at every place of topics of
// all lengths around the eight bytes that are looked at together.
func TestTopicNamePositions(t *testing.T) {
	for length := 1; length < 27; length++ {
		for at := range length {
			for c := range 256 {
				topic := bytes.Repeat([]byte("/"), length)
				topic[at] = byte(c)
				wantCode := Success
				switch {
				case c == 0 || c >= 0x80:
					wantCode = MalformedPacket
				case c == '+' || c == '#':
					wantCode = TopicNameInvalid
				}
				e := checkTopicName(topic)
				if e == nil && wantCode != Success || e != nil && e.Code != wantCode {
					t.Fatalf("%q: %v, want %v", topic, e, wantCode)
				}
				if e := checkText(topic); (e == nil) == (wantCode == MalformedPacket) {
					t.Fatalf("text %q: %v", topic, e)
				}
			}
		}
	}
	for _, s := range []string{"größe/temperatur", "\ufeffx", "𝄞", strings.Repeat("ü", 100), "\U0010ffff", "\uffff"} {
		if e := checkTopicName([]byte(s)); e != nil { // [MQTT-1.5.4-3]
			t.Errorf("%q: %v", s, e)
		}
	}
	for _, s := range []string{"\xed\xa0\x80", "\xed\xbf\xbf", "\xc0\x80", "\xf4\x90\x80\x80", "abcdefg\xc3", "\xe2\x82"} {
		if e := checkText([]byte(s)); e == nil || e.Cite != "MQTT-1.5.4-1" { // [MQTT-1.5.4-1]
			t.Errorf("%q: %v", s, e)
		}
	}
	if e := checkTopicName([]byte("ü/+")); e == nil || e.Code != TopicNameInvalid {
		t.Errorf("wildcard beyond ASCII: %v", e)
	}
}

const benchTopic = "plant/7/line/3/temperature"

func benchBody(v Version, props []byte) (flags byte, body []byte) {
	d := Delivery{QoS: 1, Topic: []byte(benchTopic), PacketID: 17, Props: props, Payload: make([]byte, 256)}
	f, _, _, _ := ReadFrame(d.Append(nil, v), 0)
	return f.Flags, f.Body
}

func TestHotPathsAllocateNothing(t *testing.T) {
	userProps := append(user("trace", "4711"), user("größe", "XL")...)
	mixed := append([]byte("\x23\x00\x05\x02\x00\x00\x00\x09"), userProps...)
	flags4, body4 := benchBody(V311, nil)
	flags5, body5 := benchBody(V5, mixed)
	frame := (&Delivery{Topic: []byte(benchTopic), Payload: make([]byte, 256)}).Append(nil, V311)
	buf := make([]byte, 0, 1024)
	var p, decoded Publish
	if err := decoded.Decode(V5, flags5, body5); err != nil {
		t.Fatal(err)
	}
	d := Delivery{QoS: 1, Topic: []byte(benchTopic), PacketID: 3, Props: userProps, HasExpiry: true, Expiry: 4,
		SubscriptionIDs: []uint32{1, 500}, Alias: 2, Payload: make([]byte, 256)}
	a := Ack{Type: PUBREL, PacketID: 5}
	short, withCode, long := []byte{0, 1}, []byte{0, 1, 0x10}, []byte{0, 1, 0x10, 0}
	var err error
	for name, do := range map[string]func(){
		"ReadFrame":               func() { _, _, _, err = ReadFrame(frame, 0) },
		"ReadFrame incomplete":    func() { _, _, _, err = ReadFrame(frame[:9], 0) },
		"Publish.Decode 3.1.1":    func() { err = p.Decode(V311, flags4, body4) },
		"Publish.Decode 5":        func() { err = p.Decode(V5, flags5, body5) },
		"AppendEndToEnd":          func() { buf = decoded.AppendEndToEnd(buf[:0]) },
		"Publish.Append":          func() { buf = decoded.Append(buf[:0], V5) },
		"Delivery.Append 3.1.1":   func() { buf = d.Append(buf[:0], V311) },
		"Delivery.Append 5":       func() { buf = d.Append(buf[:0], V5) },
		"Ack.Decode 3.1.1":        func() { err = a.Decode(V311, PUBACK, 0, short) },
		"Ack.Decode 5":            func() { err = a.Decode(V5, PUBREC, 0, withCode) },
		"Ack.Decode 5, long form": func() { err = a.Decode(V5, PUBREC, 0, long) },
		"Ack.Append":              func() { buf = a.Append(buf[:0], V5) },
		"AppendAck":               func() { buf = AppendAck(buf[:0], V5, PUBREC, 7, QuotaExceeded) },
		"AppendPingresp":          func() { buf = AppendPingresp(buf[:0]) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", name, n, err)
		}
	}
}

func BenchmarkReadFrame(b *testing.B) {
	frame := (&Delivery{Topic: []byte(benchTopic), Payload: make([]byte, 256)}).Append(nil, V311)
	for b.Loop() {
		if _, _, ok, _ := ReadFrame(frame, 0); !ok {
			b.Fatal("no frame")
		}
	}
}

func BenchmarkPublishDecode(b *testing.B) {
	for _, row := range []struct {
		name  string
		v     Version
		props []byte
	}{{"v311", V311, nil}, {"v5", V5, nil}, {"v5 expiry and two user properties", V5,
		append([]byte("\x02\x00\x00\x00\x09"), append(user("trace", "4711"), user("unit", "celsius")...)...)}} {
		flags, body := benchBody(row.v, row.props)
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			var p Publish
			for b.Loop() {
				if err := p.Decode(row.v, flags, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeliveryAppend(b *testing.B) {
	for _, row := range []struct {
		name string
		v    Version
		d    Delivery
	}{{"v311", V311, Delivery{}}, {"v5", V5, Delivery{}},
		{"v5 expiry, identifier, user property", V5, Delivery{HasExpiry: true, Expiry: 9, SubscriptionIDs: []uint32{300}, Props: user("trace", "4711")}}} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			d := row.d
			d.QoS, d.PacketID, d.Topic, d.Payload = 1, 3, []byte(benchTopic), make([]byte, 256)
			buf := make([]byte, 0, 512)
			for b.Loop() {
				buf = d.Append(buf[:0], row.v)
			}
		})
	}
}
