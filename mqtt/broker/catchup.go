package broker

import (
	"errors"

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
	since    storage.Pos
}

// memoTopics bounds the memo of one session.
const memoTopics = 4096

// catchUp reads the log from where the session stands and fills the outbox.
// When it meets the router it goes back to live, under the view, so without a
// gap and without a repetition.
func (s *session) catchUp(*work) (int, error) {
	limit := s.b.log.Routed()
	if s.readPos >= limit {
		s.goLive()
		return 0, nil
	}
	var found [flushBatch]entry
	n := 0
	pos := s.readPos
	for range catchUpScan {
		if n == len(found) {
			break
		}
		rec, next, err := s.reader.Next(pos)
		var damage *segment.Damage
		switch {
		case errors.Is(err, storage.ErrEnd):
			pos = limit
		case errors.As(err, &damage):
			s.b.log.ReportDamage(damage)
			pos = damage.To
			continue
		case err != nil:
			return 0, err
		case rec.Pos >= limit:
			pos = limit
		default:
			if e, ok := s.wants(&rec); ok {
				found[n] = e
				n++
			}
			pos = next
		}
		if pos >= limit {
			pos = limit
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readPos = pos
	s.dirty = true
	s.out.putAll(found[:n], s.out.len()+n)
	return n, nil
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

// wants matches a record of the log with the session's subscriptions.
func (s *session) wants(rec *storage.Record) (entry, bool) {
	if rec.Kind != storage.KindMessage || rec.Flags&storage.FlagCarried != 0 {
		return entry{}, false
	}
	msg, err := storage.DecodeMessage(rec)
	if err != nil || s.b.log.Dropped(msg.Topic, rec.Pos) {
		return entry{}, false
	}
	s.mu.Lock()
	m, ok := s.memo[string(msg.Topic)]
	if !ok {
		m = s.memoLocked(string(msg.Topic))
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
	var x target
	since := storage.Pos(1<<64 - 1)
	for filter, sub := range s.subs {
		if topic.Match(filter, name) {
			x.addSub(sub)
			since = min(since, sub.Since)
		}
	}
	if s.memo == nil || len(s.memo) >= memoTopics {
		s.memo = make(map[string]memoEntry)
	}
	m := memoEntry{all: x.all, own: x.own, since: since}
	s.memo[name] = m
	return m
}

// takeResends repeats what an earlier connection has left unacknowledged:
// PUBREL where PUBREC has come, else PUBLISH with DUP [MQTT-4.4.0-1],
// [MQTT-3.3.1-1].
func (s *session) takeResends(w *work) (int, error) {
	n := 0
	for n < flushBatch && len(w.buf) < writeBufSize {
		s.mu.Lock()
		if !s.win.CanResend() {
			// All are out, or the next acknowledgement makes room.
			s.resend = s.win.Unsent()
			s.mu.Unlock()
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
	rec, err := s.reader.Get(x.pos)
	if err == nil {
		var msg storage.MessageView
		if msg, err = storage.DecodeMessage(&rec); err == nil {
			s.mu.Lock()
			x.match = s.memoFor(string(msg.Topic))
			s.mu.Unlock()
			s.describe(x, &rec, &msg, s.b.now())
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
	x.d.PacketID = id
	return s.encode(w, w.list[:1], false)
}

// memoFor is the match for a topic now, for a repetition; the subscription
// may have gone since, and the message is still delivered [MQTT-3.10.4-3].
func (s *session) memoFor(name string) *match {
	m, ok := s.memo[name]
	if !ok {
		m = s.memoLocked(name)
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

// takeRetained sends the next retained messages.
func (s *session) takeRetained(w *work) (int, error) {
	s.mu.Lock()
	task := s.retained[0]
	room := flushBatch
	if task.sub.QoS > 0 {
		room = min(room, s.win.Free())
	}
	s.mu.Unlock()
	list, err := s.b.log.Retained(task.sub.Filter, task.after, task.before, room)
	if err != nil {
		s.log.Error("cannot read the retained messages", "filter", task.sub.Filter, "error", err)
	}
	for i, x := range list {
		w.list[i] = delivery{entry: entry{pos: x.Pos, match: task.sub.match, qos: task.sub.QoS, retained: true}}
	}
	for done := 0; done < len(list); {
		used, err := s.read(w, w.list[done:len(list)])
		if err == nil {
			err = s.number(w.list[done:done+used], 0)
		}
		if err == nil {
			err = s.encode(w, w.list[done:done+used], false)
		}
		if err == nil && len(w.buf) >= writeBufSize {
			err = s.c.write(w.buf, s.b.writeTimeout)
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
		if s.retained = s.retained[1:]; len(s.retained) == 0 {
			s.retained = nil
		}
	} else {
		s.retained[0].after = list[len(list)-1].Topic
	}
	return len(list), nil
}

func appendPubrel(b []byte, v packet.Version, id uint16) []byte {
	return packet.AppendAck(b, v, packet.PUBREL, id, packet.Success)
}
