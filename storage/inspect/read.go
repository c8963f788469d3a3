package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cairnmq/segment"
	"cairnmq/storage"
)

// ErrStop, returned by a visit, ends the reading without an error.
var ErrStop = errors.New("stop")

// Visitor is told what is found.
type Visitor struct {
	Entry  func(*Entry) error
	Damage func(*segment.Damage) // may be nil
	// Idle is called before a follower waits; it may be nil.
	Idle func() error
}

// Read visits the wanted records in order. It returns nil at the end, or when
// a visit returns ErrStop; a follower ends with the context's error.
func (l *Log) Read(ctx context.Context, q Query, v Visitor) error {
	if err := q.Check(); err != nil {
		return err
	}
	if q.HasTail {
		from, err := l.tail(ctx, q)
		if err != nil {
			return err
		}
		q.From = Bound{Pos: from}
	}
	r := reader{log: l, q: q, v: v}
	err := r.run(ctx)
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// tail finds the position of the wanted record that q.Tail-1 others follow.
// It reads segments from the last one back and keeps positions only.
func (l *Log) tail(ctx context.Context, q Query) (Pos, error) {
	n := q.Tail
	files, err := l.files()
	if err != nil {
		return 0, err
	}
	q.HasTail, q.Follow, q.First = false, false, 0
	end, from := q.From.Pos, Pos(0)
	for i := len(files) - 1; i >= 0; i-- {
		if i == len(files)-1 && files[i].beingMade() {
			continue
		}
		last := ring{size: n}
		r := reader{log: l, q: q, v: Visitor{Entry: func(e *Entry) error { last.add(e.Pos); return nil }}}
		err := r.file(ctx, files[i])
		if err != nil && !errors.Is(err, errPast) {
			return 0, err
		}
		end = max(end, r.end)
		if n > 0 && last.count > 0 {
			from = last.oldest()
			n -= last.count
		}
		if n == 0 && end > 0 {
			break
		}
	}
	if from == 0 {
		from = end
	}
	return from, nil
}

// ring keeps the last size positions.
type ring struct {
	size, count, next int
	pos               []Pos
}

func (r *ring) add(p Pos) {
	switch {
	case r.size == 0:
		return
	case r.count < r.size:
		r.pos = append(r.pos, p)
		r.count++
	default:
		r.pos[r.next] = p
		r.next = (r.next + 1) % r.size
	}
}

func (r *ring) oldest() Pos { return r.pos[r.next] }

// errPast: nothing that is wanted lies ahead.
var errPast = errors.New("past the end of the range")

// reader goes through the segments.
type reader struct {
	log   *Log
	q     Query
	v     Visitor
	next  Pos // segments before it are done with
	end   Pos // behind the last record seen
	found int
	entry Entry
}

// run reads the segments one after another. Without Follow it ends where the
// last segment that is there now can end, so that it ends.
func (r *reader) run(ctx context.Context) error {
	files, err := r.log.files()
	if err != nil {
		return err
	}
	for {
		for i, f := range files {
			if f.base < r.next || i+1 < len(files) && files[i+1].base <= r.q.From.Pos {
				continue
			}
			if i == len(files)-1 && f.beingMade() {
				break
			}
			if err := r.file(ctx, f); errors.Is(err, errPast) {
				return nil
			} else if err != nil {
				return err
			}
			r.next = f.base + 1
		}
		if !r.q.Follow {
			return nil
		}
		if err := r.idle(ctx); err != nil {
			return err
		}
		if files, err = r.log.files(); err != nil {
			return err
		}
	}
}

func (r *reader) idle(ctx context.Context) error {
	if r.v.Idle != nil {
		if err := r.v.Idle(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.log.Wait(ctx)
}

// file reads one segment to its end; a follower stays until it is complete.
func (r *reader) file(ctx context.Context, f file) error {
	if r.q.after(f.base) {
		return errPast
	}
	s, err := f.open()
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.log.only == "":
		return nil // removed since it was listed
	case errors.Is(err, segment.ErrDamaged):
		r.damage(f.unreadable(err))
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = s.Close() }()
	if seal, head, ok := s.FindSeal(); ok && r.q.skips(s, &seal, &head) {
		r.end = max(r.end, s.Base+Pos(seal.End))
		return nil
	}
	r.entry.Segment = f.name
	for {
		if err := r.drain(ctx, s); err != nil {
			if errors.Is(err, segment.ErrReplaced) {
				return nil // all that was in it was dropped by retention
			}
			return err
		}
		if _, _, sealed := s.Sealed(); sealed || !r.q.Follow {
			return nil
		}
		complete, err := r.followed(s)
		if err != nil {
			return err
		}
		if complete {
			s.Recheck()
			return r.drain(ctx, s)
		}
		if err := r.idle(ctx); err != nil {
			return err
		}
	}
}

// drain reads what is there.
func (r *reader) drain(ctx context.Context, s *segment.File) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		rec, err := s.Next()
		var damage *segment.Damage
		switch {
		case errors.As(err, &damage):
			r.damage(damage)
			continue
		case errors.Is(err, segment.ErrEnd):
			// A segment that was made ahead of time is not the end: more may
			// come in the one before it.
			if s.Pos() > s.Base+segment.FileHeadLen {
				r.end = max(r.end, s.Pos())
			}
			return nil
		case err != nil:
			return err
		}
		if r.q.after(rec.Pos) {
			return errPast
		}
		if !r.q.pick(&rec, &r.entry) {
			continue
		}
		if err := r.v.Entry(&r.entry); err != nil {
			return err
		}
		if r.found++; r.found == r.q.First {
			return ErrStop
		}
	}
}

// damage reports a range unless it lies outside of what is wanted.
func (r *reader) damage(d *segment.Damage) {
	if r.v.Damage != nil && d.To > r.q.From.Pos && !r.q.after(d.From) {
		r.v.Damage(d)
	}
}

// followed reports whether a later segment has records, so that nothing more
// comes in this one. Segments are made ahead of time: that one is there means
// nothing.
func (r *reader) followed(s *segment.File) (bool, error) {
	files, err := r.log.files()
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if f.base <= s.Base {
			continue
		}
		later, err := f.open()
		if err != nil {
			continue // being made, or removed, or damaged: the next look says
		}
		_, err = later.Next()
		_ = later.Close()
		if err == nil || !errors.Is(err, segment.ErrEnd) {
			return true, nil
		}
	}
	return false, nil
}

// Losses visits the rows of the loss ledger that are still in the log.
func (l *Log) Losses(ctx context.Context, q Query, visit func(*storage.Loss) error, damage func(*segment.Damage)) error {
	q.Kinds = []storage.Kind{storage.KindLoss}
	return l.Read(ctx, q, Visitor{Damage: damage, Entry: func(e *Entry) error {
		if !e.Unclear {
			return visit(e.Event.Loss)
		}
		if damage != nil {
			damage(&segment.Damage{File: e.Segment, From: e.Pos, To: e.Pos + Pos(segment.PaddedLen(len(e.Body))),
				Err: fmt.Errorf("%w: not a row of the ledger", segment.ErrDamaged)})
		}
		return nil
	}})
}
