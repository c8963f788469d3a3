package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cairnmq/index"
	"cairnmq/segment"
)

// Verified is what Verify has looked at.
type Verified struct {
	Segments   int    `json:"segments"`
	Records    uint64 `json:"records"`
	Messages   uint64 `json:"messages"`
	Bytes      int64  `json:"bytes"` // of records, each with its checksum
	Index      string `json:"index"` // "verified", or why not
	Postings   uint64 `json:"postings"`
	Retained   uint64 `json:"retained"`
	Sessions   uint64 `json:"sessions"`
	Inflight   uint64 `json:"in_flight"`
	Losses     uint64 `json:"losses"`
	Checkpoint Pos    `json:"checkpoint"`
	End        Pos    `json:"end"`
	// Replay: there are records behind the checkpoint, which the next start is
	// going to put into the index.
	Replay   bool      `json:"replay_pending"`
	Problems []Problem `json:"problems"`
}

// Problem is something that is not as it should be.
type Problem struct {
	Where string `json:"where"` // a file, or a row of the index
	What  string `json:"what"`
}

// maxProblems bounds what is remembered of a directory that is all wrong.
const maxProblems = 1000

func (v *Verified) problem(where, format string, args ...any) {
	if len(v.Problems) < maxProblems {
		v.Problems = append(v.Problems, Problem{where, fmt.Sprintf(format, args...)})
	}
}

// Verify reads a whole data directory, or a copy of one: every record with its
// checksum, every block and row of the index, and every reference from the one
// to the other. It writes nothing. Beside a running broker it verifies the
// segments alone, because the index belongs to the broker. Memory is bounded by
// one segment and by what is in flight.
func Verify(dir string) (*Verified, error) {
	v := &verifier{dir: dir, inflight: map[Pos]bool{}, losses: map[Pos]bool{}, retained: map[Pos]bool{}}
	if err := v.openIndex(); err != nil {
		return nil, err
	}
	if v.index != nil {
		defer v.index.Close()
		v.collect()
	}
	if err := v.segments(); err != nil {
		return nil, err
	}
	if v.index != nil {
		v.references()
	}
	return &v.Verified, nil
}

type verifier struct {
	Verified
	dir    string
	index  *index.Index
	meta   index.Meta
	oldest Pos
	// Positions that the index names, and whether they were found.
	inflight, losses map[Pos]bool
	retained         map[Pos]bool // found
	damages          []segment.Damage
	bases            []Pos
}

func (v *verifier) openIndex() (err error) {
	dir := filepath.Join(v.dir, indexSub)
	v.index, err = index.Open(dir, index.Options{ReadOnly: true})
	switch {
	case err == nil:
	case errors.Is(err, index.ErrLocked):
		v.Index = "not verified: a broker has it open"
		return nil
	case errors.Is(err, fs.ErrNotExist):
		v.Index = "there is none: the next start builds it"
		return nil
	case errors.Is(err, index.ErrDamaged):
		v.Index = "damaged: the next start sets it aside and builds it anew"
		v.problem(dir, "%v", err)
		return nil
	default:
		return err
	}
	v.Index = "verified"
	if err := v.index.Verify(); err != nil {
		v.problem(dir, "%v", err)
	}
	if v.meta, _, err = v.index.Meta(); err != nil {
		v.problem(dir, "%v", err)
	}
	v.Checkpoint = Pos(v.meta.Checkpoint)
	return nil
}

// collect reads what the index knows, for the segments to be compared with.
func (v *verifier) collect() {
	err := v.index.Sessions(func(id string, b []byte) error {
		v.Sessions++
		row, ok := decodeRow(id, b)
		if !ok {
			v.problem("session "+id, "the row cannot be read")
			return nil
		}
		for _, f := range row.Inflight {
			v.Inflight++
			if !f.Received {
				v.inflight[f.Pos] = false
			}
		}
		return nil
	})
	v.complain("sessions", err)
	v.complain("ledger", v.index.Losses(0, func(pos uint64, _ []byte) error {
		v.Losses++
		v.losses[Pos(pos)] = false
		return nil
	}))
}

func (v *verifier) complain(where string, err error) {
	if err != nil {
		v.problem(where, "%v", err)
	}
}

func (v *verifier) segments() error {
	entries, err := os.ReadDir(filepath.Join(v.dir, segmentsSub))
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if _, ok := segment.ParseFileName(e.Name()); ok && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if err := v.segment(name, i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) segment(name string, last bool) error {
	path := filepath.Join(v.dir, segmentsSub, name)
	base, _ := segment.ParseFileName(name)
	f, err := segment.OpenFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // dropped meanwhile
	case errors.Is(err, segment.ErrNewer):
		return err
	case errors.Is(err, segment.ErrDamaged) && last && unusedFile(path):
		return nil // being made
	case errors.Is(err, segment.ErrDamaged):
		v.problem(name, "%v", err)
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	v.Segments++
	if f.Base != base {
		v.problem(name, "the header says that it begins at %d", f.Base)
		return nil
	}
	if v.meta.LogID != [16]byte{} && f.LogID != v.meta.LogID {
		v.problem(name, "it belongs to log %x, the index to %x", f.LogID, v.meta.LogID)
	}
	v.bases = append(v.bases, base)
	if v.oldest == 0 {
		v.oldest = base
	}
	topics, t, err := v.records(f, name)
	if err != nil {
		return err
	}
	if v.index != nil {
		v.compare(f, name, topics, &t)
	}
	return nil
}

// unusedFile reports whether nothing was ever written to a file.
func unusedFile(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, segment.MinSize)
	n, _ := f.ReadAt(b, 0)
	return segment.Unused(b[:n])
}

// records reads a segment to its end.
func (v *verifier) records(f *segment.File, name string) (map[string]*Topic, tally, error) {
	topics := make(map[string]*Topic)
	var t tally
	for {
		rec, err := f.Next()
		var damage *segment.Damage
		switch {
		case errors.As(err, &damage):
			v.damages = append(v.damages, *damage)
			v.problem(name, "positions %d to %d cannot be read: %v", damage.From, damage.To, damage.Err)
			continue
		case errors.Is(err, ErrEnd):
			v.End = max(v.End, f.Pos())
			v.checkSeal(f, name, &t)
			return topics, t, nil
		case err != nil:
			return nil, t, err
		}
		v.record(&rec, f.Base, name, topics, &t)
	}
}

func (v *verifier) record(rec *Record, base Pos, name string, topics map[string]*Topic, t *tally) {
	v.Records++
	v.Bytes += int64(segment.PaddedLen(len(rec.Body)))
	v.Replay = v.Replay || v.index != nil && rec.Pos >= v.Checkpoint && rec.Kind != KindShutdown && rec.Kind != KindBoot
	t.count(rec, base)
	switch rec.Kind {
	case KindMessage:
		v.message(rec, base, name, topics)
	case KindLoss:
		if _, ok := v.losses[rec.Pos]; ok {
			v.losses[rec.Pos] = true
		}
		fallthrough
	default:
		if _, ok := DecodeEvent(rec); !ok {
			v.problem(name, "the %s record at %d does not hold what its kind says", KindName(rec.Kind), rec.Pos)
		}
	}
}

func (v *verifier) message(rec *Record, base Pos, name string, topics map[string]*Topic) {
	v.Messages++
	m, err := DecodeMessage(rec)
	if err != nil {
		v.problem(name, "the message at %d: %v", rec.Pos, err)
		return
	}
	if _, ok := v.inflight[rec.Pos]; ok {
		v.inflight[rec.Pos] = true
	}
	topic, ok := topics[string(m.Topic)]
	if !ok {
		topic = &Topic{Name: string(m.Topic)}
		topics[topic.Name] = topic
	}
	topic.count(rec, base)
	if v.index == nil || rec.Flags&FlagRetain == 0 {
		return
	}
	pos, ok, err := v.index.Retained(topic.Name)
	v.complain("retained message of "+topic.Name, err)
	if ok && Pos(pos) == rec.Pos {
		v.retained[rec.Pos] = true
	}
}

func (v *verifier) checkSeal(f *segment.File, name string, t *tally) {
	seal, _, ok := f.Sealed()
	damaged := slices.ContainsFunc(v.damages, func(d segment.Damage) bool { return d.From >= f.Base && d.From < f.Limit() })
	if ok && !damaged && (seal.Records != t.records || seal.Messages != t.messages) {
		v.problem(name, "its seal counts %d records and %d messages, there are %d and %d", seal.Records, seal.Messages, t.records, t.messages)
	}
}

// compare holds the index's rows about a sealed segment against the segment.
func (v *verifier) compare(f *segment.File, name string, topics map[string]*Topic, t *tally) {
	enc, ok, err := v.index.Segment(uint64(f.Base))
	v.complain(name+" in the index", err)
	if !ok {
		return // not sealed, or sealed by the end that a crash was
	}
	row, ok := decodeSegmentRow(enc)
	switch {
	case !ok:
		v.problem(name+" in the index", "the row cannot be read")
		return
	case row.Size != f.Size || row.Salt != f.Salt:
		v.problem(name+" in the index", "the row is about another file: size %d and salt %x, not %d and %x", row.Size, row.Salt, f.Size, f.Salt)
		return
	case slices.ContainsFunc(v.damages, func(d segment.Damage) bool { return d.From >= f.Base && d.From < f.Limit() }):
		return // what the index says of it was true once
	case row.Records != t.records || row.Messages != t.messages:
		v.problem(name+" in the index", "it counts %d records and %d messages, there are %d and %d", row.Records, row.Messages, t.records, t.messages)
	case !slices.Equal(row.Times, t.times.entries):
		v.problem(name+" in the index", "its table of times is not that of the records")
	}
	known := 0
	v.complain(name+" in the index", v.index.PostingTopics(uint64(f.Base), "", func(topic, row []byte) error {
		known++
		n, _, enc, ok := decodePostingsRow(row)
		x := topics[string(topic)]
		switch {
		case !ok:
			v.problem(name+" in the index", "the postings of %q cannot be read", topic)
		case x == nil:
			v.problem(name+" in the index", "postings of %q, of which it has no message", topic)
		case int(n) != x.postings.n || string(enc) != string(x.postings.enc):
			v.problem(name+" in the index", "the postings of %q are not those of its messages", topic)
		}
		v.Postings += n
		return nil
	}))
	if known < len(topics) {
		v.problem(name+" in the index", "postings of %d topics, it has messages of %d", known, len(topics))
	}
}

// references looks for rows that name what is not in the log.
func (v *verifier) references() {
	if v.Checkpoint > v.End && len(v.bases) > 0 {
		v.problem("checkpoint", "%d lies behind the end of the log, %d", v.Checkpoint, v.End)
	}
	v.complain("segments in the index", v.index.Segments(func(base uint64, _ []byte) error {
		if _, ok := slices.BinarySearch(v.bases, Pos(base)); !ok {
			v.problem(segment.FileName(Pos(base)), "the file is missing: the index knows it")
		}
		return nil
	}))
	v.complain("retained", v.index.RetainedPrefix("", func(topic []byte, pos uint64) error {
		v.Retained++
		if !v.retained[Pos(pos)] && !v.excused(Pos(pos)) {
			v.problem("retained message of "+string(topic), "there is none at %d", pos)
		}
		return nil
	}))
	v.complain("sessions", v.index.Sessions(func(id string, b []byte) error {
		row, ok := decodeRow(id, b)
		if ok && (row.Next > v.End || row.AsOf > v.End+1) {
			v.problem("session "+id, "its cursor %d or its state as of %d lies behind the end of the log, %d", row.Next, row.AsOf, v.End)
		}
		return nil
	}))
	v.complain("due", v.index.Due(1<<62, func(_ int64, id string) error {
		if _, ok, err := v.index.Session(id); err == nil && !ok {
			v.problem("session "+id, "something is due for it, and it does not exist")
		}
		return nil
	}))
	for what, list := range map[string]map[Pos]bool{"message in flight": v.inflight, "row of the ledger": v.losses} {
		for pos, found := range list {
			if !found && !v.excused(pos) && pos >= v.oldest {
				v.problem(fmt.Sprintf("%s at %d", what, pos), "there is no such record")
			}
		}
	}
	slices.SortStableFunc(v.Problems, func(a, b Problem) int { return strings.Compare(a.Where, b.Where) })
}

// excused: the position lies in a damaged range, which has been reported; or
// it is from before a segment was dropped, and the replay that is pending says
// where the message is now.
func (v *verifier) excused(pos Pos) bool {
	return v.Replay && pos < v.oldest ||
		slices.ContainsFunc(v.damages, func(d segment.Damage) bool { return pos >= d.From && pos < d.To })
}
