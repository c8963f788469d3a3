package storage

import (
	"errors"
	"fmt"

	"cairnmq/index"
	"cairnmq/segment"
)

// replay brings the index up to date with the records behind the checkpoint,
// or with all of them if it is being rebuilt.
func (r *recovery) replay() error {
	l := r.l
	from := Pos(r.meta.Checkpoint)
	if r.rebuild {
		from = 0
		l.log.Warn("rebuilding the index from the segments", "oldest", l.Oldest(), "head", l.Head())
	}
	p := replayer{
		l: l, rebuild: r.rebuild, b: l.index.NewBatch(),
		rows: make(map[string]*SessionRow), groups: make(map[string]*GroupRow), ended: make(map[string]bool), retained: l.view.retained,
	}
	for _, seg := range l.set.Snapshot() {
		if seg.End() <= from && !r.needsRows(seg) {
			continue
		}
		if err := p.segment(seg, max(from, seg.First())); err != nil {
			return err
		}
		if r.needsRows(seg) {
			if err := r.indexOld(seg); err != nil {
				return err
			}
		}
	}
	if err := r.countRules(); err != nil {
		return err
	}
	return p.finish(r)
}

// countRules finds out what the retention rules have used, and where their
// floors were.
func (r *recovery) countRules() error {
	l := r.l
	if len(l.rules.retention) == 0 {
		return nil
	}
	err := l.Losses(0, func(x Loss) error {
		for _, rule := range l.rules.retention {
			if x.Cause == CauseRule && x.Detail == rule.detail() {
				rule.floor.Store(max(rule.floor.Load(), uint64(x.To)))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.lowerFloors()
	for _, seg := range l.set.Snapshot() {
		row, ok, err := l.segmentRow(seg.Base)
		if err != nil {
			return err
		}
		if !ok { // not sealed yet
			if row.Rules, err = l.readRules(seg); err != nil {
				return err
			}
		}
		l.rules.count(row.Rules, seg, 1)
	}
	return nil
}

// lowerFloors takes back the last step of each rule after a crash, which may
// have come between the ledger's rows about it: the rule then takes the step
// again, and what is in the ledger is not written a second time.
func (r *recovery) lowerFloors() {
	if r.clean {
		return
	}
	for _, seg := range r.l.set.Snapshot() {
		for _, rule := range r.l.rules.retention {
			if rule.floor.Load() == uint64(seg.Limit()) {
				rule.floor.Store(uint64(seg.Base))
			}
		}
	}
}

// readRules adds up what an unsealed segment holds of each rule.
func (l *Log) readRules(seg *segment.Segment) ([]ruleBytes, error) {
	if err := l.set.PinSegment(seg); err != nil {
		return nil, err
	}
	defer seg.Unpin()
	topics, _ := scanTopics(seg)
	var row segmentRow
	for name, topic := range topics {
		if rule := l.rules.rule(name); rule != nil {
			row.addRule(rule.Filter, int64(topic.bytes))
		}
	}
	return row.Rules, nil
}

// needsRows says whether a sealed segment has no row in the index: because it
// is rebuilt, or because the crash came between the seal and the index.
func (r *recovery) needsRows(seg *segment.Segment) bool {
	for _, base := range r.sealedBase {
		if base == seg.Base {
			return true
		}
	}
	return false
}

func (r *recovery) indexOld(seg *segment.Segment) error {
	if err := r.l.set.PinSegment(seg); err != nil {
		return nil // reported when it was read
	}
	defer seg.Unpin()
	return r.l.indexAgain(seg)
}

// indexAgain writes the rows of a sealed segment, pinned by the caller, that
// has none, or those of a longer file.
func (l *Log) indexAgain(seg *segment.Segment) error {
	b := l.index.NewBatch()
	b.DeleteSegment(uint64(seg.Base))
	if err := l.apply(b); err != nil {
		return err
	}
	topics, t := scanTopics(seg)
	return l.indexSegment(seg, topics, &t)
}

// replayer applies records to the rows that they are about.
type replayer struct {
	l        *Log
	rebuild  bool
	rows     map[string]*SessionRow // touched; nil means gone
	groups   map[string]*GroupRow   // the same
	ended    map[string]bool        // an end was replayed: only Opened begins anew
	retained map[string]Pos
	b        *index.Batch
	damages  []segment.Damage
	lastHead segment.Head
	records  int
}

func (p *replayer) segment(seg *segment.Segment, from Pos) error {
	if err := p.l.set.PinSegment(seg); err != nil {
		var d *segment.Damage
		if errors.As(err, &d) {
			p.damages = append(p.damages, *d)
			return nil
		}
		return err
	}
	defer seg.Unpin()
	for pos := from; ; {
		rec, next, err := seg.At(pos, true)
		var d *segment.Damage
		switch {
		case errors.As(err, &d):
			p.damages = append(p.damages, *d)
			pos = d.To
			continue
		case err != nil:
			return nil
		}
		pos = next
		if err := p.record(&rec); err != nil {
			return err
		}
	}
}

func (p *replayer) record(rec *Record) error {
	p.records++
	if rec.Kind != KindMessage || rec.Flags&FlagCarried == 0 { // those have old clocks
		p.lastHead = rec.Head
	}
	if rec.Kind == KindLoss {
		p.b.SetLoss(uint64(rec.Pos), lossRow(rec.Wall, rec.Body))
		return nil
	}
	if rec.Kind == KindMessage && rec.Flags&FlagRetain != 0 {
		if err := p.retain(rec); err != nil {
			return err
		}
	}
	if err := p.group(rec); err != nil {
		return err
	}
	if rec.Kind == KindDealt {
		return p.members(rec)
	}
	if id := eventSession(rec); id != nil {
		return p.session(id, rec)
	}
	return nil
}

// session applies a record to the session of id.
func (p *replayer) session(id []byte, rec *Record) error {
	row, ok := p.rows[string(id)]
	if !ok {
		var err error
		if row, _, err = p.l.LoadSession(string(id)); err != nil {
			return err
		}
		p.rows[string(id)] = row // nil if there is none
	}
	if row == nil {
		switch {
		case rec.Kind == KindOpened, !p.ended[string(id)] && createsSession(rec.Kind):
			row = &SessionRow{ID: string(id), Expiry: Never, Next: rec.Pos}
			p.rows[row.ID] = row
		default:
			return nil
		}
	}
	if row.apply(rec) {
		due := row.due
		p.rows[row.ID], p.ended[row.ID] = nil, true
		dropSession(p.b, &SessionRow{ID: row.ID, due: due})
	}
	return nil
}

// createsSession: the beginning of the session may have gone with an older
// segment, and what is left of it is better than nothing.
func createsSession(k Kind) bool {
	return k == KindSubscribed || k == KindDelivered || k == KindDealt || k == KindClosed
}

func (p *replayer) retain(rec *Record) error {
	msg, err := DecodeMessage(rec)
	if err != nil {
		return nil
	}
	topic := string(msg.Topic)
	if rec.Flags&FlagCarried != 0 {
		cur, ok := p.retained[topic]
		if !ok {
			v, _, err := p.l.index.Retained(topic)
			if err != nil {
				return err
			}
			cur = Pos(v)
		}
		// In a rebuild the original may be gone with its segment.
		gone := p.rebuild && !ok
		if cur != msg.Original && !gone {
			return nil
		}
	}
	p.retained[topic] = rec.Pos
	if len(msg.Payload) == 0 {
		p.retained[topic] = 0
	}
	return nil
}

// finish writes the rows. Sessions that were open when the process died are
// now closed: their wills and expiry run from the last record on.
func (p *replayer) finish(r *recovery) error {
	l := p.l
	if err := p.interrupted(r); err != nil {
		return err
	}
	if err := p.interruptedGroups(r.end); err != nil {
		return err
	}
	for _, row := range p.rows {
		if row != nil {
			putSession(p.b, row)
		}
	}
	putRetained(p.b, p.retained)
	clear(p.retained)
	p.b.SetMeta(index.Meta{Format: rowFormat, LogID: l.id, Checkpoint: uint64(r.end)})
	// After a kill the replayed records may be in the kernel only, and the
	// index must not know more than the disk.
	for i := range r.open {
		if seg := r.open[i].seg; seg != nil && p.records > 0 {
			if err := seg.Flush(seg.Base, seg.End()); err != nil {
				return err
			}
		}
	}
	if err := p.b.Apply(); err != nil {
		return fmt.Errorf("write the replayed rows: %w", err)
	}
	l.seq.checkpoint = r.end
	r.damages = append(r.damages, p.damages...)
	l.log.Info("replayed", "records", p.records, "sessions", len(p.rows))
	if p.records == 0 && !r.rebuild {
		return nil
	}
	return l.index.Flush()
}

func (p *replayer) interrupted(r *recovery) error {
	open := make(map[string]bool)
	err := p.l.index.Online(func(id string) error { open[id] = true; return nil })
	if err != nil {
		return err
	}
	for id, row := range p.rows {
		if row != nil && row.Online {
			open[id] = true
		}
	}
	closed := p.lastHead
	if closed.Wall == 0 {
		closed = p.l.now()
	}
	for id := range open {
		row, ok := p.rows[id]
		if !ok {
			if row, ok, err = p.l.LoadSession(id); err != nil {
				return err
			} else if !ok {
				p.b.ClearOnline(id)
				continue
			}
			p.rows[id] = row
		}
		if row != nil && row.Online {
			row.Online, row.Closed, row.SkipQoS0 = false, closed, r.end
			row.AsOf = r.end
		}
	}
	return nil
}

func putRetained(b *index.Batch, changes map[string]Pos) {
	for topic, pos := range changes {
		if pos == 0 {
			b.DeleteRetained(topic)
		} else {
			b.SetRetained(topic, uint64(pos))
		}
	}
}
