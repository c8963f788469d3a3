package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// ErrIncomplete says that the bytes end before the value does: not a violation,
// more are needed.
var ErrIncomplete = errors.New("more bytes needed")

const (
	maxVarint = 268_435_455
	maxString = 65_535
)

var errVarint = malformed("MQTT-1.5.5-1", "variable byte integer is too long or not the shortest")

// ReadVarint reads a variable byte integer at the start of b. n is its length in
// bytes. The error is ErrIncomplete when b ends too early.
func ReadVarint(b []byte) (x uint32, n int, err error) {
	for n < len(b) && n < 4 {
		c := b[n]
		x |= uint32(c&0x7F) << (7 * n)
		n++
		if c < 0x80 {
			if c == 0 && n > 1 { // [MQTT-1.5.5-1]
				return 0, 0, errVarint
			}
			return x, n, nil
		}
	}
	if n == 4 {
		return 0, 0, errVarint
	}
	return 0, 0, ErrIncomplete
}

// AppendVarint appends x as a variable byte integer of the shortest form
// [MQTT-1.5.5-1]. It panics above 268,435,455.
func AppendVarint(dst []byte, x uint32) []byte {
	if x < 0x80 {
		return append(dst, byte(x))
	}
	if x > maxVarint {
		panic("packet: variable byte integer above 268435455")
	}
	for x >= 0x80 {
		dst = append(dst, byte(x)|0x80)
		x >>= 7
	}
	return append(dst, byte(x))
}

func varintLen(x uint32) int {
	switch {
	case x < 1<<7:
		return 1
	case x < 1<<14:
		return 2
	case x < 1<<21:
		return 3
	}
	return 4
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	if len(s) > maxString {
		panic("packet: string above 65535 bytes")
	}
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

// insertLength puts the length of dst[at:] as a variable byte integer at dst[at].
// Writing first and measuring afterwards keeps one description of each packet
// instead of two that have to agree.
func insertLength(dst []byte, at int) []byte {
	bodyLen := len(dst) - at
	if bodyLen > maxVarint {
		panic("packet: packet above the protocol's limit")
	}
	lengthLen := varintLen(uint32(bodyLen))
	var room [4]byte
	dst = append(dst, room[:lengthLen]...)
	copy(dst[at+lengthLen:], dst[at:at+bodyLen])
	AppendVarint(dst[:at], uint32(bodyLen))
	return dst
}

const (
	everyByte01 = 0x0101010101010101
	everyByte7F = 0x7F * everyByte01
	everyByte80 = 0x80 * everyByte01
)

// plainASCII reports whether all of b is U+0001 to U+007F. Such text is a valid
// string without further questions, and nearly all topics are such text; hence
// eight bytes at a time.
func plainASCII(b []byte) bool {
	if len(b) < 8 {
		if len(b) >= 4 {
			return plainWord(overlappingWord(b))
		}
		for _, c := range b {
			if c == 0 || c >= 0x80 {
				return false
			}
		}
		return true
	}
	for i := 0; i+8 <= len(b); i += 8 {
		if !plainWord(binary.LittleEndian.Uint64(b[i:])) {
			return false
		}
	}
	return plainWord(binary.LittleEndian.Uint64(b[len(b)-8:]))
}

// overlappingWord holds all of 4 to 7 bytes, those in the middle twice.
func overlappingWord(b []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))<<32
}

// plainWord: adding 0x7F to a byte below 0x80 sets its top bit unless the byte is
// 0, and carries nothing into its neighbour.
func plainWord(w uint64) bool {
	return (w|^(w+everyByte7F))&everyByte80 == 0
}

// plainTopic is plainASCII that also knows no '+' (0x2B) and '#' (0x23).
func plainTopic(b []byte) bool {
	if len(b) < 8 {
		if len(b) >= 4 {
			return plainTopicWord(overlappingWord(b))
		}
		for _, c := range b {
			if c == 0 || c >= 0x80 || c == '+' || c == '#' {
				return false
			}
		}
		return true
	}
	for i := 0; i+8 <= len(b); i += 8 {
		if !plainTopicWord(binary.LittleEndian.Uint64(b[i:])) {
			return false
		}
	}
	return plainTopicWord(binary.LittleEndian.Uint64(b[len(b)-8:]))
}

// plainTopicWord: the two wildcards differ in bit 3 alone, so with that bit
// cleared both become '#', and the question is again whether a byte is 0.
func plainTopicWord(w uint64) bool {
	wild := (w &^ (0x08 * everyByte01)) ^ ('#' * everyByte01)
	return (w|^((w+everyByte7F)&(wild+everyByte7F)))&everyByte80 == 0
}

// checkText holds b against the rules for UTF-8 strings. U+FEFF is ordinary text
// and stays where it is [MQTT-1.5.4-3], [MQTT311-1.5.3-3].
func checkText(b []byte) *Error {
	if plainASCII(b) {
		return nil
	}
	return checkTextSlowly(b)
}

func checkTextSlowly(b []byte) *Error {
	if !utf8.Valid(b) { // surrogates are not valid either [MQTT-1.5.4-1], [MQTT311-1.5.3-1]
		return malformed("MQTT-1.5.4-1", "string is not well-formed UTF-8")
	}
	if bytes.IndexByte(b, 0) >= 0 { // [MQTT-1.5.4-2], [MQTT311-1.5.3-2]
		return malformed("MQTT-1.5.4-2", "string contains U+0000")
	}
	return nil
}

// checkTopicName holds b against the rules for topic names, save that it may be
// empty: whether that is allowed depends on the packet.
func checkTopicName(b []byte) *Error {
	if plainTopic(b) {
		return nil
	}
	if e := checkTextSlowly(b); e != nil {
		return e
	}
	if hasWildcard(b) {
		return &Error{Code: TopicNameInvalid, Reason: "topic name contains a wildcard", Cite: "MQTT-3.3.2-2"}
	}
	return nil
}

func hasWildcard(b []byte) bool {
	return bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0
}

// checkResponseTopic refuses what could not be published to.
func checkResponseTopic(b []byte) *Error {
	if len(b) == 0 { // [MQTT-4.7.3-1]
		return protocolError("MQTT-4.7.3-1", "response topic is empty")
	}
	if hasWildcard(b) { // [MQTT-3.3.2-14]
		return protocolError("MQTT-3.3.2-14", "response topic contains a wildcard")
	}
	return nil
}

// reader takes a packet's body apart. The first error sticks and empties it, so
// that callers may read on and look at the error once.
type reader struct {
	b   []byte
	err *Error
}

var errShort = malformed("", "packet ends inside a field")

func (r *reader) fail(e *Error) {
	if r.err == nil {
		r.err = e
	}
	r.b = nil
}

func (r *reader) more() bool { return len(r.b) > 0 }

// take returns the next n bytes without copying them.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail(errShort)
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) varint() uint32 {
	x, n, err := ReadVarint(r.b)
	switch {
	case err == ErrIncomplete:
		r.fail(errShort)
	case err != nil:
		r.fail(errVarint)
	default:
		r.b = r.b[n:]
	}
	return x
}

// packetID reads an identifier, which is never 0.
func (r *reader) packetID() uint16 {
	id := r.uint16()
	if r.err == nil && id == 0 { // [MQTT-2.2.1-3], [MQTT-2.2.1-4], [MQTT311-2.3.1-1]
		r.fail(protocolError("MQTT-2.2.1-3", "packet identifier is 0"))
	}
	return id
}

// binary reads binary data; the result is a copy and not nil, even if empty.
func (r *reader) binary() []byte {
	return append([]byte{}, r.take(int(r.uint16()))...)
}

// rawString reads a string; the result aliases the packet.
func (r *reader) rawString() []byte {
	s := r.take(int(r.uint16()))
	if e := checkText(s); e != nil {
		r.fail(e)
		return nil
	}
	return s
}

func (r *reader) string() string { return string(r.rawString()) }

// end returns what went wrong; bytes that nobody asked for are wrong too. Its
// result is an error proper, never an interface around a nil pointer.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	if len(r.b) > 0 {
		return malformed("", "bytes after the end of the packet")
	}
	return nil
}

// asError makes a plain nil of a nil pointer.
func asError(e *Error) error {
	if e != nil {
		return e
	}
	return nil
}
