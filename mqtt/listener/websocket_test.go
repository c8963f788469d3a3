package listener_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

func withWebSocket(more ...func(*config.Server)) func(*config.Server) {
	return func(s *config.Server) {
		s.Type = config.WS
		for _, f := range more {
			f(s)
		}
	}
}

// patience is a context that ends when a test has waited too long.
func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// upgrade opens a WebSocket.
func upgrade(t testing.TB, url string, edit ...func(*websocket.DialOptions)) *websocket.Conn {
	t.Helper()
	o := &websocket.DialOptions{Subprotocols: []string{"mqtt"}}
	for _, f := range edit {
		f(o)
	}
	ws, _, err := websocket.Dial(patience(t), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	ws.SetReadLimit(-1)
	return ws
}

// over speaks MQTT in the binary messages of a WebSocket.
func over(t testing.TB, ws *websocket.Conn, v packet.Version) *mqtttest.Client {
	return mqtttest.Over(t, websocket.NetConn(context.Background(), ws, websocket.MessageBinary), v)
}

func (r *rig) url() string { return "ws://" + r.addr() + "/mqtt" }

func TestAllVersionsOverWebSocket(t *testing.T) {
	mqtttest.Proves(t, "MQTT-6.0.0-4 MQTT311-6.0.0-4")
	r := start(t, withWebSocket())
	for _, v := range versions {
		ws := upgrade(t, r.url())
		if p := ws.Subprotocol(); p != "mqtt" {
			t.Errorf("the subprotocol is %q", p) // [MQTT-6.0.0-4]
		}
		c := over(t, ws, v)
		exchange(c, "c")
		c.Disconnect()
	}
}

func TestAllVersionsOverSecureWebSocket(t *testing.T) {
	ca := newAuthority(t, "ca")
	_, _, own := ca.issue("browser")
	r := start(t, mutual(ca, func(*config.ServerTLS) {}), func(s *config.Server) { s.Type = config.WSS })
	https := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{own}}}}
	for _, v := range versions {
		c := over(t, upgrade(t, "wss://"+r.addr()+"/mqtt", func(o *websocket.DialOptions) { o.HTTPClient = https }), v)
		exchange(c, "c")
		c.Disconnect()
	}
	if r.log.Count(`"identity":"browser"`) == 0 {
		t.Error("the identity is not logged")
	}
}

// Frames and packets begin and end where they like [MQTT-6.0.0-2].
func TestPacketsSpanAndShareFrames(t *testing.T) {
	mqtttest.Proves(t, "MQTT-6.0.0-2 MQTT311-6.0.0-2")
	r := start(t, withWebSocket())
	ctx := patience(t)
	var text []byte
	for _, p := range []packet.Packet{
		mqtttest.ConnectPacket("c", packet.V5),
		&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "x"}}},
		mqtttest.Message("x", strings.Repeat("y", 500), 0),
		&packet.Pingreq{},
	} {
		text = p.Append(text, packet.V5)
	}
	for name, send := range map[string]func(ws *websocket.Conn) error{
		"one frame": func(ws *websocket.Conn) error { return ws.Write(ctx, websocket.MessageBinary, text) },
		"a message for each byte": func(ws *websocket.Conn) error {
			for i := range text {
				if err := ws.Write(ctx, websocket.MessageBinary, text[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		},
		"one message, a frame for each byte": func(ws *websocket.Conn) error {
			w, err := ws.Writer(ctx, websocket.MessageBinary)
			if err != nil {
				return err
			}
			for i := range text {
				if _, err := w.Write(text[i : i+1]); err != nil {
					return err
				}
			}
			return w.Close()
		},
		"empty messages between": func(ws *websocket.Conn) error {
			for part := range bytes.SplitAfterSeq(text, []byte{0}) {
				for _, b := range [][]byte{nil, part, {}} {
					if err := ws.Write(ctx, websocket.MessageBinary, b); err != nil {
						return err
					}
				}
			}
			return nil
		},
	} {
		ws := upgrade(t, r.url())
		if err := send(ws); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := over(t, ws, packet.V5)
		mqtttest.Expect[*packet.Connack](c)
		for range 3 { // control packets may overtake messages
			switch p := c.Next().(type) {
			case *packet.Suback, *packet.Pingresp:
			case *packet.Publish:
				if len(p.Payload) != 500 {
					t.Errorf("%s: %d bytes", name, len(p.Payload))
				}
			default:
				t.Errorf("%s: got %s", name, mqtttest.Words(p))
			}
		}
	}
}

// What the broker sends comes in messages of a size that any client takes.
func TestLargeMessagesAreCut(t *testing.T) {
	r := start(t, withWebSocket())
	ws := upgrade(t, r.url())
	c := over(t, ws, packet.V5)
	c.Connect("c")
	c.Subscribe(0, "big")
	large := strings.Repeat("0123456789abcdef", 50_000)
	c.Send(mqtttest.Message("big", large, 0))
	ctx := patience(t)
	for got := 0; got < len(large); {
		kind, b, err := ws.Read(ctx)
		if err != nil || kind != websocket.MessageBinary {
			t.Fatal(kind, err)
		}
		if len(b) > 64<<10 {
			t.Errorf("a message of %d bytes", len(b))
		}
		got += len(b)
	}
}

func TestTextFrameEndsTheConnection(t *testing.T) {
	mqtttest.Proves(t, "MQTT-6.0.0-1 MQTT311-6.0.0-1")
	r := start(t, withWebSocket())
	ctx := patience(t)
	for _, connected := range []bool{false, true} {
		ws := upgrade(t, r.url())
		if connected {
			if err := ws.Write(ctx, websocket.MessageBinary, mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ws.Read(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := ws.Write(ctx, websocket.MessageText, mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusUnsupportedData { // [MQTT-6.0.0-1]
			t.Errorf("connected %v: %v", connected, err)
		}
	}
}

// The last word of the broker arrives, and then the close frame, although the broker has stopped reading by then.
func TestDisconnectArrivesBeforeTheCloseFrame(t *testing.T) {
	r := start(t, withWebSocket())
	ws := upgrade(t, r.url())
	c := over(t, ws, packet.V5)
	c.Connect("same")
	exchange(mqtttest.Over(t, websocket.NetConn(context.Background(), upgrade(t, r.url()), websocket.MessageBinary), packet.V311), "same")
	if d := mqtttest.Expect[*packet.Disconnect](c); d.Code != packet.SessionTakenOver {
		t.Errorf("DISCONNECT with %v", d.Code)
	}
	if _, _, err := ws.Read(patience(t)); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("then comes %v", err)
	}
}

// A broker that stops tells WebSocket clients too.
func TestShutdownOverWebSocket(t *testing.T) {
	r := start(t, withWebSocket())
	c := over(t, upgrade(t, r.url()), packet.V5)
	c.Connect("c")
	done := make(chan error, 1)
	go func() { done <- r.close() }()
	c.ExpectDisconnect(packet.ServerShuttingDown)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Clients that take nothing do not hold up the end, whatever lies between.
func TestShutdownWithClientsThatTakeNothing(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	trust := &tls.Config{RootCAs: ca.pool}
	// With little room in the kernel a client that does not read is noticed soon.
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			err = nc.(*net.TCPConn).SetReadBuffer(16 << 10)
		}
		return nc, err
	}
	web := &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: trust}}
	for kind, edit := range map[config.ServerType]func(*config.Server){
		config.WS: withWebSocket(), config.TLS: withTLS(cert, key), config.WSS: withTLS(cert, key, func(s *config.Server) { s.Type = config.WSS }),
	} {
		r := start(t, edit)
		connect := func(id string) *mqtttest.Client {
			var c *mqtttest.Client
			if kind == config.TLS {
				nc, err := dial(patience(t), "tcp", r.addr())
				if err != nil {
					t.Fatal(err)
				}
				c = mqtttest.Over(t, tls.Client(nc, &tls.Config{RootCAs: ca.pool, ServerName: "localhost"}), packet.V5)
			} else {
				c = over(t, upgrade(t, string(kind)+"://"+r.addr()+"/mqtt", func(o *websocket.DialOptions) { o.HTTPClient = web }), packet.V5)
			}
			c.Connect(id)
			return c
		}
		deaf := connect("deaf")
		deaf.Subscribe(0, "big")
		sender := connect("sender")
		large := mqtttest.Message("big", strings.Repeat("x", 900_000), 1)
		for range 15 {
			large.PacketID = 0
			sender.Publish(large)
		}
		begin := time.Now()
		if err := r.close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("%s: it took %v", kind, took)
		}
	}
}

func TestPingFrameIsAnswered(t *testing.T) {
	r := start(t, withWebSocket())
	ws := upgrade(t, r.url())
	ended := ws.CloseRead(patience(t)) // reads, for the answer
	if err := ws.Ping(ended); err != nil {
		t.Error(err)
	}
}

func TestCompression(t *testing.T) {
	r := start(t, withWebSocket(func(s *config.Server) { s.WebSocket.Compressed = 1 }))
	ask := func(o *websocket.DialOptions) { o.CompressionMode = websocket.CompressionContextTakeover }
	extensions := func() (*websocket.Conn, string) {
		o := &websocket.DialOptions{Subprotocols: []string{"mqtt"}}
		ask(o)
		ws, response, err := websocket.Dial(patience(t), r.url(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.CloseNow() })
		return ws, response.Header.Get("Sec-WebSocket-Extensions")
	}
	for range 2 { // the second takes the place of the first
		first, got := extensions()
		if !strings.Contains(got, "permessage-deflate") {
			t.Fatalf("the extensions are %q", got)
		}
		second, got := extensions()
		if got != "" {
			t.Errorf("beyond the limit the extensions are %q", got)
		}
		for _, ws := range []*websocket.Conn{first, second} {
			c := over(t, ws, packet.V5)
			c.Connect("c")
			c.Subscribe(0, "big")
			large := strings.Repeat("0123456789abcdef", 20_000)
			for range 3 {
				c.Send(mqtttest.Message("big", large, 0))
				c.Receive("big", large, 0)
			}
			c.Disconnect()
		}
	}
}

// What a client that asks for nothing special sends and gets is not compressed.
func TestNoCompressionUnlessAsked(t *testing.T) {
	r := start(t, withWebSocket())
	_, response, err := websocket.Dial(patience(t), r.url(), &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil || response.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("%v, %v", response.Header, err)
	}
}

const request = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

func TestRequests(t *testing.T) {
	mqtttest.Proves(t, "MQTT-6.0.0-3 MQTT311-6.0.0-3")
	r := start(t, withWebSocket(func(s *config.Server) { s.WebSocket.AllowedOrigins = []string{"https://*.example.com"} }))
	swap := func(old, new string) string {
		changed := strings.Replace(request, old, new, 1)
		if changed == request {
			t.Fatalf("no %q in the request", old)
		}
		return changed
	}
	origin := func(o string) string { return swap("Host: broker\r\n", "Host: broker\r\nOrigin: "+o+"\r\n") }
	for _, test := range []struct {
		text string
		want int
		body string
	}{
		{request, 101, ""},
		{swap("/mqtt", "/"), 101, ""},
		{swap("/mqtt", "/mqtt?token=x"), 101, ""},
		{swap(": mqtt\r", ": other, mqtt\r"), 101, ""},
		{swap(": mqtt\r", ": mqttv3.1\r"), 101, ""},
		{origin("https://a.example.com"), 101, ""},
		{origin("http://broker:3000"), 101, ""},
		{origin("https://example.org"), 403, "may not connect"},
		{swap("/mqtt", "/other"), 404, "nothing at this path"},
		{swap("Sec-WebSocket-Protocol: mqtt\r\n", ""), 400, "subprotocol mqtt"}, // [MQTT-6.0.0-3]
		{swap(": mqtt\r", ": amqp\r"), 400, "subprotocol mqtt"},
		{swap("Upgrade: websocket\r\nConnection: Upgrade\r\n", ""), 426, "WebSocket"},
		{swap("Connection: Upgrade\r\n", ""), 426, "Connection"},
		{swap("Version: 13", "Version: 8"), 400, "version"},
		{swap("AAAAAAAAAAAAAAAAAAAAAA==", "AAAA"), 400, "Key"},
		{swap("GET", "PUT"), 405, "GET"},
		{swap("HTTP/1.1", "HTTP/1.0"), 426, "HTTP/1.1"},
		{swap("Host: broker\r\n", "Host: broker\r\nContent-Length: 5\r\n"), 400, "body"},
		{swap("Host: broker\r\n", "Host: broker\r\nX: "+strings.Repeat("x", 9000)+"\r\n"), 431, "longer than 8192"},
		{"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n", 400, "not HTTP"},
	} {
		nc := r.dial()
		if _, err := io.WriteString(nc, test.text); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Errorf("%.200q: %v", test.text, err)
			continue
		}
		if response.StatusCode != test.want {
			t.Errorf("%.200q: status %d, want %d", test.text, response.StatusCode, test.want)
			continue
		}
		if test.want == 101 {
			continue
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || !strings.Contains(string(body), test.body) || len(body) > 200 || !response.Close {
			t.Errorf("%.200q: %q, %v, close %v", test.text, body, err, response.Close)
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%.200q: after the answer: %v", test.text, err)
		}
	}
}

// A client need not wait for the answer before its first frame.
func TestFramesRightAfterTheRequest(t *testing.T) {
	r := start(t, withWebSocket())
	connect := mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)
	frame := append([]byte{0x82, 0x80 | byte(len(connect)), 0, 0, 0, 0}, connect...) // a mask of zeros
	nc := r.dial()
	if _, err := nc.Write(append([]byte(request), frame...)); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(nc)
	if response, err := http.ReadResponse(b, nil); err != nil || response.StatusCode != 101 {
		t.Fatal(response, err)
	}
	head := make([]byte, 3)
	if _, err := io.ReadFull(b, head); err != nil || head[0] != 0x82 || head[2] != byte(packet.CONNACK)<<4 {
		t.Errorf("got % x, %v", head, err)
	}
}

// Frames that break the rules of WebSocket end the connection.
func TestFramesThatAreWrong(t *testing.T) {
	r := start(t, withWebSocket())
	for name, frame := range map[string]string{
		"no mask":                  "\x82\x01x",
		"reserved bit":             "\xa2\x81\x00\x00\x00\x00x",
		"unknown type":             "\x83\x81\x00\x00\x00\x00x",
		"continues nothing":        "\x80\x81\x00\x00\x00\x00x",
		"new one within a message": "\x02\x81\x00\x00\x00\x00\x10\x82\x81\x00\x00\x00\x00\x10",
		"ping in pieces":           "\x09\x80\x00\x00\x00\x00",
	} {
		nc := r.dial()
		if _, err := io.WriteString(nc, request+frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", name)
		}
	}
}

// A length that is announced costs nothing, and what comes of it is taken while the frame is open.
func TestAnnouncedFrameIsNotAllocated(t *testing.T) {
	r := start(t, withWebSocket())
	nc := r.dial()
	if _, err := io.WriteString(nc, request+"\x82\xff\x00\x00\x7f\xff\xff\xff\xff\xff\x00\x00\x00\x00"); err != nil { // 128 TiB
		t.Fatal(err)
	}
	text := mqtttest.ConnectPacket("c", packet.V5).Append(nil, packet.V5)
	for len(text) < 1024 {
		text = (&packet.Pingreq{}).Append(text, packet.V5)
	}
	if _, err := nc.Write(text); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(nc)
	if _, err := http.ReadResponse(b, nil); err != nil {
		t.Fatal(err)
	}
	if first, err := b.ReadByte(); err != nil || first != 0x82 {
		t.Errorf("got %#x, %v, want a binary frame", first, err)
	}
}

func TestSlowRequestsHoldUpNobody(t *testing.T) {
	r := start(t, withWebSocket(func(s *config.Server) { s.ConnectTimeout = config.Duration(500 * time.Millisecond) }))
	var slow []net.Conn
	for range 10 {
		nc := r.dial()
		if _, err := io.WriteString(nc, request[:40]); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, nc)
	}
	exchange(over(t, upgrade(t, r.url()), packet.V5), "quick")
	for _, nc := range slow {
		if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection without a request stays")
		}
	}
}

// mqttJS is the version that is tested with.
const mqttJS = "5.16.0"

// A client that is not ours, from the browsers' world.
func TestMQTTjs(t *testing.T) {
	module := installMQTTjs(t)
	ca := newAuthority(t, "ca")
	cert, key, _ := ca.issue("server")
	for kind, edit := range map[config.ServerType]func(*config.Server){
		config.TCP: func(*config.Server) {},
		config.WS:  withWebSocket(),
		config.WSS: withTLS(cert, key, func(s *config.Server) { s.Type = config.WSS }),
		config.TLS: withTLS(cert, key),
	} {
		t.Run(string(kind), func(t *testing.T) {
			r := start(t, edit)
			scheme := string(kind)
			if kind == config.TCP {
				scheme = "mqtt"
			} else if kind == config.TLS {
				scheme = "mqtts"
			}
			_, port, _ := net.SplitHostPort(r.addr())
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", "testdata/mqttjs.cjs", fmt.Sprintf("%s://localhost:%s/mqtt", scheme, port))
			if kind.Encrypted() {
				cmd.Args = append(cmd.Args, ca.file())
			}
			cmd.Env = append(os.Environ(), "MQTT_JS="+module)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// installMQTTjs returns the path of the package. It stays in the user's cache, for the next time.
func installMQTTjs(t testing.TB) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	dir := filepath.Join(cache, "cairnmq-test", "mqttjs-"+mqttJS)
	module := filepath.Join(dir, "node_modules", "mqtt")
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return module
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "mqtt@"+mqttJS).CombinedOutput()
	if err != nil {
		t.Skipf("npm cannot install MQTT.js %s: %v\n%s", mqttJS, err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return module
}
