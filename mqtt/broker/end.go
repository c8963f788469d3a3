package broker

import (
	"errors"
	"sync"
	"time"

	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

func (s *session) syncInit() { s.cond = sync.NewCond(&s.mu) }

// storedWill is a CONNECT's will in the log's terms.
func storedWill(w *packet.Will) *storage.Will {
	if w == nil {
		return nil
	}
	x := &storage.Will{Topic: w.Topic, Payload: w.Payload, Props: w.AppendEndToEnd(nil), QoS: w.QoS, Retain: w.Retain}
	if d := w.Props.WillDelay; d != nil {
		x.Delay = *d
	}
	if e := w.Props.MessageExpiry; e != nil {
		x.HasExpiry, x.Expiry = true, *e
	}
	return x
}

// publishWill appends a will as the message that it is [MQTT-3.1.2-8], [MQTT311-3.1.2-8]. The
// record says that the will is used up, so that it is published once,
// whatever happens next.
func (b *Broker) publishWill(id string, w *storage.Will) error {
	msgs := []storage.Message{{
		Publisher: id, Topic: []byte(w.Topic), Props: w.Props, Payload: w.Payload, Will: true,
		QoS: w.QoS, Retain: w.Retain, HasExpiry: w.HasExpiry, Expiry: w.Expiry, // [MQTT-3.1.2-14], [MQTT-3.1.2-15], [MQTT311-3.1.2-16], [MQTT311-3.1.2-17]
	}}
	end, class, err := b.log.AppendMessages(msgs)
	if err == nil {
		err = msgs[0].Err
	}
	if err == nil {
		err = b.log.Wait(end, class)
	}
	b.log.Advance()
	return err
}

// appendEvents appends session events and waits for their class. What others
// have appended behind them can be seen only now, so it is routed.
func (b *Broker) appendEvents(events ...storage.Event) error {
	_, end, err := b.log.AppendEvents(events...)
	return b.awaitEvents(end, err)
}

// awaitEvents is what follows an append of events.
func (b *Broker) awaitEvents(end storage.Pos, err error) error {
	if err == nil {
		err = b.log.Wait(end, b.log.SessionClass())
	}
	if b.syncedSessions {
		b.log.Advance()
	}
	return err
}

// storeEnd ends what the session has open: the router forgets it, its will is
// published or waits, and its row goes to the index or away.
func (s *session) storeEnd(r closeReason) {
	b := s.b
	var row storage.SessionRow
	b.log.WithView(func(pos storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for filter := range s.subs {
			b.router.trie.Delete(filter, s)
		}
		if len(s.subs) > 0 {
			b.router.changed()
		}
		row = *s.rowLocked(pos)
		row.Online, row.Closed = false, b.log.Clock()
		if r.normal {
			row.Will = nil // [MQTT-3.14.4-3], [MQTT-3.1.2-10], [MQTT311-3.1.2-10], [MQTT311-3.14.4-3]
		}
		final := row
		s.final = &final // the router goes on without us
		s.beginAppendLocked()
	})
	defer s.endAppend()
	if err := s.settle(&row, r); err != nil {
		s.log.Error("cannot store the end of the connection", "error", err)
	}
	b.log.DetachSession(s.id)
	b.clients.remove(s)
}

// settle decides what becomes of a closed session.
func (s *session) settle(row *storage.SessionRow, r closeReason) error {
	b := s.b
	// A reconnect that goes on with the session cancels a delayed will
	// [MQTT-3.1.3-9]; one that begins anew ends it.
	keepWill := row.Will != nil && row.Will.Delay > 0 && row.Expiry > 0 && !r.cleanStart
	if row.Will != nil && !keepWill { // [MQTT311-3.1.2-12]
		if err := b.publishWill(s.id, row.Will); err != nil {
			s.log.Warn("cannot publish the will now", "error", err)
			w := *row.Will
			w.Delay = 0 // due at once: the housekeeper tries again
			row.Will = &w
		} else {
			row.Will = nil
		}
	}
	if !s.logged {
		return nil
	}
	if row.Expiry == 0 && row.Will == nil { // [MQTT-4.1.0-2], [MQTT311-4.1.0-2]
		err := b.groups.end(row)
		if err == nil {
			err = b.appendEvents(storage.EventEnded(s.id))
		}
		if err == nil {
			return b.log.DeleteSession(b.stored(row))
		}
		// No room to say so: it is stored as one that has expired.
	}
	events := []storage.Event{storage.EventClosed(s.id, row.Expiry, row.Will != nil, row.Next)}
	s.mu.Lock()
	if len(s.acks) > 0 {
		events = append(events, storage.EventAcked(nil, s.id, s.acks))
	}
	s.mu.Unlock()
	err := b.appendEvents(events...)
	row.AsOf = b.log.Head()
	defer b.wakeHousekeeper()
	return errors.Join(err, b.log.StoreSession(b.stored(row))) // [MQTT-4.1.0-1], [MQTT311-4.1.0-1]
}

// stored gives a row the due time under which the index has it, so that the
// old entry is replaced.
func (b *Broker) stored(row *storage.SessionRow) *storage.SessionRow {
	if old, ok, err := b.log.LoadSession(row.ID); err == nil && ok {
		row.KeepDue(old)
	}
	return row
}

// ending is a closed session about which something is being written down. As
// a Source it keeps a checkpoint from going past that.
type ending struct{ row storage.SessionRow }

func (b *Broker) beginEnding(row *storage.SessionRow) {
	e := &ending{*row}
	e.row.AsOf = b.log.Head()
	b.log.AttachSession(row.ID, e)
}

// Snapshot implements storage.Source.
func (e *ending) Snapshot(bool) (*storage.SessionRow, bool) {
	row := e.row
	return &row, true
}

// endSession throws a stored session away: its will, if it still waits, is
// published now, because the session's end comes before its delay.
func (b *Broker) endSession(row *storage.SessionRow) error {
	b.beginEnding(row)
	defer b.log.DetachSession(row.ID)
	if row.Will != nil {
		if err := b.publishWill(row.ID, row.Will); err != nil {
			return err
		}
	}
	if err := b.groups.end(row); err != nil {
		return err
	}
	if err := b.appendEvents(storage.EventEnded(row.ID)); err != nil {
		return err
	}
	return b.log.DeleteSession(row)
}

// dueSession does what is due for a closed session: publish its will, end it.
func (b *Broker) dueSession(id string, now time.Time) error {
	unlock := b.clients.claim(id)
	defer unlock()
	if b.clients.get(id) != nil {
		return nil
	}
	row, ok, err := b.log.LoadSession(id)
	if err != nil || !ok {
		return err
	}
	if at, expires := row.Expires(); expires && !now.Before(at) {
		b.brokerLog.Info("session expired", "client", id)
		b.stats.expired.Add(1)
		return b.endSession(row)
	}
	return b.dueWill(row, now)
}

// dueWill publishes the will of a stored session if its time has come.
func (b *Broker) dueWill(row *storage.SessionRow, now time.Time) error {
	if at, ok := row.Due(); !ok || now.Before(at) || row.Will == nil {
		return nil
	}
	b.beginEnding(row)
	defer b.log.DetachSession(row.ID)
	if err := b.publishWill(row.ID, row.Will); err != nil {
		return err
	}
	row.Will = nil
	row.AsOf = b.log.Head()
	return b.log.StoreSession(row)
}
