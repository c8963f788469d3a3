package broker

import (
	"slices"
	"strings"

	"cairnmq/mqtt/logging"

	"cairnmq/mqtt/packet"
	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// handleSubscribe adds subscriptions: into the log, then under the view so
// that every message lies before or behind them, then the SUBACK.
func (s *session) handleSubscribe(f packet.Frame) error {
	var p packet.Subscribe
	if err := p.Decode(s.version, f.Flags, f.Body); err != nil {
		return err
	}
	var id uint32
	if len(p.Props.SubscriptionIDs) > 0 {
		id = p.Props.SubscriptionIDs[0]
	}
	codes := make([]packet.ReasonCode, len(p.Subscriptions))
	var subs []storage.Sub
	added := make(map[string]bool)
	for i := range p.Subscriptions {
		x := &p.Subscriptions[i]
		if codes[i] = s.checkFilter(x, added); codes[i].IsError() {
			s.log.Info("subscription refused", logging.KeyPacket, "SUBSCRIBE", "filter", x.Filter, "reason", codes[i].String())
			if codes[i] == packet.ProtocolError {
				return &packet.Error{Code: packet.ProtocolError, Reason: "No Local on a shared subscription", Cite: "MQTT-3.8.3-4"}
			}
			continue
		}
		subs = append(subs, storage.Sub{
			Filter: x.Filter, QoS: x.QoS, NoLocal: x.NoLocal,
			RetainAsPublished: x.RetainAsPublished, RetainHandling: x.RetainHandling, ID: id,
		})
	}
	if len(subs) > 0 {
		if err := s.subscribe(subs); err != nil {
			if s.b.log.Err() != nil {
				return err
			}
			s.log.Warn("subscription refused: it cannot be stored", "error", err)
			for i := range codes {
				if !codes[i].IsError() {
					codes[i] = packet.QuotaExceeded
				}
			}
		}
	}
	ack := packet.Suback{PacketID: p.PacketID, Codes: codes} // [MQTT-3.8.4-2], [MQTT-3.8.4-6], [MQTT-2.2.1-6], [MQTT-3.8.4-1], [MQTT-3.8.4-5], [MQTT311-2.3.1-7], [MQTT311-3.8.4-1], [MQTT311-3.8.4-2], [MQTT311-3.8.4-4], [MQTT311-3.8.4-5]
	if err := s.replyLimited(&ack); err != nil {
		return err
	}
	s.mu.Lock()
	s.answering = false
	s.mu.Unlock()
	s.sysRetained()
	return nil
}

// limited is a packet that can leave things out to stay below a size.
type limited interface {
	AppendLimited(dst []byte, v packet.Version, limit int) ([]byte, bool)
}

func (s *session) replyLimited(p limited) error {
	b, ok := p.AppendLimited(nil, s.version, s.limit())
	if !ok {
		return &packet.Error{Code: packet.PacketTooLarge, Reason: "the answer is above the client's Maximum Packet Size", Cite: "MQTT-3.1.2-24"}
	}
	s.reply(b)
	return nil
}

// checkFilter judges one filter; added are the new ones before it in the same
// packet, to which it is added.
func (s *session) checkFilter(x *packet.Subscription, added map[string]bool) packet.ReasonCode {
	filter := x.Filter
	share, shared, err := topic.ParseShared(filter) // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
	if shared {
		filter = share.Filter
	}
	if err != nil || topic.ValidateFilter(filter) != nil || strings.Count(filter, "/") >= s.b.cfg.Limits.MaxTopicLevels {
		return packet.TopicFilterInvalid
	}
	if shared && x.NoLocal { // [MQTT-3.8.3-4]
		return packet.ProtocolError
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs[x.Filter] == nil && s.shares.all[x.Filter] == nil && !added[x.Filter] {
		if len(s.subs)+len(s.shares.all)+len(added) >= s.b.cfg.Sessions.MaxSubscriptions {
			return packet.QuotaExceeded
		}
		added[x.Filter] = true
	}
	return packet.ReasonCode(x.QoS) // [MQTT-3.8.4-7]
}

func (s *session) subscribe(subs []storage.Sub) error {
	// What was acknowledged to anybody before is not new to this subscription:
	// of it only what is retained is sent.
	before := s.b.log.Head()
	if slices.ContainsFunc(subs, func(x storage.Sub) bool { return x.Shared() }) {
		if err := s.b.log.RouteUpTo(before); err != nil {
			return err
		}
		s.mu.Lock()
		s.answering = true
		s.mu.Unlock()
		return s.b.awaitEvents(s.b.groups.subscribe(s, subs))
	}
	if s.logged {
		routed := s.b.router.handedOut()
		s.mu.Lock()
		// What has come by the old subscriptions must not come again by the
		// new ones after a crash: of QoS 0 the log does not know otherwise.
		cursor := storage.EventDelivered(nil, s.id, s.cursorLocked(routed), nil)
		s.beginAppendLocked()
		s.mu.Unlock()
		defer s.endAppend()
		if err := s.b.appendEvents(cursor, storage.EventSubscribed(s.id, subs)); err != nil {
			return err
		}
	}
	if err := s.b.log.RouteUpTo(before); err != nil {
		return err
	}
	s.b.log.WithView(func(pos storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answering = true
		for i := range subs {
			s.addSubLocked(subs[i], pos)
		}
		s.memo = nil
		s.subsGen++
	})
	return nil
}

// addSubLocked adds or replaces one subscription at pos; the view is held.
func (s *session) addSubLocked(x storage.Sub, pos storage.Pos) {
	old := s.subs[x.Filter]
	x.Since = pos
	if old != nil {
		x.Since = old.Since // nothing is lost by replacing [MQTT-3.8.4-4]
	}
	sub := &subscription{Sub: x, match: newMatch(&x)}
	s.subs[x.Filter] = sub // [MQTT-3.8.4-3], [MQTT311-3.8.4-3]
	s.b.router.trie.Set(x.Filter, s, sub)
	s.b.router.changed()
	s.dropRetainedLocked(func(t *retainTask) bool { return t.sub == old })
	if x.RetainHandling == 0 || x.RetainHandling == 1 && old == nil { // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT311-3.3.1-6]
		s.retained = append(s.retained, &retainTask{sub: sub, before: pos})
		if wantsSys(x.Filter) {
			s.sysNew = append(s.sysNew, x)
		}
	}
	if wantsSys(x.Filter) {
		s.wantsSys.Store(true)
	}
}

// handleUnsubscribe removes subscriptions in the same order: log, view,
// answer.
func (s *session) handleUnsubscribe(f packet.Frame) error {
	var p packet.Unsubscribe
	if err := p.Decode(s.version, f.Flags, f.Body); err != nil {
		return err
	}
	codes := make([]packet.ReasonCode, len(p.Filters))
	for i, filter := range p.Filters {
		if s.shares.all[filter] == nil || slices.Contains(p.Filters[:i], filter) {
			codes[i] = packet.NoSubscriptionExisted
		}
	}
	if err := s.b.groups.unsubscribe(s, p.Filters); err != nil {
		return err
	}
	if s.logged {
		s.mu.Lock()
		s.beginAppendLocked()
		s.mu.Unlock()
		defer s.endAppend()
		// Those of groups are in the log already; this waits for them, too.
		own := slices.DeleteFunc(slices.Clone(p.Filters), func(f string) bool { _, shared, _ := topic.ParseShared(f); return shared })
		var err error
		if len(own) > 0 {
			err = s.appendEvent(storage.EventUnsubscribed(s.id, own))
		} else {
			err = s.b.awaitEvents(s.b.log.Head(), nil)
		}
		if err != nil {
			return err
		}
	}
	s.b.log.WithView(func(storage.Pos) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, filter := range p.Filters {
			if sub := s.subs[filter]; sub != nil { // literally equal [MQTT-3.10.4-1], [MQTT311-3.10.4-1]
				s.dropRetainedLocked(func(t *retainTask) bool { return t.sub == sub })
				codes[i] = packet.Success
				delete(s.subs, filter)
				s.b.router.trie.Delete(filter, s)
			}
		}
		s.b.router.changed() // [MQTT-3.10.4-2], [MQTT311-3.10.4-2]
		s.memo = nil
		s.subsGen++
	})
	ack := packet.Unsuback{PacketID: p.PacketID, Codes: codes} // [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6], [MQTT311-3.10.4-4], [MQTT311-3.10.4-5], [MQTT311-3.10.4-6]
	return s.replyLimited(&ack)
}
