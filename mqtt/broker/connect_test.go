package broker

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// rawConnect is a CONNECT put together by hand.
func rawConnect(name string, level, flags byte, rest ...byte) []byte {
	body := append([]byte{0, byte(len(name))}, name...)
	body = append(body, level, flags, 0, 0)
	body = append(body, rest...)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// Every CONNECT that is not right ends the connection; MQTT 5 is told why, and
// older versions where they have a code for it.
func TestAWrongConnectIsRefused(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Sessions.MaxClientID = 30 })
	const none = packet.ReasonCode(0)
	idA := []byte{0, 1, 'a'}
	v5 := func(flags byte, rest ...byte) []byte { return rawConnect("MQTT", 5, flags, rest...) }
	rows := []struct {
		name   string
		bytes  []byte
		answer packet.Version
		code   packet.ReasonCode
	}{
		{"unknown name [MQTT-3.1.2-1]", rawConnect("MQTX", 4, 2, idA...), packet.V311, packet.UnsupportedProtocolVersion},
		{"unknown name in 5 [MQTT-3.1.2-1]", rawConnect("MQTX", 5, 2, append([]byte{0}, idA...)...), packet.V5, packet.UnsupportedProtocolVersion},
		{"level 6 [MQTT-3.1.2-2]", rawConnect("MQTT", 6, 2, append([]byte{0}, idA...)...), packet.V5, packet.UnsupportedProtocolVersion},
		{"level 2 [MQTT311-3.1.2-2]", rawConnect("MQTT", 2, 2, idA...), packet.V311, packet.UnsupportedProtocolVersion},
		{"3.1 under the new name", rawConnect("MQTT", 3, 2, idA...), packet.V31, packet.UnsupportedProtocolVersion},
		{"reserved flag [MQTT-3.1.2-3]", v5(3, append([]byte{0}, idA...)...), packet.V5, packet.MalformedPacket},
		{"reserved flag in 3.1.1 [MQTT311-3.1.2-3]", rawConnect("MQTT", 4, 3, idA...), packet.V311, none},
		{"will QoS without will [MQTT-3.1.2-11]", v5(0x0a, append([]byte{0}, idA...)...), packet.V5, packet.MalformedPacket},
		{"will QoS 3 [MQTT-3.1.2-12]", v5(0x1e, 0, 0, 1, 'a', 0, 0, 1, 't', 0, 0), packet.V5, packet.MalformedPacket},
		{"will retain without will [MQTT-3.1.2-13]", v5(0x22, append([]byte{0}, idA...)...), packet.V5, packet.MalformedPacket},
		{"password without user in 3.1.1 [MQTT311-3.1.2-22]", rawConnect("MQTT", 4, 0x42, 0, 1, 'a', 0, 0), packet.V311, none},
		{"cut short", v5(2, 0, 0, 9, 'a'), packet.V5, packet.MalformedPacket},
		{"bytes behind the end", v5(2, 0, 0, 1, 'a', 7), packet.V5, packet.MalformedPacket},
		{"client id not UTF-8 [MQTT-3.1.3-4]", v5(2, 0, 0, 1, 0xff), packet.V5, packet.MalformedPacket},
		{"property twice", v5(2, 10, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1, 0, 1, 'a'), packet.V5, packet.ProtocolError},
		{"receive maximum 0", v5(2, 3, 0x21, 0, 0, 0, 1, 'a'), packet.V5, packet.ProtocolError},
		{"maximum packet size 0", v5(2, 5, 0x27, 0, 0, 0, 0, 0, 1, 'a'), packet.V5, packet.ProtocolError},
		{"authentication method [MQTT-4.12.0-1]", v5(2, 4, 0x15, 0, 1, 'x', 0, 1, 'a'), packet.V5, packet.BadAuthenticationMethod},
		{"authentication data alone", v5(2, 4, 0x16, 0, 1, 'x', 0, 1, 'a'), packet.V5, packet.ProtocolError},
		{"empty id without clean session [MQTT311-3.1.3-8]", rawConnect("MQTT", 4, 0, 0, 0), packet.V311, packet.ClientIdentifierNotValid},
		{"empty id in 3.1", rawConnect("MQIsdp", 3, 2, 0, 0), packet.V31, packet.ClientIdentifierNotValid},
		{"id too long [MQTT-3.1.3-8]", v5(2, append([]byte{0, 0, 31}, strings.Repeat("x", 31)...)...), packet.V5, packet.ClientIdentifierNotValid},
		{"will to $SYS", v5(0x06, 0, 0, 1, 'a', 0, 0, 6, '$', 'S', 'Y', 'S', '/', 'x', 0, 0), packet.V5, packet.NotAuthorized},
		{"will to $SYS in 3.1.1", rawConnect("MQTT", 4, 0x06, 0, 1, 'a', 0, 4, '$', 'S', 'Y', 'S', 0, 0), packet.V311, packet.NotAuthorized},
		{"will to a wildcard", v5(0x06, 0, 0, 1, 'a', 0, 0, 1, '#', 0, 0), packet.V5, packet.TopicNameInvalid},
		{"reserved header flags", []byte{0x11, 0}, packet.V311, none},
		{"length of five bytes", []byte{0x10, 0x80, 0x80, 0x80, 0x80, 0x01}, packet.V5, none},
		{"type 0", []byte{0, 0}, packet.V5, none},
		{"announced above the limit", []byte{0x10, 0xff, 0xff, 0xff, 0x7f}, packet.V5, none},
		{"PUBLISH first [MQTT-3.1.0-1]", packet.AppendPingreq((mqtttest.Message("a", "", 0)).Append(nil, packet.V5)), packet.V5, none},
		{"PINGREQ first [MQTT-3.1.0-1]", packet.AppendPingreq(nil), packet.V5, none},
		{"CONNECT cut after its type, then PUBLISH", []byte{0x30}, packet.V5, none},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := mqtttest.Dial(t, r.Addr("main").String(), row.answer)
			c.SendRaw(append(row.bytes, 0xc0, 0)) // [MQTT-3.1.4-6]: what follows does not matter
			if row.code != none {
				ack := mqtttest.Expect[*packet.Connack](c)
				if ack.Code != row.code || ack.SessionPresent { // [MQTT-3.2.2-6]
					t.Fatalf("CONNACK %+v, want %v", ack, row.code)
				}
			}
			c.ExpectClosed() // [MQTT-3.1.4-1], [MQTT-3.1.4-2], [MQTT-3.2.2-7], [MQTT-3.14.0-1]
		})
	}
	r.connect(packet.V5, "other").Ping()
}

func TestTheConnackSaysWhatDiffersFromTheStandard(t *testing.T) {
	r := start(t, func(c *config.Config) {
		c.Sessions.MaxExpiry = config.Duration(100 * time.Second)
		c.Sessions.ReceiveMaximum = 20
		c.Limits.MaxKeepAlive = config.Duration(50 * time.Second)
		c.Limits.MaxTopicAlias = 7
	})
	c := r.dial(packet.V5)
	ack := c.Connect("", mqtttest.Expiry(1000), mqtttest.KeepAlive(60))
	p := ack.Props
	if p.AssignedClientID == nil || *p.AssignedClientID == "" { // [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
		t.Error("no assigned client identifier")
	}
	if p.SessionExpiry == nil || *p.SessionExpiry != 100 {
		t.Error("the expiry interval is capped and the client not told")
	}
	if p.ReceiveMaximum == nil || *p.ReceiveMaximum != 20 || p.TopicAliasMaximum == nil || *p.TopicAliasMaximum != 7 {
		t.Error("receive maximum or topic alias maximum is not told")
	}
	if p.ServerKeepAlive == nil || *p.ServerKeepAlive != 50 { // [MQTT-3.2.2-22]
		t.Error("server keep alive is not told")
	}
	if p.SharedSubAvailable != nil || p.AuthMethod != nil { // [MQTT-4.12.0-6]; absent means available
		t.Error("shared subscriptions or authentication method")
	}
	if other := r.dial(packet.V5).Connect(""); *other.Props.AssignedClientID == *p.AssignedClientID {
		t.Error("the same identifier was assigned twice")
	}
}

func TestAConnackThatIsTooLargeForTheClientRefusesIt(t *testing.T) { // [MQTT-3.1.2-24]
	r := start(t)
	c := r.dial(packet.V5)
	c.Send(mqtttest.ConnectPacket("a", packet.V5, mqtttest.MaximumPacketSize(6)))
	if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != packet.PacketTooLarge {
		t.Fatalf("CONNACK %+v", ack)
	}
	c.ExpectClosed()
}

func TestAReasonStringIsLeftOutIfItIsNotWantedOrTooLong(t *testing.T) { // [MQTT-3.2.2-19], [MQTT-3.14.2-3]
	r := start(t)
	for _, o := range []mqtttest.Option{mqtttest.MaximumPacketSize(20), func(p *packet.Connect) { no := false; p.Props.RequestProblemInfo = &no }} {
		c := r.connect(packet.V5, "a", o)
		c.Send(mqtttest.ConnectPacket("a", packet.V5)) // [MQTT-3.1.0-2]
		if d := mqtttest.Expect[*packet.Disconnect](c); d.Code != packet.ProtocolError || d.Props.ReasonString != nil {
			t.Fatalf("DISCONNECT %+v", d)
		}
		c.ExpectClosed()
	}
}

func TestASecondConnectEndsTheConnection(t *testing.T) { // [MQTT-3.1.0-2], [MQTT-3.2.0-2]
	r := start(t)
	for _, v := range versions {
		c := r.connect(v, "a")
		c.Send(mqtttest.ConnectPacket("a", v))
		c.ExpectDisconnect(packet.ProtocolError)
	}
}

func TestPacketsThatAreNotForAServerEndTheConnection(t *testing.T) { // [MQTT-4.13.1-1]
	r := start(t)
	for _, v := range versions {
		for _, p := range []packet.Packet{&packet.Connack{}, &packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{0}},
			&packet.Unsuback{PacketID: 1, Codes: []packet.ReasonCode{0}}, &packet.Pingresp{}} {
			c := r.connect(v, "a")
			c.Send(p)
			c.ExpectDisconnect(packet.ProtocolError)
		}
	}
	c := r.connect(packet.V5, "a")
	c.Send(&packet.Auth{}) // [MQTT-4.12.0-7]
	c.ExpectDisconnect(packet.ProtocolError)
}

func TestMalformedPacketsEndTheConnection(t *testing.T) { // [MQTT-4.13.1-1], [MQTT-2.1.3-1]
	r := start(t)
	other := r.connect(packet.V5, "other")
	rows := []struct {
		name  string
		bytes []byte
		code  packet.ReasonCode
	}{
		{"PUBREL flags [MQTT-3.6.1-1]", []byte{0x60, 2, 0, 1}, packet.MalformedPacket},
		{"SUBSCRIBE flags [MQTT-3.8.1-1]", []byte{0x80, 2, 0, 1}, packet.MalformedPacket},
		{"UNSUBSCRIBE flags [MQTT-3.10.1-1]", []byte{0xa0, 2, 0, 1}, packet.MalformedPacket},
		{"DISCONNECT flags [MQTT-3.14.1-1]", []byte{0xe1, 0}, packet.MalformedPacket},
		{"AUTH flags [MQTT-3.15.1-1]", []byte{0xf1, 0}, packet.ProtocolError},
		{"PINGREQ with a body", []byte{0xc0, 1, 0}, packet.MalformedPacket},
		{"PUBLISH QoS 3 [MQTT-3.3.1-4]", []byte{0x36, 6, 0, 1, 'a', 0, 1, 0}, packet.MalformedPacket},
		{"PUBLISH DUP QoS 0 [MQTT-3.3.1-2]", []byte{0x38, 4, 0, 1, 'a', 0}, packet.MalformedPacket},
		{"PUBLISH id 0 [MQTT-2.2.1-3]", []byte{0x32, 6, 0, 1, 'a', 0, 0, 0}, packet.ProtocolError},
		{"PUBLISH wildcard [MQTT-3.3.2-2]", []byte{0x30, 4, 0, 1, '#', 0}, packet.TopicNameInvalid},
		{"PUBLISH without topic", []byte{0x30, 3, 0, 0, 0}, packet.ProtocolError},
		{"PUBLISH alias 0 [MQTT-3.3.2-8]", []byte{0x30, 7, 0, 1, 'a', 3, 0x23, 0, 0}, packet.TopicAliasInvalid},
		{"PUBLISH with a subscription identifier [MQTT-3.3.4-6]", []byte{0x30, 6, 0, 1, 'a', 2, 0x0b, 1}, packet.ProtocolError},
		{"SUBSCRIBE without filter [MQTT-3.8.3-2]", []byte{0x82, 3, 0, 1, 0}, packet.ProtocolError},
		{"SUBSCRIBE reserved options [MQTT-3.8.3-5]", []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0xc0}, packet.MalformedPacket},
		{"SUBSCRIBE retain handling 3", []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0x30}, packet.ProtocolError},
		{"SUBSCRIBE id 0", []byte{0x82, 7, 0, 0, 0, 0, 1, 'a', 0}, packet.ProtocolError},
		{"UNSUBSCRIBE without filter [MQTT-3.10.3-2]", []byte{0xa2, 3, 0, 1, 0}, packet.ProtocolError},
		{"no local on a shared subscription [MQTT-3.8.3-4]", append([]byte{0x82, 16, 0, 1, 0, 0, 10}, "$share/g/a\x04"...), packet.ProtocolError},
		{"PUBACK with an unknown code [MQTT-3.4.2-1]", []byte{0x40, 3, 0, 1, 0x55}, packet.ProtocolError},
		{"length of five bytes", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, packet.MalformedPacket},
		{"type 0", []byte{0, 0}, packet.MalformedPacket},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := mqtttest.Dial(t, r.Addr("main").String(), packet.V5)
			c.Connect("a")
			c.SendRaw(row.bytes)
			d := mqtttest.Expect[*packet.Disconnect](c)
			if d.Code != row.code {
				t.Fatalf("DISCONNECT %v (%v), want %v", d.Code, *d.Props.ReasonString, row.code)
			}
			c.ExpectClosed()
		})
	}
	other.Ping()
}

func TestAnAnnouncedLengthIsRefusedBeforeItCostsMemory(t *testing.T) { // 0x95
	r := start(t, func(c *config.Config) { c.Limits.MaxPacketSize = 200 * config.MiB })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 50 {
		c := r.connect(packet.V5, fmt.Sprint("announces-", i))
		c.SendRaw([]byte{0x30, 0x80, 0x80, 0x80, 0x50, 0, 1, 'a'}) // 160 MiB, of which three bytes come
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("50 announcements of 160 MiB took %d bytes", grown)
	}

	small := start(t, func(c *config.Config) { c.Limits.MaxPacketSize = 1000 })
	for _, v := range versions {
		c := small.connect(v, "a")
		c.SendRaw([]byte{0x30, 0xe6, 0x07}) // 1,001 bytes
		c.ExpectDisconnect(packet.PacketTooLarge)
		c = small.connect(v, "a")
		m := mqtttest.Message("a", strings.Repeat("x", 1000-6), 0)
		if v == packet.V5 {
			m.Payload = m.Payload[1:]
		}
		c.Publish(m) // exactly 1,000
		c.Ping()
	}
}

func TestWhoSendsNoConnectIsClosedAfterTheTimeout(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Limits.ConnectTimeout = config.Duration(50 * time.Millisecond) })
	silent, half := r.dial(packet.V5), r.dial(packet.V5)
	half.SendRaw([]byte{0x10, 20, 0})
	silent.ExpectClosed()
	half.ExpectClosed()
	in := r.connect(packet.V5, "in")
	eventually(t, "the deadline of CONNECT has passed", func() bool { return len(r.servers[0].snapshot()) == 1 })
	in.Ping()
}

func (s *server) snapshot() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*conn
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

func TestTheLimitOfConnectionsHoldsAndTakesNoSessionWithIt(t *testing.T) {
	r := start(t, func(c *config.Config) { c.Limits.MaxConnections = 2; c.Servers[0].MaxConnections = 10 })
	keeper, _ := r.resume(packet.V5, "keeper")
	keeper.Subscribe(1, "a")
	r.drop(keeper)
	r.connect(packet.V5, "a")
	b := r.connect(packet.V5, "b")
	for _, v := range versions {
		c := r.dial(v)
		c.Send(mqtttest.ConnectPacket("keeper", v)) // with clean start
		code := packet.ServerBusy
		if v != packet.V5 {
			code = packet.ServerUnavailable
		}
		if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != code {
			t.Fatalf("CONNACK %v", ack.Code)
		}
		c.ExpectClosed()
	}
	r.connect(packet.V5, "b") // the same client takes no further place
	b.ExpectDisconnect(packet.SessionTakenOver)
	r.drop(r.connect(packet.V5, "b"))
	if _, present := r.resume(packet.V5, "keeper"); !present {
		t.Error("a refused CONNECT has thrown a session away")
	}
}

func TestKeepAliveEndsASilentConnection(t *testing.T) { // [MQTT-3.1.2-22]
	mqtttest.Proves(t, "MQTT-3.1.2-20 MQTT-3.1.2-21 MQTT-3.1.2-22 MQTT-3.2.2-21 MQTT-3.2.2-22 MQTT311-3.1.2-23 MQTT311-3.1.2-24")
	r := start(t, func(c *config.Config) { c.Limits.MaxKeepAlive = config.Duration(100 * time.Second) })
	silence := func(id string, d time.Duration) {
		r.clients.get(id).c.lastRead.Store(instant() - int64(d))
	}
	for _, v := range versions {
		c := r.connect(v, "a", mqtttest.KeepAlive(10))
		silence("a", 14*time.Second)
		r.checkKeepAlives(r.clients.all())
		c.Ping()
		silence("a", 14*time.Second)
		c.Ping() // starts anew
		r.checkKeepAlives(r.clients.all())
		c.Ping()
		silence("a", 15*time.Second+time.Millisecond)
		r.checkKeepAlives(r.clients.all())
		c.ExpectDisconnect(packet.KeepAliveTimeout)
	}
	c := r.connect(packet.V311, "forever")
	silence("forever", 100*time.Hour)
	r.checkKeepAlives(r.clients.all())
	c.Ping()
	c = r.connect(packet.V5, "capped") // [MQTT-3.1.2-21]
	silence("capped", 151*time.Second)
	r.checkKeepAlives(r.clients.all())
	c.ExpectDisconnect(packet.KeepAliveTimeout)
}

func TestShutdownSaysGoodbyeAndEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	r := start(t)
	c5, c4 := r.connect(packet.V5, "five"), r.connect(packet.V311, "four")
	waiting := r.dial(packet.V5)
	r.connect(packet.V5, "barrier")
	r.close()
	c5.ExpectDisconnect(packet.ServerShuttingDown)
	c4.ExpectClosed()
	waiting.ExpectClosed()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// Found by reading: a connection that was being opened while the broker ended
// took its deadline back and held the end up.
func TestShutdownIsNotHeldUpByThoseWhoAreConnecting(t *testing.T) {
	for i := range 20 {
		r := start(t)
		addr, done := r.Addr("main").String(), make(chan struct{})
		go func() {
			defer close(done)
			for j := range 50 {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					return // closed by now
				}
				defer func() { _ = nc.Close() }()
				_, _ = nc.Write(mqtttest.ConnectPacket(fmt.Sprint(j), packet.V5).Append(nil, packet.V5))
			}
		}()
		eventually(t, "some are there", func() bool { return len(r.clients.all()) > i%5 || closed(done) })
		begin := time.Now()
		r.close()
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("closing took %v", d)
		}
		<-done
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
