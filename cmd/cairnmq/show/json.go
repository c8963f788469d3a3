package show

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"cairnmq/mqtt/packet"
	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

// entryJSON is a record that is not a message; messageJSON is one that is.
type entryJSON struct {
	Position uint64    `json:"position"`
	Time     time.Time `json:"time"`
	Boot     uint16    `json:"boot"`
	Uptime   int64     `json:"boot_ms"` // monotonic, since the log was opened
	Kind     string    `json:"kind"`
	Segment  string    `json:"segment"`

	*messageJSON
	*storage.EventView

	Unclear  bool   `json:"not_understood,omitempty"`
	Body     string `json:"body,omitempty"`
	Encoding string `json:"encoding,omitempty"`
}

type messageJSON struct {
	Topic      string  `json:"topic"`
	Publisher  string  `json:"publisher"`
	QoS        uint8   `json:"qos"`
	Retain     bool    `json:"retain"`
	Will       bool    `json:"from_will,omitempty"`
	PacketID   uint16  `json:"packet_id,omitempty"`
	Expiry     *uint32 `json:"expiry,omitempty"` // seconds
	Original   uint64  `json:"original,omitempty"`
	Properties any     `json:"properties,omitempty"`
	Payload    string  `json:"payload"`
	// PayloadEncoding is utf8 or base64.
	PayloadEncoding string `json:"payload_encoding"`
	PayloadBytes    int    `json:"payload_bytes"`
}

type propertiesJSON struct {
	PayloadFormat   *byte      `json:"payload_format,omitempty"`
	ContentType     *string    `json:"content_type,omitempty"`
	ResponseTopic   *string    `json:"response_topic,omitempty"`
	CorrelationData *string    `json:"correlation_data_base64,omitempty"`
	User            []userJSON `json:"user,omitempty"`
}

type userJSON struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// rawProperties stand where the bytes are not properties.
type rawProperties struct {
	Base64 string `json:"base64"`
	Error  string `json:"error"`
}

// JSON is an entry as one line, with its end.
func JSON(e *inspect.Entry) ([]byte, error) {
	x := entryJSON{
		Position: uint64(e.Pos), Time: e.WallTime().UTC(), Boot: e.Boot, Uptime: e.Mono,
		Kind: storage.KindName(e.Kind), Segment: e.Segment, EventView: e.Event, Unclear: e.Unclear,
	}
	if e.Message != nil {
		x.messageJSON = message(e)
	}
	if e.Unclear {
		x.Body, x.Encoding = encode(e.Body)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(x) // ends the line
	return b.Bytes(), err
}

func message(e *inspect.Entry) *messageJSON {
	m := &messageJSON{
		Topic: string(e.Message.Topic), Publisher: string(e.Message.Publisher),
		QoS: e.Flags & storage.FlagQoS, Retain: e.Flags&storage.FlagRetain != 0, Will: e.Flags&storage.FlagWill != 0,
		PacketID: e.ID, Original: uint64(e.Message.Original), PayloadBytes: len(e.Message.Payload),
	}
	if e.Flags&storage.FlagExpiry != 0 {
		m.Expiry = &e.Expiry
	}
	m.Payload, m.PayloadEncoding = encode(e.Message.Payload)
	if len(e.Message.Props) > 0 {
		m.Properties = properties(e.Message.Props)
	}
	return m
}

// encode is text as it is and everything else as base64.
func encode(b []byte) (text, encoding string) {
	if utf8.Valid(b) {
		return string(b), "utf8"
	}
	return base64.StdEncoding.EncodeToString(b), "base64"
}

func properties(raw []byte) any {
	p := packet.Publish{Props: raw}
	props, err := p.Properties()
	if err != nil {
		return rawProperties{base64.StdEncoding.EncodeToString(raw), err.Error()}
	}
	x := propertiesJSON{PayloadFormat: props.PayloadFormat, ContentType: props.ContentType, ResponseTopic: props.ResponseTopic}
	if props.CorrelationData != nil {
		data := base64.StdEncoding.EncodeToString(props.CorrelationData)
		x.CorrelationData = &data
	}
	for _, u := range props.User {
		x.User = append(x.User, userJSON(u))
	}
	return x
}
