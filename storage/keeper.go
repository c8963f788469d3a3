package storage

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cairnmq/index"
	"cairnmq/segment"
)

// keeper is the one goroutine that does everything slow: it prepares the next
// segment, seals full ones, writes checkpoints and drops what is beyond the
// budget.
type keeper struct {
	mu            sync.Mutex
	rolled        bool // the next segment is wanted
	checkpointDue bool
	jobs          []sealJob

	kick    chan struct{} // capacity 1
	quit    chan struct{}
	done    chan struct{}
	once    sync.Once   // closes quit
	closing atomic.Bool // Close was called

	// for tests and Close: what was asked for has been done
	idle *sync.Cond
	busy bool
}

// sealJob is a segment that the view has read to its end.
type sealJob struct {
	seg     *segment.Segment
	topics  map[string]*Topic
	partial bool
	tally   tally
}

func (k *keeper) init() {
	k.kick = make(chan struct{}, 1)
	k.quit = make(chan struct{})
	k.done = make(chan struct{})
	k.idle = sync.NewCond(&k.mu)
}

// stop ends the goroutine, once.
func (k *keeper) stop() {
	k.once.Do(func() { close(k.quit) })
	<-k.done
}

// poke sets one of the flags and wakes the keeper.
func (k *keeper) poke(flag *bool) {
	k.mu.Lock()
	*flag = true
	k.mu.Unlock()
	k.wake()
}

func (k *keeper) seal(j sealJob) {
	k.mu.Lock()
	k.jobs = append(k.jobs, j)
	k.mu.Unlock()
	k.wake()
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// take empties the list of what is to do.
func (k *keeper) take() (rolled, checkpoint bool, jobs []sealJob) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rolled, checkpoint, jobs = k.rolled, k.checkpointDue, k.jobs
	k.rolled, k.checkpointDue, k.jobs = false, false, nil
	k.busy = rolled || checkpoint || len(jobs) > 0
	if !k.busy {
		k.idle.Broadcast()
	}
	return
}

// wait returns when nothing is to do.
func (k *keeper) wait() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.busy || k.rolled || k.checkpointDue || len(k.jobs) > 0 {
		k.idle.Wait()
	}
}

// Pauses of the keeper.
const (
	fullRetry = 500 * time.Millisecond // when there was no room for a segment
	ageCheck  = time.Minute            // retention by age
)

// run is the goroutine. It ends when quit is closed.
func (k *keeper) run(l *Log) {
	defer close(k.done)
	checkpoint := time.NewTicker(l.o.CheckpointInterval)
	defer checkpoint.Stop()
	age := time.NewTicker(ageCheck)
	defer age.Stop()
	retry := time.NewTimer(fullRetry)
	defer retry.Stop()
	for {
		select {
		case <-k.kick:
		case <-checkpoint.C:
			if l.dirtySinceCheckpoint() {
				k.poke(&k.checkpointDue)
			}
		case <-age.C:
			l.retain()
		case <-retry.C:
			k.poke(&k.rolled)
		case <-k.quit:
			return
		}
		if !k.work(l) {
			retry.Reset(fullRetry)
		}
	}
}

// work does what is to do. It reports false when there was no room for the
// next segment.
func (k *keeper) work(l *Log) (room bool) {
	room = true
	for {
		rolled, checkpoint, jobs := k.take()
		if !rolled && !checkpoint && len(jobs) == 0 {
			return room
		}
		// First what publishers may be waiting for.
		if rolled {
			room = l.prepareNext(len(jobs) == 0)
		}
		for i := range jobs {
			if err := l.sealSegment(&jobs[i]); err != nil {
				l.fail(err)
			}
		}
		if !room && len(jobs) > 0 {
			room = l.prepareNext(true) // what is sealed now may be dropped
		}
		if len(jobs) > 0 {
			l.retain()
			checkpoint = true
		}
		if checkpoint {
			if err := l.Checkpoint(); err != nil {
				l.indexTrouble(err)
			}
		}
	}
}

// prepareNext creates the segment that follows the active one, so that going
// over to it costs the appender nothing. It reports false if there is no room;
// unless that is final, those who wait are not told yet. It runs on the
// keeper's goroutine alone.
func (l *Log) prepareNext(final bool) bool {
	size, err := l.createNext()
	if err != nil && final && size > l.o.SegmentSize {
		l.refuseSize(size, err)
		_, err = l.createNext() // what all others need
	}
	if err != nil && !final {
		return false
	}
	l.seq.Lock()
	defer l.seq.Unlock()
	l.seq.attempts++
	l.seq.attempted.Broadcast()
	if err != nil {
		// Whoever asked has been told. Kept, the wish for a large record that
		// does not fit would stand in the way of all others.
		l.seq.wanted, l.seq.wantedByEvent = 0, 0
		l.fullLocked(err)
		return false
	}
	l.roomCameLocked()
	return true
}

// refuseSize tells those who wait for a segment of this size that there will
// be none.
func (l *Log) refuseSize(size int64, why error) {
	l.log.Warn("no room for a message larger than a segment: refused or held back", "needs", size, "why", why)
	kind := ErrLarge
	if errors.Is(why, syscall.ENOMEM) {
		kind = ErrUnmappable
	}
	l.seq.Lock()
	defer l.seq.Unlock()
	l.seq.attempts++
	l.seq.refused = refusal{l.seq.attempts, size, fmt.Errorf("%w: %w", kind, why)}
	l.seq.wanted = l.seq.wantedByEvent
	l.seq.attempted.Broadcast()
}

var errOverBudget = errors.New("the storage budget is used up and nothing may be dropped")

// createNext makes l.seq.next what is wanted, which is a segment of this size.
func (l *Log) createNext() (size int64, err error) {
	for {
		size, ok := l.wantedSize()
		if !ok {
			return 0, l.Err()
		}
		fits := l.makeRoom(size)
		if !fits && size > l.o.SegmentSize {
			return size, errOverBudget
		}
		// Making room appends carried messages and ledger rows, and takes
		// time in which somebody may ask for more, so look again.
		again, ok := l.wantedSize()
		switch {
		case !fits:
			return size, errors.Join(errOverBudget, l.createForEvents())
		case !ok:
			return size, l.Err()
		case again <= size:
			return again, l.replaceNext(again, false)
		}
	}
}

// eventSegment is the size of a segment beyond the budget. Together such
// segments take no more than one usual segment: sessions can settle what is in
// flight for a while, and then they are refused, too.
const eventSegment = 1 << 20

// createForEvents lets events, but no messages, go beyond the budget.
func (l *Log) createForEvents() error {
	l.seq.Lock()
	next := l.seq.next
	if next != nil {
		l.seq.nextForEvents = true // made while we tried to make room
	}
	wanted := l.seq.wantedByEvent
	l.seq.Unlock()
	if wanted == 0 || next != nil && next.Room() >= wanted {
		return nil
	}
	u, err := l.Usage()
	if err != nil {
		return err
	}
	size := sizeFor(min(eventSegment, l.o.SegmentSize), wanted)
	if next != nil {
		u.Segments -= next.Size
	}
	if u.Total()+size > u.Budget+l.o.SegmentSize {
		return nil
	}
	return l.replaceNext(size, true)
}

// sizeFor is the size of a segment that has room for a record of need bytes.
func sizeFor(usual int64, need int) int64 {
	if need == 0 {
		return usual
	}
	return max(usual, (int64(need)+segment.FileHeadLen+segment.SealLen+4095)&^4095)
}

// wantedSize is the size of the next segment, and whether one is wanted.
func (l *Log) wantedSize() (int64, bool) {
	l.seq.Lock()
	defer l.seq.Unlock()
	if l.seq.closed || l.Err() != nil || l.seq.next != nil && !l.seq.nextForEvents && l.seq.next.Room() >= l.seq.wanted {
		return 0, false
	}
	// A record that is larger than a usual segment gets one of its own.
	return sizeFor(l.o.SegmentSize, l.seq.wanted), true
}

// replaceNext puts a new segment of the given size in the place of the
// prepared one, if any.
func (l *Log) replaceNext(size int64, forEvents bool) error {
	l.seq.Lock()
	old, base := l.seq.next, l.seq.active.Limit()
	l.seq.next, l.seq.nextForEvents = nil, false
	l.seq.Unlock()
	if old != nil {
		if err := old.Discard(l.o.FS); err != nil {
			return err
		}
	}
	next, err := l.createSegment(base, size)
	if err != nil {
		return err
	}
	l.seq.Lock()
	defer l.seq.Unlock()
	l.seq.next, l.seq.nextForEvents = next, forEvents
	l.seq.wanted, l.seq.wantedByEvent = 0, 0
	return nil
}

// sealSegment writes the segment's postings and numbers to the index, its
// seal to the file, and cuts the file.
func (l *Log) sealSegment(j *sealJob) error {
	if err := l.set.PinSegment(j.seg); err != nil {
		return err
	}
	defer j.seg.Unpin()
	if j.partial {
		j.topics, j.tally = scanTopics(j.seg)
	}
	seal := segment.Seal{
		Records: j.tally.records, Messages: j.tally.messages, Topics: uint64(len(j.topics)),
		First: j.tally.first, Last: j.tally.last,
	}
	if err := j.seg.WriteSeal(l.o.FS, seal, l.now()); err != nil {
		return err
	}
	l.set.Deactivate(j.seg)
	// The newest sealed segment stays in memory for those who are a little
	// behind; older ones are for readers that the disk can serve. Pages that
	// are free again also make the next segment's cheaper than untouched ones.
	l.set.EvictBefore(j.seg)
	if err := l.indexSegment(j.seg, j.topics, &j.tally); err != nil {
		l.indexTrouble(err)
	}
	return nil
}

// scanTopics reads a whole segment, pinned by the caller.
func scanTopics(seg *segment.Segment) (map[string]*Topic, tally) {
	topics := make(map[string]*Topic)
	var t tally
	for pos := seg.First(); ; {
		rec, next, err := seg.At(pos, true)
		var damage *segment.Damage
		switch {
		case errors.As(err, &damage):
			pos = damage.To
			continue
		case err != nil:
			return topics, t
		}
		pos = next
		t.count(&rec, seg.Base)
		if rec.Kind != KindMessage {
			continue
		}
		msg, err := DecodeMessage(&rec)
		if err != nil {
			continue
		}
		topic, ok := topics[string(msg.Topic)]
		if !ok {
			topic = &Topic{Name: string(msg.Topic)}
			topics[topic.Name] = topic
		}
		topic.count(&rec, seg.Base)
	}
}

// indexSegment writes a sealed segment's rows, in batches that stay small.
func (l *Log) indexSegment(seg *segment.Segment, topics map[string]*Topic, t *tally) error {
	b := l.index.NewBatch()
	row := segmentRow{Size: seg.Size, End: seg.Bytes() + segment.FileHeadLen, Salt: seg.Salt, Records: t.records, Messages: t.messages,
		First: t.first, Last: t.last, Times: t.times.entries}
	if row.Last == 0 { // nothing but carried messages, whose clocks are old
		row.First, row.Last = seg.Created, seg.Created
	}
	n := 0
	for name, topic := range topics {
		b.SetPostings(uint64(seg.Base), []byte(name), topic.postingsRow())
		if r := l.rules.rule(name); r != nil {
			row.addRule(r.Filter, int64(topic.bytes))
		}
		if n += len(topic.postings.enc) + len(name); n > 256<<10 {
			if err := l.applyOften(b); err != nil {
				return err
			}
			n = 0
		}
	}
	b.SetSegment(uint64(seg.Base), row.encode())
	return l.applyOften(b)
}

// applyOften is for those who write a lot to the index: it does not leave it
// to Pebble when the rows become durable, because others, not these, must not
// be so before the log is.
func (l *Log) applyOften(b *index.Batch) error {
	if err := l.apply(b); err != nil || l.index.Pending() < checkpointPending {
		return err
	}
	return l.flushIndex()
}

// flushIndex makes the index durable without a new checkpoint.
func (l *Log) flushIndex() error {
	l.gate.Lock()
	defer l.gate.Unlock()
	if err := l.Sync(); err != nil {
		return err
	}
	return l.index.Flush()
}

// indexTrouble reports an error of the index. The log is the truth: what the
// index cannot take now is replayed from the log at the next start, and a
// damaged index is set aside and rebuilt then.
func (l *Log) indexTrouble(err error) {
	l.log.Error("the index has trouble; the log is not affected", "error", err)
	if errors.Is(err, index.ErrDamaged) {
		l.markForRebuild()
	}
}
