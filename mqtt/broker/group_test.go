package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairnmq/mqtt/config"
	"cairnmq/mqtt/mqtttest"
	"cairnmq/mqtt/packet"
)

// crew are the members of a group, each read by a goroutine of its own.
type crew struct {
	t  *testing.T
	mu sync.Mutex
	// got are the payloads that each has received, in order; all counts them.
	got  map[string][]string
	all  map[string]int
	news *sync.Cond
}

func newCrew(t *testing.T) *crew {
	w := &crew{t: t, got: map[string][]string{}, all: map[string]int{}}
	w.news = sync.NewCond(&w.mu)
	return w
}

// add reads c until its connection ends, and acknowledges.
func (w *crew) add(c *mqtttest.Client) {
	go func() {
		for {
			p, err := c.TryNext()
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packet.Publish:
				w.note(c.ID, p)
				if p.QoS > 0 {
					_ = c.TrySend(ack([]packet.Type{packet.PUBACK, packet.PUBREC}[p.QoS-1], p.PacketID))
				}
			case *packet.Ack:
				_ = c.TrySend(ack(packet.PUBCOMP, p.PacketID))
			}
		}
	}()
}

func (w *crew) note(id string, p *packet.Publish) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[id] = append(w.got[id], string(p.Payload))
	w.all[string(p.Payload)]++
	w.news.Broadcast()
}

// await waits until so many different messages have come.
func (w *crew) await(n int) {
	w.t.Helper()
	late := time.AfterFunc(mqtttest.Patience, func() { w.mu.Lock(); w.news.Broadcast(); w.mu.Unlock() })
	defer late.Stop()
	deadline := time.Now().Add(mqtttest.Patience)
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.all) < n {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d messages have come", len(w.all), n)
		}
		w.news.Wait()
	}
}

// once fails if a message has come twice.
func (w *crew) once() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for m, n := range w.all {
		if n != 1 {
			w.t.Errorf("%q has come %d times", m, n)
		}
	}
}

// different is how many messages have come, each counted once.
func (w *crew) different() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

func strategy(s config.Strategy) func(*config.Config) {
	return func(c *config.Config) { c.Shared.Strategy = s }
}

// publishAll sends messages of a QoS in one piece and takes their answers.
func publishAll(p *mqtttest.Client, msgs ...*packet.Publish) {
	p.T.Helper()
	var b []byte
	for _, m := range msgs {
		if m.QoS > 0 {
			m.PacketID = p.NextID()
		}
		b = m.Append(b, p.Version)
	}
	p.SendRaw(b)
	for _, m := range msgs {
		switch m.QoS {
		case 1:
			p.Expect(ack(packet.PUBACK, m.PacketID))
		case 2:
			p.Expect(ack(packet.PUBREC, m.PacketID))
		}
	}
	for _, m := range msgs {
		if m.QoS == 2 {
			p.Send(ack(packet.PUBREL, m.PacketID))
			p.Expect(ack(packet.PUBCOMP, m.PacketID))
		}
	}
}

// burst are n messages whose payloads are their numbers from the given one
// on.
func burst(topic string, from, n int, qos byte) (list []*packet.Publish) {
	for i := range n {
		list = append(list, mqtttest.Message(topic, fmt.Sprint(from+i), qos))
	}
	return list
}

func TestSharedFiltersAreJudged(t *testing.T) { // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
	r := start(t, func(c *config.Config) { c.Limits.MaxTopicLevels = 4 })
	for _, v := range versions {
		c := r.connect(v, "c")
		filters := []string{"$share/g/a", "$share//a", "$share/", "$share/g", "$share/g/", "$share/a+b/x", "$share/#/x", "$share/g/a#",
			"$share/g/#/x", "$share/g/a/b/c/d", "$share/g/a/b/c/d/e"}
		bad := packet.TopicFilterInvalid
		p := &packet.Subscribe{PacketID: 1}
		for _, f := range filters {
			p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: f, QoS: 2})
		}
		c.Send(p)
		c.Expect(&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{2, bad, bad, bad, bad, bad, bad, bad, bad, 2, bad}})
		c.Send(&packet.Unsubscribe{PacketID: 2, Filters: []string{"$share/g/a", "$share/h/a", "$share/g/a/b/c/d", "$share//a"}})
		n := packet.NoSubscriptionExisted
		c.Expect(&packet.Unsuback{PacketID: 2, Codes: []packet.ReasonCode{0, n, 0, n}})
		c.Disconnect()
		r.away("c")
	}
}

// Whatever the strategy, the version and the QoS, each message goes to exactly
// one member.
func TestEachMessageGoesToOneMember(t *testing.T) {
	for _, how := range []config.Strategy{config.RoundRobin, config.Random, config.Sticky, config.HashClient, config.HashTopic, config.LeastInflight} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s qos %d", how, qos), func(t *testing.T) {
				r := start(t, strategy(how))
				w := newCrew(t)
				for i, v := range versions {
					c := r.connect(v, fmt.Sprint("m", i))
					c.Subscribe(2, "$share/g/t/+")
					w.add(c)
				}
				const publishers, each = 8, 30
				for i := range publishers {
					var list []*packet.Publish
					for j := range each {
						list = append(list, mqtttest.Message(fmt.Sprint("t/", j%10), fmt.Sprintf("p%d t%d %d", i, j%10, j), qos))
					}
					publishAll(r.connect(versions[i%3], fmt.Sprint("p", i)), list...)
				}
				w.await(publishers * each)
				w.once()
				w.mu.Lock()
				defer w.mu.Unlock()
				switch how {
				case config.RoundRobin:
					for id, list := range w.got {
						if len(list) != publishers*each/3 {
							t.Errorf("%s has had %d messages", id, len(list))
						}
					}
				case config.Random, config.LeastInflight:
					if len(w.got) != 3 {
						t.Errorf("members with messages: %v", slices.Collect(maps.Keys(w.got)))
					}
				case config.Sticky:
					if len(w.got) != 1 {
						t.Errorf("members with messages: %v", slices.Collect(maps.Keys(w.got)))
					}
				case config.HashClient, config.HashTopic:
					w.checkOwners(map[config.Strategy]int{config.HashClient: 0, config.HashTopic: 1}[how])
				}
			})
		}
	}
}

// checkOwners: each value of a word of the payloads belongs to one member, and
// there that of each publisher and topic is in order. The caller has the lock.
func (w *crew) checkOwners(word int) {
	owners := map[string]string{}
	for id, list := range w.got {
		last := map[string]int{}
		for _, m := range list {
			words := strings.Fields(m)
			if o := owners[words[word]]; o != "" && o != id {
				w.t.Errorf("%s is of %s and of %s", words[word], o, id)
			}
			owners[words[word]] = id
			var n int
			_, _ = fmt.Sscan(words[2], &n)
			key := words[0] + words[1]
			if before, ok := last[key]; ok && before >= n {
				w.t.Errorf("%s: %s behind %d", id, m, before)
			}
			last[key] = n
		}
	}
	if len(w.got) < 2 {
		w.t.Error("all belong to one member")
	}
}

// A member that does not acknowledge gets what its window takes and no more;
// nobody waits for it.
func TestAFullMemberIsPassedOver(t *testing.T) {
	for _, how := range []config.Strategy{config.RoundRobin, config.Random, config.Sticky, config.LeastInflight} {
		t.Run(string(how), func(t *testing.T) {
			r := start(t, strategy(how))
			slow := r.connect(packet.V5, "slow", mqtttest.ReceiveMaximum(3))
			slow.Subscribe(1, "$share/g/#")
			quick := r.connect(packet.V5, "quick")
			quick.Subscribe(1, "$share/g/#")
			w := newCrew(t)
			w.add(quick)
			p := r.connect(packet.V5, "p")
			const n = 100
			publishAll(p, burst("t", 0, n, 1)...)
			w.await(n - 3) // all but what is in the window of slow
			var held []*packet.Publish
			for range 3 {
				held = append(held, mqtttest.Expect[*packet.Publish](slow))
			}
			slow.ExpectNothing()
			w.once()
			quick.Drop()
			r.away("quick")
			publishAll(p, burst("t", n, 5, 1)...)
			for _, m := range held { // and what it had not acknowledged, comes again
				w.note("slow", m)
				slow.Send(ack(packet.PUBACK, m.PacketID))
			}
			for w.different() < n+5 {
				m := mqtttest.Expect[*packet.Publish](slow)
				w.note("slow", m)
				slow.Send(ack(packet.PUBACK, m.PacketID))
			}
		})
	}
}

func TestLeastInflightIsTheOneWithTheFewest(t *testing.T) {
	r := start(t, strategy(config.LeastInflight))
	lazy := r.connect(packet.V5, "lazy")
	lazy.Subscribe(1, "$share/g/#")
	busy := r.connect(packet.V5, "busy")
	busy.Subscribe(1, "$share/g/#")
	p := r.connect(packet.V5, "p")
	p.Publish(mqtttest.Message("t", "0", 1))
	mqtttest.Expect[*packet.Publish](lazy) // not acknowledged
	for i := range 50 {
		p.Publish(mqtttest.Message("t", fmt.Sprint(i+1), 1))
		busy.Receive("t", fmt.Sprint(i+1), 1)
		busy.Ping() // the acknowledgement has been taken
	}
	lazy.ExpectNothing()
}

// topicsOf sorts topics by the member that they belong to.
func (r *rig) topicsOf(name string, n int) map[string][]string {
	r.t.Helper()
	g := r.groups.live[name]
	if g == nil {
		r.t.Fatalf("no group %s", name)
	}
	list := map[string][]string{}
	g.acquire()
	defer g.release()
	for i := range n {
		topic := fmt.Sprint("t/", i)
		m := owner(g.members, hashOf(topic))
		list[m.s.id] = append(list[m.s.id], topic)
	}
	return list
}

// With a hash, the messages of a topic wait for their member while it is full,
// in order; those of others do not wait for it, up to a limit.
func TestAHashWaitsForItsMember(t *testing.T) {
	for _, over := range []bool{false, true} {
		r := start(t, strategy(config.HashTopic), func(c *config.Config) { c.Sessions.Outbox = 16 })
		const name = "$share/g/t/+"
		slow := r.connect(packet.V5, "slow", mqtttest.ReceiveMaximum(1))
		slow.Subscribe(1, name)
		quick := r.connect(packet.V5, "quick")
		quick.Subscribe(1, name)
		topics := r.topicsOf(name, 40)
		p := r.connect(packet.V5, "p")
		n := 10
		if over {
			n = 100 // more than may be set aside
		}
		publishAll(p, burst(topics["slow"][0], 0, n, 1)...)
		publishAll(p, burst(topics["quick"][0], 0, 5, 1)...)
		if !over {
			for i := range 5 {
				quick.Receive(topics["quick"][0], fmt.Sprint(i), 1)
			}
		}
		for i := range n {
			slow.Receive(topics["slow"][0], fmt.Sprint(i), 1)
		}
		if over {
			for i := range 5 {
				quick.Receive(topics["quick"][0], fmt.Sprint(i), 1)
			}
		}
		slow.ExpectNothing()
		quick.ExpectNothing()
	}
}

// When a member comes or goes, only what was or becomes its own moves.
func TestAHashMovesOnlyWhatItMust(t *testing.T) {
	r := start(t, strategy(config.HashTopic))
	const name, topics = "$share/g/t/+", 300
	owners := func() map[string]string {
		m := map[string]string{}
		for id, list := range r.topicsOf(name, topics) {
			for _, topic := range list {
				m[topic] = id
			}
		}
		return m
	}
	clients := map[string]*mqtttest.Client{}
	for _, id := range []string{"a", "b", "c"} {
		clients[id] = r.connect(packet.V5, id)
		clients[id].Subscribe(1, name)
	}
	three := owners()
	d := r.connect(packet.V5, "d")
	d.Subscribe(1, name)
	four := owners()
	count := map[string]int{}
	for topic, id := range four {
		count[id]++
		if id != "d" && id != three[topic] {
			t.Errorf("%s has moved from %s to %s", topic, three[topic], id)
		}
	}
	for id, n := range count {
		if n < topics/4/2 || n > topics/4*2 {
			t.Errorf("%s has %d of %d topics", id, n, topics)
		}
	}
	r.drop(d)
	if !maps.Equal(owners(), three) {
		t.Error("not as before")
	}
}
