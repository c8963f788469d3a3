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
		{"connect 3.1.1 clean", AppendConnect(nil, V311, "ab", true), "100e 00044d515454 04 02 0000 00026162"},
		{"connect 3.1.1 kept", AppendConnect(nil, V311, "ab", false), "100e 00044d515454 04 00 0000 00026162"},
		{"connect 5 clean", AppendConnect(nil, V5, "ab", true), "100f 00044d515454 05 02 0000 00 00026162"},
		{"connect 5 kept", AppendConnect(nil, V5, "ab", false), "1014 00044d515454 05 00 0000 05 11ffffffff 00026162"},
		{"subscribe 3.1.1", AppendSubscribe(nil, V311, 7, "a/#", 1), "8208 0007 0003612f23 01"},
		{"subscribe 5", AppendSubscribe(nil, V5, 7, "a/#", 2), "8209 0007 00 0003612f23 02"},
		{"puback", AppendAck(nil, TypePuback, 0x1234), "4002 1234"},
		{"pubrec", AppendAck(nil, TypePubrec, 0x1234), "5002 1234"},
		{"pubrel", AppendAck(nil, TypePubrel, 0x1234), "6202 1234"},
		{"pubcomp", AppendAck(nil, TypePubcomp, 0x1234), "7002 1234"},
		{"disconnect", AppendDisconnect(nil), "e000"},
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
				b, idAt := AppendPublishHeader([]byte("before"), v, "bench/1/2", qos, qos == 1, size)
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
					string(p.Topic) != "bench/1/2" || p.ID != wantID || !bytes.Equal(p.Payload, payload) {
					t.Errorf("v%d qos %d size %d: got %+v", v, qos, size, p)
				}
			}
		}
	}
}

// TestDecodePartial cuts every packet at every byte: a cut one must ask for
// more, never fail and never be taken for whole.
func TestDecodePartial(t *testing.T) {
	publish, _ := AppendPublishHeader(nil, V5, "a/b", 1, false, 300)
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
		{"suback", V311, "9003 0007 80", Packet{Type: TypeSuback, ID: 7, Code: 0x80}},
		{"suback 5 with a reason", V5, "9008 0007 04 1f000161 02", Packet{Type: TypeSuback, ID: 7, Code: 2}},
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
			got.ReceiveMaximum != tc.want.ReceiveMaximum || got.ID != tc.want.ID {
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
		"two codes for one filter":    "9005 0007 00 0101",
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
