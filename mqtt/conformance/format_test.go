package conformance

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 1.5 and 2: data and headers. Chapter 4.13, and 4.8 of 3.1.1: errors.

const (
	malformed     = packet.MalformedPacket
	protocolError = packet.ProtocolError
)

// What no client may send ends the connection it came on, and no other. A row without old is of MQTT 5 alone; 3.1 is
// left out where it has no such rule.
func TestWhatBreaksTheRulesEndsTheConnection(t *testing.T) {
	s := start(t)
	rows := []struct {
		name     string
		proves   string
		old, new []byte
		code     packet.ReasonCode
		not31    bool
	}{
		{"topic not UTF-8", "MQTT-1.5.4-1 MQTT-3.3.2-1 MQTT311-1.5.3-1 MQTT311-3.3.2-1", raw(0x30, "a\xff"), raw(0x30, "a\xff", 0), malformed, false},
		{"topic with a surrogate", "MQTT-1.5.4-1 MQTT311-1.5.3-1", raw(0x30, "a\xed\xa0\x80"), raw(0x30, "a\xed\xa0\x80", 0), malformed, false},
		{"topic with a second surrogate", "MQTT-1.5.4-1 MQTT311-1.5.3-1", raw(0x30, "\xed\xbf\xbf"), raw(0x30, "\xed\xbf\xbf", 0), malformed, false},
		{"topic with an overlong slash", "MQTT-1.5.4-1 MQTT311-1.5.3-1", raw(0x30, "a\xc0\xaf"), raw(0x30, "a\xc0\xaf", 0), malformed, false},
		{"topic with NUL", "MQTT-1.5.4-2 MQTT-4.7.3-2 MQTT311-1.5.3-2 MQTT311-4.7.3-2", raw(0x30, "a\x00b"), raw(0x30, "a\x00b", 0), malformed, false},
		{"filter with NUL", "MQTT-1.5.4-2 MQTT-4.7.3-2 MQTT311-1.5.3-2 MQTT311-4.7.3-2", raw(0x82, 0, 1, "a\x00", 0), raw(0x82, 0, 1, 0, "a\x00", 0), malformed, false},
		{"filter not UTF-8", "MQTT-3.8.3-1 MQTT311-3.8.3-1", raw(0x82, 0, 1, "\xc3(", 0), raw(0x82, 0, 1, 0, "\xc3(", 0), malformed, false},
		{"filter to unsubscribe not UTF-8", "MQTT-3.10.3-1 MQTT311-3.10.3-1", raw(0xa2, 0, 1, "\xc3("), raw(0xa2, 0, 1, 0, "\xc3("), malformed, false},
		{"name of a user property not UTF-8", "MQTT-1.5.7-1", nil, raw(0x30, "a", 7, 0x26, "\xff", "v"), malformed, false},
		{"value of a user property with NUL", "MQTT-1.5.7-1", nil, raw(0x30, "a", 7, 0x26, "k", "\x00"), malformed, false},
		{"value of a user property in SUBSCRIBE with a surrogate", "MQTT-1.5.7-1", nil, raw(0x82, 0, 1, 9, 0x26, "k", "\xed\xa0\x80", "a", 0), malformed, false},
		{"property length in two bytes where one will do", "MQTT-1.5.5-1", nil, raw(0x30, "a", 0x80, 0), malformed, false},
		{"subscription identifier in two bytes where one will do", "MQTT-1.5.5-1", nil, raw(0x82, 0, 1, 3, 0x0b, 0x81, 0, "a", 0), malformed, false},
		{"remaining length in two bytes where one will do", "MQTT-1.5.5-1", nil, []byte{0xc0, 0x80, 0}, malformed, false},
		{"length of five bytes", "MQTT-1.5.5-1", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, malformed, false},
		{"no property length", "MQTT-2.2.2-1", nil, raw(0x30, "a"), malformed, false},

		{"flags of PUBACK", "MQTT-2.1.3-1 MQTT311-2.2.2-1 MQTT311-2.2.2-2", raw(0x41, 0, 1), raw(0x41, 0, 1), malformed, false},
		{"flags of PUBREC", "MQTT-2.1.3-1 MQTT311-2.2.2-1 MQTT311-2.2.2-2", raw(0x52, 0, 1), raw(0x52, 0, 1), malformed, false},
		{"flags of PUBREL", "MQTT-3.6.1-1 MQTT311-3.6.1-1", raw(0x60, 0, 1), raw(0x60, 0, 1), malformed, false},
		{"flags of PUBCOMP", "MQTT-2.1.3-1 MQTT311-2.2.2-1 MQTT311-2.2.2-2", raw(0x78, 0, 1), raw(0x78, 0, 1), malformed, false},
		{"flags of SUBSCRIBE", "MQTT-3.8.1-1 MQTT311-3.8.1-1", raw(0x80, 0, 1, "a", 0), raw(0x80, 0, 1, 0, "a", 0), malformed, false},
		{"flags of UNSUBSCRIBE", "MQTT-3.10.1-1 MQTT311-3.10.1-1", raw(0xa0, 0, 1, "a"), raw(0xa0, 0, 1, 0, "a"), malformed, false},
		{"flags of PINGREQ", "MQTT-2.1.3-1 MQTT311-2.2.2-1 MQTT311-2.2.2-2", []byte{0xc1, 0}, []byte{0xc1, 0}, malformed, false},
		{"flags of DISCONNECT", "MQTT-3.14.1-1 MQTT311-3.14.1-1", []byte{0xe8, 0}, []byte{0xe8, 0}, malformed, false},
		{"type 0", "MQTT-4.13.1-1 MQTT311-4.8.0-1", []byte{0, 0}, []byte{0, 0}, malformed, false},
		{"type 15 before MQTT 5", "MQTT311-4.8.0-1", []byte{0xf0, 0}, nil, malformed, false},
		{"PINGREQ with a body", "MQTT-4.13.1-1 MQTT311-4.8.0-1", raw(0xc0, 7), raw(0xc0, 7), malformed, false},
		{"PUBACK cut short", "MQTT-4.13.1-1 MQTT311-4.8.0-1", raw(0x40, 0), raw(0x40, 0), malformed, false},
		{"topic longer than its packet", "MQTT-4.13.1-1 MQTT311-4.8.0-1", raw(0x30, 0, 9, 'a'), raw(0x30, 0, 9, 'a'), malformed, false},

		{"QoS 3", "MQTT-3.3.1-4 MQTT311-3.3.1-4", raw(0x36, "a", 0, 1), raw(0x36, "a", 0, 1, 0), malformed, false},
		{"DUP with QoS 0", "MQTT-3.3.1-2 MQTT311-3.3.1-2", raw(0x38, "a"), raw(0x38, "a", 0), malformed, false},
		{"PUBLISH with identifier 0", "MQTT-2.2.1-3 MQTT311-2.3.1-1", raw(0x32, "a", 0, 0), raw(0x32, "a", 0, 0, 0), protocolError, false},
		{"SUBSCRIBE with identifier 0", "MQTT-2.2.1-3 MQTT311-2.3.1-1", raw(0x82, 0, 0, "a", 0), raw(0x82, 0, 0, 0, "a", 0), protocolError, false},
		{"UNSUBSCRIBE with identifier 0", "MQTT-2.2.1-3 MQTT311-2.3.1-1", raw(0xa2, 0, 0, "a"), raw(0xa2, 0, 0, 0, "a"), protocolError, false},
		{"topic with +", "MQTT-3.3.2-2 MQTT-4.7.0-1 MQTT311-3.3.2-2 MQTT311-4.7.1-1", raw(0x30, "a/+"), raw(0x30, "a/+", 0), packet.TopicNameInvalid, false},
		{"topic with #", "MQTT-3.3.2-2 MQTT-4.7.0-1 MQTT311-3.3.2-2 MQTT311-4.7.1-1", raw(0x30, "#"), raw(0x30, "#", 0), packet.TopicNameInvalid, false},
		{"topic with # inside", "MQTT-3.3.2-2 MQTT-4.7.0-1 MQTT311-3.3.2-2 MQTT311-4.7.1-1", raw(0x30, "a#b"), raw(0x30, "a#b", 0), packet.TopicNameInvalid, false},
		{"topic empty", "MQTT-4.7.3-1 MQTT311-4.7.3-1", raw(0x30, ""), raw(0x30, "", 0), protocolError, false},

		{"alias 0", "MQTT-3.3.2-8", nil, raw(0x30, "a", 3, 0x23, 0, 0), packet.TopicAliasInvalid, false},
		{"response topic not UTF-8", "MQTT-3.3.2-13", nil, raw(0x30, "a", 4, 0x08, "\xff"), malformed, false},
		{"response topic with a wildcard", "MQTT-3.3.2-14", nil, raw(0x30, "a", 6, 0x08, "a/+"), protocolError, false},
		{"content type not UTF-8", "MQTT-3.3.2-19", nil, raw(0x30, "a", 4, 0x03, "\xff"), malformed, false},
		{"subscription identifier from a client", "MQTT-3.3.4-6", nil, raw(0x30, "a", 2, 0x0b, 1), protocolError, false},
		{"payload format 2", "MQTT-4.13.1-1", nil, raw(0x30, "a", 2, 0x01, 2), protocolError, false},
		{"expiry twice", "MQTT-4.13.1-1", nil, raw(0x30, "a", 10, 0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1), protocolError, false},
		{"a property of CONNECT in PUBLISH", "MQTT-4.13.1-1", nil, raw(0x30, "a", 3, 0x21, 0, 1), malformed, false},
		{"a property that does not exist", "MQTT-4.13.1-1", nil, raw(0x30, "a", 2, 0x7f, 1), malformed, false},
		{"code of PUBACK", "MQTT-3.4.2-1", nil, raw(0x40, 0, 1, 0x92), protocolError, false},
		{"code of PUBREC", "MQTT-3.5.2-1", nil, raw(0x50, 0, 1, 0x01), protocolError, false},
		{"code of PUBREL", "MQTT-3.6.2-1", nil, raw(0x62, 0, 1, 0x80), protocolError, false},
		{"code of PUBCOMP", "MQTT-3.7.2-1", nil, raw(0x70, 0, 1, 0x10), protocolError, false},
		{"code of DISCONNECT", "MQTT-3.14.2-1", nil, raw(0xe0, 0x01), protocolError, false},

		{"SUBSCRIBE without a filter", "MQTT-3.8.3-2 MQTT311-3.8.3-3", raw(0x82, 0, 1), raw(0x82, 0, 1, 0), protocolError, false},
		{"UNSUBSCRIBE without a filter", "MQTT-3.10.3-2 MQTT311-3.10.3-2", raw(0xa2, 0, 1), raw(0xa2, 0, 1, 0), protocolError, false},
		{"reserved bits of a subscription", "MQTT-3.8.3-5 MQTT311-3.8.3-4", raw(0x82, 0, 1, "a", 4), raw(0x82, 0, 1, 0, "a", 0x40), malformed, true},
		{"the other reserved bits", "MQTT-3.8.3-5 MQTT311-3.8.3-4", raw(0x82, 0, 1, "a", 0x80), raw(0x82, 0, 1, 0, "a", 0x80), malformed, true},
		{"subscription of QoS 3", "MQTT-4.13.1-1 MQTT311-3.8.3-4", raw(0x82, 0, 1, "a", 3), raw(0x82, 0, 1, 0, "a", 3), protocolError, false},
		{"retain handling 3", "MQTT-4.13.1-1", nil, raw(0x82, 0, 1, 0, "a", 0x30), protocolError, false},
		{"subscription identifier 0", "MQTT-4.13.1-1", nil, raw(0x82, 0, 1, 2, 0x0b, 0, "a", 0), protocolError, false},
		{"no local on a shared subscription", "MQTT-3.8.3-4", nil, raw(0x82, 0, 1, 0, "$share/g/a", 4), protocolError, false},
		{"filter without options", "MQTT-4.13.1-1 MQTT311-4.8.0-1", raw(0x82, 0, 1, "a"), raw(0x82, 0, 1, 0, "a"), malformed, false},
		{"CONNACK to a server", "MQTT-4.13.1-1 MQTT311-4.8.0-1", []byte{0x20, 2, 0, 0}, []byte{0x20, 3, 0, 0, 0}, protocolError, false},
		{"PINGRESP to a server", "MQTT-4.13.1-1 MQTT311-4.8.0-1", []byte{0xd0, 0}, []byte{0xd0, 0}, protocolError, false},
		{"second CONNECT", "MQTT-3.1.0-2 MQTT-3.2.0-2 MQTT311-3.1.0-2", raw(0x10, "MQTT", 4, 2, 0, 0, "c"), raw(0x10, "MQTT", 5, 2, 0, 0, 0, "c"), protocolError, false},
	}
	each(t, func(t *testing.T, v packet.Version) {
		other := s.connect(t, v, "other")
		other.Subscribe(1, "other")
		for _, row := range rows {
			b := forVersion(v, row.old, row.new)
			if b == nil || v == v31 && row.not31 {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				proves(t, row.proves)
				c := s.connect(t, v, "c")
				// What comes behind it is not handled [MQTT-4.13.1-1].
				c.SendRaw(append(slices.Clone(b), message("other", "behind", 0).Append(nil, v)...))
				refused(c, row.code)
			})
		}
		publish(other, message("other", "nothing was handled", 0))
		other.Receive("other", "nothing was handled", 0)
	})
}

func TestTextIsComparedAndForwardedByteByByte(t *testing.T) {
	proves(t, "MQTT-1.5.4-3 MQTT311-1.5.3-3", "MQTT-4.7.3-4 MQTT311-4.7.3-4", "MQTT-4.7.3-1 MQTT311-4.7.3-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		texts := []string{
			"\ufeffbom", "bom\ufeff", "bom", // a byte order mark is a character
			"\u00e9", "e\u0301", // one letter or two: no normalisation
			"A", "a", // case counts
			"/", "//", " ", "/a", "a/", "a//b", "a/b", "\U0001f600", "a$",
		}
		for i, filter := range texts {
			c.Subscribe(byte(i%2), filter)
		}
		for _, topic := range texts {
			c.Send(message(topic, topic, 0))
			c.Receive(topic, topic, 0)
		}
		silent(c)
	})
}

func TestTopicsOfTheLongestKind(t *testing.T) {
	proves(t, "MQTT-4.7.3-3 MQTT311-4.7.3-3")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		long := strings.Repeat("x", 65535)
		c.Subscribe(1, long, long[1:])
		c.Send(message(long, "whole", 0))
		c.Receive(long, "whole", 0)
		c.Send(message(long[1:], "one less", 0))
		c.Receive(long[1:], "one less", 0)
		c.Send(&packet.Unsubscribe{PacketID: 9, Filters: []string{long}})
		c.Expect(&packet.Unsuback{PacketID: 9, Codes: []packet.ReasonCode{0}})
	})
}

// What the server writes, held against bytes that were put together by hand.
func TestEveryPacketOfTheServerByteByByte(t *testing.T) {
	proves(t, "MQTT-2.2.1-2 MQTT311-2.3.1-5", "MQTT-2.2.1-5 MQTT311-2.3.1-6", "MQTT-2.2.1-6 MQTT311-2.3.1-7", "MQTT-2.2.2-1",
		"MQTT-2.1.3-1 MQTT311-2.2.2-1", "MQTT-3.3.2-1 MQTT311-3.3.2-1", "MQTT-3.6.1-1 MQTT311-3.6.1-1", "MQTT-3.12.4-1 MQTT311-3.12.4-1",
		"MQTT-3.9.3-2 MQTT311-3.9.3-2", "MQTT-3.11.3-2", "MQTT-4.3.1-1 MQTT311-4.3.1-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		step := func(send []byte, want ...[]byte) {
			t.Helper()
			c.SendRaw(send)
			for _, w := range want {
				if b := c.Bytes(); !bytes.Equal(b, w) {
					t.Fatalf("got % x\nwant % x", b, w)
				}
			}
		}
		step([]byte{0xc0, 0}, []byte{0xd0, 0})
		step(forVersion(v, raw(0x82, 0x12, 0x34, "a", 2, "b", 1, "c", 0), raw(0x82, 0x12, 0x34, 0, "a", 2, "b", 1, "c", 0)),
			forVersion(v, raw(0x90, 0x12, 0x34, 2, 1, 0), raw(0x90, 0x12, 0x34, 0, 2, 1, 0)))
		step(forVersion(v, raw(0xa2, 0x56, 0x78, "b", "x"), raw(0xa2, 0x56, 0x78, 0, "b", "x")),
			forVersion(v, raw(0xb0, 0x56, 0x78), raw(0xb0, 0x56, 0x78, 0, 0, 0x11)))
		step(forVersion(v, raw(0x30, "c", 'p'), raw(0x30, "c", 0, 'p')), forVersion(v, raw(0x30, "c", 'p'), raw(0x30, "c", 0, 'p')))
		p := s.connect(t, v, "p")
		publish(p, message("a", "q", 1))
		step(nil, forVersion(v, raw(0x32, "a", 0, 1, 'q'), raw(0x32, "a", 0, 1, 0, 'q')))
		step([]byte{0x40, 2, 0, 1})
		publish(p, message("a", "r", 2))
		m := mqtttest.Expect[*packet.Publish](c)
		id := []byte{byte(m.PacketID >> 8), byte(m.PacketID)}
		step(raw(0x50, id), raw(0x62, id))
		step(raw(0x70, id))
		p.Subscribe(0, "d") // so that there is somebody, and no code for nobody
		step(forVersion(v, raw(0x32, "d", 0xab, 0xcd, 'p'), raw(0x32, "d", 0xab, 0xcd, 0, 'p')), []byte{0x40, 2, 0xab, 0xcd})
		step(forVersion(v, raw(0x34, "d", 0xfe, 0xdc), raw(0x34, "d", 0xfe, 0xdc, 0)), []byte{0x50, 2, 0xfe, 0xdc})
		step([]byte{0x62, 2, 0xfe, 0xdc}, []byte{0x70, 2, 0xfe, 0xdc})
		step([]byte{0xe0, 0})
		c.ExpectClosed()
	})
}
