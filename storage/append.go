package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"cairnmq/segment"
)

// reserveForEvents is kept free in the last segment when there is no next
// one: a full disk refuses messages, but sessions can still settle what is in
// flight.
const reserveForEvents = 16 << 10

// AppendMessages appends a batch in order, in one critical section. Each
// message's Err says whether it was appended; the returned error is that of a
// log that has ended. end is the position behind the batch and class the
// strongest class among the messages: both go to Wait before anything is
// acknowledged.
func (l *Log) AppendMessages(msgs []Message) (end Pos, class Class, err error) {
	defer l.faulted(debug.SetPanicOnFault(true), &err)
	h := l.now()
	h.Kind = KindMessage
	l.seq.Lock()
	defer l.seq.Unlock()
	if err := l.usableLocked(); err != nil {
		return 0, 0, err
	}
	// What was refused once is refused for the rest of the batch: a message
	// must not overtake the one before it.
	var full error
	var refused *ruleState
	var stored, payload uint64
	for i := range msgs {
		m := &msgs[i]
		c, rule := l.rules.classify(m.Topic)
		n := m.bodyLen()
		switch {
		case full != nil:
			m.Err = full
		case rule != nil && rule == refused:
			m.Err = ErrQuota
		default:
			m.Err = l.admitLocked(m, rule, n)
		}
		if m.Err != nil {
			if errors.Is(m.Err, ErrFull) || errors.Is(m.Err, ErrUnmappable) {
				full = m.Err
			} else if errors.Is(m.Err, ErrQuota) {
				refused = rule
			}
			continue
		}
		m.encode(l.seq.active.Reserve(n))
		h.Flags, h.ID, h.Expiry = m.flags(), m.PacketID, m.Expiry
		l.commitLocked(n, &h, c)
		stored++
		payload += uint64(len(m.Payload))
		class = max(class, c)
	}
	l.stats.Messages.Add(stored)
	l.stats.PayloadBytes.Add(payload)
	return l.publishLocked(), class, nil
}

// maxString is the longest topic or client id that a record can hold.
const maxString = 1<<16 - 1

// admitLocked checks quota and room for one message.
func (l *Log) admitLocked(m *Message, rule *ruleState, n int) error {
	if rule != nil && rule.refuses() {
		return ErrQuota
	}
	if len(m.Topic) > maxString || len(m.Publisher) > maxString {
		return fmt.Errorf("%w: topic of %d bytes, publisher of %d", ErrTooLarge, len(m.Topic), len(m.Publisher))
	}
	if err := l.roomLocked(anybody, n, reserveForEvents); err != nil {
		return err
	}
	if rule != nil {
		rule.bytes.Add(int64(segment.PaddedLen(n)))
	}
	return nil
}

// Event is a session event or another record that is not a message.
type Event struct {
	Kind  Kind
	Flags uint8
	ID    uint16
	Body  []byte // copied by Append
}

// AppendEvents appends events in order, with the durability class of
// sessions. pos is the position of the first.
func (l *Log) AppendEvents(events ...Event) (pos, end Pos, err error) {
	return l.appendEvents(anybody, events...)
}

func (l *Log) appendEvents(who caller, events ...Event) (pos, end Pos, err error) {
	defer l.faulted(debug.SetPanicOnFault(true), &err)
	h := l.now()
	l.seq.Lock()
	defer l.seq.Unlock()
	if err := l.usableLocked(); err != nil {
		return 0, 0, err
	}
	for i := range events {
		e := &events[i]
		if err := l.roomLocked(who, len(e.Body), 0); err != nil {
			l.publishLocked() // what came before it is in the log
			return 0, 0, err
		}
		copy(l.seq.active.Reserve(len(e.Body)), e.Body)
		h.Kind, h.Flags, h.ID = e.Kind, e.Flags, e.ID
		p := l.commitLocked(len(e.Body), &h, *l.o.SessionClass)
		if i == 0 {
			pos = p
		}
	}
	return pos, l.publishLocked(), nil
}

// appendCarry appends a retained message again with its old clock, so that
// its expiry goes on counting. The keeper calls it.
func (l *Log) appendCarry(rec *Record) (_ Pos, err error) {
	defer l.faulted(debug.SetPanicOnFault(true), &err)
	h := rec.Head
	body := rec.Body
	orig := rec.Pos
	if h.Flags&FlagCarried != 0 {
		body = body[8:]
	}
	h.Flags |= FlagCarried
	h.ID = 0
	n := 8 + len(body)
	l.seq.Lock()
	defer l.seq.Unlock()
	if err := l.usableLocked(); err != nil {
		return 0, err
	}
	if err := l.roomLocked(theKeeper, n, 0); err != nil {
		return 0, err
	}
	b := l.seq.active.Reserve(n)
	binary.LittleEndian.PutUint64(b, uint64(orig))
	copy(b[8:], body)
	l.commitLocked(n, &h, *l.o.DefaultClass)
	return l.publishLocked(), nil
}

// faulted ends an append. A page of the active segment that cannot be written
// to, because the disk cannot deliver it or the file was cut by somebody, is a
// failure of the log and not the sudden end of the process. It runs when seq is
// not held any more.
func (l *Log) faulted(before bool, err *error) {
	debug.SetPanicOnFault(before)
	caught := recover()
	if caught == nil {
		return
	}
	f, ok := caught.(interface {
		error
		Addr() uintptr
	})
	if !ok {
		panic(caught)
	}
	l.fail(fmt.Errorf("append to the active segment: %w", f))
	*err = fmt.Errorf("%w: %w", ErrFailed, f)
}

func (l *Log) usableLocked() error {
	if e := l.failed.Load(); e != nil {
		return fmt.Errorf("%w: %w", ErrFailed, *e)
	}
	if l.seq.closed {
		return ErrClosed
	}
	return nil
}

// commitLocked completes the record in the reserved space and keeps the books
// of its class.
func (l *Log) commitLocked(bodyLen int, h *segment.Head, c Class) Pos {
	pos := l.seq.active.Commit(bodyLen, h)
	switch c {
	case ClassAlways:
		if l.seq.firstAlways == 0 {
			l.seq.firstAlways = pos
		}
		l.seq.lastAlways = pos
	case ClassInterval:
		if !l.seq.dirty {
			l.seq.dirty = true
			l.syncer.arm(l.o.SyncInterval)
		}
	}
	n := segment.PaddedLen(bodyLen)
	l.seq.sinceCheckpoint += int64(n)
	l.seq.bytes += uint64(n)
	l.seq.records++
	return pos
}

// publishLocked shows the appended records: to everybody who may see them.
func (l *Log) publishLocked() Pos {
	end := l.seq.active.End()
	l.head.Store(uint64(end))
	l.stats.Records.Add(l.seq.records)
	l.stats.AppendedBytes.Add(l.seq.bytes)
	l.seq.records, l.seq.bytes = 0, 0
	l.commitTo()
	if l.seq.firstAlways != 0 {
		// Readers stand before this record until it is synced, whether or not
		// somebody waits for it.
		l.syncer.ask()
	}
	l.seq.active.Forget(residentTail)
	if l.seq.sinceCheckpoint >= l.o.CheckpointBytes {
		l.seq.sinceCheckpoint = 0
		l.keeper.poke(&l.keeper.checkpointDue)
	}
	return end
}

// residentTail is how much of the active segment stays in the process's
// resident set: what live subscribers are about to read.
const residentTail = 4 << 20

// commitTo recomputes the committed position; seq is held.
func (l *Log) commitTo() {
	c := uint64(l.head.Load())
	if f := l.seq.firstAlways; f != 0 {
		c = uint64(f)
	}
	l.committed.Store(c)
}

// caller tells the keeper's own appends, which cannot wait for the keeper,
// from all others.
type caller bool

const (
	anybody   caller = false
	theKeeper caller = true
)

// createNextLocked is the keeper creating the next segment in the middle of
// making room: what it appends is small and is what frees a whole segment. The
// room that others wait for is not there yet.
func (l *Log) createNextLocked(need int) error {
	if err := l.usableLocked(); err != nil {
		return err
	}
	l.publishLocked()
	l.seq.Unlock()
	defer l.seq.Lock()
	return l.replaceNext(sizeFor(l.o.SegmentSize, need), false)
}

// roomLocked makes sure that the active segment has room for a body of n
// bytes, going over to the next segment if needed, with spare bytes left over
// when there is no next one. It may let go of the lock while it waits for the
// keeper, which alone creates segments. Events are those that spare nothing.
func (l *Log) roomLocked(who caller, n, spare int) error {
	need := segment.PaddedLen(n)
	if n > segment.MaxBody || int64(need) > l.o.SegmentSize && int64(need) > l.o.MaxBytes-l.o.SegmentSize {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	event := spare == 0
	for {
		if l.fitsLocked(need, spare) {
			return nil
		}
		if l.nextFitsLocked(need, event) {
			l.rollLocked()
			continue
		}
		var err error
		if who == theKeeper {
			err = l.createNextLocked(need)
		} else {
			err = l.awaitNextLocked(need, spare)
		}
		if err != nil {
			return err
		}
		if err := l.usableLocked(); err != nil {
			return err
		}
	}
}

// fitsLocked reports whether a record may go into the active segment.
func (l *Log) fitsLocked(need, spare int) bool {
	room := l.seq.active.Room()
	if spare == 0 {
		return room >= need
	}
	return !l.seq.activeForEvents && room >= need && (l.seq.next != nil && !l.seq.nextForEvents || room >= need+spare)
}

// nextFitsLocked reports whether it may go into the next one.
func (l *Log) nextFitsLocked(need int, event bool) bool {
	return l.seq.next != nil && l.seq.next.Room() >= need && (event || !l.seq.nextForEvents)
}

// refusal is an attempt to make a segment larger than usual that failed. It
// concerns those who asked for as much, and nobody else.
type refusal struct {
	attempt int
	size    int64
	err     error
}

// awaitNextLocked asks the keeper for the next segment, with room for need
// bytes, and waits for the outcome of its attempt.
func (l *Log) awaitNextLocked(need, spare int) error {
	event := spare == 0
	wanted := need
	if sizeFor(l.o.SegmentSize, need) > l.o.SegmentSize {
		// With the spare bytes, or it would not go into the segment that is
		// made for it before there is one more.
		wanted += spare
	}
	// An attempt that was under way when we asked does not know of us.
	for range 2 {
		if l.seq.full && !event {
			return ErrFull // known; the keeper tries again by itself
		}
		l.seq.wanted = max(l.seq.wanted, wanted)
		if event {
			l.seq.wantedByEvent = max(l.seq.wantedByEvent, need)
		}
		// What was appended so far must not wait with us.
		l.publishLocked()
		attempt := l.seq.attempts
		l.keeper.poke(&l.keeper.rolled)
		for l.seq.attempts == attempt && !l.seq.closed && l.Err() == nil {
			l.seq.attempted.Wait()
		}
		if err := l.usableLocked(); err != nil {
			return err
		}
		if l.fitsLocked(need, spare) || l.nextFitsLocked(need, event) {
			return nil
		}
		if r := &l.seq.refused; r.attempt > attempt && sizeFor(l.o.SegmentSize, wanted) >= r.size {
			return r.err
		}
	}
	if !l.seq.full {
		return nil // others were faster; ask again
	}
	return ErrFull
}

// rollLocked makes the next segment the active one.
func (l *Log) rollLocked() {
	next := l.seq.next
	l.seq.next = nil
	next.KeepPace(l.seq.active)
	l.set.Add(next)
	l.seq.active, l.seq.activeForEvents = next, l.seq.nextForEvents
	l.seq.nextForEvents = false
	l.seq.unsynced = append(l.seq.unsynced, next)
	l.head.Store(uint64(next.First()))
	l.keeper.poke(&l.keeper.rolled)
}

func (l *Log) fullLocked(why error) {
	if !l.seq.full {
		l.seq.full = true
		l.seq.room = make(chan struct{})
		l.log.Warn("no room for the next segment: publishers are refused or held back until there is", "dir", l.dir, "why", why)
	}
}

func (l *Log) roomCameLocked() {
	if l.seq.full {
		l.seq.full = false
		close(l.seq.room)
		l.log.Info("there is room again")
	}
}

// createSegment makes a segment file and its durable directory entry. base is
// behind everything that was ever appended, so a file of that name is what an
// attempt that failed could not take back.
func (l *Log) createSegment(base Pos, size int64) (*segment.Segment, error) {
	seg, err := l.tryCreateSegment(base, size)
	if errors.Is(err, syscall.ENOMEM) {
		l.set.UnmapIdle() // a small address space may have a large enough hole then
		seg, err = l.tryCreateSegment(base, size)
	}
	return seg, err
}

func (l *Log) tryCreateSegment(base Pos, size int64) (*segment.Segment, error) {
	h := segment.FileHead{LogID: l.id, Base: base, Size: size, Salt: newSalt(), Boot: l.boot, Created: l.o.Now().UnixNano()}
	seg, err := segment.Create(l.o.FS, l.segmentDir(), h)
	if errors.Is(err, fs.ErrExist) {
		if err := l.o.FS.Remove(filepath.Join(l.segmentDir(), segment.FileName(base))); err != nil {
			return nil, err
		}
		seg, err = segment.Create(l.o.FS, l.segmentDir(), h)
	}
	return seg, err
}
