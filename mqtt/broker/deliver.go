package broker

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"cairnmq/mqtt/packet"
	"cairnmq/segment"
	"cairnmq/storage"
)

// Sizes of a write.
const (
	writeBufSize = 64 << 10
	// largePayload goes out of the mapping without a copy, in a write of its own.
	largePayload = 16 << 10
	// flushBatch is how many messages are looked at in one turn.
	flushBatch = 256
	// inlineRounds bounds how long a goroutine that has other work flushes.
	inlineRounds = 4
)

// work is what a flusher needs while it runs; idle sessions hold none.
type work struct {
	buf  []byte // what is to be written
	list [flushBatch]delivery
	// large is a payload that is to be written behind buf, from the mapping.
	large []byte
	sent  int // messages since they were last counted

	// of the message that is being looked at
	rec storage.Record
	msg storage.MessageView
	d   packet.Delivery
}

// delivery is a message that is about to be sent.
type delivery struct {
	entry
	idAt int // where its packet identifier lies in work.buf
	dup  bool
	// task is the retain task that the message is sent for, if any.
	task *retainTask
}

var works = sync.Pool{New: func() any { return &work{buf: make([]byte, 0, writeBufSize)} }}

// kick makes sure that what the session has to send is being sent. With
// inline, this goroutine does it as long as the socket takes it at once.
func (s *session) kick(inline bool) {
	s.mu.Lock()
	if s.flushing || s.closed || !s.hasWorkLocked() {
		s.mu.Unlock()
		return
	}
	s.flushing = true
	s.mu.Unlock()
	if inline && s.c.raw != nil && !s.b.syncedSessions {
		s.flush(true)
		return
	}
	go s.flush(false)
}

// hasWorkLocked reports whether anything could be sent.
func (s *session) hasWorkLocked() bool {
	if len(s.ctrl) > 0 {
		return true
	}
	if s.farewell || s.answering {
		return false
	}
	s.resend = s.resend && s.win.Unsent()
	if s.resend {
		return s.win.CanResend()
	}
	return s.shares.dealt() || s.hasOwnLocked()
}

// hasOwnLocked is hasWorkLocked for messages of the session's own
// subscriptions.
func (s *session) hasOwnLocked() bool {
	switch {
	case len(s.retained) > 0:
		return s.retained[0].sub.QoS == 0 || s.win.Free() > 0
	case s.out.len() > 0:
		return s.out.at(0).qos == 0 || s.win.Free() > 0
	}
	return s.mode == catching
}

// flush sends until there is nothing left. It is the session's flusher: there
// is one at a time, marked by flushing. A flusher on somebody else's goroutine
// (inline) hands over to one of its own when the socket is not ready or there
// is a lot to do.
func (s *session) flush(inline bool) {
	w := works.Get().(*work)
	defer func() {
		s.b.stats.left(w)
		if cap(w.buf) > 2*writeBufSize {
			w.buf = make([]byte, 0, writeBufSize) // a large message is not to stay
		}
		w.buf, w.large = w.buf[:0], nil
		works.Put(w)
	}()
	for round := 0; ; round++ {
		if inline && round == inlineRounds {
			go s.flush(false)
			return
		}
		step, err := s.step(w, inline)
		if err != nil {
			s.flushFailed(err)
			return
		}
		switch step {
		case stepDone:
			return
		case stepSlow:
			go s.flush(false)
			return
		}
		if inline {
			more, err := s.c.tryWrite(w.buf)
			if err != nil {
				s.flushFailed(err)
				return
			}
			if len(more) > 0 {
				// The rest waits for the socket on a goroutine of its own.
				rest := append([]byte(nil), more...)
				go s.flushAfter(rest)
				return
			}
		} else if err := s.c.write(w.buf, s.limits.WriteTimeout.Std()); err != nil {
			s.flushFailed(err)
			return
		}
		w.buf = w.buf[:0]
		s.b.stats.left(w)
	}
}

// flushAfter goes on with a write that the socket did not take whole.
func (s *session) flushAfter(rest []byte) {
	if err := s.c.write(rest, s.limits.WriteTimeout.Std()); err != nil {
		s.flushFailed(err)
		return
	}
	s.flush(false)
}

// flushFailed ends the connection: the reader notices that it is closed.
func (s *session) flushFailed(err error) {
	s.reader.Release()
	s.mu.Lock()
	if !s.reason.set {
		s.reason = closeReason{set: true, err: err, text: "write failed"}
	}
	s.closed = true
	s.flushing = false
	s.cond.Broadcast()
	s.mu.Unlock()
	s.c.close()
}

type stepResult uint8

const (
	stepWrite stepResult = iota // w.buf is to be written
	stepDone                    // nothing left; flushing has ended
	stepSlow                    // needs a goroutine of its own
)

// step fills w.buf with what goes out next: control packets, then
// repetitions, retained messages, and the outbox.
func (s *session) step(w *work, inline bool) (stepResult, error) {
	s.mu.Lock()
	if len(s.ctrl) > 0 {
		w.buf = append(w.buf, s.ctrl...)
		if s.ctrl = s.ctrl[:0]; cap(s.ctrl) > 4096 {
			s.ctrl = nil
		}
		s.cond.Broadcast()
	}
	if s.farewell || s.closed {
		return s.lastStepLocked(w)
	}
	var source func(*work) (int, error)
	var m *member
	n := 0
	switch {
	case !s.hasWorkLocked():
		// everything, or what comes first, waits for acknowledgements
	case s.resend:
		source = s.takeResends
	case s.nextDealtLocked(&m):
		n = s.peekDealtLocked(w, m)
	case len(s.retained) > 0:
		source = s.takeRetained
	case s.out.len() > 0:
		n = s.peekLocked(w)
	default:
		source = s.catchUp
	}
	if source == nil && n == 0 {
		if len(w.buf) == 0 && s.losses.any() {
			s.mu.Unlock()
			if inline {
				return stepSlow, nil
			}
			s.reportLosses()
			return stepWrite, nil
		}
		if len(w.buf) == 0 {
			s.flushing = false
			s.reader.Release()
			s.cond.Broadcast()
			s.mu.Unlock()
			return stepDone, nil
		}
		s.mu.Unlock()
		return stepWrite, nil
	}
	s.mu.Unlock()
	if source != nil {
		if inline && len(w.buf) == 0 {
			return stepSlow, nil
		}
		if inline {
			return stepWrite, nil
		}
		_, err := source(w)
		return stepWrite, err
	}
	if m != nil {
		return s.sendDealt(w, m, n, inline)
	}
	return s.send(w, n, inline)
}

// lastStepLocked sends what control packets are left and nothing else.
func (s *session) lastStepLocked(w *work) (stepResult, error) {
	if len(w.buf) > 0 && !s.closed {
		s.mu.Unlock()
		return stepWrite, nil
	}
	s.flushing = false
	s.reader.Release()
	s.cond.Broadcast()
	s.mu.Unlock()
	return stepDone, nil
}

// peekLocked copies the entries that may be sent now to w.list. They stay in
// the outbox until send knows how many fitted.
func (s *session) peekLocked(w *work) int {
	free := s.win.Free()
	n := 0
	for n < flushBatch && n < s.out.len() {
		e := s.out.at(n)
		if e.qos > 0 {
			if free == 0 {
				break // [MQTT-3.3.4-9], [MQTT-4.9.0-2]
			}
			free--
		}
		w.list[n] = delivery{entry: *e}
		n++
	}
	return n
}

// send reads, encodes and numbers the first n deliveries of w.list, which are
// the first of the outbox.
func (s *session) send(w *work, n int, inline bool) (stepResult, error) {
	used, err := s.read(w, w.list[:n], inline)
	if err != nil {
		return stepWrite, err
	}
	if used == 0 && len(w.buf) == 0 {
		return stepSlow, nil
	}
	if err := s.number(w, w.list[:used], used); err != nil {
		return stepWrite, err
	}
	return stepWrite, s.writeLarge(w)
}

// number gives packet identifiers to a list of deliveries that lie in w.buf, of
// which the first drop came out of the outbox, and sees to it that the log
// knows them before they leave.
func (s *session) number(w *work, list []delivery, drop int) error {
	s.mu.Lock()
	if drop > 0 {
		s.next = list[drop-1].pos + 1
		s.out.drop(drop)
	}
	s.numberLocked(w, list)
	event, log := s.deliveredLocked(list)
	s.mu.Unlock()
	if !log {
		return nil
	}
	defer s.endAppend()
	return s.appendEvent(event)
}

// skip marks a delivery that is not sent.
const skip = 0xff

// read looks the messages up and encodes them, all but their identifiers. It
// returns how many of the list were handled: as many as fit into the write
// buffer. Those that are not to be sent are marked.
func (s *session) read(w *work, list []delivery, inline bool) (used int, err error) {
	now := s.b.now()
	for i := range list {
		x := &list[i]
		err := s.reader.GetInto(x.pos, &w.rec)
		if err == nil {
			err = w.msg.Decode(&w.rec)
		}
		if err != nil {
			if err := s.missing(x, err); err != nil {
				return 0, err
			}
			continue
		}
		if x.task != nil && !x.task.wants(s.id, &w.rec, &w.msg) {
			x.qos = skip
			continue
		}
		if s.describe(w, x, now); x.qos == skip {
			continue
		}
		if !s.encode(w, x, inline, i > 0) {
			return i, nil
		}
		if w.large != nil {
			return i + 1, nil
		}
	}
	return len(list), nil
}

// encode appends the packet that describe has described to w.buf. With more
// or inline it reports false in place of making w.buf larger than it should
// be. A large payload stays where it is: then this is the last packet, and
// writeLarge comes behind it.
func (s *session) encode(w *work, x *delivery, inline, more bool) bool {
	large := len(w.d.Payload) >= largePayload
	if more && large || (more || inline) && len(w.buf)+w.d.Size(s.version) > writeBufSize {
		return false
	}
	w.sent++
	if s.outAliases != nil {
		s.outAliases.apply(&w.d, s.limit())
	}
	w.buf, x.idAt = w.d.AppendHead(w.buf, s.version)
	if large && !inline {
		w.large = w.d.Payload
		return true
	}
	// A blocking write on somebody else's goroutine is out of the question,
	// so there one that fits into the buffer is copied.
	w.buf = append(w.buf, w.d.Payload...)
	return true
}

// writeLarge writes a payload that encode has left where it was, behind
// what comes before it.
func (s *session) writeLarge(w *work) error {
	if w.large == nil {
		return nil
	}
	payload := w.large
	w.large = nil
	if err := s.c.write(w.buf, s.limits.WriteTimeout.Std()); err != nil {
		return err
	}
	w.buf = w.buf[:0]
	return s.c.write(payload, s.limits.WriteTimeout.Std())
}

// missing handles an entry whose record cannot be read: dropped by
// retention, which has written the loss down, or damaged.
func (s *session) missing(x *delivery, err error) error {
	x.qos = skip
	var damage *segment.Damage
	switch {
	case errors.Is(err, storage.ErrGone), errors.Is(err, storage.ErrMalformed):
		return nil
	case errors.As(err, &damage):
		s.b.log.ReportDamage(damage)
		return nil
	}
	return err
}

// describe turns the record of w into what is encoded, or marks it as not to
// be sent: expired, or larger than the client takes.
func (s *session) describe(w *work, x *delivery, now time.Time) {
	rec, d := &w.rec, &w.d
	x.qos = min(x.qos, rec.Flags&storage.FlagQoS) // [MQTT-3.8.4-8], [MQTT311-3.8.4-6]
	*d = packet.Delivery{}
	d.Dup, d.QoS, d.PacketID = x.dup, x.qos, 1                                                  // [MQTT-3.3.1-3], [MQTT311-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2]
	d.Retain = x.retained || x.match != nil && x.match.rap && rec.Flags&storage.FlagRetain != 0 // [MQTT-3.3.1-12], [MQTT-3.3.1-13], [MQTT311-3.3.1-8], [MQTT311-3.3.1-9]
	d.Topic, d.Payload = w.msg.Topic, w.msg.Payload
	if rec.Flags&storage.FlagExpiry != 0 {
		left := int64(rec.Expiry) - int64(s.b.log.Age(&rec.Head, now)/time.Second)
		if left <= 0 && !x.dup { // [MQTT-3.3.2-5]; not once it has gone out [MQTT-4.3.3-7]
			s.noteLoss(storage.CauseExpiry, rec)
			x.qos = skip
			return
		}
		d.HasExpiry, d.Expiry = true, uint32(max(left, 0)) // [MQTT-3.3.2-6]
	}
	if s.version == packet.V5 {
		d.Props = w.msg.Props
		if x.match != nil {
			d.SubscriptionIDs = x.match.ids
		}
	}
	if size := d.Size(s.version); size > s.limit() { // [MQTT-3.1.2-24], [MQTT-3.1.2-25]
		s.noteLoss(storage.CauseTooLarge, rec)
		x.qos = skip
	}
}

// numberLocked gives packet identifiers to new QoS 1 and 2 messages.
func (s *session) numberLocked(w *work, list []delivery) {
	for i := range list {
		x := &list[i]
		if x.qos == 1 || x.qos == 2 {
			x.id = s.win.Add(uint64(x.pos), x.qos, x.retained) // [MQTT-4.3.2-1], [MQTT-4.3.3-1], [MQTT311-2.3.1-4], [MQTT311-4.3.2-1], [MQTT311-4.3.3-1]
			binary.BigEndian.PutUint16(w.buf[x.idAt:], x.id)
		}
	}
}

// deliveredLocked is the event that must be in the log before the messages
// leave: which identifier stands for which position. If there is one, the
// caller appends it and calls endAppend.
func (s *session) deliveredLocked(list []delivery) (storage.Event, bool) {
	s.dirty = true
	if !s.logged {
		return storage.Event{}, false
	}
	s.scratch = s.scratch[:0]
	for i := range list {
		if x := &list[i]; x.qos == 1 || x.qos == 2 {
			s.scratch = append(s.scratch, storage.Inflight{ID: x.id, Pos: x.pos, QoS: x.qos, Retained: x.retained})
		}
	}
	if len(s.scratch) == 0 {
		return storage.Event{}, false
	}
	e := storage.EventDelivered(s.event[:0], s.id, s.next, s.scratch)
	s.event = e.Body
	s.beginAppendLocked()
	return e, true
}

// lossCount adds up what a session did not get, between two rows of the
// ledger.
type lossCount struct {
	rows [2]storage.Loss // by cause: expiry, too large
}

func (c *lossCount) add(cause storage.Cause, rec *storage.Record) {
	x := &c.rows[0]
	if cause == storage.CauseTooLarge {
		x = &c.rows[1]
	}
	if x.Count == 0 {
		*x = storage.Loss{Cause: cause, From: rec.Pos}
	}
	x.To = rec.Pos + 1
	x.Count++
	x.Bytes += uint64(len(rec.Body))
}

func (c *lossCount) any() bool { return c != nil && c.rows[0].Count+c.rows[1].Count > 0 }

func (s *session) noteLoss(cause storage.Cause, rec *storage.Record) {
	if s.losses == nil {
		s.losses = &lossCount{}
	}
	s.losses.add(cause, rec)
}

// reportLosses writes the rows; the flusher calls it before it is done.
func (s *session) reportLosses() {
	if !s.losses.any() {
		return
	}
	for i := range s.losses.rows {
		x := s.losses.rows[i]
		if x.Count == 0 {
			continue
		}
		s.losses.rows[i] = storage.Loss{}
		x.Readers = []string{s.id}
		s.b.stats.publishDropped.Add(int64(x.Count))
		if err := s.b.log.RecordLoss(x); err != nil {
			s.log.Error("cannot write the loss ledger", "error", err)
		}
	}
	if s.b.syncedSessions { // until it is synced it hides what is behind it
		_ = s.b.log.Sync() // if it fails, the log has ended and says so
		s.b.log.Advance()
	}
}
