package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"cairnmq/segment"
)

// Pos is a position in the log.
type Pos = segment.Pos

// Record is a record in its mapping; see segment.Record for how long it lives.
type Record = segment.Record

// Kind says what a record means.
type Kind = segment.Kind

// The kinds. Numbers are part of the format: they are never used again for
// something else.
const (
	KindMessage      Kind = 1
	KindOpened       Kind = 2 // session opened, or resumed
	KindClosed       Kind = 3 // its connection ended; the session stays
	KindEnded        Kind = 4 // the session is no more
	KindSubscribed   Kind = 5
	KindUnsubscribed Kind = 6
	KindDelivered    Kind = 7  // packet identifiers given to positions; cursor moved
	KindAcked        Kind = 8  // PUBACK, PUBREC, PUBCOMP of the subscriber
	KindReleased     Kind = 9  // inbound QoS 2 identifiers freed by PUBREL
	KindBoot         Kind = 11 // the log was opened
	KindShutdown     Kind = 12 // the log was closed in order
	KindLoss         Kind = 13 // a row of the loss ledger
	KindDealt        Kind = 14 // messages of a group given to members; its cursor moved
	KindReturned     Kind = 15 // messages that a member gives back to its group
	KindGroup        Kind = 16 // a group has members online, or none any more
	KindSeal              = segment.KindSeal
)

var kindNames = map[Kind]string{
	KindMessage: "message", KindOpened: "opened", KindClosed: "closed", KindEnded: "ended",
	KindSubscribed: "subscribed", KindUnsubscribed: "unsubscribed", KindDelivered: "delivered",
	KindAcked: "acked", KindReleased: "released", KindBoot: "boot", KindShutdown: "shutdown",
	KindLoss: "loss", KindDealt: "dealt", KindReturned: "returned", KindGroup: "group", KindSeal: "seal",
}

// KindName is the kind in words, as the command line shows and takes it.
func KindName(k Kind) string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind-%d", k)
}

// ParseKind is the inverse of KindName.
func ParseKind(name string) (Kind, bool) {
	for k, s := range kindNames {
		if s == name {
			return k, true
		}
	}
	return 0, false
}

// KindNames lists the names that ParseKind knows.
func KindNames() []string {
	out := make([]string, 0, len(kindNames))
	for k := 1; k < 256; k++ {
		if s, ok := kindNames[Kind(k)]; ok {
			out = append(out, s)
		}
	}
	return out
}

// Flags of a message record.
const (
	FlagQoS     = 0x03
	FlagRetain  = 0x04
	FlagExpiry  = 0x08 // Head.Expiry holds
	FlagCarried = 0x10 // a retained message appended again before its segment went; not delivered
	FlagWill    = 0x20 // the publisher's will, which is thereby used up
)

// Message is an application message on its way into the log. The slices are
// copied by Append.
type Message struct {
	Publisher string // client id
	Topic     []byte
	Props     []byte // MQTT 5 properties that travel end to end, as on the wire
	Payload   []byte
	QoS       uint8
	Retain    bool
	Will      bool
	HasExpiry bool
	Expiry    uint32 // seconds
	// PacketID is the publisher's identifier of a QoS 2 message, zero
	// otherwise: in the log it means "received, not yet released".
	PacketID uint16

	// Err is the result for this message: nil, ErrFull, ErrQuota, ErrTooLarge,
	// or why the log ended.
	Err error
}

// message body:
//
//	+-----+-----------+-----+-------+--------+-------+---------+
//	| u16 | publisher | u16 | topic | varint | props | payload |
//	+-----+-----------+-----+-------+--------+-------+---------+
//
// From the topic's length on these are the bytes of a PUBLISH, big-endian
// lengths and MQTT varint included, but for the packet identifier. A carried
// message begins with the position of the original, eight bytes.

func (m *Message) bodyLen() int {
	return 2 + len(m.Publisher) + 2 + len(m.Topic) + varintLen(len(m.Props)) + len(m.Props) + len(m.Payload)
}

func (m *Message) encode(b []byte) {
	be := binary.BigEndian
	be.PutUint16(b, uint16(len(m.Publisher)))
	n := 2 + copy(b[2:], m.Publisher)
	be.PutUint16(b[n:], uint16(len(m.Topic)))
	n += 2
	n += copy(b[n:], m.Topic)
	n += putVarint(b[n:], len(m.Props))
	n += copy(b[n:], m.Props)
	copy(b[n:], m.Payload)
}

func (m *Message) flags() uint8 {
	f := m.QoS & FlagQoS
	if m.Retain {
		f |= FlagRetain
	}
	if m.HasExpiry {
		f |= FlagExpiry
	}
	if m.Will {
		f |= FlagWill
	}
	return f
}

// MessageView is a message in the log: slices of the record's body.
type MessageView struct {
	Publisher []byte
	Topic     []byte
	Props     []byte
	Payload   []byte
	Original  Pos // of a carried message
}

// ErrMalformed: a record whose checksum is right and whose body makes no sense.
var ErrMalformed = errors.New("record body is shorter than its fields say")

// DecodeMessage takes the body of a KindMessage record apart.
func DecodeMessage(rec *Record) (v MessageView, err error) {
	err = v.Decode(rec)
	return v, err
}

// Decode is DecodeMessage into v, which an error leaves half done.
func (v *MessageView) Decode(rec *Record) error {
	b := rec.Body
	v.Original = 0
	if rec.Flags&FlagCarried != 0 {
		if len(b) < 8 {
			return ErrMalformed
		}
		v.Original = Pos(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var ok bool
	if v.Publisher, b, ok = cutString(b); !ok {
		return ErrMalformed
	}
	if v.Topic, b, ok = cutString(b); !ok {
		return ErrMalformed
	}
	n, w := uvarint(b)
	if w <= 0 || n > len(b)-w {
		return ErrMalformed
	}
	v.Props = b[w : w+n : w+n]
	v.Payload = b[w+n:]
	return nil
}

// cutString reads a two-byte length and as many bytes.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if n > len(b) {
		return nil, nil, false
	}
	return b[2:n:n], b[n:], true
}

// MQTT's variable byte integer, which is also what the wire carries before
// the properties.
func varintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func putVarint(b []byte, n int) int {
	i := 0
	for n >= 0x80 {
		b[i] = byte(n) | 0x80
		n >>= 7
		i++
	}
	b[i] = byte(n)
	return i + 1
}

func uvarint(b []byte) (n, width int) {
	for i := 0; i < len(b) && i < 4; i++ {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}
