package listener

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/coder/websocket"
)

// Sizes of a WebSocket connection. The buffers stay as long as it does.
const (
	maxRequest   = 8 << 10
	readBufSize  = 2 << 10
	writeBufSize = 4 << 10
)

// subprotocols that are MQTT, the preferred one first. mqttv3.1 is from before the name was registered.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// refusal is an answer to a request that does not become a WebSocket.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (HTTP %d)", r.reason, r.status) }

// upgrade reads the request and answers it.
func (l *Listener) upgrade(nc net.Conn) (net.Conn, error) {
	limited := &io.LimitedReader{R: nc, N: maxRequest}
	w := &answer{
		nc:     nc,
		rw:     bufio.NewReadWriter(bufio.NewReaderSize(limited, readBufSize), bufio.NewWriterSize(nc, writeBufSize)),
		header: make(http.Header),
	}
	r, err := http.ReadRequest(w.rw.Reader)
	switch {
	case err != nil && limited.N == 0:
		err = &refusal{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the request is longer than %d bytes", maxRequest)}
	case err != nil && notHTTP(err):
		err = &refusal{http.StatusBadRequest, "this is a WebSocket server, and the request is not HTTP"}
	case err != nil:
		return nil, err
	default:
		err = l.judge(r)
	}
	if err != nil {
		var no *refusal
		if errors.As(err, &no) {
			w.refuse(no)
		}
		return nil, err
	}
	compression := l.takeCompression(r)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols, // [MQTT-6.0.0-4], [MQTT311-6.0.0-4]
		InsecureSkipVerify: true,         // judge has looked at the origin
		CompressionMode:    compression,
	})
	if compression != websocket.CompressionDisabled && (err != nil || w.header.Get("Sec-WebSocket-Extensions") == "") {
		l.compressed.Add(-1)
		compression = websocket.CompressionDisabled
	}
	if err != nil {
		w.finish()
		return nil, err
	}
	ws.SetReadLimit(-1) // frames are read as a stream, so their size costs nothing
	f := &frames{ws: ws, Conn: nc}
	if compression != websocket.CompressionDisabled {
		f.closed = func() { l.compressed.Add(-1) }
	}
	return f, nil
}

// notHTTP tells bytes that are no request from a connection that has ended.
func notHTTP(err error) bool {
	var network net.Error
	return !errors.As(err, &network) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// judge refuses what is ours to refuse; what a WebSocket is in general, Accept knows.
func (l *Listener) judge(r *http.Request) error {
	switch {
	case r.URL.Path != l.cfg.WebSocket.Path && r.URL.Path != "/" && r.URL.Path != "":
		return &refusal{http.StatusNotFound, "there is nothing at this path"}
	case r.ContentLength != 0:
		return &refusal{http.StatusBadRequest, "the request has a body"}
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return &refusal{http.StatusUpgradeRequired, "this is an MQTT server for WebSocket clients"}
	case !slices.ContainsFunc(subprotocols, func(p string) bool { return hasToken(r.Header, "Sec-WebSocket-Protocol", p) }):
		return &refusal{http.StatusBadRequest, "the subprotocol mqtt is not asked for"} // [MQTT-6.0.0-3], [MQTT311-6.0.0-3]
	}
	if origin := r.Header.Get("Origin"); !originAllowed(origin, r.Host, l.cfg.WebSocket.AllowedOrigins) {
		return &refusal{http.StatusForbidden, fmt.Sprintf("pages from %q may not connect here", origin)}
	}
	return nil
}

// originAllowed judges the web site whose page wants to connect. Programs that are no browsers name none. A page from
// the host that it connects to is at home, at any port: a dashboard and its broker seldom share one.
func originAllowed(origin, host string, allowed []string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		u = &url.URL{}
	}
	if u.Host != "" && strings.EqualFold(u.Hostname(), (&url.URL{Host: host}).Hostname()) {
		return true
	}
	origin = strings.ToLower(origin)
	for _, pattern := range allowed {
		pattern = strings.ToLower(pattern)
		if pattern == "*" || pattern == origin {
			return true
		}
		target := strings.ToLower(u.Hostname())
		if strings.Contains(pattern, "://") {
			target = strings.ToLower(u.Scheme + "://" + u.Host)
		} else if strings.Contains(pattern, ":") {
			target = strings.ToLower(u.Host)
		}
		if ok, err := path.Match(pattern, target); ok && err == nil && target != "" {
			return true
		}
	}
	return false
}

// takeCompression decides whether a client that asks for compression may have it. Compressing takes much memory for
// each connection that is being written to, so there are only so many.
func (l *Listener) takeCompression(r *http.Request) websocket.CompressionMode {
	if !strings.Contains(strings.Join(r.Header.Values("Sec-WebSocket-Extensions"), ","), "permessage-deflate") {
		return websocket.CompressionDisabled
	}
	if l.compressed.Add(1) > int64(l.cfg.WebSocket.Compressed) {
		l.compressed.Add(-1)
		return websocket.CompressionDisabled
	}
	return websocket.CompressionNoContextTakeover // or the memory would stay with an idle connection
}

func hasToken(h http.Header, name, token string) bool {
	for _, value := range h.Values(name) {
		for t := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// answer is the response to the one request of a connection: to switch to WebSocket, or a short refusal.
type answer struct {
	nc     net.Conn
	rw     *bufio.ReadWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answer) Header() http.Header { return w.header }

func (w *answer) Write(p []byte) (int, error) { return w.body.Write(p) }

func (w *answer) WriteHeader(status int) {
	w.status = status
	if status == http.StatusSwitchingProtocols {
		w.head()
	}
}

// head writes the status and the headers. An error stays in the writer and shows at Flush.
func (w *answer) head() {
	_, _ = fmt.Fprintf(w.rw, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	_ = w.header.Write(w.rw)
	_, _ = w.rw.WriteString("\r\n")
}

// Hijack hands the connection over after the switch.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.nc, w.rw, w.rw.Flush()
}

func (w *answer) refuse(no *refusal) {
	w.header.Set("Content-Type", "text/plain; charset=utf-8")
	if no.status == http.StatusUpgradeRequired {
		w.header.Set("Upgrade", "websocket")
	}
	w.status = no.status
	w.body.WriteString(no.reason + "\n")
	w.finish()
}

// finish sends a refusal. If it cannot be sent, the client misses nothing but the reason.
func (w *answer) finish() {
	if w.status == http.StatusSwitchingProtocols || w.status == 0 {
		return
	}
	w.header.Set("Connection", "close")
	w.header.Set("Content-Length", fmt.Sprint(w.body.Len()))
	w.head()
	_, _ = w.body.WriteTo(w.rw)
	_ = w.rw.Flush()
}
