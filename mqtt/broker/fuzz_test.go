package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// Whatever a connection sends, before or after a valid CONNECT, the broker
// goes on, ends the connection when it ends, and disturbs nobody else.
func FuzzConnection(f *testing.F) {
	all := []packet.Packet{
		mqtttest.Message("a", "x", 0), &packet.Pingreq{}, &packet.Disconnect{}, ack(packet.PUBREL, 1), ack(packet.PUBREC, 1),
		&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#", QoS: 2}}},
		&packet.Unsubscribe{PacketID: 1, Filters: []string{"#"}}, mqtttest.ConnectPacket("fuzz", packet.V5),
	}
	for _, v := range versions {
		var b []byte
		for _, p := range all {
			b = p.Append(b, v)
		}
		f.Add(byte(v), b)
		f.Add(byte(0), b)
	}
	f.Add(byte(0), rawConnect("MQTT", 5, 2, 0, 0, 1, 'a'))
	f.Add(byte(5), []byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0})
	f.Add(byte(4), []byte{0x32, 7, 0, 1, 'a', 0, 1, 'x', 'y', 0x32, 7, 0, 1, 'a', 0, 1, 'x', 'y'})
	r := start(f, func(c *config.Config) { c.Log.Level = "error" })
	f.Fuzz(func(t *testing.T, version byte, input []byte) {
		other := mqtttest.Dial(t, r.Addr("main").String(), packet.V5)
		other.Connect("other")
		nc, err := net.Dial("tcp", r.Addr("main").String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		if v := packet.Version(version); v.Valid() {
			_, _ = nc.Write(mqtttest.ConnectPacket("fuzz", v, persistent(v)...).Append(nil, v))
		}
		_, _ = nc.Write(input)
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetReadDeadline(time.Now().Add(mqtttest.Patience))
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection is not closed")
		}
		other.Ping()
		other.Disconnect()
	})
}
