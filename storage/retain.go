package storage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairnmq/segment"
	"cairnmq/storage/filter"
)

// Usage says how the budget is spent, in bytes.
type Usage struct {
	Segments, Index, Damaged, Budget int64
	Free                             int64 // on the file system; negative if unknown
}

// Total is what the directory takes.
func (u Usage) Total() int64 { return u.Segments + u.Index + u.Damaged }

// Usage measures the data directory.
func (l *Log) Usage() (Usage, error) {
	u := Usage{Budget: l.o.MaxBytes, Free: l.o.FS.Free(l.dir)}
	var err error
	if u.Segments, err = l.dirBytes(l.segmentDir()); err != nil {
		return u, err
	}
	if u.Index, err = l.dirBytes(l.indexDir()); err != nil {
		return u, err
	}
	u.Damaged, err = l.dirBytes(l.damagedDir())
	return u, err
}

// dirBytes adds up a directory and what is in its directories; a directory
// that does not exist is empty.
func (l *Log) dirBytes(dir string) (n int64, err error) {
	files, err := l.o.FS.List(dir)
	if errors.Is(err, errNotExist) {
		return 0, nil
	}
	for _, f := range files {
		if !f.Dir {
			n += f.Size
			continue
		}
		m, err := l.dirBytes(filepath.Join(dir, f.Name))
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, err
}

// makeRoom drops the oldest segments until size more bytes fit into the
// budget. It reports false if they cannot be made to fit.
func (l *Log) makeRoom(size int64) bool {
	for last := int64(math.MaxInt64); ; {
		u, err := l.Usage()
		if err != nil {
			l.log.Warn("cannot measure the data directory", "error", err)
			return true // the file system will say no if it has to
		}
		// Files that go as soon as a slow reader lets them go do not count:
		// dropping more would not make them go sooner.
		used := u.Total() - l.set.Leaving()
		if used+size <= u.Budget {
			l.releaseHeld()
			return true
		}
		// Dropping must help: not if what cannot be dropped is too much by
		// itself, and not if all of it is retained messages that are carried.
		if used-l.set.SealedBytes()+size > u.Budget || used >= last {
			return false
		}
		last = used
		dropped, held, err := l.dropOldest(CauseRetention, fmt.Sprintf("budget of %d bytes", u.Budget))
		if held != nil && size <= l.o.SegmentSize { // else it is one large message that is refused
			held.held.Store(true)
		}
		if err != nil {
			l.log.Warn("cannot drop the oldest segment", "error", err)
		}
		if !dropped {
			return false
		}
	}
}

// retain applies age limits and retention rules.
func (l *Log) retain() {
	if l.o.MaxAge > 0 {
		for l.oldestIsOlder(l.o.MaxAge) {
			if dropped, _, err := l.dropOldest(CauseRetention, "age limit of "+l.o.MaxAge.String()); !dropped {
				if err != nil {
					l.log.Warn("cannot drop the oldest segment", "error", err)
				}
				break
			}
		}
	}
	for _, r := range l.rules.retention {
		if err := l.applyRule(r); err != nil {
			l.log.Warn("cannot apply a retention rule", "filter", r.Filter, "error", err)
		}
	}
}

// oldestSealed is the oldest segment if it is sealed: the active one and what
// the view still reads are never dropped.
func (l *Log) oldestSealed() (*segment.Segment, segmentRow, bool) {
	list := l.set.Snapshot()
	if len(list) < 2 || !l.set.Sealed(list[0]) {
		return nil, segmentRow{}, false
	}
	row, ok, err := l.segmentRow(list[0].Base)
	if err == nil && !ok {
		// The index did not take it when it was sealed.
		if err = l.set.PinSegment(list[0]); err == nil {
			err = l.indexAgain(list[0])
			list[0].Unpin()
		}
		if err == nil {
			row, ok, err = l.segmentRow(list[0].Base)
		}
	}
	if err != nil {
		l.indexTrouble(err)
	}
	return list[0], row, ok && err == nil
}

func (l *Log) segmentRow(base Pos) (segmentRow, bool, error) {
	b, ok, err := l.index.Segment(uint64(base))
	if err != nil || !ok {
		return segmentRow{}, false, err
	}
	row, ok := decodeSegmentRow(b)
	return row, ok, nil
}

func (l *Log) oldestIsOlder(age time.Duration) bool {
	_, row, ok := l.oldestSealed()
	return ok && row.Records > 0 && l.o.Now().Sub(time.Unix(0, row.Last)) > age
}

// dropOldest removes the oldest sealed segment: carries its live retained
// messages to the head, writes down who loses what, and then lets it go. held
// is a rule that forbids it.
func (l *Log) dropOldest(cause Cause, detail string) (dropped bool, held *ruleState, err error) {
	seg, row, ok := l.oldestSealed()
	if !ok {
		return false, nil, nil
	}
	// What a restart has to replay must stay.
	if !l.checkpointCovers(seg.End()) {
		if err := l.Checkpoint(); err != nil {
			return false, nil, err
		}
	}
	gaps, held, err := l.gaps(seg, nil)
	if err != nil || held != nil {
		return false, held, err
	}
	return true, nil, l.drop(seg, &row, gaps, cause, detail)
}

func (l *Log) drop(seg *segment.Segment, row *segmentRow, gaps []Loss, cause Cause, detail string) error {
	if err := l.carryRetained(seg); err != nil {
		return fmt.Errorf("carry retained messages: %w", err)
	}
	if err := l.recordGaps(seg, gaps, cause, detail); err != nil {
		return err
	}
	// The carry and the ledger must be on the disk before the segment goes.
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.forgetSegment(seg, row); err != nil {
		return err
	}
	// A file that is missing and is still in the index was removed by somebody
	// else.
	if err := l.flushIndex(); err != nil {
		return err
	}
	l.set.Retire(seg, true)
	if err := l.o.FS.SyncDir(l.segmentDir()); err != nil {
		return err
	}
	l.log.Info("segment dropped", "segment", segment.FileName(seg.Base), "bytes", seg.Bytes(), "cause", cause.String(), "detail", detail)
	return nil
}

func (l *Log) releaseHeld() {
	for _, r := range l.rules.retention {
		r.held.Store(false)
	}
}

func (l *Log) forgetSegment(seg *segment.Segment, row *segmentRow) error {
	b := l.index.NewBatch()
	b.DeleteSegment(uint64(seg.Base))
	b.DeleteLosses(uint64(seg.Limit())) // those recorded in it or before it
	if err := l.apply(b); err != nil {
		return err
	}
	l.rules.count(row.Rules, seg, -1)
	return nil
}

// carryRetained appends the retained messages that live in seg again.
func (l *Log) carryRetained(seg *segment.Segment) error {
	if err := l.set.PinSegment(seg); err != nil {
		if segment.IsEnvironment(err) {
			return err
		}
		return nil // unreadable: nothing can be carried
	}
	defer seg.Unpin()
	return l.index.PostingTopics(uint64(seg.Base), "", func(topic, _ []byte) error {
		l.view.Lock()
		pos := l.retainedLocked(string(topic))
		l.view.Unlock()
		if pos < seg.Base || pos >= seg.Limit() {
			return nil
		}
		rec, _, err := seg.At(pos, true)
		expired := rec.Flags&FlagExpiry != 0 && l.Age(&rec.Head, l.o.Now()) >= time.Duration(rec.Expiry)*time.Second
		if err != nil || rec.Pos != pos || expired {
			l.dropRetained(string(topic), pos)
			return nil
		}
		if _, err := l.appendCarry(&rec); err != nil {
			return err
		}
		l.advanceApart()
		return nil
	})
}

// dropRetained takes a retained message that is no more out of the table,
// unless a newer one has come.
func (l *Log) dropRetained(topic string, pos Pos) {
	l.view.Lock()
	defer l.view.Unlock()
	if l.retainedLocked(topic) == pos {
		l.view.retained[topic] = 0
	}
}

// gaps computes what dropping seg, or only the records that a rule covers,
// takes away from sessions: readers with the same gap share a row. held is a
// reject-new rule whose records somebody still needs, which forbids the drop.
func (l *Log) gaps(seg *segment.Segment, only *ruleState) (gaps []Loss, held *ruleState, err error) {
	c := gapCounter{l: l, seg: seg, only: only, memo: make(map[string]gapCount)}
	if c.topics, err = l.topicCounts(seg.Base); err != nil {
		return nil, nil, err
	}
	seen := make(map[string]bool)
	for _, src := range l.sources.snapshot() {
		if row, _ := src.Snapshot(false); row != nil {
			seen[row.ID] = true
			c.add(row)
		}
	}
	err = l.Sessions(func(row *SessionRow) error {
		if !seen[row.ID] && !row.Online {
			c.add(row)
		}
		return nil
	})
	if err == nil {
		err = l.EachGroup(func(row *GroupRow) { c.add(row.asSession()) })
	}
	return c.rows(), c.held, err
}

// topicCount is one topic of a sealed segment.
type topicCount struct {
	name     string
	n, bytes uint64
	enc      []byte
}

func (l *Log) topicCounts(base Pos) (list []topicCount, err error) {
	err = l.index.PostingTopics(uint64(base), "", func(topic, row []byte) error {
		if n, bytes, enc, ok := decodePostingsRow(row); ok {
			list = append(list, topicCount{string(topic), n, bytes, slices.Clone(enc)})
		}
		return nil
	})
	return list, err
}

type gapCount struct{ n, bytes uint64 }

type gapKey struct {
	from, to Pos
	gapCount
}

// gapCounter counts, for each session, the messages of one segment that it
// has not had. Sessions with the same subscriptions that have had nothing of
// the segment, the usual case, are counted once.
type gapCounter struct {
	l      *Log
	seg    *segment.Segment
	only   *ruleState
	topics []topicCount
	memo   map[string]gapCount
	groups map[gapKey][]string
	held   *ruleState
}

func (c *gapCounter) add(row *SessionRow) {
	low := row.Low()
	if low >= c.seg.End() || len(row.Subs) == 0 && len(row.Inflight) == 0 {
		return
	}
	from := max(row.Next, c.seg.First())
	count := c.undelivered(row, from)
	for _, f := range row.Inflight {
		if !f.Received && f.Pos >= c.seg.Base && f.Pos < c.seg.End() {
			count.n++
			from = min(from, f.Pos)
		}
	}
	if count.n == 0 {
		return
	}
	if c.groups == nil {
		c.groups = make(map[gapKey][]string)
	}
	k := gapKey{from, c.seg.End(), count}
	c.groups[k] = append(c.groups[k], row.ID)
}

// undelivered counts the messages from a position on that the row's
// subscriptions match.
func (c *gapCounter) undelivered(row *SessionRow, from Pos) gapCount {
	whole := from <= c.seg.First()
	var key strings.Builder
	for i := range row.Subs {
		s := &row.Subs[i]
		whole = whole && s.Since <= c.seg.First()
		fmt.Fprintf(&key, "%s\x00%d\x00", s.Filter, s.QoS)
	}
	if whole {
		if n, ok := c.memo[key.String()]; ok {
			return n
		}
	}
	var total gapCount
	for i := range c.topics {
		t := &c.topics[i]
		if n := c.matching(row, t, from, whole); n > 0 {
			total.n += n
			total.bytes += t.bytes * n / t.n
		}
	}
	if whole {
		c.memo[key.String()] = total
	}
	return total
}

func (c *gapCounter) matching(row *SessionRow, t *topicCount, from Pos, whole bool) (n uint64) {
	since := Pos(1<<64 - 1)
	for i := range row.Subs {
		if s := &row.Subs[i]; !s.Shared() && filter.Match(s.Filter, t.name) {
			since = min(since, s.Since)
		}
	}
	if since == 1<<64-1 {
		return 0
	}
	rule := c.l.rules.rule(t.name)
	if c.only != nil && rule != c.only {
		return 0
	}
	if rule != nil {
		from = max(from, Pos(rule.floor.Load()))
		whole = whole && from <= c.seg.First()
	}
	if whole {
		n = t.n
	} else {
		eachPosting(t.enc, func(off uint32) bool {
			if p := c.seg.Base + Pos(off); p >= from && p >= since {
				n++
			}
			return true
		})
	}
	if n > 0 && c.only == nil && rule != nil && rule.RejectNew {
		c.held = rule
	}
	return n
}

func (c *gapCounter) rows() []Loss {
	rows := make([]Loss, 0, len(c.groups))
	for k, ids := range c.groups {
		slices.Sort(ids)
		rows = append(rows, Loss{From: k.from, To: k.to, Count: k.n, Bytes: k.bytes, Readers: ids})
	}
	slices.SortFunc(rows, func(a, b Loss) int { return cmp.Compare(a.Readers[0], b.Readers[0]) })
	return rows
}

// applyRule moves the floor of a drop-oldest rule over whole segments until
// what is left respects its limits.
func (l *Log) applyRule(r *ruleState) error {
	if r.RejectNew {
		return nil
	}
	for _, seg := range l.set.Snapshot() {
		if uint64(seg.Limit()) <= r.floor.Load() {
			continue
		}
		row, ok, err := l.segmentRow(seg.Base)
		if err != nil || !ok {
			return err // not sealed yet
		}
		i := slices.IndexFunc(row.Rules, func(x ruleBytes) bool { return x.filter == r.Filter })
		if i < 0 {
			continue
		}
		tooMuch := r.MaxBytes > 0 && r.bytes.Load() > r.MaxBytes
		tooOld := r.MaxAge > 0 && l.o.Now().Sub(time.Unix(0, row.Last)) > r.MaxAge
		if !tooMuch && !tooOld {
			return nil
		}
		gaps, _, err := l.gaps(seg, r)
		if err != nil {
			return err
		}
		for i := range gaps {
			gaps[i].To = seg.Limit()
		}
		if err := l.recordGaps(seg, gaps, CauseRule, r.detail()); err != nil {
			return err
		}
		r.bytes.Add(-row.Rules[i].bytes)
		r.floor.Store(uint64(seg.Limit()))
	}
	return nil
}
