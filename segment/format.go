package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Sizes of the format, in bytes.
const (
	Version      = 1
	FileHeadLen  = 64
	RecordHead   = 32
	Align        = 8
	sealBodyLen  = 56
	SealLen      = RecordHead + sealBodyLen // a multiple of Align
	MinSize      = 4096                     // smallest segment that makes sense: one page
	MaxSize      = 1 << 30                  // fits an int on 32-bit machines
	MaxBody      = MaxSize - FileHeadLen - SealLen - RecordHead
	maxBootClock = 1<<48 - 1
)

const magic = "CAIRNSEG"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kind says what a record means. Zero is invalid, because unwritten space
// reads as zero. The segment package knows the seal alone; storage names the
// others.
type Kind uint8

// KindSeal ends a sealed segment.
const KindSeal Kind = 255

// Head is the fixed part of a record.
type Head struct {
	Kind   Kind
	Flags  uint8
	ID     uint16 // MQTT packet identifier where the kind has one
	Expiry uint32 // seconds, where the flags say so
	Wall   int64  // wall clock at append, unix nanoseconds; may be wrong on a machine without a clock
	Boot   uint16 // counts the openings of this log, modulo 65536
	Mono   int64  // milliseconds since that opening, monotonic
}

// Record is one record in its mapping. Body is valid under a pin only.
type Record struct {
	Pos Pos
	Head
	Body []byte
}

// FileHead is the header of a segment file.
type FileHead struct {
	LogID   [16]byte
	Base    Pos
	Size    int64 // reserved bytes: the position range of this segment
	Salt    uint32
	Boot    uint16
	Created int64 // unix nanoseconds
}

// Errors of the format. Each is wrapped with the place and both values.
var (
	// ErrDamaged: the bytes are not what was written.
	ErrDamaged = errors.New("damaged")
	// ErrNewer: written by a later version of CairnMQ; not damage.
	ErrNewer = errors.New("written by a newer version")
)

// EncodeFileHead writes h into the first FileHeadLen bytes of b.
func EncodeFileHead(b []byte, h FileHead) {
	_ = b[FileHeadLen-1]
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint16(b[8:], Version)
	le.PutUint16(b[10:], FileHeadLen)
	le.PutUint32(b[12:], 0)
	copy(b[16:32], h.LogID[:])
	le.PutUint64(b[32:], uint64(h.Base))
	le.PutUint64(b[40:], uint64(h.Size))
	le.PutUint32(b[48:], h.Salt)
	le.PutUint16(b[52:], h.Boot)
	le.PutUint16(b[54:], 0)
	le.PutUint64(b[56:], uint64(h.Created))
	le.PutUint32(b[12:], crc32.Checksum(b[:FileHeadLen], castagnoli))
}

// DecodeFileHead reads and checks the header at the start of b.
func DecodeFileHead(b []byte) (FileHead, error) {
	var h FileHead
	if len(b) < FileHeadLen {
		return h, fmt.Errorf("%w: file of %d bytes is shorter than its header of %d", ErrDamaged, len(b), FileHeadLen)
	}
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return h, fmt.Errorf("%w: magic is %q, not %q", ErrDamaged, b[:8], magic)
	}
	// The version comes before the checksum: a later format may check itself
	// in another way, and must not be reported as damage.
	if v := le.Uint16(b[8:]); v > Version {
		return h, fmt.Errorf("%w: segment format %d, this program reads up to %d", ErrNewer, v, Version)
	}
	var c [FileHeadLen]byte
	copy(c[:], b)
	le.PutUint32(c[12:], 0)
	if got, want := crc32.Checksum(c[:], castagnoli), le.Uint32(b[12:]); got != want {
		return h, fmt.Errorf("%w: header checksum is %08x, computed %08x", ErrDamaged, want, got)
	}
	copy(h.LogID[:], b[16:32])
	h.Base = Pos(le.Uint64(b[32:]))
	h.Size = int64(le.Uint64(b[40:]))
	h.Salt = le.Uint32(b[48:])
	h.Boot = le.Uint16(b[52:])
	h.Created = int64(le.Uint64(b[56:]))
	if h.Size < MinSize || h.Size > MaxSize {
		return h, fmt.Errorf("%w: reserved size %d is not in %d..%d", ErrDamaged, h.Size, MinSize, MaxSize)
	}
	return h, nil
}

// PaddedLen is the space that a record with a body of bodyLen bytes takes.
func PaddedLen(bodyLen int) int {
	return (RecordHead + bodyLen + Align - 1) &^ (Align - 1)
}

func recordSum(b []byte, salt uint32) uint32 {
	return crc32.Update(salt^uint32(len(b)), castagnoli, b[8:])
}

// encodeRecord completes the record in b, whose body already lies behind the
// header; len(b) is the unpadded length.
func encodeRecord(b []byte, salt uint32, h *Head) {
	le := binary.LittleEndian
	_ = b[RecordHead-1]
	le.PutUint32(b[8:], uint32(h.Kind)|uint32(h.Flags)<<8|uint32(h.ID)<<16)
	le.PutUint32(b[12:], h.Expiry)
	le.PutUint64(b[16:], uint64(h.Wall))
	le.PutUint64(b[24:], uint64(h.Boot)<<48|uint64(h.Mono)&maxBootClock)
	le.PutUint32(b[4:], recordSum(b, salt))
	// The length goes last: until it is there the space reads as the end.
	le.PutUint32(b, uint32(len(b)))
}

// decode reads the fixed part; the caller has checked the length.
func (h *Head) decode(b []byte) {
	le := binary.LittleEndian
	_ = b[RecordHead-1]
	clock := le.Uint64(b[24:])
	h.Kind = Kind(b[8])
	h.Flags = b[9]
	h.ID = le.Uint16(b[10:])
	h.Expiry = le.Uint32(b[12:])
	h.Wall = int64(le.Uint64(b[16:]))
	h.Boot = uint16(clock >> 48)
	h.Mono = int64(clock & maxBootClock)
}

// errEnd: the space at the offset was never written.
var errEnd = errors.New("end of segment")

// decodeRecord reads the record at off of data into rec, but for its position,
// and returns the offset of the next one. With verify the checksum is
// computed. With an error rec is as it was.
func decodeRecord(data []byte, off int, salt uint32, verify bool, rec *Record) (next int, err error) {
	if off+RecordHead > len(data) {
		return 0, errEnd
	}
	b := data[off:]
	length := binary.LittleEndian.Uint32(b)
	if length == 0 {
		return 0, errEnd
	}
	if length < RecordHead || uint64(length) > uint64(len(b)) {
		return 0, fmt.Errorf("%w: record length %d at offset %d, %d bytes left", ErrDamaged, length, off, len(b))
	}
	b = b[:length:length]
	if verify {
		if got, want := recordSum(b, salt), binary.LittleEndian.Uint32(b[4:]); got != want {
			return 0, fmt.Errorf("%w: record checksum at offset %d is %08x, computed %08x", ErrDamaged, off, want, got)
		}
		if b[8] == 0 {
			return 0, fmt.Errorf("%w: record of kind 0 at offset %d", ErrDamaged, off)
		}
	}
	rec.decode(b)
	rec.Body = b[RecordHead:]
	return off + (int(length)+Align-1)&^(Align-1), nil
}

// resync looks for the next sound record at or behind off. It is used only
// behind damage, so it may be slow: it costs a checksum for each plausible
// length, within resyncBudget.
//
// With a blank of more than zero it gives up behind as many zeros: reserved
// space that was never written costs a page of memory for each page looked
// at, and a start must not pay for a whole segment of them.
func resync(data []byte, off int, salt uint32, blank int) (int, bool) {
	le := binary.LittleEndian
	vain, zeros := 0, 0
	for off = (off + Align - 1) &^ (Align - 1); off+RecordHead <= len(data); off += Align {
		if le.Uint64(data[off:]) == 0 {
			if zeros += Align; blank > 0 && zeros >= blank {
				return 0, false
			}
			continue
		}
		zeros = 0
		length := le.Uint32(data[off:])
		if length < RecordHead || uint64(length) > uint64(len(data)-off) || data[off+8] == 0 {
			continue
		}
		if vain > resyncBudget && length > resyncShort {
			continue
		}
		vain += int(length)
		if recordSum(data[off:off+int(length)], salt) == le.Uint32(data[off+4:]) {
			return off, true
		}
	}
	return 0, false
}

// Seal says in numbers what a sealed segment holds.
type Seal struct {
	End      int64  // offset behind the last record before the seal
	Records  uint64 // all records but the seal
	Messages uint64
	Topics   uint64 // distinct topic names
	First    int64  // wall clock of the first record, unix ns
	Last     int64  // of the last
	Flags    uint64 // SealRecovered
}

// SealRecovered marks a segment that was sealed by recovery, not by its writer.
const SealRecovered = 1

func encodeSeal(b []byte, s Seal) {
	le := binary.LittleEndian
	for i, v := range [...]uint64{uint64(s.End), s.Records, s.Messages, s.Topics, uint64(s.First), uint64(s.Last), s.Flags} {
		le.PutUint64(b[8*i:], v)
	}
}

// DecodeSeal reads the body of a KindSeal record.
func DecodeSeal(body []byte) (Seal, error) {
	if len(body) < sealBodyLen {
		return Seal{}, fmt.Errorf("%w: seal of %d bytes, want %d", ErrDamaged, len(body), sealBodyLen)
	}
	var v [7]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(body[8*i:])
	}
	return Seal{int64(v[0]), v[1], v[2], v[3], int64(v[4]), int64(v[5]), v[6]}, nil
}

// WallTime is the record's wall clock as a time.
func (h *Head) WallTime() time.Time { return time.Unix(0, h.Wall) }
