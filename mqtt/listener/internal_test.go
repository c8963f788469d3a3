package listener

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func TestRate(t *testing.T) {
	b := newBucket(10, 3)
	at := time.Unix(1000, 0)
	take := func(after time.Duration, want bool) {
		t.Helper()
		at = at.Add(after)
		if got := b.take(at); got != want {
			t.Errorf("at %v: %v", at, got)
		}
	}
	for range 3 {
		take(0, true)
	}
	take(0, false)
	take(99*time.Millisecond, false)
	take(time.Millisecond, true)
	take(0, false)
	take(time.Hour, true) // no more than the burst was saved up
	take(0, true)
	take(0, true)
	take(0, false)
	take(-time.Hour, false) // a clock that is set back gives nothing
	b = newBucket(2, 0)     // a burst is what comes in a second
	take(0, true)
	take(0, true)
	take(0, false)
}

func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		origin, host string
		allowed      []string
		want         bool
	}{
		{"", "broker:8083", nil, true},
		{"http://broker", "broker:8083", nil, true},
		{"https://BROKER:444", "broker", nil, true},
		{"http://[::1]:80", "[::1]:8083", nil, true},
		{"http://evil", "broker:8083", nil, false},
		{"null", "broker", nil, false},
		{"null", "", nil, false},
		{"null", "broker", []string{"null"}, true},
		{"http://evil", "broker", []string{"*"}, true},
		{"https://app.example.com", "broker", []string{"https://app.example.com"}, true},
		{"http://app.example.com", "broker", []string{"https://app.example.com"}, false},
		{"https://app.example.com:8443", "broker", []string{"https://app.example.com"}, false},
		{"https://app.example.com:8443", "broker", []string{"app.example.com"}, true},
		{"https://app.example.com:8443", "broker", []string{"app.example.com:8443"}, true},
		{"https://App.example.com", "broker", []string{"*.EXAMPLE.com"}, true},
		{"https://example.com", "broker", []string{"*.example.com"}, false},
		{"https://evil.com/.example.com", "broker", []string{"*.example.com"}, false},
		{"https://evil.com?.example.com", "broker", []string{"https://*.example.com"}, false},
		{"::", "broker", []string{"a"}, false},
	} {
		if got := originAllowed(test.origin, test.host, test.allowed); got != test.want {
			t.Errorf("%q at %q with %q: %v", test.origin, test.host, test.allowed, got)
		}
	}
}

// Whatever comes, a header is read to its end and not beyond, and only so much of it.
func FuzzProxyHeader(f *testing.F) {
	a, b := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 50000}, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1883}
	six := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 7}
	for _, v := range []byte{1, 2} {
		for _, h := range []*proxyproto.Header{proxyproto.HeaderProxyFromAddrs(v, a, b), proxyproto.HeaderProxyFromAddrs(v, six, six), proxyproto.HeaderProxyFromAddrs(v, nil, nil)} {
			text, err := h.Format()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(append(text, "MQTT"...))
		}
	}
	f.Add([]byte("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"))
	f.Add([]byte(proxyV2Begin + "\x21\x11\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		head, err := readProxyHeader(r)
		if read := len(data) - r.Len(); read > proxyV2Prefix+proxyV2Max {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(r)
		if !bytes.Equal(append(head, rest...), data) {
			t.Fatalf("%q and %q do not make %q", head, rest, data)
		}
		addr, err := parseProxyHeader(head)
		if err != nil || addr == "" || strings.HasPrefix(addr, "unix:") {
			return
		}
		if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
			t.Fatalf("%q is taken for an address: %v", addr, err)
		}
	})
}
