package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// maxFrame bounds the messages that are sent: many clients refuse, or hold in memory, a message of some megabytes.
const maxFrame = 64 << 10

// farewellTime is how long the last words of a transport may take: a close frame and its answer, or TLS's last record.
const farewellTime = 200 * time.Millisecond

// frames is a WebSocket connection as a stream of bytes: what comes in binary frames, wherever those begin and end.
//
// A frame that is longer than what Read is given comes in pieces of that size, so its length costs no memory; a piece
// is handed out when it is whole.
//
// Deadlines are those of the connection below. A context would not do: when it ends, the library closes the
// connection, and whoever only stops reading could say no last word.
type frames struct {
	net.Conn // below: the socket or TLS
	ws       *websocket.Conn
	message  io.Reader // that is being read, or nil

	once   sync.Once
	closed func() // called once at the end; may be nil
}

var errText = errors.New("text frame: MQTT comes in binary frames [MQTT-6.0.0-1]")

// Read reads on, in the next message if need be [MQTT-6.0.0-2], [MQTT311-6.0.0-2].
func (f *frames) Read(p []byte) (int, error) {
	for {
		if f.message == nil {
			kind, message, err := f.ws.Reader(context.Background())
			if err != nil {
				return 0, ended(err)
			}
			if kind != websocket.MessageBinary {
				_ = f.close(websocket.StatusUnsupportedData, "binary frames only") // [MQTT-6.0.0-1], [MQTT311-6.0.0-1]
				return 0, errText
			}
			f.message = message
		}
		n, err := f.message.Read(p)
		if errors.Is(err, io.EOF) && n == 0 {
			f.message = nil
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return n, ended(err)
		}
		if err != nil {
			f.message = nil
		}
		if n > 0 {
			return n, nil
		}
	}
}

// ended makes an end in order the end of the stream.
func ended(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return io.EOF
	}
	return err
}

// Write sends p in binary frames.
func (f *frames) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(n+maxFrame, len(p))]
		if err := f.ws.Write(context.Background(), websocket.MessageBinary, part); err != nil {
			return n, fmt.Errorf("write: %w", err)
		}
		n += len(part)
	}
	return n, nil
}

// Close sends a close frame, waits a moment for the other side's and ends the connection.
func (f *frames) Close() error { return f.close(websocket.StatusNormalClosure, "") }

func (f *frames) close(code websocket.StatusCode, reason string) error {
	err := net.ErrClosed
	f.once.Do(func() {
		_ = f.SetDeadline(time.Now().Add(farewellTime))
		err = f.ws.Close(code, reason)
		_ = f.Conn.Close() // the library does so too, but for some errors
		if f.closed != nil {
			f.closed()
		}
	})
	return err
}
