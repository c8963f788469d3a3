package inspect

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"cairnmq/segment"
	"cairnmq/storage"
)

// State is what a segment is.
type State string

// The states.
const (
	Sealed   State = "sealed"   // complete, with its numbers at its end
	Active   State = "active"   // the last one with records: it may be appended to
	Unsealed State = "unsealed" // left behind by a crash; recovery seals it
	Empty    State = "empty"    // made ahead of time
	Damaged  State = "damaged"  // something in it cannot be read
	Newer    State = "newer"    // of a version that this program does not know
)

// Segment is a row of the list of segments.
type Segment struct {
	Name     string           `json:"name"`
	Base     Pos              `json:"base"`
	End      Pos              `json:"end"`   // behind the last record
	Limit    Pos              `json:"limit"` // behind the reserved range
	State    State            `json:"state"`
	First    *time.Time       `json:"first,omitempty"`
	Last     *time.Time       `json:"last,omitempty"`
	Records  uint64           `json:"records"`
	Messages uint64           `json:"messages"`
	Topics   uint64           `json:"topics"`
	Used     int64            `json:"bytes_used"`    // by the header, the records and the seal
	Disk     int64            `json:"bytes_on_disk"` // blocks, where the system tells, else the file's size
	Torn     int64            `json:"bytes_torn,omitempty"`
	Scanned  bool             `json:"scanned"` // every checksum was computed
	Recover  bool             `json:"sealed_by_recovery,omitempty"`
	LogID    string           `json:"log_id,omitempty"`
	Boot     uint16           `json:"boot"`
	Created  *time.Time       `json:"created,omitempty"`
	Damages  []segment.Damage `json:"-"`
}

// MarshalJSON writes the damages as range and reason.
func (s Segment) MarshalJSON() ([]byte, error) {
	type plain Segment
	return json.Marshal(struct {
		plain
		Damages []DamageView `json:"damage,omitempty"`
	}{plain(s), viewDamages(s.Damages)})
}

// DamageView is a damage for JSON.
type DamageView struct {
	From   Pos    `json:"from"`
	To     Pos    `json:"to"`
	Reason string `json:"reason"`
}

func viewDamages(list []segment.Damage) []DamageView {
	var out []DamageView
	for _, d := range list {
		out = append(out, DamageView{d.From, d.To, d.Err.Error()})
	}
	return out
}

// Total sums a list of segments up.
type Total struct {
	Segments int    `json:"segments"`
	Records  uint64 `json:"records"`
	Messages uint64 `json:"messages"`
	Used     int64  `json:"bytes_used"`
	Disk     int64  `json:"bytes_on_disk"`
	Damages  int    `json:"damages"`
}

// Add counts a segment in.
func (t *Total) Add(s *Segment) {
	t.Segments++
	t.Records += s.Records
	t.Messages += s.Messages
	t.Used += s.Used
	t.Disk += s.Disk
	t.Damages += len(s.Damages)
}

// List describes every segment, oldest first. The numbers of a sealed one
// come from its seal; the others are read. With scan all are read and every
// checksum is verified. A segment that is removed meanwhile is left out.
func (l *Log) List(scan bool) ([]Segment, error) {
	files, err := l.files()
	if err != nil {
		return nil, err
	}
	var out []Segment
	for i, f := range files {
		s, err := f.describe(scan)
		if err == nil && s.State == Damaged && i == len(files)-1 && f.beingMade() {
			s.State, s.Damages = Empty, nil
		}
		if errors.Is(err, fs.ErrNotExist) && l.only == "" || errors.Is(err, segment.ErrReplaced) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, s)
	}
	nameTheActive(out)
	return out, nil
}

// nameTheActive marks the last segment with records if it has no seal.
func nameTheActive(list []Segment) {
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i].State {
		case Empty:
			continue
		case Unsealed:
			list[i].State = Active
		}
		return
	}
}

// describe looks into one file.
func (f file) describe(scan bool) (Segment, error) {
	s := Segment{Name: f.name, Base: f.base, End: f.base, Limit: f.base}
	info, err := os.Stat(f.path)
	if err != nil {
		return s, err
	}
	s.Disk = onDisk(info)
	file, err := f.open()
	switch {
	case errors.Is(err, segment.ErrNewer):
		s.State = Newer
		return s, nil
	case errors.Is(err, segment.ErrDamaged):
		d := f.unreadable(err)
		s.State, s.End, s.Limit = Damaged, d.To, d.To
		s.Damages = []segment.Damage{*d}
		return s, nil
	case err != nil:
		return s, err
	}
	defer func() { _ = file.Close() }()
	s.Base, s.Limit, s.Boot, s.LogID = file.Base, file.Limit(), file.Boot, hex.EncodeToString(file.LogID[:])
	s.Created = timeOf(file.Created)
	if seal, _, ok := file.FindSeal(); ok && !scan {
		s.takeSeal(&seal)
		return s, nil
	}
	return s, s.scan(file)
}

func (s *Segment) takeSeal(seal *segment.Seal) {
	s.State = Sealed
	s.Records, s.Messages, s.Topics = seal.Records, seal.Messages, seal.Topics
	s.End = s.Base + Pos(seal.End)
	s.Used = seal.End + segment.SealLen
	s.Recover = seal.Flags&segment.SealRecovered != 0
	if seal.Records > 0 {
		s.First, s.Last = timeOf(seal.First), timeOf(seal.Last)
	}
}

func timeOf(unixNano int64) *time.Time {
	t := time.Unix(0, unixNano).UTC()
	return &t
}

// scan reads all of a segment.
func (s *Segment) scan(file *segment.File) error {
	s.Scanned = true
	topics := make(map[string]struct{})
	for {
		rec, err := file.Next()
		var damage *segment.Damage
		switch {
		case err == nil:
			s.count(&rec, topics)
			continue
		case errors.As(err, &damage):
			s.Damages = append(s.Damages, *damage)
			continue
		case !errors.Is(err, segment.ErrEnd):
			return err
		}
		break
	}
	s.End, s.Torn, s.Topics = file.Pos(), file.Torn(), uint64(len(topics))
	s.Used = int64(s.End - s.Base)
	seal, _, sealed := file.Sealed()
	if sealed {
		s.Used += segment.SealLen
		s.Recover = seal.Flags&segment.SealRecovered != 0
		if len(s.Damages) == 0 && (seal.Records != s.Records || seal.Messages != s.Messages) {
			s.Damages = append(s.Damages, segment.Damage{File: file.Path, From: s.Base, To: s.End, Err: fmt.Errorf(
				"%w: the seal counts %d records and %d messages, there are %d and %d",
				segment.ErrDamaged, seal.Records, seal.Messages, s.Records, s.Messages)})
		}
	}
	switch {
	case len(s.Damages) > 0:
		s.State = Damaged
	case sealed:
		s.State = Sealed
	case s.Records == 0 && s.Torn == 0:
		s.State = Empty
	default:
		s.State = Unsealed
	}
	return nil
}

func (s *Segment) count(rec *segment.Record, topics map[string]struct{}) {
	if s.Records == 0 {
		s.First = timeOf(rec.Wall)
	}
	s.Last = timeOf(rec.Wall)
	s.Records++
	if rec.Kind != storage.KindMessage {
		return
	}
	s.Messages++
	m, err := storage.DecodeMessage(rec)
	if err != nil {
		return
	}
	if _, ok := topics[string(m.Topic)]; !ok {
		topics[string(m.Topic)] = struct{}{}
	}
}
