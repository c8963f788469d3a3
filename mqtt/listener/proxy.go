package listener

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// A version 1 header is a line, a version 2 header a block:
//
//	PROXY TCP4 192.0.2.1 198.51.100.1 50000 1883\r\n
//
//	signature (12) | version, command (1) | family (1) | length (2) | addresses and more (length)
const (
	proxyV1Begin  = "PROXY "
	proxyV1Max    = 107
	proxyV2Begin  = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV2Prefix = 16
	// proxyV2Max bounds what may follow: two addresses take 36 bytes, the rest is what proxies add.
	proxyV2Max = 4096
)

// readProxy returns the address that a trusted proxy names, or nothing if it speaks for itself.
func (l *Listener) readProxy(nc net.Conn) (addr string, err error) {
	if !l.trusts(nc.RemoteAddr()) {
		return "", errNotTrusted
	}
	head, err := readProxyHeader(nc)
	if err != nil {
		return "", err
	}
	return parseProxyHeader(head)
}

// trusts reports whether an address may say who others are.
func (l *Listener) trusts(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return true // a Unix socket, which has rights
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range l.trusted {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// readProxyHeader reads the bytes of a header and none beyond it: they belong to MQTT or TLS. What is no header is
// noticed at its first byte.
func readProxyHeader(r io.Reader) ([]byte, error) {
	head := make([]byte, len(proxyV1Begin), proxyV1Max)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return nil, err
	}
	if head[0] != proxyV1Begin[0] && head[0] != proxyV2Begin[0] {
		return nil, fmt.Errorf("the connection begins with byte %#02x instead of one", head[0])
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, err
	}
	switch string(head) {
	case proxyV1Begin:
		return readProxyLine(r, head)
	case proxyV2Begin[:len(proxyV1Begin)]:
		return readProxyBlock(r, head)
	}
	return nil, fmt.Errorf("the connection begins with %q instead of one", head)
}

func readProxyLine(r io.Reader, head []byte) ([]byte, error) {
	for len(head) < proxyV1Max {
		head = head[:len(head)+1]
		if _, err := io.ReadFull(r, head[len(head)-1:]); err != nil {
			return nil, err
		}
		if head[len(head)-1] == '\n' {
			return head, nil
		}
	}
	return nil, fmt.Errorf("the line of version 1 is longer than %d bytes", proxyV1Max)
}

func readProxyBlock(r io.Reader, head []byte) ([]byte, error) {
	begun := len(head)
	head = head[:proxyV2Prefix]
	if _, err := io.ReadFull(r, head[begun:]); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(head, []byte(proxyV2Begin)) {
		return nil, errors.New("the signature of version 2 is wrong")
	}
	n := int(binary.BigEndian.Uint16(head[proxyV2Prefix-2:]))
	if n > proxyV2Max {
		return nil, fmt.Errorf("%d bytes of version 2 are more than %d", n, proxyV2Max)
	}
	head = append(head, make([]byte, n)...)
	_, err := io.ReadFull(r, head[proxyV2Prefix:])
	return head, err
}

// parseProxyHeader returns the client's address, or nothing if the connection is the proxy's own, as for a check of
// its health.
func parseProxyHeader(head []byte) (string, error) {
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(head), len(head)))
	if err != nil {
		return "", err
	}
	if h.Command.IsLocal() {
		return "", nil
	}
	switch a := h.SourceAddr.(type) {
	case *net.TCPAddr:
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			return "", fmt.Errorf("%v is not an address", a.IP)
		}
		return netip.AddrPortFrom(ip.Unmap(), uint16(a.Port)).String(), nil
	case *net.UnixAddr:
		return "unix:" + a.Name, nil
	}
	return "", fmt.Errorf("it names no client of a stream (%v)", h.SourceAddr)
}
