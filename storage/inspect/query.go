package inspect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairnmq/segment"
	"cairnmq/storage"
	"cairnmq/storage/filter"
)

// Query says which records are wanted. The zero value wants all.
type Query struct {
	Topics []string       // filters; a message must match one of them
	Kinds  []storage.Kind // empty: all
	// Client is the publisher of a message, the session of an event, or a
	// reader that a loss concerns.
	Client string
	From   Bound // including
	To     Bound // excluding
	// First, if not zero, ends after so many.
	First int
	// Tail begins so many wanted records before the end, if HasTail.
	Tail    int
	HasTail bool
	// Follow goes on with what is appended.
	Follow bool
}

// Bound is a position or an instant. The zero value is no bound.
type Bound struct {
	Pos  Pos
	Time time.Time
}

// ParseBound reads a position, an RFC 3339 time, a time ago such as -2h or
// -3d, "@beginning", or "@now".
func ParseBound(s string, now time.Time) (Bound, error) {
	switch {
	case s == "" || s == "@beginning":
		return Bound{}, nil
	case s == "@now":
		return Bound{Time: now}, nil
	case len(s) > 1 && s[0] == '-' && s[1] >= '0' && s[1] <= '9':
		if d, err := parseAgo(s[1:]); err == nil {
			return Bound{Time: now.Add(-d)}, nil
		}
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return Bound{Pos: Pos(n)}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return Bound{Time: t}, nil
	}
	return Bound{}, fmt.Errorf("%q is neither a position, a time such as %s, a time ago such as -2h, nor @beginning",
		s, now.UTC().Format(time.RFC3339))
}

// parseAgo is time.ParseDuration with days.
func parseAgo(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, err
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}

// Check reports what in a query makes no sense.
func (q *Query) Check() error {
	for _, t := range q.Topics {
		if !filter.Valid(t) {
			return fmt.Errorf("%q is not a topic filter", t)
		}
	}
	if q.Follow && q.To != (Bound{}) {
		return fmt.Errorf("follow with an end: one of them is too much")
	}
	return nil
}

// Entry is a record that was wanted. All slices are valid until the visit of
// the next one.
type Entry struct {
	segment.Record
	Segment string // file name
	// Message is set for messages, Event for other records. With Unclear the
	// body does not hold what the kind says, or the kind is not known.
	Message *storage.MessageView
	Event   *storage.EventView
	Unclear bool
}

// before reports whether the record lies before From; after, whether nothing
// at or behind the record can be wanted.
func (q *Query) before(rec *segment.Record) bool {
	return rec.Pos < q.From.Pos || !q.From.Time.IsZero() && rec.WallTime().Before(q.From.Time)
}

func (q *Query) after(pos Pos) bool { return q.To.Pos != 0 && pos >= q.To.Pos }

// pick decodes the record into e and reports whether it is wanted.
func (q *Query) pick(rec *segment.Record, e *Entry) bool {
	if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, rec.Kind) {
		return false
	}
	if q.before(rec) || q.after(rec.Pos) || !q.To.Time.IsZero() && !rec.WallTime().Before(q.To.Time) {
		return false
	}
	e.Record, e.Message, e.Event, e.Unclear = *rec, nil, nil, false
	if rec.Kind == storage.KindMessage {
		return q.pickMessage(e)
	}
	if len(q.Topics) > 0 {
		return false
	}
	v, ok := storage.DecodeEvent(rec)
	e.Event, e.Unclear = &v, !ok
	return q.Client == "" || v.Concerns(q.Client)
}

func (q *Query) pickMessage(e *Entry) bool {
	m, err := storage.DecodeMessage(&e.Record)
	if err != nil {
		e.Unclear = true
		return len(q.Topics) == 0 && q.Client == ""
	}
	e.Message = &m
	if q.Client != "" && q.Client != string(m.Publisher) {
		return false
	}
	if len(q.Topics) == 0 {
		return true
	}
	topic := string(m.Topic)
	return slices.ContainsFunc(q.Topics, func(f string) bool { return filter.Match(f, topic) })
}

// skips reports whether no record of a sealed segment can be wanted, by its
// positions and times. The times of its making and its sealing count, too: the
// seal's first and last are those of two records, not the extremes, and a
// carried record has an old one.
func (q *Query) skips(f *segment.File, seal *segment.Seal, sealed *segment.Head) bool {
	if f.Base+Pos(seal.End) <= q.From.Pos {
		return true
	}
	latest := time.Unix(0, max(f.Created, seal.First, seal.Last, sealed.Wall))
	return !q.From.Time.IsZero() && latest.Before(q.From.Time)
}
