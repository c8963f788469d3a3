//go:build linux

package load

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stallLimit is how long nothing may happen before what is outstanding is
// given up as lost.
const stallLimit = 5 * time.Second

// Run does a scenario to a broker. What went wrong is in the result.
func Run(s Scenario, target Target) Result {
	result := Result{Broker: target.Name}
	err := s.complete()
	result.Scenario = s.String()
	if err == nil {
		err = run(&s, target, &result)
	}
	if err != nil {
		result.Error = err.Error()
	}
	return result
}

func run(s *Scenario, target Target, result *Result) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A sleep of 200 µs is to end after 200 µs and not 50 later. The setting
	// is the thread's and does no harm to what runs on it afterwards.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)

	l, err := NewLoop(s.Pause)
	if err != nil {
		return err
	}
	defer l.Close()
	r := &runner{
		Scenario: s,
		target:   target,
		loop:     l,
		result:   result,
		topics:   s.topicNames(),
		meter:    meter{target: target},
	}
	defer r.judge()
	switch s.Kind {
	case Store:
		return r.store()
	case Offline:
		return r.offline()
	case Retained:
		return r.retained()
	case Idle:
		return r.idle()
	}
	return r.online()
}

// runner is one run of a scenario.
type runner struct {
	*Scenario
	target      Target
	loop        *Loop
	result      *Result
	topics      [][]string
	traffic     traffic
	meter       meter
	publishers  []*publisher
	subscribers []*subscriber
	feeds       [][]int // by subscriber: the publishers it receives from; nil is all
}

// judge adds up the faults that all subscribers have seen.
func (r *runner) judge() {
	f := r.traffic.faults
	for i, sub := range r.subscribers {
		published := make([]uint32, len(r.publishers)*r.Topics)
		feeds := r.feeds[i]
		for p, pub := range r.publishers {
			if feeds == nil || len(feeds) == 1 && feeds[0] == p {
				copy(published[p*r.Topics:], pub.published)
			}
		}
		f.add(sub.check.Faults(published))
	}
	r.result.Faults = f
}

// connectPublishers connects them without letting them publish yet.
func (r *runner) connectPublishers() error {
	r.traffic.limit = uint64(r.Outstanding)
	clients := make([]client, r.Publishers)
	for i := range clients {
		p := newPublisher(r.loop, r.Scenario, &r.traffic, i, r.topics[i])
		r.publishers = append(r.publishers, p)
		clients[i] = client{id: fmt.Sprintf("bench-pub-%d", i), clean: true, role: p}
	}
	conns, err := r.loop.connect(r.target.Addr, r.Version, clients)
	if err != nil {
		return err
	}
	for i, c := range conns {
		r.publishers[i].conn = c
		r.publishers[i].limitWindow(c.receiveMaximum)
		r.loop.sources = append(r.loop.sources, r.publishers[i])
	}
	return nil
}

// subscriberClients returns n clients that check what they receive.
func (r *runner) subscriberClients(n int, clean bool, filter func(i int) string) []client {
	clients := make([]client, n)
	for i := range clients {
		sub := newSubscriber(r.Scenario, &r.traffic, r.topics)
		r.subscribers = append(r.subscribers, sub)
		r.feeds = append(r.feeds, nil)
		clients[i] = client{
			id: fmt.Sprintf("bench-sub-%d", i), clean: clean, filter: filter(i), qos: r.QoS, role: sub,
		}
	}
	return clients
}

// online publishes to live subscribers, or to none, for the measured time.
func (r *runner) online() error {
	clients := r.subscriberClients(r.Subscribers, true, func(i int) string {
		if r.Kind == Pairs {
			r.feeds[i] = []int{i}
			return fmt.Sprintf("bench/%d/#", i)
		}
		return "bench/#"
	})
	if r.Kind == Pairs || r.Kind == FanIn {
		r.traffic.fanout = 1
	} else {
		r.traffic.fanout = uint64(r.Subscribers)
	}
	if _, err := r.loop.connect(r.target.Addr, r.Version, clients); err != nil {
		return err
	}
	if err := r.connectPublishers(); err != nil {
		return err
	}
	r.release()
	if err := r.forAWhile(r.Warm); err != nil {
		return err
	}
	r.traffic.latency.Reset()
	before := r.done()
	if err := r.meter.start(); err != nil {
		return err
	}
	if err := r.forAWhile(r.Measure); err != nil {
		return err
	}
	phase, err := r.meter.stop(string(r.Kind), r.done()-before)
	if err != nil {
		return err
	}
	phase.latency(&r.traffic.latency)
	r.result.Phases = append(r.result.Phases, phase)
	r.hold()
	return r.settle("deliver the rest")
}

// done counts what the scenario is about: deliveries if there are any.
func (r *runner) done() uint64 {
	if r.traffic.fanout == 0 {
		return r.traffic.acked
	}
	return r.traffic.delivered
}

// release lets the publishers go.
func (r *runner) release() {
	if r.Rate > 0 {
		r.loop.tick()
		plan := &schedule{publishers: r.publishers, interval: 1e9 / r.Rate, start: r.loop.now, running: true}
		for _, p := range r.publishers {
			p.schedule = plan
		}
		return
	}
	for _, p := range r.publishers {
		p.remaining = 1 << 62
	}
}

// hold stops the publishers.
func (r *runner) hold() {
	for _, p := range r.publishers {
		p.remaining = 0
		p.due = p.due[:0]
		if p.schedule != nil {
			p.schedule.running = false
		}
	}
}

// forAWhile makes passes for a time.
func (r *runner) forAWhile(d time.Duration) error {
	r.loop.tick()
	end := r.loop.now + int64(d)
	return r.loop.run(d+stallLimit, "load", func() bool { return r.loop.now >= end })
}

// settle waits until nothing is outstanding, or nothing has come for a while.
// What is missing then is found by the checkers, so it is no error here,
// except for acknowledgements, which nothing else looks at.
func (r *runner) settle(what string) error {
	last, since := r.traffic.delivered+r.traffic.acked, r.loop.now
	err := r.loop.run(time.Hour, what, func() bool {
		if progress := r.traffic.delivered + r.traffic.acked; progress != last {
			last, since = progress, r.loop.now
		}
		return r.traffic.settled(r.QoS) || r.loop.now-since > int64(stallLimit)
	})
	if err == nil && r.QoS > 0 && r.traffic.acked < r.traffic.published {
		err = fmt.Errorf("%s: %d messages were never acknowledged", what, r.traffic.published-r.traffic.acked)
	}
	if err != nil {
		return err
	}
	// Repetitions come after everything that was waited for: look for them.
	return r.forAWhile(50 * time.Millisecond)
}
