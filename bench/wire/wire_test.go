package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
)

// TestEncodeBytes pins what is sent against bytes written by hand, since the
// decoder is for the other direction and proves nothing about most of it.
func TestEncodeBytes(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"connect 3.1.1 clean", AppendConnect(nil, Connect{Version: V311, ClientID: "ab", Clean: true}), "100e 00044d515454 04 02 0000 00026162"},
		{"connect 3.1.1 kept", AppendConnect(nil, Connect{Version: V311, ClientID: "ab"}), "100e 00044d515454 04 00 0000 00026162"},
		{"connect 5 clean", AppendConnect(nil, Connect{Version: V5, ClientID: "ab", Clean: true}), "100f 00044d515454 05 02 0000 00 00026162"},
		{"connect 5 kept", AppendConnect(nil, Connect{Version: V5, ClientID: "ab"}), "1014 00044d515454 05 00 0000 05 11ffffffff 00026162"},
		{"connect 3.1.1 with a user", AppendConnect(nil, Connect{Version: V311, ClientID: "ab", Clean: true, User: "u", Password: "pw"}),
			"1015 00044d515454 04 c2 0000 00026162 000175 00027077"},
		{"subscribe 3.1.1", AppendSubscribe(nil, V311, 7, 1, "a/#"), "8208 0007 0003612f23 01"},
		{"subscribe 5", AppendSubscribe(nil, V5, 7, 2, "a/#"), "8209 0007 00 0003612f23 02"},
		{"subscribe 5 to two", AppendSubscribe(nil, V5, 7, 1, "a", "b/+"), "820d 0007 00 000161 01 0003622f2b 01"},
		{"puback", AppendAck(nil, TypePuback, 0x1234), "4002 1234"},
		{"pubrec", AppendAck(nil, TypePubrec, 0x1234), "5002 1234"},
		{"pubrel", AppendAck(nil, TypePubrel, 0x1234), "6202 1234"},
		{"pubcomp", AppendAck(nil, TypePubcomp, 0x1234), "7002 1234"},
		{"disconnect", AppendDisconnect(nil), "e000"},
		{"disconnect with will", AppendDisconnectWithWill(nil), "e001 04"},
		{"connect 3.1.1 will", AppendConnect(nil, Connect{Version: V311, ClientID: "ab", Will: &Will{Topic: "w", Payload: []byte("x"), QoS: 2, Retain: true}}),
			"1014 00044d515454 04 34 0000 00026162 000177 000178"},
		{"connect 5 will, delay, receive maximum", AppendConnect(nil, Connect{Version: V5, ClientID: "ab", Clean: true, ReceiveMaximum: 7,
			Will: &Will{Topic: "w", Payload: []byte("x"), QoS: 1, Delay: 9}}),
			"101e 00044d515454 05 0e 0000 03 210007 00026162 05 1800000009 000177 000178"},
		{"unsubscribe 3.1.1", AppendUnsubscribe(nil, V311, 7, "a/#"), "a207 0007 0003612f23"},
		{"unsubscribe 5", AppendUnsubscribe(nil, V5, 7, "a/#"), "a208 0007 00 0003612f23"},
		{"publish 3.1.1 again", (&Publish{Topic: "a", Payload: []byte("x"), QoS: 1, Dup: true, ID: 9, Expiry: 5}).Append(nil, V311), "3a06 000161 0009 78"},
		{"publish 5 retained, expires", (&Publish{Topic: "a", Payload: []byte("x"), QoS: 2, Retain: true, ID: 9, Expiry: 5}).Append(nil, V5),
			"350c 000161 0009 05 0200000005 78"},
		{"publish 5 plain", (&Publish{Topic: "a"}).Append(nil, V5), "3004 000161 00"},
	} {
		if want := unhex(t, tc.want); !bytes.Equal(tc.got, want) {
			t.Errorf("%s: got %x, want %x", tc.name, tc.got, want)
		}
	}
}

func TestPublishRoundTrip(t *testing.T) {
	for _, v := range []Version{V311, V5} {
		for qos := byte(0); qos <= 2; qos++ {
			for _, size := range []int{0, 16, 100, 127, 128, 256, 16383, 16384, 70000, 2097152} {
				payload := bytes.Repeat([]byte{0xA5}, size)
				b, idAt := AppendPublishHeader([]byte("before"), v, "bench/1/2", qos, qos == 1, carried(v).Block(), size)
				if qos > 0 {
					binary.BigEndian.PutUint16(b[idAt:], 513)
				}
				b = append(b, payload...)[len("before"):]

				var p Packet
				n, err := Decode(append(b, 0x30), v, &p)
				if err != nil || n != len(b) {
					t.Fatalf("v%d qos %d size %d: length %d of %d, %v", v, qos, size, n, len(b), err)
				}
				wantID := uint16(513)
				if qos == 0 {
					wantID = 0
				}
				if p.Type != TypePublish || p.QoS != qos || p.Retain != (qos == 1) || p.Dup ||
					string(p.Topic) != "bench/1/2" || p.ID != wantID || !bytes.Equal(p.Payload, payload) || !carried(v).Arrived(p.Properties) {
					t.Errorf("v%d qos %d size %d: got %+v", v, qos, size, p)
				}
			}
		}
	}
}

// carried is what a message of the version can carry.
func carried(v Version) *PublishProperties {
	if v == V5 {
		return NewPublishProperties()
	}
	return nil
}

// TestPropertiesArrived changes the properties of a message on its way: some
// changes are a broker's right, the others must be noticed.
func TestPropertiesArrived(t *testing.T) {
	const (
		expiry   = "02 00000e10"
		kind     = "03 0018 6170706c69636174696f6e2f6f637465742d73747265616d"
		reply    = "08 000b 62656e63682f7265706c79"
		matching = "09 0008 00010203fcfdfeff"
		site     = "26 0004 73697465 0005 6e6f727468"
		unit     = "26 0004 756e6974 0006 70756d702d37"
	)
	p := NewPublishProperties()
	for _, tc := range []struct {
		name string
		in   string
		want bool
	}{
		{"as sent", expiry + kind + reply + matching + site + unit, true},
		{"another order of kinds", site + reply + matching + kind + unit + expiry, true},
		{"less expiry", "02 00000e0f" + kind + reply + matching + site + unit, true},
		{"more expiry", "02 00000e11" + kind + reply + matching + site + unit, false},
		{"no expiry", kind + reply + matching + site + unit, false},
		{"user properties exchanged", expiry + kind + reply + matching + unit + site, false},
		{"one user property twice", expiry + kind + reply + matching + site + site, false},
		{"none lost, one added", expiry + kind + reply + matching + site + unit + unit, false},
		{"identifier and alias on top", "0b 8001" + expiry + kind + "23 0001" + reply + matching + site + unit, true},
		{"correlation data changed", expiry + kind + reply + "09 0008 00010203fcfdfefe" + site + unit, false},
		{"nothing", "", false},
		{"cut", expiry + kind + "08 00ff 62", false},
		{"unknown property", "7f", false},
	} {
		if got := p.Arrived(unhex(t, tc.in)); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	var none *PublishProperties
	if !none.Arrived(nil) || none.Arrived(p.Block()) {
		t.Error("without properties only none at all is right")
	}
}

// TestDecodePartial cuts every packet at every byte: a cut one must ask for
// more, never fail and never be taken for whole.
func TestDecodePartial(t *testing.T) {
	publish, _ := AppendPublishHeader(nil, V5, "a/b", 1, false, NewPublishProperties().Block(), 300)
	publish = append(publish, make([]byte, 300)...)
	for _, whole := range [][]byte{
		publish,
		AppendAck(nil, TypePubrec, 9),
		unhex(t, "2006 00 00 03 210014"),
		unhex(t, "9004 0007 00 01"),
		unhex(t, "e000"),
	} {
		var p Packet
		for cut := range whole {
			if n, err := Decode(whole[:cut], V5, &p); n != 0 || err != nil {
				t.Errorf("%x cut at %d: length %d, %v", whole[:min(8, len(whole))], cut, n, err)
			}
		}
		if n, err := Decode(whole, V5, &p); n != len(whole) || err != nil {
			t.Errorf("%x: length %d, %v", whole[:min(8, len(whole))], n, err)
		}
	}
}

func TestDecodeReceived(t *testing.T) {
	for _, tc := range []struct {
		name string
		v    Version
		in   string
		want Packet
	}{
		{"connack", V311, "2002 01 00", Packet{Type: TypeConnack, SessionPresent: true, ReceiveMaximum: 65535}},
		{"connack refused", V311, "2002 00 05", Packet{Type: TypeConnack, Code: 5, ReceiveMaximum: 65535}},
		{"connack 5", V5, "2003 00 00 00", Packet{Type: TypeConnack, ReceiveMaximum: 65535}},
		{"connack 5 with receive maximum behind others", V5,
			"2014 01 00 11 22000a 26000161000162 120001 63 210014", Packet{Type: TypeConnack, SessionPresent: true, ReceiveMaximum: 20}},
		{"suback", V311, "9003 0007 80", Packet{Type: TypeSuback, ID: 7, Codes: []byte{0x80}}},
		{"unsuback", V311, "b002 0007", Packet{Type: TypeUnsuback, ID: 7}},
		{"unsuback 5", V5, "b004 0007 00 11", Packet{Type: TypeUnsuback, ID: 7, Code: 0x11}},
		{"suback 5 with a reason", V5, "9008 0007 04 1f000161 02", Packet{Type: TypeSuback, ID: 7, Codes: []byte{2}}},
		{"suback for three", V311, "9005 0007 010080", Packet{Type: TypeSuback, ID: 7, Codes: []byte{1, 0, 0x80}}},
		{"puback 5 short", V5, "4002 0009", Packet{Type: TypePuback, ID: 9}},
		{"puback 5 refused", V5, "4003 0009 97", Packet{Type: TypePuback, ID: 9, Code: 0x97}},
		{"disconnect 5", V5, "e001 8e", Packet{Type: TypeDisconnect, Code: 0x8E}},
	} {
		var got Packet
		b := unhex(t, tc.in)
		n, err := Decode(b, tc.v, &got)
		if err != nil || n != len(b) {
			t.Errorf("%s: length %d of %d, %v", tc.name, n, len(b), err)
			continue
		}
		if got.Type != tc.want.Type || got.SessionPresent != tc.want.SessionPresent || got.Code != tc.want.Code ||
			got.ReceiveMaximum != tc.want.ReceiveMaximum || got.ID != tc.want.ID || !bytes.Equal(got.Codes, tc.want.Codes) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, in := range map[string]string{
		"length of five bytes":        "30 ffffffff01",
		"topic longer than packet":    "3003 000561",
		"no packet identifier":        "3203 000161",
		"ack of one byte":             "4001 00",
		"connack of one byte":         "2001 00",
		"unknown connack property":    "2005 0000 02 7f00",
		"properties past the end":     "3005 000161 09 00",
		"no code in a suback":         "9003 0007 00",
		"a packet only servers get":   "c000",
		"receive maximum cut in half": "2005 0000 02 2100",
	} {
		var p Packet
		if n, err := Decode(unhex(t, in), V5, &p); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: length %d, %v", name, n, err)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
