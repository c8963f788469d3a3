package storage

import (
	"errors"

	"cairnmq/segment"
)

// Reader reads committed records by position. It holds a pin on one segment;
// records are valid until the next call that may change the segment, or
// Release. A Reader belongs to one goroutine at a time.
type Reader struct {
	l   *Log
	seg *segment.Segment
	// sealed: what is read may have been to the disk and back, so it is
	// verified. What this process has appended to the active segment is not.
	sealed bool
	// low and high bound what was read under this pin.
	low, high Pos
}

// forgetFrom is how much a reader goes through before it takes care that this
// does not stay in the process's resident set.
const forgetFrom = 4 << 20

// NewReader returns a reader that holds nothing yet.
func (l *Log) NewReader() *Reader { return &Reader{l: l} }

// Init makes a zero Reader usable, for those who embed one.
func (r *Reader) Init(l *Log) { r.l = l }

// Release lets go of the mapping. The reader can be used again.
func (r *Reader) Release() {
	if r.seg == nil {
		return
	}
	if r.high-r.low >= forgetFrom {
		r.seg.ForgetRange(r.low, r.high)
	}
	r.seg.Unpin()
	r.seg = nil
}

// Holds reports whether reading pos needs no other segment than the one that
// is pinned, so that bytes handed out before stay valid.
func (r *Reader) Holds(pos Pos) bool {
	return r.seg != nil && pos >= r.seg.Base && pos < r.seg.Limit()
}

// Get reads the record at exactly pos. ErrGone means that it was dropped.
func (r *Reader) Get(pos Pos) (rec Record, err error) {
	err = r.GetInto(pos, &rec)
	return rec, err
}

// GetInto is Get into a Record of the caller's.
func (r *Reader) GetInto(pos Pos, rec *Record) error {
	_, err := r.NextInto(pos, rec)
	switch {
	case err == nil && rec.Pos == pos:
		return nil
	case err == nil || errors.Is(err, ErrEnd):
		return ErrGone
	}
	return err
}

// Next reads the record at pos or, when that position was dropped or lies in
// an unused range, the first one behind it. A position inside a record, as the
// cursors of sessions are, means behind that record. next is where to go on. ErrEnd
// means that nothing is committed there yet. A *segment.Damage says where
// reading can go on.
func (r *Reader) Next(pos Pos) (rec Record, next Pos, err error) {
	next, err = r.NextInto(pos, &rec)
	return rec, next, err
}

// NextInto is Next into a Record of the caller's.
func (r *Reader) NextInto(pos Pos, rec *Record) (next Pos, err error) {
	for {
		if pos >= r.l.Committed() {
			return 0, ErrEnd
		}
		if !r.Holds(pos) {
			if err := r.pin(pos); err != nil {
				return 0, err
			}
			if first := r.seg.First(); first > pos {
				pos = first // which need not be committed
				continue
			}
		}
		if pos%segment.Align != 0 {
			if pos, err = r.behind(pos); err != nil {
				return 0, err
			}
			continue
		}
		next, err = r.seg.Read(pos, r.sealed || pos < r.l.recoveredEnd, rec)
		if err == nil {
			r.low, r.high = min(r.low, pos), max(r.high, next)
			return next, nil
		}
		if !errors.Is(err, ErrEnd) {
			return next, err
		}
		// Committed lies behind the end of this segment, so there is more.
		pos = r.seg.Limit()
	}
}

// behind is the position behind the record that begins at or just before pos.
// A cursor is one more than the position of the last message that was handed
// out: where that one ends, whoever moved the cursor need not know.
func (r *Reader) behind(pos Pos) (Pos, error) {
	at := pos &^ (segment.Align - 1)
	_, next, err := r.seg.At(at, r.sealed || at < r.l.recoveredEnd)
	return next, err
}

func (r *Reader) pin(pos Pos) error {
	r.Release()
	seg, err := r.l.set.Pin(pos)
	if err != nil {
		var d *segment.Damage
		if errors.As(err, &d) {
			d.To = seg.Limit()
		}
		return err
	}
	r.seg, r.sealed = seg, r.l.set.Sealed(seg)
	r.low, r.high = seg.Limit(), seg.Base
	return nil
}
