package listener_test

import (
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pires/go-proxyproto"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

var (
	client  = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 50001}
	client6 = &net.TCPAddr{IP: net.ParseIP("2001:db8::9"), Port: 50001}
	target  = &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1883}
	target6 = &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1883}
)

func header(t testing.TB, version byte, from, to net.Addr) string {
	t.Helper()
	text, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func behindProxy(s *config.Server) {
	s.ProxyProtocol, s.TrustedProxies = true, []string{"127.0.0.0/8"}
}

// The client's address is the one in the header, and what follows the header is untouched.
func TestProxyHeaders(t *testing.T) {
	b := open(t, behindProxy)
	const itself = "" // the proxy's own address
	withMore := &proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4, SourceAddr: client, DestinationAddr: target}
	if err := withMore.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("mqtt.example.com")}}); err != nil {
		t.Fatal(err)
	}
	more, err := withMore.Format()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"1, IPv4":             {header(t, 1, client, target), "192.0.2.9:50001"},
		"1, IPv6":             {header(t, 1, client6, target6), "[2001:db8::9]:50001"},
		"1, unknown":          {"PROXY UNKNOWN\r\n", itself},
		"1, unknown and more": {"PROXY UNKNOWN ffff::1 ffff::1 1 2\r\n", itself},
		"2, IPv4":             {header(t, 2, client, target), "192.0.2.9:50001"},
		"2, IPv6":             {header(t, 2, client6, target6), "[2001:db8::9]:50001"},
		"2, itself":           {header(t, 2, nil, nil), itself},
		"2, with more":        {string(more), "192.0.2.9:50001"},
	} {
		ready := b.next()
		nc := b.dial()
		if _, err := io.WriteString(nc, test.text+"MQTT"); err != nil {
			t.Fatal(err)
		}
		o := <-ready
		if o.err != nil {
			t.Errorf("%s: %v", name, o.err)
			continue
		}
		want := test.want
		if want == itself {
			want = nc.LocalAddr().String()
		}
		if o.peer.Addr != want {
			t.Errorf("%s: the client is %s, want %s", name, o.peer.Addr, want)
		}
		if _, ok := o.nc.(syscall.Conn); !ok {
			t.Errorf("%s: the connection hides its descriptor", name)
		}
		rest := make([]byte, 4)
		if _, err := io.ReadFull(o.nc, rest); err != nil || string(rest) != "MQTT" {
			t.Errorf("%s: after the header comes %q, %v", name, rest, err)
		}
	}
}

func TestProxyHeadersThatAreNone(t *testing.T) {
	b := open(t, behindProxy)
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	for _, test := range []struct{ text, want string }{
		{string(mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)), "begins with byte 0x10"},
		{"PROXX TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "begins with"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "proxyproto"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "proxyproto"},
		{"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n", "proxyproto"},
		{"PROXY TCP4 ::1 ::1 1 2\r\n", "proxyproto"},
		{"PROXY " + strings.Repeat("x", 200) + "\r\n", "longer than 107"},
		{signature[:11] + "X\x21\x11\x00\x0c" + strings.Repeat("x", 12), "signature"},
		{signature + "\x31\x11\x00\x0c" + strings.Repeat("x", 12), "proxyproto"}, // version 3
		{signature + "\x21\x11\x00\x04xxxx", "proxyproto"},
		{signature + "\x21\x11\xff\xff", "more than 4096"},
		{signature + "\x21\x12\x00\x0c" + strings.Repeat("x", 12), "no client of a stream"},
	} {
		ready := b.next()
		nc := b.dial()
		if _, err := io.WriteString(nc, test.text); err != nil {
			t.Fatal(err)
		}
		o := <-ready
		if o.err == nil || !strings.Contains(o.err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.text, o.err, test.want)
		}
	}
}

// Who is no proxy may not say who it is, however good the header.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	r := start(t, func(s *config.Server) { s.ProxyProtocol, s.TrustedProxies = true, []string{"10.0.0.0/8"} })
	nc := r.dial()
	text := header(t, 2, client, target) + string(mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5))
	_, _ = io.WriteString(nc, text)
	if answer, _ := io.ReadAll(nc); len(answer) > 0 {
		t.Errorf("the answer is % x", answer)
	}
	eventually(t, "the reason is logged", func() bool { return r.log.Count("not from an address of trusted_proxies") == 1 })
	if r.log.Count("192.0.2.9") > 0 {
		t.Errorf("the claimed address is believed:\n%s", r.log)
	}
}

// The header comes first, then TLS, then MQTT; the log shows the client's address.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	r := start(t, withTLS(cert, key, behindProxy))
	nc := r.dial()
	if _, err := io.WriteString(nc, header(t, 1, client, target)); err != nil {
		t.Fatal(err)
	}
	c := mqtttest.Over(t, tls.Client(nc, &tls.Config{RootCAs: ca.pool, ServerName: "localhost"}), packet.V5)
	exchange(c, "c")
	if r.log.Count(`"peer":"192.0.2.9:50001"`) == 0 {
		t.Error("the client's address is not logged")
	}
}

// A Unix socket has rights instead of trusted addresses.
func TestProxyHeaderOnAUnixSocket(t *testing.T) {
	b := open(t, func(s *config.Server) {
		s.Type, s.Listen, s.ProxyProtocol = config.Unix, filepath.Join(t.TempDir(), "s"), true
	})
	ready := b.next()
	if _, err := io.WriteString(b.dial(), header(t, 2, client, target)); err != nil {
		t.Fatal(err)
	}
	if o := <-ready; o.err != nil || o.peer.Addr != "192.0.2.9:50001" {
		t.Errorf("%+v, %v", o.peer, o.err)
	}
}
