package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Chapters 3.1 CONNECT, 3.2 CONNACK, 3.12 PINGREQ and 3.14 DISCONNECT.

// connectBytes is a CONNECT put together by hand: behind the keep alive, old is for 3.1 and 3.1.1, and what MQTT 5 has
// more comes first.
func connectBytes(v packet.Version, flags byte, parts ...any) []byte {
	name := "MQTT"
	if v == v31 {
		name = "MQIsdp"
	}
	head := []any{name, int(v), int(flags), 0, 0}
	if v == v5 {
		head = append(head, 0)
	}
	return raw(0x10, append(head, parts...)...)
}

// A CONNECT that is not right ends the connection, with a CONNACK at most.
func TestAWrongConnectEndsTheConnection(t *testing.T) {
	s := start(t)
	watch := s.connect(t, v5, "watch")
	watch.Subscribe(1, "watch")
	rows := []struct {
		name   string
		proves string
		bytes  func(v packet.Version) []byte
		only   []packet.Version
	}{
		{"another name", "MQTT-3.1.2-1 MQTT311-3.1.2-1", func(v packet.Version) []byte {
			return bytes.Replace(connectBytes(v, 2, "c"), []byte("MQ"), []byte("mq"), 1)
		}, nil},
		{"a level that does not exist", "MQTT-3.1.2-2 MQTT311-3.1.2-2", func(v packet.Version) []byte {
			b := connectBytes(v, 2, "c")
			b[bytes.IndexByte(b[5:], byte(v))+5] = 99
			return b
		}, nil},
		{"reserved flag", "MQTT-3.1.2-3 MQTT311-3.1.2-3", func(v packet.Version) []byte { return connectBytes(v, 3, "c") }, []packet.Version{v311, v5}},
		{"header flags", "MQTT-2.1.3-1 MQTT311-2.2.2-2", func(v packet.Version) []byte {
			b := connectBytes(v, 2, "c")
			b[0] |= 2
			return b
		}, []packet.Version{v311, v5}},
		{"will QoS without a will", "MQTT-3.1.2-11 MQTT311-3.1.2-13 MQTT311-3.1.2-11", func(v packet.Version) []byte { return connectBytes(v, 0x0a, "c") }, []packet.Version{v311, v5}},
		{"will QoS 3", "MQTT-3.1.2-12 MQTT311-3.1.2-14", func(v packet.Version) []byte { return connectBytes(v, 0x1e, "c", willParts(v, "t", "m")) }, nil},
		{"will retain without a will", "MQTT-3.1.2-13 MQTT311-3.1.2-15 MQTT311-3.1.2-11", func(v packet.Version) []byte { return connectBytes(v, 0x22, "c") }, []packet.Version{v311, v5}},
		{"a will that is not there", "MQTT-3.1.2-9 MQTT311-3.1.2-9", func(v packet.Version) []byte { return connectBytes(v, 0x06, "c") }, nil},
		{"a will without a message", "MQTT-3.1.2-9 MQTT311-3.1.2-9", func(v packet.Version) []byte {
			b := willParts(v, "t", "")
			return connectBytes(v, 0x06, "c", b[:len(b)-2])
		}, nil},
		{"a will that was not announced", "MQTT-4.13.1-1 MQTT311-3.1.2-11", func(v packet.Version) []byte { return connectBytes(v, 0x02, "c", "t", "m") }, nil},
		{"a user name without its flag", "MQTT-3.1.2-16 MQTT311-3.1.2-18", func(v packet.Version) []byte { return connectBytes(v, 0x02, "c", "user") }, nil},
		{"a user name that is not there", "MQTT-3.1.2-17 MQTT311-3.1.2-19", func(v packet.Version) []byte { return connectBytes(v, 0x82, "c") }, []packet.Version{v311, v5}},
		{"a password without its flag", "MQTT-3.1.2-18 MQTT311-3.1.2-20", func(v packet.Version) []byte { return connectBytes(v, 0x82, "c", "user", "word") }, nil},
		{"a password that is not there", "MQTT-3.1.2-19 MQTT311-3.1.2-21", func(v packet.Version) []byte { return connectBytes(v, 0xc2, "c", "user") }, []packet.Version{v311, v5}},
		{"a password without a user name", "MQTT311-3.1.2-22", func(v packet.Version) []byte { return connectBytes(v, 0x42, "c", "word") }, []packet.Version{v31, v311}},
		{"no client identifier", "MQTT-3.1.3-3 MQTT311-3.1.3-3", func(v packet.Version) []byte { return connectBytes(v, 2) }, nil},
		{"a client identifier that is not UTF-8", "MQTT-3.1.3-4 MQTT311-3.1.3-4", func(v packet.Version) []byte { return connectBytes(v, 2, "\xff") }, nil},
		{"a client identifier with NUL", "MQTT-3.1.3-4 MQTT311-3.1.3-4", func(v packet.Version) []byte { return connectBytes(v, 2, "a\x00") }, nil},
		{"a will topic that is not UTF-8", "MQTT-3.1.3-11 MQTT311-3.1.3-10", func(v packet.Version) []byte { return connectBytes(v, 6, "c", willParts(v, "\xff", "m")) }, nil},
		{"a will topic with a wildcard", "MQTT-4.7.0-1 MQTT311-4.7.1-1", func(v packet.Version) []byte { return connectBytes(v, 6, "c", willParts(v, "a/#", "m")) }, nil},
		{"a user name that is not UTF-8", "MQTT-3.1.3-12 MQTT311-3.1.3-11", func(v packet.Version) []byte { return connectBytes(v, 0x82, "c", "\xed\xa0\x80") }, []packet.Version{v311, v5}},
		{"bytes behind the end", "MQTT-3.1.4-1 MQTT311-3.1.4-1", func(v packet.Version) []byte { return connectBytes(v, 2, "c", 1) }, nil},
		{"a property of another packet", "MQTT-3.1.4-1", func(packet.Version) []byte { return raw(0x10, "MQTT", 5, 2, 0, 0, 3, 0x23, 0, 1, "c") }, []packet.Version{v5}},
		{"a property twice", "MQTT-3.1.4-1", func(packet.Version) []byte {
			return raw(0x10, "MQTT", 5, 2, 0, 0, 6, 0x21, 0, 1, 0x21, 0, 1, "c")
		}, []packet.Version{v5}},
		{"receive maximum 0", "MQTT-3.1.4-1", func(packet.Version) []byte { return raw(0x10, "MQTT", 5, 2, 0, 0, 3, 0x21, 0, 0, "c") }, []packet.Version{v5}},
		{"empty identifier without clean session", "MQTT311-3.1.3-7 MQTT311-3.1.3-8", func(v packet.Version) []byte { return connectBytes(v, 0, "") }, []packet.Version{v311}},
		{"PUBLISH first", "MQTT-3.1.0-1 MQTT311-3.1.0-1", func(v packet.Version) []byte { return message("watch", "first", 0).Append(nil, v) }, nil},
		{"PINGREQ first", "MQTT-3.1.0-1 MQTT311-3.1.0-1", func(packet.Version) []byte { return []byte{0xc0, 0} }, nil},
		{"DISCONNECT first", "MQTT-3.1.0-1 MQTT311-3.1.0-1", func(packet.Version) []byte { return []byte{0xe0, 0} }, nil},
	}
	proves(t, "MQTT-3.1.4-1 MQTT-3.1.4-6 MQTT311-3.1.4-1 MQTT311-3.1.4-5", "MQTT-3.2.2-6 MQTT-3.2.2-7 MQTT-3.2.2-8 MQTT-3.14.0-1 MQTT-4.13.2-1",
		"MQTT311-3.2.2-4 MQTT311-3.2.2-5 MQTT311-3.2.2-6")
	each(t, func(t *testing.T, v packet.Version) {
		for _, row := range rows {
			if row.only != nil && !slices.Contains(row.only, v) {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				proves(t, row.proves)
				c := s.dial(t, v)
				// What comes behind it is not handled, whatever it is.
				b := append(row.bytes(v), mqtttest.ConnectPacket("c", v).Append(nil, v)...)
				c.SendRaw(message("watch", "behind", 1).Append(b, v))
				notAccepted(c)
			})
		}
	})
	publish(watch, message("watch", "only this", 0))
	watch.Receive("watch", "only this", 0)
}

// notAccepted expects the end of the connection, and before it at most a CONNACK that refuses.
func notAccepted(c *client) {
	c.T.Helper()
	var b bytes.Buffer
	_ = c.Conn.SetDeadline(deadline())
	if _, err := b.ReadFrom(c.Conn); err != nil && !isReset(err) {
		c.T.Fatalf("the connection does not end: %v", err)
	}
	if b.Len() == 0 {
		return
	}
	f, _, ok, err := packet.ReadFrame(b.Bytes(), 0)
	if err != nil || !ok || f.Type != packet.CONNACK || f.Size != b.Len() {
		c.T.Fatalf("got % x, want nothing or a CONNACK", b.Bytes())
	}
	var ack packet.Connack
	v := v311
	if f.Size > 4 { // a level that does not exist may be answered in the form of MQTT 5
		v = v5
	}
	if err := ack.Decode(v, f.Flags, f.Body); err != nil || ack.Code == packet.Success || ack.SessionPresent {
		c.T.Fatalf("got % x, %v", b.Bytes(), err)
	}
}

// willParts are the fields of a will as they stand in CONNECT.
func willParts(v packet.Version, topic, payload string) []byte {
	b := append(text(topic), text(payload)...)
	if v == v5 {
		b = append([]byte{0}, b...)
	}
	return b
}

func TestEveryFieldOfConnectIsWhereItBelongs(t *testing.T) {
	proves(t, "MQTT-3.1.3-1 MQTT311-3.1.3-1", "MQTT-3.1.2-9 MQTT311-3.1.2-9", "MQTT-3.1.2-17 MQTT311-3.1.2-19", "MQTT-3.1.2-19 MQTT311-3.1.2-21")
	s := start(t)
	watch := s.connect(t, v5, "watch")
	watch.Subscribe(2, "will topic")
	each(t, func(t *testing.T, v packet.Version) {
		c := s.dial(t, v)
		// Clean start, a will of QoS 1, user name and password.
		c.SendRaw(connectBytes(v, 0xce, "client identifier", willParts(v, "will topic", "will payload"), "user name", "password"))
		if a := mqtttest.Expect[*packet.Connack](c); a.Code != packet.Success || a.SessionPresent {
			t.Fatalf("CONNACK %+v", a)
		}
		c.Ping()
		c.Drop()
		watch.Receive("will topic", "will payload", 1)
		if d := s.connect(t, v, "client identifier"); v == v5 { // a user name without a password, and the other way round
			d.Disconnect()
			for _, b := range [][]byte{connectBytes(v, 0x82, "d", "user"), connectBytes(v, 0x42, "d", "password")} {
				d = s.dial(t, v)
				d.SendRaw(b)
				if a := mqtttest.Expect[*packet.Connack](d); a.Code != packet.Success {
					t.Fatalf("CONNACK %+v", a)
				}
			}
		}
	})
}

func TestConnackIsTheFirstPacketAndTheOnlyOne(t *testing.T) {
	proves(t, "MQTT-3.1.4-5 MQTT311-3.1.4-4", "MQTT-3.2.0-1 MQTT311-3.2.0-1", "MQTT-3.2.0-2", "MQTT-3.2.2-1", "MQTT-3.12.4-1 MQTT311-3.12.4-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		id := "c" + v.String()
		c := s.resume(t, v, id)
		c.Subscribe(1, "a")
		c.Disconnect()
		p := s.connect(t, v, "p")
		for range 3 {
			publish(p, message("a", "waits", 1))
		}
		c = s.dial(t, v)
		// All in one piece, without waiting for the answer.
		connect := mqtttest.ConnectPacket(id, v, kept(v)...)
		c.Send(connect, &packet.Pingreq{}, &packet.Pingreq{})
		if b := c.Bytes(); b[0] != 0x20 || b[2]&0xfe != 0 || b[3] != 0 || v != v5 && len(b) != 4 {
			t.Fatalf("got % x first", b)
		}
		pongs, messages := 0, 0
		for pongs < 2 || messages < 3 {
			switch p := c.Next().(type) {
			case *packet.Pingresp:
				pongs++
			case *packet.Publish:
				messages++
				c.Send(ack(packet.PUBACK, p.PacketID))
			default:
				t.Fatalf("got %s", mqtttest.Words(p))
			}
		}
	})
}

func TestIdentifiersThatEveryServerAccepts(t *testing.T) {
	proves(t, "MQTT-3.1.3-5 MQTT311-3.1.3-5")
	s := start(t)
	const all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	ids := []string{all[:23], all[23:46], all[39:], "a", "0", "Z"}
	each(t, func(t *testing.T, v packet.Version) {
		for _, id := range ids {
			s.connect(t, v, id).Disconnect()
		}
	})
}

func TestAnEmptyIdentifierIsReplaced(t *testing.T) {
	proves(t, "MQTT-3.1.3-6 MQTT311-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
	s := start(t)
	seen := make(map[string]bool)
	for range 3 {
		c := s.dial(t, v5)
		a := c.Connect("", kept(v5)...)
		if a.Props.AssignedClientID == nil || *a.Props.AssignedClientID == "" || seen[*a.Props.AssignedClientID] || a.SessionPresent {
			t.Fatalf("CONNACK %+v", a)
		}
		id := *a.Props.AssignedClientID
		seen[id] = true
		c.Subscribe(1, "a")
		c.Disconnect()
		// It is an identifier like any other.
		c = s.dial(t, v5)
		if a = c.Connect(id, kept(v5)...); !a.SessionPresent || a.Props.AssignedClientID != nil {
			t.Fatalf("CONNACK %+v", a)
		}
	}
	// Two clients without an identifier are two clients.
	c, d := s.connect(t, v311, ""), s.connect(t, v311, "")
	c.Subscribe(0, "b")
	d.Subscribe(0, "b")
	c.Ping()
	d.Send(message("b", "x", 0))
	c.Receive("b", "x", 0)
	d.Receive("b", "x", 0)
}

func TestAnIdentifierThatIsNotAcceptedIsRefused(t *testing.T) {
	proves(t, "MQTT-3.1.3-8 MQTT311-3.1.3-9", "MQTT-3.2.2-7 MQTT311-3.2.2-5", "MQTT-3.1.4-2", "MQTT311-3.1.3-8")
	s := start(t, func(c *config.Config) { c.Sessions.MaxClientID = 30 })
	each(t, func(t *testing.T, v packet.Version) {
		s.connect(t, v, strings.Repeat("x", 30)).Ping()
		c := s.dial(t, v)
		c.Send(mqtttest.ConnectPacket(strings.Repeat("x", 31), v), &packet.Pingreq{})
		if b := c.Bytes(); b[2] != 0 || v == v5 && b[3] != 0x85 || v != v5 && b[3] != 2 {
			t.Fatalf("CONNACK % x", b)
		}
		c.ExpectClosed()
	})
	c := s.dial(t, v311)
	c.Send(mqtttest.ConnectPacket("", v311, mqtttest.Resume))
	if b := c.Bytes(); !bytes.Equal(b, []byte{0x20, 2, 0, 2}) {
		t.Fatalf("CONNACK % x", b)
	}
	c.ExpectClosed()
}

func TestALevelThatIsNotSpokenIsAnswered(t *testing.T) {
	proves(t, "MQTT-3.1.2-2 MQTT311-3.1.2-2", "MQTT-3.1.2-1")
	ourChoice(t)
	s := start(t)
	for _, row := range []struct {
		name string
		b    []byte
		want []byte
	}{
		{"level 2", raw(0x10, "MQTT", 2, 2, 0, 0, "c"), []byte{0x20, 2, 0, 1}},
		{"level 0x84, of a bridge", raw(0x10, "MQTT", 0x84, 2, 0, 0, "c"), []byte{0x20, 2, 0, 1}},
		{"level 6", raw(0x10, "MQTT", 6, 2, 0, 0, 0, "c"), []byte{0x20, 0, 0, 0x84}},
		{"another name", raw(0x10, "MQTX", 5, 2, 0, 0, 0, "c"), []byte{0x20, 0, 0, 0x84}},
	} {
		c := s.dial(t, v5)
		c.SendRaw(row.b)
		if b := c.Bytes(); b[0] != 0x20 || !bytes.Equal(b[2:4], row.want[2:]) || len(row.want) != 4 || row.want[1] != 0 && len(b) != 4 {
			t.Errorf("%s: got % x", row.name, b)
		}
		c.ExpectClosed()
	}
}

func TestASecondConnectionEndsTheFirst(t *testing.T) {
	proves(t, "MQTT-3.1.4-3 MQTT311-3.1.4-2", "MQTT-3.1.3-2 MQTT311-3.1.3-2", "MQTT-3.14.4-2", "MQTT-4.13.2-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		for _, w := range versions {
			first := s.connect(t, v, "c")
			second := s.connect(t, w, "c")
			first.ExpectDisconnect(packet.SessionTakenOver)
			second.Ping()
			s.connect(t, v, "C").Ping() // another identifier, another client
			second.Ping()
		}
	})
}

// What comes behind DISCONNECT is not handled, and the server closes.
func TestNothingIsTakenBehindDisconnect(t *testing.T) {
	proves(t, "MQTT-3.14.4-1 MQTT-3.14.4-2 MQTT311-3.14.4-1 MQTT311-3.14.4-2", "MQTT-3.14.2-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		watch := s.connect(t, v, "watch")
		watch.Subscribe(1, "a")
		c := s.connect(t, v, "c")
		c.Send(message("a", "before", 0), &packet.Disconnect{}, message("a", "behind", 0), &packet.Pingreq{})
		c.ExpectClosed()
		watch.Receive("a", "before", 0)
		silent(watch)
	})
	for _, code := range []packet.ReasonCode{packet.NormalDisconnection, packet.DisconnectWithWill, packet.UnspecifiedError, packet.MalformedPacket,
		packet.ProtocolError, packet.ImplementationSpecificError, packet.TopicNameInvalid, packet.ReceiveMaximumExceeded, packet.TopicAliasInvalid,
		packet.PacketTooLarge, packet.MessageRateTooHigh, packet.QuotaExceeded, packet.AdministrativeAction, packet.PayloadFormatInvalid} {
		c := s.connect(t, v5, "c")
		reason := "because"
		c.Send(&packet.Disconnect{Code: code, Props: packet.Properties{ReasonString: &reason, User: []packet.UserProperty{{Name: "k", Value: "v"}}}})
		c.ExpectClosed()
	}
}

// Reason strings and user properties of the server do not push a packet over the client's limit, and go only where they
// are wanted.
func TestReasonsAreLeftOutWhereTheyDoNotFit(t *testing.T) {
	proves(t, "MQTT-3.2.2-19 MQTT-3.2.2-20", "MQTT-3.14.2-3 MQTT-3.14.2-4", "MQTT-3.1.2-29", "MQTT-3.1.2-24", "MQTT-3.14.2-2",
		"MQTT-3.4.2-2 MQTT-3.4.2-3 MQTT-3.5.2-2 MQTT-3.5.2-3 MQTT-3.6.2-2 MQTT-3.6.2-3 MQTT-3.7.2-2 MQTT-3.7.2-3",
		"MQTT-3.9.2-1 MQTT-3.9.2-2 MQTT-3.11.2-1 MQTT-3.11.2-2")
	ourChoice(t)
	s := start(t)
	none := func(p *packet.Connect) { no := false; p.Props.RequestProblemInfo = &no }
	for _, row := range []struct {
		name    string
		options []mqtttest.Option
		limit   int
		wanted  bool
	}{
		{"no limit", nil, 1 << 20, true},
		{"20 bytes", []mqtttest.Option{mqtttest.MaximumPacketSize(20)}, 20, true},
		{"no problem information", []mqtttest.Option{none}, 1 << 20, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := s.connect(t, v5, "c", row.options...)
			// Each of them is refused, so that there would be something to explain.
			for i, send := range []packet.Packet{
				numbered(1, message("$SYS/x", "", 1)), numbered(2, message("$SYS/x", "", 2)), ack(packet.PUBREC, 77), ack(packet.PUBREL, 78),
				&packet.Subscribe{PacketID: 3, Subscriptions: []packet.Subscription{{Filter: "a/#/b"}}}, &packet.Unsubscribe{PacketID: 4, Filters: []string{"x"}},
			} {
				c.Send(send)
				b := c.Bytes()
				if want := []byte{0x40, 0x50, 0x62, 0x70, 0x90, 0xb0}[i]; b[0] != want || len(b) > row.limit {
					t.Errorf("got % x, want type %x of at most %d bytes", b, want, row.limit)
				}
				if !row.wanted && bytes.Contains(b, []byte{0x1f, 0}) {
					t.Errorf("a reason string in % x", b)
				}
			}
			c.Send(mqtttest.ConnectPacket("c", v5)) // a second one
			b := c.Bytes()
			f, _, _, err := packet.ReadFrame(b, 0)
			var d packet.Disconnect
			if err == nil {
				err = d.Decode(v5, f.Flags, f.Body)
			}
			if err != nil || d.Code != packet.ProtocolError || len(b) > row.limit || d.Props.SessionExpiry != nil {
				t.Errorf("got % x, %v", b, err)
			}
			if has := d.Props.ReasonString != nil; has != (row.limit > 20 && row.wanted) {
				t.Errorf("reason string: %v in % x", has, b)
			}
		})
	}
	// A CONNACK that refuses.
	for _, limit := range []uint32{0, 12} {
		c := s.dial(t, v5)
		p := mqtttest.ConnectPacket("c", v5, mqtttest.Will(packet.Will{Topic: "$SYS/x"}))
		if limit > 0 {
			p.Props.MaximumPacketSize = &limit
		}
		c.Send(p)
		a := mqtttest.Expect[*packet.Connack](c)
		if a.Code != packet.NotAuthorized || (a.Props.ReasonString != nil) != (limit == 0) {
			t.Errorf("limit %d: CONNACK %+v", limit, a)
		}
		c.ExpectClosed()
	}
}

// What a client may ask for in CONNECT, and what the answer does not say.
func TestTheConnackSaysNothingThatWasNotAskedFor(t *testing.T) {
	proves(t, "MQTT-3.1.2-28", "MQTT-3.2.2-22", "MQTT-4.12.0-6")
	s := start(t)
	for _, ask := range []*bool{nil, new(bool)} {
		c := s.dial(t, v5)
		a := c.Connect("c", mqtttest.KeepAlive(60), func(p *packet.Connect) { p.Props.RequestResponseInfo = ask })
		if a.Props.ResponseInfo != nil || a.Props.AuthMethod != nil || a.Props.AuthData != nil || a.Props.AssignedClientID != nil || a.Props.ServerKeepAlive != nil {
			t.Errorf("CONNACK %+v", a)
		}
	}
}

func TestThousandsOfPacketsInOnePiece(t *testing.T) {
	proves(t, "MQTT-4.2.0-1 MQTT311-7.1.1-1", "MQTT-3.12.4-1 MQTT311-3.12.4-1")
	s := start(t)
	each(t, func(t *testing.T, v packet.Version) {
		c := s.connect(t, v, "c")
		c.Subscribe(0, "a")
		const n = 3000
		var b []byte
		for i := range n {
			b = message("a", fmt.Sprint(i), 0).Append(b, v)
		}
		b = (&packet.Pingreq{}).Append(b, v)
		sent := make(chan error, 1)
		go func() { // in pieces that know nothing of packets
			for piece := range slices.Chunk(b, 777) {
				if _, err := c.Conn.Write(piece); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for i, pong := 0, false; i < n || !pong; {
			switch p := c.Next().(type) {
			case *packet.Publish:
				if string(p.Payload) != fmt.Sprint(i) {
					t.Fatalf("got %q, want %d", p.Payload, i)
				}
				i++
			case *packet.Pingresp:
				pong = true
			default:
				t.Fatalf("got %s", mqtttest.Words(p))
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}
