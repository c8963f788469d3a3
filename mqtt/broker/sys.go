package broker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairnmq/mqtt/packet"
	proto "cairnmq/mqtt/session"
	"cairnmq/mqtt/topic"
	"cairnmq/storage"
)

// The $SYS topics are not messages of the log: an idle broker would fill a
// flash card with them. They are made for the sessions that are connected and
// have subscribed to them, at an interval and when somebody subscribes, with
// QoS 0. Nobody gets an old one.

const sysPrefix = "$SYS/broker/"

// sysLimit is how many bytes may wait for a client before a round of $SYS is
// left out for it. The next one says all that this one would have.
const sysLimit = 16 << 10

// sysTree are the topics and what they said last.
type sysTree struct {
	mu      sync.Mutex
	started time.Time
	values  []sysValue // sorted by topic
	at      time.Time  // when they were made; zero: never
	loads   map[string]*load
	loadsAt time.Time
	heapMax uint64
}

type sysValue struct{ topic, value string }

func newSysTree(now time.Time) *sysTree {
	return &sysTree{started: now, loadsAt: now, loads: make(map[string]*load)}
}

// reporting is the goroutine that makes the $SYS topics.
func (b *Broker) reporting() {
	defer b.kept.Done()
	t := time.NewTicker(b.cfg.Sys.Interval.Std())
	defer t.Stop()
	for {
		select {
		case <-t.C:
			b.reportSys()
		case <-b.ctx.Done():
			return
		}
	}
}

// reportSys sends what has changed to whoever wants it.
func (b *Broker) reportSys() {
	now := b.now()
	x := b.sys
	x.mu.Lock()
	defer x.mu.Unlock()
	x.observeLocked(&b.stats, now)
	var wanting []*session
	for _, s := range b.clients.all() {
		if s.wantsSys.Load() {
			wanting = append(wanting, s)
		}
	}
	if len(wanting) == 0 {
		return // to find the values out costs something
	}
	changed := b.refreshSysLocked(now)
	for _, s := range wanting {
		s.sendSys(changed)
	}
}

// refreshSysLocked finds the values out and returns those that have changed. A
// topic that is gone has an empty value.
func (b *Broker) refreshSysLocked(now time.Time) (changed []sysValue) {
	old := make(map[string]string, len(b.sys.values))
	for _, v := range b.sys.values {
		old[v.topic] = v.value
	}
	b.sys.values, b.sys.at = b.sysValuesLocked(now), now
	for _, v := range b.sys.values {
		if last, ok := old[v.topic]; !ok || last != v.value {
			changed = append(changed, v)
		}
		delete(old, v.topic)
	}
	for name, last := range old {
		if last != "" {
			changed = append(changed, sysValue{topic: name})
		}
	}
	return changed
}

// sendSys sends values that match the session's subscriptions, each once
// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4].
func (s *session) sendSys(values []sysValue) {
	s.mu.Lock()
	var filters []*subscription
	for f, sub := range s.subs {
		if wantsSys(f) {
			filters = append(filters, sub)
		}
	}
	var d packet.Delivery
	for _, v := range values {
		d = packet.Delivery{Topic: []byte(v.topic), Payload: []byte(v.value)}
		wanted := false
		for _, sub := range filters {
			if !topic.Match(sub.Filter, v.topic) {
				continue
			}
			wanted = true
			d.Retain = d.Retain || sub.RetainAsPublished // [MQTT-3.3.1-13]
			if sub.ID != 0 {
				d.SubscriptionIDs = append(d.SubscriptionIDs, sub.ID)
			}
		}
		if wanted {
			s.queueSysLocked(&d)
		}
	}
	s.mu.Unlock()
	s.kick(false)
}

// sysRetained sends the values to a client that has just subscribed, as the
// retained messages that they stand for.
func (s *session) sysRetained() {
	b := s.b
	s.mu.Lock()
	subs := s.sysNew
	s.sysNew = nil
	s.mu.Unlock()
	if len(subs) == 0 || b.cfg.Sys.Interval == 0 {
		return
	}
	b.sys.mu.Lock()
	now := b.now()
	if since := now.Sub(b.sys.at); since < 0 || since >= b.cfg.Sys.Interval.Std() {
		b.refreshSysLocked(now)
	}
	values := b.sys.values
	b.sys.mu.Unlock()
	s.mu.Lock()
	for i := range subs {
		for _, v := range values {
			if topic.Match(subs[i].Filter, v.topic) {
				d := packet.Delivery{Topic: []byte(v.topic), Payload: []byte(v.value), Retain: true}
				if subs[i].ID != 0 {
					d.SubscriptionIDs = []uint32{subs[i].ID}
				}
				s.queueSysLocked(&d)
			}
		}
	}
	s.mu.Unlock()
}

func (s *session) queueSysLocked(d *packet.Delivery) {
	if s.farewell || s.closed || len(s.ctrl) > sysLimit || d.Size(s.version) > s.limit() { // [MQTT-3.1.2-24]
		return
	}
	s.ctrl = d.Append(s.ctrl, s.version)
	s.b.stats.publishOut.Add(1)
	s.b.stats.packetsOut.Add(1)
}

// wantsSys reports whether a filter can match a $SYS topic: wildcards at its
// beginning do not [MQTT-4.7.2-1].
func wantsSys(filter string) bool { return filter == "$SYS" || strings.HasPrefix(filter, "$SYS/") }

// observeLocked moves the averages on.
func (x *sysTree) observeLocked(t *stats, now time.Time) {
	passed := now.Sub(x.loadsAt)
	x.loadsAt = now
	for name, count := range map[string]int64{
		"bytes/received": t.bytesIn.Load(), "bytes/sent": t.bytesOut.Load(),
		"messages/received": t.packetsIn.Load(), "messages/sent": t.packetsOut.Load(),
		"publish/received": t.publishIn.Load(), "publish/sent": t.publishOut.Load(), "publish/dropped": t.publishDropped.Load(),
		"sockets": t.sockets.Load(), "connections": t.connections.Load(),
	} {
		l := x.loads[name]
		if l == nil {
			l = new(load)
			x.loads[name] = l
		}
		l.observe(count, passed)
	}
}

// sysValuesLocked finds out what all topics say.
func (b *Broker) sysValuesLocked(now time.Time) []sysValue {
	var list []sysValue
	text := func(name, value string) { list = append(list, sysValue{sysPrefix + name, value}) }
	number := func(name string, n int64) { text(name, strconv.FormatInt(n, 10)) }
	text("version", "cairnmq version "+version())
	text("uptime", fmt.Sprintf("%d seconds", int64(now.Sub(b.sys.started)/time.Second)))

	t := &b.stats
	number("bytes/received", t.bytesIn.Load())
	number("bytes/sent", t.bytesOut.Load())
	number("messages/received", t.packetsIn.Load())
	number("messages/sent", t.packetsOut.Load())
	number("publish/messages/received", t.publishIn.Load())
	number("publish/messages/sent", t.publishOut.Load())
	number("publish/messages/dropped", t.publishDropped.Load())
	number("publish/bytes/received", t.payloadIn.Load())
	for name, l := range b.sys.loads {
		for i, of := range loadTimes {
			text("load/"+name+"/"+of.name, strconv.FormatFloat(l.average[i], 'f', 2, 64))
		}
	}
	heap := heapBytes()
	b.sys.heapMax = max(b.sys.heapMax, heap)
	number("heap/current", int64(heap))
	number("heap/maximum", int64(b.sys.heapMax))
	b.sysLog(number)
	b.sysReaders(text, number)
	slices.SortFunc(list, func(a, b sysValue) int { return cmp.Compare(a.topic, b.topic) })
	return list
}

// sysLog is what only a broker with a log can say.
func (b *Broker) sysLog(number func(string, int64)) {
	number("log/head", int64(b.log.Head()))
	number("log/committed", int64(b.log.Committed()))
	number("log/oldest", int64(b.log.Oldest()))
	number("store/messages/bytes", int64(b.log.Head()-b.log.Oldest()))
	if c, err := b.log.Count(); err == nil {
		number("log/checkpoint", int64(c.Checkpoint))
		number("log/segments", int64(c.Segments))
		number("log/losses/rows", int64(c.Losses))
		number("log/losses/messages", int64(c.Lost))
		number("store/messages/count", int64(c.Messages))
		number("messages/stored", int64(c.Messages))
		number("retained messages/count", int64(c.Retained))
	} else {
		b.brokerLog.Warn("cannot count for $SYS", "error", err)
	}
	if u, err := b.log.Usage(); err == nil {
		number("log/disk/bytes", u.Total())
		number("log/disk/budget", u.Budget)
		if u.Free >= 0 {
			number("log/disk/free", u.Free)
		}
	}
}

// lag is how far a reader is behind.
type lag struct {
	Client   string      `json:"client"`
	Online   bool        `json:"online"`
	Bytes    int64       `json:"bytes"`
	Position storage.Pos `json:"position"`
}

// sysReaders says who is how far behind. There may be a hundred thousand, so
// only the worst have topics, by their rank.
func (b *Broker) sysReaders(text func(string, string), number func(string, int64)) {
	r := readers{committed: b.log.Committed(), most: b.cfg.Sys.Readers}
	online := b.clients.all()
	for _, s := range online {
		low, subs, inflight := s.progress()
		r.add(lag{Client: s.id, Online: true, Position: low}, subs, inflight)
	}
	err := b.log.Sessions(func(row *storage.SessionRow) error {
		if b.clients.get(row.ID) == nil {
			r.offline++
			r.add(lag{Client: row.ID, Position: row.Low()}, len(row.Subs), len(row.Inflight))
		}
		return nil
	})
	if err != nil {
		b.brokerLog.Warn("cannot read the sessions for $SYS", "error", err)
	}
	err = b.log.EachGroup(func(row *storage.GroupRow) {
		r.reads(lag{Client: row.Name, Online: row.Online, Position: row.Low()})
	})
	if err != nil {
		b.brokerLog.Warn("cannot read the shared subscriptions for $SYS", "error", err)
	}
	number("clients/connected", int64(len(online)))
	number("clients/disconnected", int64(r.offline))
	number("clients/total", int64(len(online)+r.offline))
	number("clients/maximum", b.stats.connectedMax.Load())
	number("clients/expired", b.stats.expired.Load())
	number("subscriptions/count", int64(r.subs))
	number("messages/inflight", int64(r.inflight))
	number("readers/count", int64(r.count))
	number("readers/lagging", int64(r.lagging))
	var worst int64
	if len(r.worst) > 0 {
		worst = r.worst[0].Bytes
	}
	number("readers/lag/maximum", worst)
	for i := range min(len(r.worst), b.cfg.Sys.Readers) {
		if line, err := json.Marshal(r.worst[i]); err == nil {
			text(fmt.Sprintf("readers/lag/%d", i+1), string(line))
		}
	}
}

// readers adds up.
type readers struct {
	committed                               storage.Pos
	most                                    int
	count, lagging, offline, subs, inflight int
	worst                                   []lag // the one that is furthest behind first
}

func (r *readers) add(x lag, subs, inflight int) {
	r.subs += subs
	r.inflight += inflight
	if subs == 0 && inflight == 0 {
		return // reads nothing
	}
	r.reads(x)
}

// reads takes a reader; what is behind a shared subscription is the group's
// and not its members'.
func (r *readers) reads(x lag) {
	r.count++
	if x.Position >= r.committed {
		return
	}
	r.lagging++
	x.Bytes = int64(r.committed - x.Position)
	at, _ := slices.BinarySearchFunc(r.worst, x, func(a, b lag) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Client, b.Client))
	})
	if most := max(1, r.most); at < most {
		r.worst = slices.Insert(r.worst, at, x)
		r.worst = r.worst[:min(len(r.worst), most)]
	}
}

// progress is the position before which the session has everything
// acknowledged, and what it has open.
func (s *session) progress() (low storage.Pos, subs, inflight int) {
	routed := s.b.router.handedOut()
	s.mu.Lock()
	defer s.mu.Unlock()
	low = s.cursorLocked(routed)
	s.win.Each(func(_ uint16, e proto.Entry) {
		inflight++
		if !e.Received {
			low = min(low, storage.Pos(e.Pos))
		}
	})
	return low, len(s.subs) + len(s.shares.all), inflight
}

// heapBytes is what the heap takes, which does not stop the world to find out.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// version is that of the build.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}
