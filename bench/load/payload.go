//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
)

// MinPayload is the least payload a message can have.
//
//	0         2       4          8                16
//	| publisher | topic | sequence | sent, ns        | filler ...
//
// All numbers are big-endian. The sequence counts from zero in each stream,
// that is for each publisher and topic. The time is the loop's clock.
const MinPayload = 16

// stream identifies the messages that must keep their order.
type stream struct {
	publisher, topic uint16
}

// stamp is what a payload says about its message.
type stamp struct {
	stream
	seq  uint32
	sent int64
}

func putStamp(b []byte, s stamp) {
	_ = b[MinPayload-1]
	binary.BigEndian.PutUint16(b, s.publisher)
	binary.BigEndian.PutUint16(b[2:], s.topic)
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint64(b[8:], uint64(s.sent))
}

func readStamp(b []byte) stamp {
	_ = b[MinPayload-1]
	return stamp{
		stream: stream{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])},
		seq:    binary.BigEndian.Uint32(b[4:]),
		sent:   int64(binary.BigEndian.Uint64(b[8:])),
	}
}

// newFiller returns the bytes of a payload of the given size behind its stamp.
// They do not repeat with a short period, so a shifted copy is noticed, and
// they do not compress to nothing.
func newFiller(size int) []byte {
	b := make([]byte, size-MinPayload)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// intact reports whether payload is a stamp followed by filler.
func intact(payload, filler []byte) bool {
	return len(payload) == MinPayload+len(filler) && bytes.Equal(payload[MinPayload:], filler)
}
