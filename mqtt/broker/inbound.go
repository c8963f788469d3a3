package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"cairnmq/mqtt/logging"
	"cairnmq/mqtt/packet"
	"cairnmq/storage"
)

// batch is what the reader has parsed out of one buffer and not yet
// committed: one append, one sync if need be, one write of acknowledgements.
type batch struct {
	msgs  []storage.Message
	acks  []pubAck // in the order of the PUBLISH packets [MQTT-4.6.0-2]
	qos2  []qos2   // QoS 2 messages in msgs
	props []byte   // end-to-end properties that had to be put together

	publish packet.Publish // the one that is being handled

	released []uint16 // PUBREL, in order
	unknown  []uint16 // PUBREL of an identifier that was not there

	puback  []uint16 // outbound QoS 1 done
	refused []ackRef // PUBREC of 0x80 or more
	pubrec  []uint16
	pubcomp []uint16

	publishes, dropped int // how many came, and how many of them nobody may publish

	unacked int    // QoS 1 messages in msgs
	event   []byte // the last EventAcked, used again
}

// pubAck is an answer that a PUBLISH waits for.
type pubAck struct {
	typ packet.Type
	id  uint16
	// msg is the index of the message, or -1 for an answer that depends on
	// no append, with code.
	msg  int
	code packet.ReasonCode
}

// qos2 is a message that is received once it is in the log, and not before:
// else a crash in between would make of its repetition a duplicate.
type qos2 struct {
	id  uint16
	msg int
}

// maxQoS2 bounds how many are in one batch: they are searched.
const maxQoS2 = 256

type ackRef struct {
	id  uint16
	qos uint8
}

func (b *batch) empty() bool {
	return len(b.acks)+len(b.msgs)+len(b.released)+len(b.unknown)+len(b.puback)+len(b.refused)+len(b.pubrec)+len(b.pubcomp) == 0
}

func (b *batch) reset() {
	clear(b.msgs) // let go of the read buffer
	b.msgs, b.acks, b.qos2, b.props = b.msgs[:0], b.acks[:0], b.qos2[:0], b.props[:0]
	b.released, b.unknown = b.released[:0], b.unknown[:0]
	b.puback, b.refused, b.pubrec, b.pubcomp = b.puback[:0], b.refused[:0], b.pubrec[:0], b.pubcomp[:0]
	b.unacked, b.publishes, b.dropped = 0, 0, 0
	if cap(b.props) > readBufSize {
		b.props = nil
	}
}

// batches are those of connections that have nothing to handle just now: an
// idle connection holds none.
var batches = sync.Pool{New: func() any { return new(batch) }}

// errDisconnect ends the read loop after a DISCONNECT of the client.
var errDisconnect = errors.New("client disconnected")

// readLoop handles packets until the connection ends.
func (s *session) readLoop() error {
	for s.awaitCtrl() {
		if err := s.handleBuffered(); err != nil {
			return err
		}
		if !s.awaitReceipt() {
			break
		}
		err := s.c.fill()
		switch {
		case err == nil:
			s.c.touch()
		case !s.c.parkAsked(err):
			return err
		case s.c.park(s.b.lot, s.resumeFn):
			return errParked
		}
	}
	return net.ErrClosed // whoever ends the connection has said why
}

// handleBuffered parses every whole packet in the read buffer and commits
// them together: the slices in the batch are of the buffer.
func (s *session) handleBuffered() error {
	s.in = batches.Get().(*batch)
	defer func() {
		s.in.reset()
		s.in.publish = packet.Publish{} // let go of the read buffer
		batches.Put(s.in)
		s.in = nil
	}()
	c := s.c
	packets := 0
	defer func() { s.b.stats.packetsIn.Add(int64(packets)) }()
	for c.r < c.w {
		f, ok, err := c.frame()
		if err == nil && !ok {
			break
		}
		if err == nil {
			err = s.handle(f)
		}
		if err != nil {
			s.at = packet.Type(c.buf[c.r] >> 4)
			// What came before it is still good.
			return errors.Join(err, s.commit())
		}
		c.consumed(f.Size)
		packets++
	}
	err := s.commit()
	if c.r == c.w {
		s.received()
	}
	s.kick(true)
	return err
}

// handle takes one packet. PUBLISH and the acknowledgements are collected;
// everything else first commits what was collected, so that effects keep the
// order of the packets.
func (s *session) handle(f packet.Frame) error {
	switch f.Type {
	case packet.PUBLISH:
		return s.handlePublish(f)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		return s.handleAck(f)
	}
	if err := s.commit(); err != nil {
		return err
	}
	switch f.Type {
	case packet.SUBSCRIBE:
		return s.handleSubscribe(f)
	case packet.UNSUBSCRIBE:
		return s.handleUnsubscribe(f)
	case packet.PINGREQ:
		var p packet.Pingreq
		if err := p.Decode(s.version, f.Flags, f.Body); err != nil {
			return err
		}
		s.reply(packet.AppendPingresp(nil)) // [MQTT-3.12.4-1], [MQTT311-3.12.4-1]
		return nil
	case packet.DISCONNECT:
		return s.handleDisconnect(f)
	case packet.AUTH:
		return s.handleAuth(f)
	case packet.CONNECT:
		return &packet.Error{Code: packet.ProtocolError, Reason: "second CONNECT", Cite: "MQTT-3.1.0-2"} // [MQTT-3.2.0-2], [MQTT311-3.1.0-2]
	}
	return &packet.Error{Code: packet.ProtocolError, Reason: f.Type.String() + " is not for a server"}
}

func (s *session) handlePublish(f packet.Frame) error {
	in := s.in
	p := &in.publish
	if err := p.Decode(s.version, f.Flags, f.Body); err != nil {
		return err
	}
	if err := s.resolveAlias(p); err != nil {
		return err
	}
	in.publishes++
	refusal := s.b.refusal(p.Topic)
	if refusal == 0 && p.HasPayloadFormat && !s.b.formatHolds(p.PayloadFormat, p.Payload) {
		refusal = packet.PayloadFormatInvalid
	}
	if refusal != 0 {
		in.dropped++
	}
	switch p.QoS { // [MQTT-3.3.4-1], [MQTT311-3.3.4-1]
	case 0:
		if refusal == 0 {
			in.add(s.id, p)
		}
		return nil
	case 1:
		if err := s.checkReceiveMaximum(); err != nil {
			return err
		}
		in.unacked++
		in.admit(packet.PUBACK, s.id, p, refusal)
		return nil
	}
	return s.admitQoS2(p, refusal)
}

// add puts a message into the batch, whose slices are those of the packet.
func (b *batch) add(publisher string, p *packet.Publish) *storage.Message {
	n := len(b.msgs)
	if n == cap(b.msgs) {
		b.msgs = append(b.msgs, storage.Message{})
	} else {
		b.msgs = b.msgs[:n+1] // cleared by reset
	}
	m := &b.msgs[n]
	m.Publisher, m.Topic, m.Props, m.Payload = publisher, p.Topic, p.Props, p.Payload
	m.QoS, m.Retain, m.HasExpiry, m.Expiry = p.QoS, p.Retain, p.HasExpiry, p.Expiry // [MQTT-3.3.1-3], [MQTT311-3.3.1-3]
	if p.HopByHop {
		n := len(b.props)
		b.props = p.AppendEndToEnd(b.props)
		m.Props = b.props[n:len(b.props):len(b.props)]
	}
	return m
}

// admit puts a message and the answer that it waits for into the batch.
func (b *batch) admit(typ packet.Type, publisher string, p *packet.Publish, refusal packet.ReasonCode) {
	a := pubAck{typ: typ, id: p.PacketID, msg: -1, code: refusal} // [MQTT311-2.3.1-6]
	if refusal == 0 {
		a.msg = len(b.msgs)
		b.add(publisher, p)
	}
	b.acks = append(b.acks, a)
}

func (s *session) admitQoS2(p *packet.Publish, refusal packet.ReasonCode) error {
	in, id := s.in, p.PacketID
	if refusal != 0 {
		in.admit(packet.PUBREC, s.id, p, refusal) // [MQTT-4.3.3-9], [MQTT311-3.3.5-2]: the identifier stays free
		return nil
	}
	if s.inbound.Has(id) { // [MQTT-4.3.3-10], [MQTT311-4.3.3-2]
		in.acks = append(in.acks, pubAck{typ: packet.PUBREC, id: id, msg: -1})
		return nil
	}
	if i := in.findQoS2(id); i >= 0 {
		in.acks = append(in.acks, pubAck{typ: packet.PUBREC, id: id, msg: in.qos2[i].msg})
		return nil
	}
	if err := s.checkReceiveMaximum(); err != nil {
		return err
	}
	if slices.Contains(in.released, id) || len(in.qos2) == maxQoS2 {
		// The identifier is used again: its release must be in the log before
		// the new message. The slices of p are of the read buffer, which stays.
		if err := s.commit(); err != nil {
			return err
		}
	}
	in.qos2 = append(in.qos2, qos2{id, len(in.msgs)}) // [MQTT-4.3.3-13]
	in.admit(packet.PUBREC, s.id, p, 0)
	if s.logged {
		in.msgs[len(in.msgs)-1].PacketID = id
	}
	return nil
}

func (b *batch) findQoS2(id uint16) int {
	return slices.IndexFunc(b.qos2, func(q qos2) bool { return q.id == id })
}

// checkReceiveMaximum: one more message that we have not answered than we said
// we would take can only come from a client that does not count
// [MQTT-3.3.4-7].
func (s *session) checkReceiveMaximum() error {
	if s.version != packet.V5 || s.in.unacked+len(s.in.qos2)+s.inbound.Len() < s.limits.ReceiveMaximum {
		return nil
	}
	return &packet.Error{Code: packet.ReceiveMaximumExceeded, Reason: "more messages in flight than Receive Maximum", Cite: "MQTT-3.3.4-7"}
}

// resolveAlias replaces an alias by its topic, or remembers it.
func (s *session) resolveAlias(p *packet.Publish) error {
	if !p.HasTopicAlias {
		return nil
	}
	limit := s.b.cfg.Limits.MaxTopicAlias
	if int(p.TopicAlias) > limit { // [MQTT-3.3.2-9], [MQTT-3.3.2-12]
		return &packet.Error{Code: packet.TopicAliasInvalid, Reason: fmt.Sprintf("topic alias %d is above the maximum of %d", p.TopicAlias, limit), Cite: "MQTT-3.3.2-9"}
	}
	if s.aliases == nil {
		s.aliases = make([][]byte, limit+1)
	}
	if len(p.Topic) > 0 {
		s.aliases[p.TopicAlias] = append(s.aliases[p.TopicAlias][:0:0], p.Topic...)
		return nil
	}
	p.Topic = s.aliases[p.TopicAlias]
	if len(p.Topic) == 0 {
		return &packet.Error{Code: packet.ProtocolError, Reason: fmt.Sprintf("topic alias %d was not set on this connection", p.TopicAlias), Cite: "MQTT-3.3.2-7"}
	}
	return nil
}

var slash = []byte{'/'}

// formatHolds reports whether a payload is what its format indicator says, if
// that is to be looked at.
func (b *Broker) formatHolds(format byte, payload []byte) bool {
	return format == 0 || !b.cfg.Limits.CheckPayloadFormat || utf8.Valid(payload)
}

// refusal is the reason why nobody may publish to a topic, or zero.
func (b *Broker) refusal(name []byte) packet.ReasonCode {
	if name[0] == '$' { // they are the server's
		return packet.NotAuthorized
	}
	limit := b.cfg.Limits.MaxTopicLevels
	if len(name) >= limit && bytes.Count(name, slash) >= limit {
		return packet.TopicNameInvalid
	}
	return 0
}

func (s *session) handleAck(f packet.Frame) error {
	var a packet.Ack
	if err := a.Decode(s.version, f.Type, f.Flags, f.Body); err != nil {
		return err
	}
	in := s.in
	switch f.Type {
	case packet.PUBACK:
		in.puback = append(in.puback, a.PacketID) // 0x80 or more counts as well [MQTT-4.4.0-2], [MQTT-4.8.2-6]
	case packet.PUBREC:
		if a.Code.IsError() {
			in.refused = append(in.refused, ackRef{a.PacketID, 2})
		} else {
			in.pubrec = append(in.pubrec, a.PacketID)
		}
	case packet.PUBCOMP:
		in.pubcomp = append(in.pubcomp, a.PacketID)
	case packet.PUBREL:
		if in.findQoS2(a.PacketID) >= 0 {
			if err := s.commit(); err != nil {
				return err
			}
		}
		s.mu.Lock()
		known := s.inbound.Remove(a.PacketID) // [MQTT-4.3.3-12], [MQTT311-4.3.3-2]
		s.mu.Unlock()
		if known {
			in.released = append(in.released, a.PacketID)
		} else {
			in.unknown = append(in.unknown, a.PacketID)
		}
	}
	return nil
}

// commit carries out what was collected. The order is the broker's promise:
// append, wait for the class, answer; then route.
func (s *session) commit() error {
	in := s.in
	if in.empty() {
		return nil
	}
	defer in.reset()
	s.b.stats.came(in)
	if len(in.msgs) > 0 {
		if err := s.store(); err != nil {
			return err
		}
		defer s.b.log.Advance()
	}
	if err := s.release(); err != nil {
		return err
	}
	if err := s.acknowledged(); err != nil {
		return err
	}
	s.answer()
	s.kick(true)
	return nil
}

// store appends the batch's messages and waits until they meet their class.
// Before MQTT 5 there is no way to say no: the publisher is held back until
// there is room.
func (s *session) store() error {
	err := s.tryStore(false)
	for held := false; err == nil; held = true {
		if err := s.cannotTake(); err != nil {
			return err
		}
		i := firstRefused(s.in.msgs)
		switch {
		case i < 0:
			s.noteRefused()
			return nil
		case s.version == packet.V5:
			s.countRefused()
			return nil
		case !held:
			s.log.Warn("no room: publisher held back", logging.KeyPacket, "PUBLISH", "why", s.in.msgs[i].Err)
		}
		s.b.log.Advance()
		if err = s.awaitRoom(s.in.msgs[i].Err); err == nil {
			err = s.tryStore(true)
		}
	}
	return err
}

// tryStore is one attempt, with all messages or, again, with those that had
// no room.
func (s *session) tryStore(again bool) error {
	in := s.in
	msgs := in.msgs
	var at []int
	if again {
		msgs = nil
		for i := range in.msgs {
			if in.msgs[i].Err != nil {
				msgs, at = append(msgs, in.msgs[i]), append(at, i)
			}
		}
	}
	s.mu.Lock()
	s.beginAppendLocked()
	s.mu.Unlock()
	defer s.endAppend()
	end, class, err := s.b.log.AppendMessages(msgs)
	if err == nil {
		err = s.b.log.Wait(end, class)
	}
	if err != nil {
		return err
	}
	for j, i := range at {
		in.msgs[i].Err = msgs[j].Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range in.qos2 {
		if in.msgs[q.msg].Err == nil {
			s.inbound.Add(q.id)
		}
	}
	return nil
}

// countRefused adds up what a publisher of MQTT 5 was refused, or, with QoS 0,
// was not even told; noteRefused writes it down once there is room again or
// the connection ends.
func (s *session) countRefused() {
	for i := range s.in.msgs {
		m := &s.in.msgs[i]
		if m.Err == nil {
			continue
		}
		x := s.refused
		if x == nil {
			x = &storage.Loss{Cause: storage.CauseRefused, From: s.b.log.Head(), Detail: "published by " + s.id}
			s.refused = x
		}
		x.To = s.b.log.Head()
		x.Count++
		x.Bytes += uint64(len(m.Topic) + len(m.Props) + len(m.Payload))
		s.b.stats.publishDropped.Add(1)
	}
}

func (s *session) noteRefused() {
	if s.refused == nil {
		return
	}
	if err := s.b.log.RecordLoss(*s.refused); err != nil {
		s.log.Error("cannot write the loss ledger", "error", err)
		return
	}
	s.refused = nil
}

// firstRefused is the index of the first message that is not in the log, or -1.
func firstRefused(msgs []storage.Message) int {
	for i := range msgs {
		if msgs[i].Err != nil {
			return i
		}
	}
	return -1
}

// cannotTake ends the connection of a publisher that waiting would not help
// and that cannot be told: before MQTT 5 every answer means yes.
func (s *session) cannotTake() error {
	i := firstRefused(s.in.msgs)
	if s.version == packet.V5 || i < 0 {
		return nil
	}
	for _, m := range s.in.msgs[i:] {
		if errors.Is(m.Err, storage.ErrTooLarge) || errors.Is(m.Err, storage.ErrUnmappable) {
			return &packet.Error{Code: packet.PacketTooLarge, Reason: m.Err.Error()}
		}
	}
	return nil
}

// roomPoll bounds the wait for what no event tells of, such as a rule's share.
const roomPoll = 500 * time.Millisecond

// awaitRoom waits for room, and gives up when the connection is to end.
func (s *session) awaitRoom(why error) error {
	ctx, cancel := context.WithTimeout(s.b.ctx, roomPoll)
	defer cancel()
	if err := s.b.log.WaitRoom(ctx); err == nil && (errors.Is(why, storage.ErrQuota) || errors.Is(why, storage.ErrLarge)) {
		<-ctx.Done() // a rule's share, or room for this one alone: look again after a while
	}
	return s.waiting()
}

// waiting is called now and then while the reader waits for something of ours:
// nothing is read, so a closed peer is not noticed, and a keep alive must not
// end it either. The error is why to stop.
func (s *session) waiting() error {
	s.c.touch()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reason.set {
		return errDisconnect
	}
	return s.b.ctx.Err()
}

// release writes down which identifiers are free again, before the PUBCOMPs
// say so.
func (s *session) release() error {
	in := s.in
	if len(in.released) == 0 || !s.logged {
		return nil
	}
	s.mu.Lock()
	s.beginAppendLocked()
	s.mu.Unlock()
	defer s.endAppend()
	return s.appendEvent(storage.EventReleased(nil, s.id, in.released))
}

// ackEvery is how many acknowledgements of a subscriber are collected before
// they are written down. After a crash as many may be repeated.
const ackEvery = 512

// acknowledged takes the subscriber's acknowledgements. PUBRECs are in the
// log before a PUBREL leaves.
func (s *session) acknowledged() error {
	in := s.in
	if len(in.puback)+len(in.refused)+len(in.pubrec)+len(in.pubcomp) == 0 {
		return nil
	}
	defer s.madeRoom()
	s.mu.Lock()
	for _, id := range in.puback {
		if s.win.Acknowledged(id, 1) {
			s.noteAckLocked(id, true)
		}
	}
	for _, r := range in.refused {
		if s.win.Acknowledged(r.id, r.qos) {
			s.noteAckLocked(r.id, true)
		}
	}
	for _, id := range in.pubcomp {
		if s.win.Completed(id) {
			s.noteAckLocked(id, true)
		}
	}
	mustLog := false
	for _, id := range in.pubrec {
		first, ok := s.win.Received(id)
		if !ok {
			in.acks = append(in.acks, pubAck{typ: packet.PUBREL, id: id, msg: -1, code: packet.PacketIdentifierNotFound})
			continue
		}
		in.acks = append(in.acks, pubAck{typ: packet.PUBREL, id: id, msg: -1}) // [MQTT-4.3.3-4]
		if first {
			s.noteAckLocked(id, false)
			mustLog = true
		}
	}
	if !s.logged || !mustLog && len(s.acks) < ackEvery {
		s.mu.Unlock()
		return nil
	}
	e := storage.EventAcked(in.event[:0], s.id, s.acks)
	in.event = e.Body
	s.acks = s.acks[:0]
	s.beginAppendLocked()
	s.mu.Unlock()
	defer s.endAppend()
	return s.appendEvent(e)
}

func (s *session) noteAckLocked(id uint16, done bool) {
	s.dirty = true
	if s.logged {
		s.acks = append(s.acks, storage.Acked{ID: id, Done: done})
	}
}

// answer queues the acknowledgements of the batch.
func (s *session) answer() {
	in := s.in
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.farewell { // [MQTT-3.14.4-1]
		return
	}
	s.b.stats.packetsOut.Add(int64(len(in.acks) + len(in.released) + len(in.unknown)))
	for _, a := range in.acks {
		code := a.code
		if a.msg >= 0 {
			code = result(in.msgs[a.msg].Err) // [MQTT-4.3.2-4], [MQTT-4.3.3-8], [MQTT311-4.3.2-2]
		}
		s.ctrl = packet.AppendAck(s.ctrl, s.version, a.typ, a.id, code) // [MQTT-4.3.2-5]
	}
	for _, id := range in.released { // [MQTT-4.3.3-11], [MQTT-4.3.3-12]
		s.ctrl = packet.AppendAck(s.ctrl, s.version, packet.PUBCOMP, id, packet.Success)
	}
	for _, id := range in.unknown {
		s.ctrl = packet.AppendAck(s.ctrl, s.version, packet.PUBCOMP, id, packet.PacketIdentifierNotFound)
	}
}

// result turns the outcome of an append into a reason code.
func result(err error) packet.ReasonCode {
	switch {
	case err == nil:
		return packet.Success
	case errors.Is(err, storage.ErrTooLarge):
		return packet.ImplementationSpecificError
	}
	return packet.QuotaExceeded
}

func (s *session) handleDisconnect(f packet.Frame) error {
	var d packet.Disconnect
	if err := d.Decode(s.version, f.Flags, f.Body); err != nil {
		return err
	}
	if e := d.Props.SessionExpiry; e != nil {
		if s.connExpiry == 0 && *e != 0 {
			return &packet.Error{Code: packet.ProtocolError, Reason: "session expiry interval in DISCONNECT after zero in CONNECT", Cite: "MQTT5 3.14.2.2.2"}
		}
		s.mu.Lock()
		s.expiry = s.b.capExpiry(*e)
		s.mu.Unlock()
	}
	s.mu.Lock()
	if !s.reason.set {
		s.reason = closeReason{set: true, normal: d.Code == packet.NormalDisconnection, text: "client disconnected: " + d.Code.String()}
	}
	s.mu.Unlock()
	return errDisconnect
}
