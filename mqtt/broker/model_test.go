package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cairnmq/mqtt/packet"
	"cairnmq/mqtt/topic"
)

// A small model of what a broker does that its clients can see: sessions,
// subscriptions, retained messages, wills, QoS. It is fed the same operations
// as the broker and says of every packet whether it may come, and afterwards
// whether everything has. It knows nothing of logs and cursors.
//
// Where MQTT leaves a choice, it allows both: what a crash may repeat at QoS 1
// or lose at QoS 0, and what a changed subscription does to messages that wait.

// note is a message as the model sees it.
type note struct {
	topic, payload string
	qos            byte
	retain         bool
	publisher      string
	expires        time.Duration // on the model's clock; zero: never
}

func (n *note) expired(now time.Duration) bool { return n.expires > 0 && now >= n.expires }

// awaited is a message that is to come to a session.
type awaited struct {
	*note
	qos      byte
	flag     bool // the retain flag
	retained bool // because of a subscription
	ids      []uint32
	optional bool // it may be lost
	sent     bool // it may have been sent on an earlier connection, so with DUP
	repeat   bool // it was acknowledged before a crash, and may come again, with DUP
	loose    bool // subscriptions have changed: QoS, flag and ids are not known
}

// flight is a message that the client has had and not completed.
type flight struct {
	id       uint16
	qos      byte
	payload  string
	topic    string
	ids      []uint32
	loose    bool // ids may be others in a repetition: subscriptions have changed, or it is a retained message
	received bool // PUBREC was sent
	released bool // PUBREL has come
	acked    bool // PUBACK or PUBCOMP was sent
	again    bool // to come again on this connection
}

type modelSub struct {
	packet.Subscription
	id uint32
}

type modelSession struct {
	id        string
	version   packet.Version
	persists  bool
	connected bool
	since     time.Duration // of the end of the connection
	subs      map[string]modelSub
	queue     []*awaited
	flights   []*flight
	inbound   map[uint16]bool // QoS 2 identifiers that the broker has and has not released
	// mayRelease are QoS 2 messages completed before a crash, whose PUBREL may
	// come again.
	mayRelease map[uint16]bool
	will       *note
	delay      time.Duration
	limit      int
}

// sessionLife is the expiry interval of kept sessions of MQTT 5.
const sessionLife = 3000 * time.Second

func (s *modelSession) life() time.Duration {
	switch {
	case !s.persists:
		return 0
	case s.version != packet.V5:
		return 1 << 62
	}
	return sessionLife
}

type model struct {
	now      time.Duration
	sessions map[string]*modelSession
	retained map[string]*note
}

func newModel() *model {
	return &model{sessions: map[string]*modelSession{}, retained: map[string]*note{}}
}

// publish is a message that the broker has taken.
func (m *model) publish(n *note) {
	if n.retain {
		if delete(m.retained, n.topic); n.payload != "" {
			m.retained[n.topic] = n
		}
	}
	for _, s := range m.sessions {
		var a *awaited
		for _, sub := range s.subs {
			if !topic.Match(sub.Filter, n.topic) || sub.NoLocal && n.publisher == s.id { // [MQTT-3.8.3-3]
				continue
			}
			if a == nil {
				a = &awaited{note: n}
			}
			a.qos = max(a.qos, min(sub.QoS, n.qos)) // [MQTT-3.3.4-2]
			a.flag = a.flag || sub.RetainAsPublished && n.retain
			if sub.id > 0 {
				a.ids = append(a.ids, sub.id)
			}
		}
		if a != nil {
			s.queue = append(s.queue, a)
		}
	}
}

// connect opens a session. present is what the CONNACK must say.
func (m *model) connect(id string, v packet.Version, keep bool, will *note, delay time.Duration, limit int) (present bool) {
	s := m.sessions[id]
	if s != nil && s.connected { // taken over [MQTT-3.1.4-3]
		m.lost(s, keep)
		s = m.sessions[id]
	}
	if s != nil && !keep {
		m.end(s) // [MQTT-3.1.2-4]
		s = nil
	}
	if present = s != nil; !present {
		s = &modelSession{id: id, subs: map[string]modelSub{}, inbound: map[uint16]bool{}, mayRelease: map[uint16]bool{}}
		m.sessions[id] = s
	}
	s.version, s.persists, s.connected, s.will, s.delay, s.limit = v, keep, true, will, delay, limit // [MQTT-3.1.3-9]
	for _, f := range s.flights {
		f.again = !f.acked
	}
	s.flights = slices.DeleteFunc(s.flights, func(f *flight) bool { return f.acked })
	return present
}

// end throws a session away; a will that waits is published now.
func (m *model) end(s *modelSession) {
	delete(m.sessions, s.id)
	if s.will != nil {
		m.publish(s.will)
		s.will = nil
	}
}

// disconnected says that a connection has ended without a will.
func (m *model) disconnected(s *modelSession) {
	s.will = nil // [MQTT-3.14.4-3]
	m.lost(s, true)
}

// lost says that a connection has ended. keep is false if another one with
// clean start has ended it.
func (m *model) lost(s *modelSession, keep bool) {
	s.connected, s.since = false, m.now
	for _, a := range s.queue {
		a.sent = true
		// Retained messages that have waited for room are not the session's.
		a.optional = a.optional || a.qos == 0 || a.retained
	}
	if s.life() == 0 {
		delete(m.sessions, s.id)
	}
	if s.will != nil && (s.delay == 0 || s.life() == 0 || !keep) {
		w := s.will
		s.will = nil
		m.publish(w)
	}
}

// pass moves the clock.
func (m *model) pass(d time.Duration) {
	m.now += d
	for _, s := range m.sessions {
		if s.connected {
			continue
		}
		if m.now-s.since >= s.life() {
			m.end(s)
		} else if s.will != nil && m.now-s.since >= s.delay {
			w := s.will
			s.will = nil
			m.publish(w)
		}
	}
}

// crash is the end of the broker without a word. Sessions that were open
// count as closed now.
func (m *model) crash() {
	for _, s := range m.sessions {
		for _, a := range s.queue {
			a.optional = a.optional || a.qos == 0 || a.retained
		}
	}
	m.lostAll()
}

func (m *model) lostAll() {
	var open []*modelSession
	for _, s := range m.sessions {
		if s.connected {
			open = append(open, s)
		}
	}
	// First all are gone, so that a will finds nobody there.
	for _, s := range open {
		w := s.will
		s.will = nil
		m.lost(s, true)
		s.will = w
	}
	for _, s := range open {
		if s.will != nil && (s.delay == 0 || s.life() == 0) {
			m.publish(s.will)
			s.will = nil
		}
	}
}

func (m *model) subscribe(s *modelSession, sub modelSub) {
	_, had := s.subs[sub.Filter]
	s.subs[sub.Filter] = sub
	m.loosen(s)
	if sub.RetainHandling == 2 || sub.RetainHandling == 1 && had { // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
		return
	}
	full := len(s.queue) > 0 || s.inFlight() >= s.limit
	for _, n := range m.retained {
		if !topic.Match(sub.Filter, n.topic) || sub.NoLocal && n.publisher == s.id || n.expired(m.now) {
			continue
		}
		a := &awaited{note: n, qos: min(sub.QoS, n.qos), flag: true, retained: true, optional: full, loose: full}
		if sub.id > 0 {
			a.ids = []uint32{sub.id}
		}
		s.queue = append(s.queue, a)
	}
}

func (m *model) unsubscribe(s *modelSession, filter string) (had bool) {
	_, had = s.subs[filter]
	delete(s.subs, filter)
	m.loosen(s)
	return had
}

// loosen: what waits while subscriptions change may come by the old ones or by
// the new ones, or not at all.
func (m *model) loosen(s *modelSession) {
	for _, a := range s.queue {
		a.loose, a.optional = true, true
	}
	for _, f := range s.flights {
		f.loose = true
	}
}

// inFlight counts what was sent on this connection and is not completed.
func (s *modelSession) inFlight() (n int) {
	for _, f := range s.flights {
		if !f.again && !f.acked {
			n++
		}
	}
	return n
}

// delivered judges a PUBLISH to a session. known is a repetition of a QoS 2
// message that the receiver has.
func (m *model) delivered(s *modelSession, p *packet.Publish) (known bool, err error) {
	if p.QoS > 0 {
		if i := slices.IndexFunc(s.flights, func(f *flight) bool { return f.id == p.PacketID }); i >= 0 {
			if f := s.flights[i]; p.Dup {
				return m.repeated(s, f, p)
			} else if !f.acked {
				return false, fmt.Errorf("identifier %d is in use", p.PacketID) // [MQTT-2.2.1-4]
			}
			s.flights = slices.Delete(s.flights, i, i+1)
		}
		if s.inFlight() >= s.limit {
			return false, fmt.Errorf("more than %d in flight", s.limit) // [MQTT-3.3.4-9]
		}
	}
	i := slices.IndexFunc(s.queue, func(a *awaited) bool { return a.fits(p) })
	if i < 0 {
		return false, fmt.Errorf("it is not due")
	}
	a := s.queue[i]
	for _, before := range s.queue[:i] {
		if before.topic == a.topic && before.qos == a.qos && before.retained == a.retained && !before.optional && !before.expired(m.now) {
			return false, fmt.Errorf("%q comes before it", before.payload) // [MQTT-4.6.0-6]
		}
	}
	if err := m.properties(s, a, p); err != nil {
		return false, err
	}
	s.queue = slices.DeleteFunc(s.queue, func(x *awaited) bool {
		return x == a || x.optional && !x.repeat && x.topic == a.topic && x.qos == a.qos && x.retained == a.retained && slices.Index(s.queue, x) < i
	})
	if p.QoS > 0 {
		s.flights = append(s.flights, &flight{id: p.PacketID, qos: p.QoS, payload: string(p.Payload), topic: string(p.Topic),
			ids: sortedIDs(p), loose: a.loose || a.retained})
	}
	return false, nil
}

// fits: topic and payload, and what is known of the rest.
func (a *awaited) fits(p *packet.Publish) bool {
	if p.Dup && !a.sent || a.repeat && !p.Dup { // [MQTT-3.3.1-1], [MQTT-3.3.1-3]
		return false
	}
	return a.topic == string(p.Topic) && a.payload == string(p.Payload) && (a.loose || a.qos == p.QoS && a.flag == p.Retain)
}

// repeated judges a PUBLISH with DUP.
func (m *model) repeated(s *modelSession, f *flight, p *packet.Publish) (known bool, err error) {
	switch {
	case f.payload != string(p.Payload) || f.topic != string(p.Topic) || f.qos != p.QoS:
		return false, fmt.Errorf("it is not what identifier %d was", p.PacketID)
	case f.received: // [MQTT-4.3.3-6]
		return false, fmt.Errorf("its PUBREC was sent")
	case !f.loose && !slices.Equal(f.ids, sortedIDs(p)): // [MQTT-3.3.4-3]
		return false, fmt.Errorf("subscription identifiers %d, they were %d", p.SubscriptionIDs, f.ids)
	}
	f.again = false
	return f.qos == 2, nil
}

func (m *model) properties(s *modelSession, a *awaited, p *packet.Publish) error {
	if a.expired(m.now) && !a.sent { // [MQTT-3.3.2-5]
		return fmt.Errorf("it has expired")
	}
	if s.version != packet.V5 || a.loose {
		return nil
	}
	if p.HasExpiry != (a.expires > 0) {
		return fmt.Errorf("expiry: %v", p.HasExpiry)
	}
	// What is left, give or take how long the test takes [MQTT-3.3.2-6].
	if left := a.expires - m.now; p.HasExpiry && left > 0 && (p.Expiry > uint32(left/time.Second) || p.Expiry+60 < uint32(left/time.Second)) {
		return fmt.Errorf("expiry %d, want %v", p.Expiry, left)
	}
	got, want := sortedIDs(p), slices.Sorted(slices.Values(a.ids))
	if !slices.Equal(got, want) && !(p.Dup && a.retained) { // [MQTT-3.3.4-3], [MQTT-3.3.4-4]
		return fmt.Errorf("subscription identifiers %d, want %d", got, want)
	}
	return nil
}

func sortedIDs(p *packet.Publish) []uint32 { return slices.Sorted(slices.Values(p.SubscriptionIDs)) }

// released judges a PUBREL.
func (m *model) released(s *modelSession, id uint16) error {
	i := slices.IndexFunc(s.flights, func(f *flight) bool { return f.id == id && f.qos == 2 })
	if i < 0 && s.mayRelease[id] {
		return nil
	}
	if i < 0 || !s.flights[i].received {
		return fmt.Errorf("PUBREL of identifier %d, whose PUBREC was not sent", id)
	}
	s.flights[i].again, s.flights[i].released = false, true
	return nil
}

// missing says what a session still has to get, now that the broker has
// nothing more to send.
func (m *model) missing(s *modelSession) error {
	if s.inFlight() >= s.limit {
		return nil // [MQTT-3.3.4-9]
	}
	for _, f := range s.flights {
		if f.again && !f.acked {
			return fmt.Errorf("%s: identifier %d with %q does not come again", s.id, f.id, f.payload) // [MQTT-4.4.0-1]
		}
	}
	var words []string
	for _, a := range s.queue {
		if !a.optional && !a.expired(m.now) {
			words = append(words, fmt.Sprintf("%s %q at QoS %d, flag %v", a.topic, a.payload, a.qos, a.flag))
		}
	}
	if len(words) > 0 {
		return fmt.Errorf("%s does not get %s", s.id, strings.Join(words, ", "))
	}
	s.queue = slices.DeleteFunc(s.queue, func(a *awaited) bool { return a.expired(m.now) || a.qos == 0 || !a.loose && a.optional })
	return nil
}
