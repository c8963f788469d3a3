package broker

import (
	"errors"
	"slices"

	"cairnmq/mqtt/packet"
	proto "cairnmq/mqtt/session"
	"cairnmq/mqtt/topic"
	"cairnmq/segment"
	"cairnmq/storage"
)

// catchUpScan is how many records are looked at before what was found is
// sent.
const catchUpScan = 4096

// memoEntry is what this session's subscriptions make of a topic.
type memoEntry struct {
	all, own *match
	// since is where the first of the subscriptions begins, latest where the
	// last one does.
	since, latest storage.Pos
}

// memoTopics bounds the memo of one session.
const memoTopics = 4096

// catchUp reads the log from where the session stands and fills the outbox.
// When it meets the router it goes back to live, under the view, so without a
// gap and without a repetition.
func (s *session) catchUp(w *work) (int, error) {
	limit := s.b.log.Routed()
	if s.readPos >= limit {
		s.goLive()
		return 0, nil
	}
	var found [flushBatch]entry
	var n int
	var pos storage.Pos
	var err error
	if s.narrow() {
		n, pos, err = s.visit(w, found[:], limit)
	} else if s.hasRoom() {
		return s.scanAndSend(w, limit)
	} else {
		n, pos, err = s.scan(w, found[:], limit)
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readPos = pos
	s.dirty = true
	s.out.putAll(found[:n], s.out.len()+n)
	return n, nil
}

func (s *session) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.len() == 0 && s.win.Free() > 0
}

// scanAndSend is scan for a session that can take messages now: what matches
// goes from the mapping to the write buffer without a stop in the outbox.
func (s *session) scanAndSend(w *work, limit storage.Pos) (n int, err error) {
	s.mu.Lock()
	free := s.win.Free()
	s.mu.Unlock()
	now := s.b.now()
	pos, left := s.readPos, catchUpScan
	for n < len(w.list) && free > 0 && w.large == nil {
		e, at, next, ok, err := s.nextWanted(w, pos, limit, &left)
		pos = next
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		x := &w.list[n]
		*x = delivery{entry: e}
		if s.describe(w, x, now); x.qos == skip {
			continue
		}
		if !s.encode(w, x, false, n > 0) {
			pos = at // again, in the next turn
			break
		}
		n++
		free -= int(min(x.qos, 1))
	}
	list := w.list[:n]
	s.mu.Lock()
	s.readPos = pos
	s.next = max(s.next, pos)
	s.numberLocked(w, list)
	event, log := s.deliveredLocked(list)
	s.mu.Unlock()
	if log {
		err = s.appendEvent(event)
		s.endAppend()
		if err != nil {
			return 0, err
		}
	}
	return n, s.writeLarge(w)
}

// scan fills found with what the session wants, in order from where it stands.
func (s *session) scan(w *work, found []entry, limit storage.Pos) (n int, pos storage.Pos, err error) {
	pos, left := s.readPos, catchUpScan
	for n < len(found) {
		e, _, next, ok, err := s.nextWanted(w, pos, limit, &left)
		pos = next
		if err != nil || !ok {
			return n, pos, err
		}
		found[n] = e
		n++
	}
	return n, pos, nil
}

// nextWanted reads on from pos, up to limit and at most left records, to the
// next one that the session wants, which it leaves in w; ok is false if there
// is none. at is where it was looked for, next where to go on in either case.
func (s *session) nextWanted(w *work, pos, limit storage.Pos, left *int) (e entry, at, next storage.Pos, ok bool, err error) {
	for ; pos < limit && *left > 0; *left-- {
		next, err := s.reader.NextInto(pos, &w.rec)
		switch {
		case err != nil:
			if next, err = s.b.readPast(err, limit); err != nil {
				return e, pos, pos, false, err
			}
		case w.rec.Pos >= limit:
			next = limit
		default:
			if e, ok := s.wants(w); ok {
				*left--
				return e, pos, min(next, limit), true, nil
			}
		}
		pos = min(next, limit)
	}
	return e, pos, pos, false, nil
}

// readPast is where to go on when no record could be read.
func (b *Broker) readPast(err error, limit storage.Pos) (next storage.Pos, _ error) {
	if errors.Is(err, storage.ErrEnd) {
		return limit, nil
	}
	return b.pastDamage(err)
}

// pastDamage reports damage, if that is the error, and where reading goes on.
func (b *Broker) pastDamage(err error) (storage.Pos, error) {
	var damage *segment.Damage
	if !errors.As(err, &damage) {
		return 0, err
	}
	b.log.ReportDamage(damage)
	return damage.To, nil
}

// selection is the flusher's list of positions to visit.
type selection struct {
	storage.Selection
	from   storage.Pos
	gen    uint64 // of the subscriptions that it was made for
	narrow bool
}

// narrow reports whether the index has a list of what to visit next. It asks
// once for each segment.
func (s *session) narrow() bool {
	s.mu.Lock()
	gen := s.subsGen
	known := s.sel.gen == gen && s.readPos >= s.sel.from && s.readPos < s.sel.To
	var filters []string
	if !known {
		for f := range s.subs {
			filters = append(filters, f)
		}
	}
	s.mu.Unlock()
	if !known {
		s.sel = selection{from: s.readPos, gen: gen}
		s.sel.Selection, s.sel.narrow = s.b.log.Select(filters, s.readPos)
	}
	return s.sel.narrow
}

// visit reads the records of the selection.
func (s *session) visit(w *work, found []entry, limit storage.Pos) (n int, pos storage.Pos, err error) {
	for n < len(found) && len(s.sel.Positions) > 0 {
		at := s.sel.Positions[0]
		if at >= limit {
			return n, limit, nil
		}
		err := s.reader.GetInto(at, &w.rec)
		switch {
		case err == nil:
			if e, ok := s.wants(w); ok {
				found[n] = e
				n++
			}
		case !errors.Is(err, storage.ErrGone):
			if _, err := s.b.pastDamage(err); err != nil {
				return n, s.readPos, err
			}
		}
		s.sel.Positions = s.sel.Positions[1:]
		pos = at + 1
	}
	if len(s.sel.Positions) == 0 {
		pos = s.sel.To
	}
	return n, min(pos, limit), nil
}

// goLive changes back to the router's entries if it has nothing routed beyond
// what was read.
func (s *session) goLive() {
	s.b.log.WithView(func(pos storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.readPos >= pos {
			s.mode = live
			s.next = max(s.next, pos)
			s.memo = nil
		}
	})
}

// wants matches the record in w with the session's subscriptions, and takes
// it apart.
func (s *session) wants(w *work) (entry, bool) {
	rec, msg := &w.rec, &w.msg
	if rec.Kind != storage.KindMessage || rec.Flags&storage.FlagCarried != 0 {
		return entry{}, false
	}
	if msg.Decode(rec) != nil || s.b.log.Dropped(msg.Topic, rec.Pos) {
		return entry{}, false
	}
	s.mu.Lock()
	m, ok := s.memo[string(msg.Topic)]
	if !ok {
		m = s.memoLocked(string(msg.Topic))
	}
	if rec.Pos < m.latest { // not for all of them
		m = s.matchLocked(string(msg.Topic), rec.Pos)
	}
	s.mu.Unlock()
	match := m.all
	if m.own != m.all && string(msg.Publisher) == s.id {
		match = m.own // [MQTT-3.8.3-3]
	}
	if match == nil || rec.Pos < m.since {
		return entry{}, false
	}
	e := entry{pos: rec.Pos, match: match, qos: min(rec.Flags&storage.FlagQoS, match.qos)}
	if e.qos == 0 && rec.Pos < s.skipQoS0 {
		return entry{}, false
	}
	return e, true
}

// memoLocked works out what the subscriptions make of a topic.
func (s *session) memoLocked(name string) memoEntry {
	m := s.matchLocked(name, 1<<64-1)
	if s.memo == nil || len(s.memo) >= memoTopics {
		s.memo = make(map[string]memoEntry)
	}
	s.memo[name] = m
	return m
}

// matchLocked is what the subscriptions that there were at a position make of
// a topic.
func (s *session) matchLocked(name string, pos storage.Pos) memoEntry {
	var x target
	m := memoEntry{since: 1<<64 - 1}
	for filter, sub := range s.subs {
		if sub.Since <= pos && topic.Match(filter, name) {
			x.addSub(sub)
			m.since, m.latest = min(m.since, sub.Since), max(m.latest, sub.Since)
		}
	}
	m.all, m.own = x.all, x.own
	return m
}

// takeResends repeats what an earlier connection has left unacknowledged:
// PUBREL where PUBREC has come, else PUBLISH with DUP [MQTT-4.4.0-1],
// [MQTT-3.3.1-1], [MQTT311-4.4.0-1], [MQTT311-3.3.1-1], [MQTT-4.3.3-5].
func (s *session) takeResends(w *work) (int, error) {
	n := 0
	for n < flushBatch && len(w.buf) < writeBufSize {
		s.mu.Lock()
		if !s.win.CanResend() {
			// All are out, or the next acknowledgement makes room.
			s.resend = s.win.Unsent()
			s.mu.Unlock()
			s.resentAll()
			return n, nil
		}
		id, e := s.win.NextResend()
		s.mu.Unlock()
		n++
		if err := s.repeat(w, id, e); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *session) repeat(w *work, id uint16, e proto.Entry) error {
	if e.Received {
		w.buf = appendPubrel(w.buf, s.version, id)
		return nil
	}
	x := &w.list[0]
	*x = delivery{entry: entry{pos: storage.Pos(e.Pos), qos: e.QoS, retained: e.Retained}, dup: true}
	err := s.reader.GetInto(x.pos, &w.rec)
	if err == nil {
		if err = w.msg.Decode(&w.rec); err == nil {
			s.mu.Lock()
			if x.match = s.shares.match(e.Tag); e.Tag == 0 {
				x.match = s.matchAgain(&w.msg, e)
			}
			s.mu.Unlock()
			s.describe(w, x, s.b.now())
		}
	}
	if err != nil {
		if err := s.missing(x, err); err != nil {
			return err
		}
	}
	if x.qos == skip {
		s.mu.Lock()
		s.win.Drop(id)
		s.noteAckLocked(id, true)
		s.mu.Unlock()
		return nil
	}
	w.d.PacketID = id
	s.encode(w, x, false, false)
	return s.writeLarge(w)
}

// matchAgain is the match for a repetition: by the subscriptions that there
// were, or for a retained message those that there are. They may have gone
// since, and the message is still delivered [MQTT-3.10.4-3], [MQTT311-3.10.4-3].
func (s *session) matchAgain(msg *storage.MessageView, e proto.Entry) *match {
	name := string(msg.Topic)
	m, ok := s.memo[name]
	if !ok {
		m = s.memoLocked(name)
	}
	if storage.Pos(e.Pos) < m.latest && !e.Retained {
		m = s.matchLocked(name, storage.Pos(e.Pos))
	}
	if m.own != m.all && string(msg.Publisher) == s.id {
		return m.own // [MQTT-3.8.3-3]
	}
	return m.all
}

// retainTask is the delivery of retained messages for a new subscription. It
// goes through the index in parts, so it takes no memory.
type retainTask struct {
	sub    *subscription
	before storage.Pos // where the subscription begins
	after  string      // the topic that was done last
}

// wants reports whether a retained message is to be sent. One behind the
// subscription comes live, unless it is an older one that was carried there.
func (t *retainTask) wants(id string, rec *storage.Record, msg *storage.MessageView) bool {
	if t.sub.NoLocal && string(msg.Publisher) == id { // [MQTT-3.8.3-3]
		return false
	}
	return rec.Pos < t.before || rec.Flags&storage.FlagCarried != 0 && msg.Original < t.before
}

// takeRetained sends the next retained messages.
func (s *session) takeRetained(w *work) (int, error) {
	s.mu.Lock()
	task := s.retained[0]
	room := flushBatch
	if task.sub.QoS > 0 {
		room = min(room, s.win.Free())
	}
	s.mu.Unlock()
	list, err := s.b.log.Retained(task.sub.Filter, task.after, 1<<64-1, room)
	if err != nil {
		s.log.Error("cannot read the retained messages", "filter", task.sub.Filter, "error", err)
	}
	for i, x := range list {
		w.list[i] = delivery{entry: entry{pos: x.Pos, match: task.sub.match, qos: task.sub.QoS, retained: true}, task: task}
	}
	for done := 0; done < len(list); {
		used, err := s.read(w, w.list[done:len(list)], false)
		if err == nil {
			err = s.number(w, w.list[done:done+used], 0)
		}
		if err == nil {
			err = s.writeLarge(w)
		}
		if err == nil && len(w.buf) >= writeBufSize {
			err = s.c.write(w.buf, s.limits.WriteTimeout.Std())
			w.buf = w.buf[:0]
		}
		if err != nil {
			return done, err
		}
		done += used
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) < room {
		s.dropRetainedLocked(func(t *retainTask) bool { return t == task })
	} else {
		task.after = list[len(list)-1].Topic
	}
	return len(list), nil
}

// dropRetainedLocked ends retain tasks. The one that is being worked on may be
// among them.
func (s *session) dropRetainedLocked(which func(*retainTask) bool) {
	if s.retained = slices.DeleteFunc(s.retained, which); len(s.retained) == 0 {
		s.retained = nil
	}
}

func appendPubrel(b []byte, v packet.Version, id uint16) []byte {
	return packet.AppendAck(b, v, packet.PUBREL, id, packet.Success)
}
