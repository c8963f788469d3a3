package storage

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"cairnmq/segment"
)

// Cause is why messages were lost to a reader.
type Cause uint8

// The causes. Numbers are part of the format.
const (
	CauseRetention Cause = 1 // the budget or the age limit took the segment
	CauseRule      Cause = 2 // a retention rule took its share
	CauseExpiry    Cause = 3 // the message expired before it was delivered
	CauseDamage    Cause = 4 // the bytes could not be read
	CauseTooLarge  Cause = 5 // larger than the client's maximum packet size
	CauseRefused   Cause = 7 // the log had no room; the publisher was told
)

var causeNames = map[Cause]string{
	CauseRetention: "retention", CauseRule: "retention-rule", CauseExpiry: "expiry", CauseDamage: "damage",
	CauseTooLarge: "too-large", CauseRefused: "refused",
}

func (c Cause) String() string {
	if s, ok := causeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("cause-%d", c)
}

// MarshalText is the cause in words.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Loss is one row of the loss ledger: who did not get what, and why.
type Loss struct {
	Cause Cause `json:"cause"`
	// Readers that share the gap; empty for damage, which concerns all.
	Readers  []string `json:"readers,omitempty"`
	From, To Pos      `json:"-"`
	Count    uint64   `json:"messages"` // messages for each of the readers
	Bytes    uint64   `json:"bytes"`
	Detail   string   `json:"detail,omitempty"`
	// When and At are those of the ledger's record.
	When time.Time `json:"when"`
	At   Pos       `json:"position"`
}

// MarshalJSON writes the range as two numbers.
func (x Loss) MarshalJSON() ([]byte, error) {
	type plain Loss
	return json.Marshal(struct {
		plain
		From uint64 `json:"from"`
		To   uint64 `json:"to"`
	}{plain(x), uint64(x.From), uint64(x.To)})
}

func (x *Loss) encode() []byte {
	var e encoder
	e.byte(byte(x.Cause))
	e.uint(uint64(x.From))
	e.uint(uint64(x.To))
	e.uint(x.Count)
	e.uint(x.Bytes)
	e.string(x.Detail)
	e.uint(uint64(len(x.Readers)))
	for _, r := range x.Readers {
		e.string(r)
	}
	return e.b
}

// DecodeLoss reads the body of a KindLoss record.
func DecodeLoss(body []byte) (Loss, bool) {
	d := decoder{b: body}
	x := Loss{Cause: Cause(d.byte()), From: Pos(d.uint()), To: Pos(d.uint()), Count: d.uint(), Bytes: d.uint(), Detail: d.string()}
	for range d.count() {
		x.Readers = append(x.Readers, d.string())
	}
	return x, !d.bad
}

// RecordLoss writes a row of the ledger: into the log, which keeps it, and
// into the index, where it is found.
func (l *Log) RecordLoss(x Loss) error { return l.recordLoss(anybody, x) }

func (l *Log) recordLoss(who caller, x Loss) error {
	x.When = l.o.Now()
	body := x.encode()
	l.stats.Losses.Add(x.Count)
	l.log.Warn("messages lost", "cause", x.Cause.String(), "readers", len(x.Readers), "from", x.From, "to", x.To,
		"messages", x.Count, "bytes", x.Bytes, "detail", x.Detail)
	pos, _, err := l.appendEvents(who, Event{Kind: KindLoss, Body: body})
	if err != nil {
		return fmt.Errorf("loss ledger: %w", err)
	}
	return l.indexLoss(pos, x.When.UnixNano(), body)
}

func (l *Log) indexLoss(pos Pos, wall int64, body []byte) error {
	b := l.index.NewBatch()
	b.SetLoss(uint64(pos), lossRow(wall, body))
	return l.apply(b)
}

func lossRow(wall int64, body []byte) []byte {
	var e encoder
	e.int(wall)
	return append(e.b, body...)
}

// Losses calls fn for every row of the ledger from the position of a row on.
func (l *Log) Losses(from Pos, fn func(Loss) error) error {
	return l.index.Losses(uint64(from), func(pos uint64, row []byte) error {
		d := decoder{b: row}
		wall := d.int()
		x, ok := DecodeLoss(d.b)
		if !ok {
			return nil
		}
		x.When, x.At = time.Unix(0, wall), Pos(pos)
		return fn(x)
	})
}

// recordGaps writes the gaps that dropping seg, or what a rule takes of it, leaves
// to its readers, each of them once: what was begun before a crash or an error
// is done again from the start.
func (l *Log) recordGaps(seg *segment.Segment, gaps []Loss, cause Cause, detail string) error {
	known := make(map[string]bool)
	err := l.Losses(seg.First(), func(x Loss) error {
		if x.Cause == cause && x.From >= seg.Base && x.To <= seg.Limit() && (cause != CauseRule || x.Detail == detail) {
			for _, id := range x.Readers {
				known[id] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range gaps {
		g.Cause, g.Detail = cause, detail
		g.Readers = slices.DeleteFunc(g.Readers, func(id string) bool { return known[id] })
		if len(g.Readers) == 0 {
			continue
		}
		if err := l.recordLoss(theKeeper, g); err != nil {
			return err
		}
	}
	return nil
}
