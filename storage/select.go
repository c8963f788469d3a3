package storage

import (
	"errors"
	"slices"

	"cairnmq/storage/filter"
)

// Selection is the positions of the messages in one sealed segment that match
// some filters: what a reader with narrow filters visits in place of every
// record.
type Selection struct {
	// Positions are in order. Nothing that matches lies before To and is not
	// among them.
	Positions []Pos
	To        Pos
}

// Limits of a selection.
const (
	// wideShare: when more than one in so many messages match, reading all
	// of them in order is cheaper than finding them.
	wideShare = 8
	// selectMax bounds the memory of a selection: 64 KiB.
	selectMax = 8192
)

var errWide = errors.New("wide")

// Select finds the messages from the position from on that match one of the
// filters, in the sealed segment that holds from. ok is false where reading
// every record is better: the segment is not sealed, the index does not know
// it, or a good part of its messages match; then To, unless it is zero, says
// up to where asking again is pointless.
func (l *Log) Select(filters []string, from Pos) (sel Selection, ok bool) {
	seg, err := l.set.Pin(from)
	if err != nil {
		return sel, false
	}
	base, limit := seg.Base, seg.Limit()
	seg.Unpin()
	row, ok, err := l.segmentRow(base)
	if err != nil || !ok {
		return sel, false
	}
	sel.To = limit
	err = l.selectInto(&sel, filters, base, from, row.Messages/wideShare)
	if err != nil {
		if !errors.Is(err, errWide) {
			l.indexTrouble(err)
		}
		sel.Positions = nil
		return sel, false
	}
	slices.Sort(sel.Positions)
	sel.Positions = slices.Compact(sel.Positions)
	if len(sel.Positions) > selectMax {
		sel.Positions = slices.Clone(sel.Positions[:selectMax])
		sel.To = sel.Positions[selectMax-1] + 1
	}
	return sel, true
}

func (l *Log) selectInto(sel *Selection, filters []string, base, from Pos, limit uint64) error {
	var matched uint64
	take := func(row []byte) error {
		n, _, enc, ok := decodePostingsRow(row)
		if !ok {
			return errWide // not readable: read the segment itself
		}
		if matched += n; matched > limit {
			return errWide
		}
		eachPosting(enc, func(off uint32) bool {
			if p := base + Pos(off); p >= from {
				sel.Positions = append(sel.Positions, p)
			}
			return true
		})
		return nil
	}
	for _, f := range filters {
		prefix, exact := filter.Literal(f)
		if exact {
			row, ok, err := l.index.Postings(uint64(base), f)
			if err == nil && ok {
				err = take(row)
			}
			if err != nil {
				return err
			}
			continue
		}
		err := l.index.PostingTopics(uint64(base), prefix, func(topic, row []byte) error {
			if !filter.Match(f, viewString(topic)) {
				return nil
			}
			return take(row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
