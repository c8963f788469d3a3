package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Recovery is what reading a segment file after an unknown end has found.
type Recovery struct {
	Head    FileHead
	End     int64 // offset behind the last sound record
	Seal    Seal
	Sealed  bool
	Torn    int64    // bytes of a torn record behind End that were not counted as damage
	Damages []Damage // ranges between sound records
}

// blankRun is how many zeros end the search for sound records behind the end
// of an unsealed segment. A hole that large is not something that a crash
// leaves between records that were promised to be kept.
const blankRun = 1 << 20

// Recover reads the records of a mapped file from the offset from on (zero:
// from the first) and finds where they end. A record that fails its checksum
// with sound records behind it is damage: the range is fenced and reading
// goes on. With nothing sound behind it, it is the torn tail, and the segment
// ends before it. visit, if not nil, sees every sound record.
func Recover(path string, data []byte, from int64, visit func(Record) error) (Recovery, error) {
	var r Recovery
	var h FileHead
	err := Try(data, func() (err error) { h, err = DecodeFileHead(data); return err })
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	r.Head = h
	off := int(max(from, FileHeadLen))
	r.End = int64(off)
	for {
		rec := Record{Pos: h.Base + Pos(off)}
		next, err := tryRecord(data, off, h.Salt, true, &rec)
		if err != nil {
			at, ok := tryResync(data, off, h.Salt, blankRun)
			if !ok {
				r.Torn = tornBytes(data, off, err)
				return r, nil
			}
			if errors.Is(err, errEnd) {
				err = fmt.Errorf("%w: nothing written at offset %d", ErrDamaged, off)
			}
			r.Damages = append(r.Damages, Damage{File: path, From: h.Base + Pos(off), To: h.Base + Pos(at), Err: err})
			off = at
			continue
		}
		if rec.Kind == KindSeal {
			seal, err := DecodeSeal(rec.Body)
			if err == nil {
				r.Seal, r.Sealed = seal, true
			}
			r.End = int64(off)
			return r, nil
		}
		if visit != nil {
			if err := visit(rec); err != nil {
				return r, err
			}
		}
		off = min(next, len(data)) // the padding may have been cut off
		r.End = int64(off)
	}
}

// Unused reports whether nothing was ever put into a mapped file: a crash came
// between its creation and its header, which is synced before any record.
func Unused(data []byte) bool {
	for len(data) > 0 {
		n := min(len(data), len(zeroPage))
		if !bytes.Equal(data[:n], zeroPage[:n]) {
			return false
		}
		data = data[n:]
	}
	return true
}

var zeroPage [4096]byte

// tornBytes measures what lies behind the end: zero when the space was never
// written.
func tornBytes(data []byte, off int, err error) int64 {
	if errors.Is(err, errEnd) || errors.Is(err, syscall.EIO) {
		return 0
	}
	length := int64(binary.LittleEndian.Uint32(data[off:]))
	return min(length, int64(len(data)-off))
}

// ReadSeal finds the seal at the end of a sealed file without reading the
// rest. tail is the last SealLen bytes of the file.
func ReadSeal(tail []byte, salt uint32) (Seal, bool) {
	var rec Record
	if _, err := decodeRecord(tail, 0, salt, true, &rec); err != nil || rec.Kind != KindSeal {
		return Seal{}, false
	}
	s, err := DecodeSeal(rec.Body)
	return s, err == nil
}

// Reopen maps a segment whose records end at end for appending. The space
// behind end must be zero: Recover has found no torn bytes there.
func Reopen(fsys FS, path string, h FileHead, end int64) (*Segment, error) {
	m, err := fsys.Map(path, true)
	if err != nil {
		return nil, fmt.Errorf("reopen segment: %w", err)
	}
	if int64(len(m.Bytes())) < h.Size {
		return nil, errors.Join(fmt.Errorf("reopen %s: %w: file has %d bytes, reserved were %d", path, ErrDamaged, len(m.Bytes()), h.Size), m.Unmap())
	}
	s := &Segment{FileHead: h, Path: path, m: m, data: m.Bytes(), active: true}
	s.end.Store(end)
	s.filled = int(end)
	s.forgotten = int(end)
	return s, nil
}
