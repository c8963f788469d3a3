package mqtttest

import (
	"net"
	"testing"

	"cairnmq/mqtt/packet"
)

// The client reads packets however the stream is cut.
func TestPacketsAreFoundHoweverTheStreamIsCut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	large := Message("a", string(make([]byte, 300)), 0)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		var b []byte
		b = (&packet.Pingresp{}).Append(b, packet.V5)
		b = large.Append(b, packet.V5)
		b = Message("b", "", 1).Append(b, packet.V5)
		for i := range b {
			_, _ = nc.Write(b[i : i+1])
		}
		_ = nc.Close()
	}()
	c := Dial(t, ln.Addr().String(), packet.V5)
	c.Expect(&packet.Pingresp{}, large)
	if p, _, err := c.next(); err == nil {
		t.Fatalf("got %s, whose packet identifier is 0", Words(p))
	}
	c.ExpectClosed()
}
