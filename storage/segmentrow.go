package storage

import (
	"encoding/binary"

	"cairnmq/segment"
)

// segmentRow is the index row of a sealed segment.
type segmentRow struct {
	Size, End         int64 // reserved bytes; offset behind the last record
	Salt              uint32
	Records, Messages uint64
	First, Last       int64 // wall clock, unix ns
	Times             []timeEntry
	Rules             []ruleBytes
}

type ruleBytes struct {
	filter string
	bytes  int64
}

func (r *segmentRow) addRule(filter string, n int64) {
	for i := range r.Rules {
		if r.Rules[i].filter == filter {
			r.Rules[i].bytes += n
			return
		}
	}
	r.Rules = append(r.Rules, ruleBytes{filter, n})
}

func (r *segmentRow) encode() []byte {
	var e encoder
	e.byte(rowVersion)
	e.uint(uint64(r.Size))
	e.uint(uint64(r.End))
	e.uint(uint64(r.Salt))
	e.uint(r.Records)
	e.uint(r.Messages)
	e.int(r.First)
	e.int(r.Last)
	e.uint(uint64(len(r.Times)))
	for _, t := range r.Times {
		e.int(t.wall - r.First)
		e.uint(uint64(t.off))
	}
	e.uint(uint64(len(r.Rules)))
	for _, x := range r.Rules {
		e.string(x.filter)
		e.int(x.bytes)
	}
	return e.b
}

func decodeSegmentRow(b []byte) (segmentRow, bool) {
	d := decoder{b: b}
	if d.byte() != rowVersion {
		return segmentRow{}, false
	}
	r := segmentRow{Size: int64(d.uint()), End: int64(d.uint()), Salt: uint32(d.uint()), Records: d.uint(), Messages: d.uint(), First: d.int(), Last: d.int()}
	for range d.count() {
		r.Times = append(r.Times, timeEntry{wall: d.int() + r.First, off: uint32(d.uint())})
	}
	for range d.count() {
		r.Rules = append(r.Rules, ruleBytes{d.string(), d.int()})
	}
	return r, !d.bad && r.Size >= segment.MinSize && r.Size <= segment.MaxSize && r.End >= segment.FileHeadLen && r.End <= r.Size
}

// postingsRow is the index value of a topic in a segment: number of messages,
// bytes, then the offsets.
func (t *Topic) postingsRow() []byte {
	b := make([]byte, 0, len(t.postings.enc)+8)
	b = binary.AppendUvarint(b, uint64(t.postings.n))
	b = binary.AppendUvarint(b, t.bytes)
	return append(b, t.postings.enc...)
}

func decodePostingsRow(row []byte) (n, bytes uint64, enc []byte, ok bool) {
	d := decoder{b: row}
	n, bytes = d.uint(), d.uint()
	return n, bytes, d.b, !d.bad
}
