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
	p := replayer{l: l, rows: make(map[string]*SessionRow), retained: l.view.retained, b: l.index.NewBatch()}
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
	return p.finish(r)
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
	topics, t := scanTopics(seg)
	return r.l.indexSegment(seg, topics, &t)
}

// replayer applies records to the rows that they are about.
type replayer struct {
	l        *Log
	rows     map[string]*SessionRow // touched; nil means gone
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
	p.lastHead = rec.Head
	if rec.Kind == KindLoss {
		p.b.SetLoss(uint64(rec.Pos), lossRow(rec.Wall, rec.Body))
		return nil
	}
	if rec.Kind == KindMessage && rec.Flags&FlagRetain != 0 {
		if err := p.retain(rec); err != nil {
			return err
		}
	}
	id := eventSession(rec)
	if id == nil {
		return nil
	}
	row, ok := p.rows[string(id)]
	if !ok {
		var err error
		if row, ok, err = p.l.LoadSession(string(id)); err != nil {
			p.l.indexTrouble(err)
		}
		p.rows[string(id)] = row // nil if there is none
	}
	if row == nil {
		switch rec.Kind {
		case KindOpened, KindSubscribed, KindDelivered, KindClosed:
			row = &SessionRow{ID: string(id), Expiry: Never, Next: rec.Pos}
			p.rows[row.ID] = row
		default:
			return nil
		}
	}
	if row.apply(rec) {
		due := row.due
		p.rows[row.ID] = nil
		dropSession(p.b, &SessionRow{ID: row.ID, due: due})
	}
	return nil
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
		if cur != 0 && cur != msg.Original || ok && cur == 0 {
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
	for _, row := range p.rows {
		if row != nil {
			putSession(p.b, row)
		}
	}
	putRetained(p.b, p.retained)
	clear(p.retained)
	p.b.SetMeta(index.Meta{Format: 1, LogID: l.id, Checkpoint: uint64(r.end)})
	if err := p.b.Apply(); err != nil {
		return fmt.Errorf("write the replayed rows: %w", err)
	}
	r.damages = append(r.damages, p.damages...)
	l.log.Info("replayed", "records", p.records, "sessions", len(p.rows))
	if p.records == 0 && !r.rebuild {
		return nil
	}
	// After a kill the replayed records may be in the kernel only, and the
	// index must not know more than the disk.
	for i := range r.open {
		if seg := r.open[i].seg; seg != nil {
			if err := seg.Flush(seg.Base, seg.End()); err != nil {
				return err
			}
		}
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
			if row, ok, err = p.l.LoadSession(id); err != nil || !ok {
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
