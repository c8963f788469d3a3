package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// Sizes of what File reads at once.
const (
	fileChunk = 1 << 20 // reading on
	filePeek  = 4 << 10 // looking whether something was appended
)

// Behind damage every offset may be the start of a record, and bytes that
// look like the length of one cost a checksum each. Once resyncBudget bytes
// were computed in vain, only candidates up to resyncShort are tried: a file
// that was made to be slow costs seconds, not hours.
const (
	resyncBudget = 1 << 30 // with one more record it still fits an int of 32 bits
	resyncShort  = 64 << 10
)

// ErrReplaced: the file under an open File now holds another segment.
var ErrReplaced = errors.New("the segment file was reused")

// File reads a segment file that somebody else may be writing, cutting or
// removing. It never maps the file: a mapping of a file that is cut under it
// ends the process. Memory is bounded by the largest sound record plus
// fileChunk, whatever the bytes say. A File is not safe for concurrent use.
type File struct {
	FileHead
	Path string

	f    *os.File
	off  int64 // of the next record
	buf  []byte
	at   int64 // offset of buf in the file
	step int   // how much to read next
	size int64 // of the file when it was last asked for; negative if not known
	// looked is the end behind which nothing sound was found, so that waiting
	// for the next record does not search the reserved space again and again.
	looked int64
	vain   int64
	torn   int64
	cut    bool // the end of a file that was cut has been reported
	seal   *Seal
	sealAt Head
}

// OpenFile opens a segment file and checks its header. The error wraps
// ErrDamaged or ErrNewer when that is why.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	head, err := readFileHead(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &File{FileHead: head, Path: path, f: f, off: FileHeadLen, step: filePeek, size: -1, looked: -1}, nil
}

func readFileHead(f *os.File) (FileHead, error) {
	b := make([]byte, FileHeadLen)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return FileHead{}, err
	}
	return DecodeFileHead(b[:n])
}

// Close lets go of the file.
func (f *File) Close() error { return f.f.Close() }

// FileSize is the length of the file now.
func (f *File) FileSize() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Pos is the position of the next record, or of the end.
func (f *File) Pos() Pos { return f.Base + Pos(f.off) }

// Limit is the first position behind the segment.
func (f *File) Limit() Pos { return f.Base + Pos(f.Size) }

// Torn is the number of bytes behind the end that are the beginning of a
// record which was never completed. It is known once Next has returned ErrEnd.
func (f *File) Torn() int64 { return f.torn }

// Sealed returns the seal once Next or FindSeal has met it, and the head of
// its record, whose clock says when the segment was sealed.
func (f *File) Sealed() (Seal, Head, bool) {
	if f.seal == nil {
		return Seal{}, Head{}, false
	}
	return *f.seal, f.sealAt, true
}

// FindSeal looks for the seal at the end of the file without reading the
// rest. It finds none in a segment whose file was sealed but not yet cut.
func (f *File) FindSeal() (Seal, Head, bool) {
	if f.seal != nil {
		return f.Sealed()
	}
	size, err := f.FileSize()
	at := size - SealLen
	if err != nil || at < FileHeadLen {
		return Seal{}, Head{}, false
	}
	var tail [SealLen]byte
	if _, err := f.f.ReadAt(tail[:], at); err != nil {
		return Seal{}, Head{}, false
	}
	seal, ok := ReadSeal(tail[:], f.Salt)
	if !ok || seal.End != at {
		return Seal{}, Head{}, false
	}
	f.seal = &seal
	f.sealAt.decode(tail[:])
	return f.Sealed()
}

// Next returns the next sound record; its body is valid until the next call.
//
// Damage is returned as a *Damage and stepped over: the call after it goes on
// behind it. ErrEnd says that there is no more: for good if the segment is
// sealed, else for now, and a later call finds what was appended since.
func (f *File) Next() (Record, error) {
	rec, next, err := f.record()
	if err != nil {
		// The writer may have been faster than what we hold in memory.
		f.forget()
		rec, next, err = f.record()
	}
	switch {
	case err == nil:
		return f.take(rec, next)
	case errors.Is(err, errEnd), errors.Is(err, ErrDamaged):
		return f.noRecord(err)
	}
	return Record{}, fmt.Errorf("read %s at offset %d: %w", f.Path, f.off, err)
}

// take steps over a sound record, or stops at the seal.
func (f *File) take(rec Record, next int64) (Record, error) {
	if rec.Kind == KindSeal {
		return Record{}, f.meetSeal(&rec)
	}
	f.off, f.torn = next, 0
	return rec, nil
}

// Recheck makes the next call of Next search the space behind the end again.
// It is for the moment when a later segment shows that this one is complete.
func (f *File) Recheck() { f.looked = -1 }

func (f *File) meetSeal(rec *Record) error {
	if f.seal != nil && f.seal.End == f.off {
		return ErrEnd
	}
	seal, err := DecodeSeal(rec.Body)
	if err == nil && seal.End != f.off {
		err = fmt.Errorf("%w: seal at offset %d says that records end at %d", ErrDamaged, f.off, seal.End)
	}
	if err != nil {
		if f.cut {
			return ErrEnd
		}
		f.cut = true
		return &Damage{File: f.Path, From: f.Pos(), To: f.Pos() + SealLen, Err: err}
	}
	f.seal, f.sealAt = &seal, rec.Head
	return ErrEnd
}

// noRecord decides between damage and the end at f.off.
func (f *File) noRecord(cause error) (Record, error) {
	if f.looked == f.off {
		return Record{}, f.ended(cause)
	}
	switch head, err := readFileHead(f.f); {
	case err == nil && head != f.FileHead, errors.Is(err, ErrNewer):
		return Record{}, fmt.Errorf("%s: %w", f.Path, ErrReplaced)
	case err != nil && !errors.Is(err, ErrDamaged):
		return Record{}, fmt.Errorf("read %s: %w", f.Path, err)
	}
	// A header that was damaged after we had read it does not hinder us.
	at, ok, err := f.resync()
	if err != nil {
		return Record{}, fmt.Errorf("search %s behind offset %d: %w", f.Path, f.off, err)
	}
	if !ok {
		f.looked = f.off
		return Record{}, f.ended(cause)
	}
	// What was found may have been appended after we had looked at f.off, and
	// then there is a record here, too.
	f.forget()
	if rec, next, err := f.record(); err == nil {
		return f.take(rec, next)
	}
	if errors.Is(cause, errEnd) {
		cause = fmt.Errorf("%w: nothing written at offset %d", ErrDamaged, f.off)
	}
	d := &Damage{File: f.Path, From: f.Pos(), To: f.Base + Pos(at), Err: cause}
	f.off = at
	return Record{}, d
}

// ended is the end of what was written: the plain end, a torn record, or the
// place where the file was cut off.
func (f *File) ended(cause error) error {
	f.torn = 0
	size, err := f.FileSize()
	if err != nil {
		return err
	}
	if !errors.Is(cause, errEnd) {
		var b [4]byte
		if _, err := f.f.ReadAt(b[:], f.off); err == nil {
			f.torn = min(int64(binary.LittleEndian.Uint32(b[:])), size-f.off)
		}
	}
	if size >= f.Size || f.seal != nil && f.seal.End == f.off || f.cut {
		return ErrEnd
	}
	// Only a sealed file is shorter than reserved. If it is being cut right
	// now, its seal is already there to be read.
	f.forget()
	if rec, _, err := f.record(); err == nil {
		if rec.Kind == KindSeal {
			return f.meetSeal(&rec)
		}
		f.looked = -1
		return ErrEnd // more was appended, too: it is there for the next call
	}
	f.cut = true
	return &Damage{File: f.Path, From: f.Pos(), To: f.Limit(),
		Err: fmt.Errorf("%w: file ends at %d of %d bytes without a seal", ErrDamaged, size, f.Size)}
}

// record reads and verifies the record at f.off. The error is errEnd where
// nothing was written.
func (f *File) record() (rec Record, next int64, err error) {
	if f.size < 0 {
		if f.size, err = f.FileSize(); err != nil {
			return rec, 0, err
		}
	}
	size := f.size
	if f.off+RecordHead > size {
		if f.off < size {
			return rec, 0, fmt.Errorf("%w: %d bytes at offset %d, a record has %d at least", ErrDamaged, size-f.off, f.off, RecordHead)
		}
		return rec, 0, errEnd
	}
	b, err := f.load(RecordHead)
	if err != nil {
		return rec, 0, err
	}
	length := int64(binary.LittleEndian.Uint32(b))
	if length == 0 {
		return rec, 0, errEnd
	}
	if length < RecordHead || length > size-f.off {
		return rec, 0, fmt.Errorf("%w: record length %d at offset %d, %d bytes left", ErrDamaged, length, f.off, size-f.off)
	}
	want := binary.LittleEndian.Uint32(b[4:])
	var got uint32
	if length > fileChunk {
		// Verified piece by piece before memory is set aside for it.
		if got, err = f.sum(f.off, length); err != nil {
			return rec, 0, err
		}
	}
	if length <= fileChunk || got == want {
		if b, err = f.load(int(length)); err != nil {
			return rec, 0, err
		}
		got = recordSum(b, f.Salt) // also of a long one: it is read a second time
	}
	if got != want {
		return rec, 0, fmt.Errorf("%w: record checksum at offset %d is %08x, computed %08x", ErrDamaged, f.off, want, got)
	}
	rec.decode(b)
	if rec.Kind == 0 {
		return rec, 0, fmt.Errorf("%w: record of kind 0 at offset %d", ErrDamaged, f.off)
	}
	rec.Pos, rec.Body = f.Pos(), b[RecordHead:]
	return rec, f.off + (length+Align-1)&^(Align-1), nil
}

// load returns n bytes from f.off on.
func (f *File) load(n int) ([]byte, error) {
	from := f.off - f.at
	if from < 0 || from+int64(n) > int64(len(f.buf)) {
		want := max(n, f.step)
		f.step = min(2*f.step, fileChunk)
		if cap(f.buf) < want || cap(f.buf) > 2*fileChunk && want <= fileChunk {
			f.buf = make([]byte, max(want, min(fileChunk, 2*want)))
		}
		got, err := f.f.ReadAt(f.buf[:want], f.off)
		if err != nil && err != io.EOF {
			f.forget()
			return nil, err
		}
		f.buf, f.at, from = f.buf[:got], f.off, 0
		if got < n {
			return nil, errEnd // cut since its size was asked for
		}
	}
	return f.buf[from : from+int64(n) : from+int64(n)], nil
}

// forget drops what is held in memory of a file that may have changed.
func (f *File) forget() {
	f.buf, f.step, f.size = f.buf[:0], filePeek, -1
}

// sum is the checksum that a record of this length at off would have.
func (f *File) sum(off, length int64) (uint32, error) {
	var b [32 << 10]byte
	sum := f.Salt ^ uint32(length)
	for at, end := off+8, off+length; at < end; {
		n, err := f.f.ReadAt(b[:min(int64(len(b)), end-at)], at)
		if n == 0 {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b[:n])
		at += int64(n)
	}
	return sum, nil
}

// resync looks for the next sound record at or behind f.off.
func (f *File) resync() (int64, bool, error) {
	size, err := f.FileSize()
	if err != nil {
		return 0, false, err
	}
	buf := make([]byte, fileChunk+RecordHead)
	for chunk := (f.off + Align - 1) &^ (Align - 1); chunk+RecordHead <= size; chunk += fileChunk {
		n, err := f.f.ReadAt(buf[:min(int64(len(buf)), size-chunk)], chunk)
		if err != nil && err != io.EOF {
			return 0, false, err
		}
		for i := 0; i < fileChunk && i+RecordHead <= n; i += Align {
			sound, err := f.soundAt(buf[i:n], chunk+int64(i), size)
			if err != nil || sound {
				return chunk + int64(i), sound, err
			}
		}
	}
	return 0, false, nil
}

// soundAt reports whether a sound record begins at off. b is the file from
// there on, as far as it is in memory.
func (f *File) soundAt(b []byte, off, size int64) (bool, error) {
	length := int64(binary.LittleEndian.Uint32(b))
	if length < RecordHead || length > size-off || b[8] == 0 || f.vain > resyncBudget && length > resyncShort {
		return false, nil
	}
	var sum uint32
	var err error
	if length <= int64(len(b)) {
		sum = recordSum(b[:length], f.Salt)
	} else if sum, err = f.sum(off, length); err == io.EOF {
		return false, nil // cut meanwhile
	}
	f.vain += length
	return sum == binary.LittleEndian.Uint32(b[4:]), err
}
