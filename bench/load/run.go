//go:build linux

package load

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stallLimit is how long nothing may happen before what is outstanding is
// given up as lost.
const stallLimit = 5 * time.Second

// ErrNotHere is wrapped when this machine does not permit a scenario.
var ErrNotHere = errors.New("not possible on this machine")

// ErrInterrupted is wrapped when Target.Stop was closed.
var ErrInterrupted = errors.New("interrupted")

// Run does a scenario to a broker. What went wrong is in the result.
func Run(s Scenario, target Target) Result {
	result := Result{Broker: target.Name}
	err := s.complete()
	result.Scenario = s.String()
	if err == nil {
		err = raiseFileLimit(s.files())
	}
	if err == nil {
		err = run(&s, target, &result)
	}
	result.fail(err)
	return result
}

func (r *Result) fail(err error) {
	switch {
	case errors.Is(err, ErrNotHere):
		r.Skipped = err.Error()
	case err != nil:
		r.Error = err.Error()
	}
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
	l.stop = target.Stop
	r := &runner{
		Scenario: s,
		target:   target,
		loop:     l,
		result:   result,
		topics:   s.topicNames(),
		meter:    meter{target: target},
	}
	err = r.play()
	r.judge()
	if s.CleanUp {
		err = errors.Join(err, r.cleanUp())
	}
	return err
}

// play does what the kind of scenario asks for.
func (r *runner) play() error {
	switch r.Kind {
	case Store:
		return r.store()
	case Offline:
		return r.offline()
	case Retained:
		return r.retained()
	case Idle:
		return r.idle()
	case Kill:
		return r.kill()
	case Beside:
		return r.beside()
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
	group       *group   // of the subscribers, if they share
	sessions    []string // clients whose sessions were left behind
}

// judge adds up the faults that all subscribers have seen.
func (r *runner) judge() {
	f := r.traffic.faults
	published := make([]uint32, r.Publishers*r.Topics)
	for p, pub := range r.publishers {
		copy(published[p*r.Topics:], pub.published)
	}
	for _, sub := range r.subscribers {
		f.add(sub.check.Faults(published))
	}
	if r.group != nil {
		f.add(r.group.faults(published))
	}
	r.result.Faults.add(f)
}

// connectPublishers connects them without letting them publish yet.
func (r *runner) connectPublishers() error {
	r.traffic.limit = uint64(r.Outstanding)
	clients := make([]client, r.Publishers)
	for i := range clients {
		p := newPublisher(r.loop, r.Scenario, &r.traffic, i, r.topics[i])
		r.publishers = append(r.publishers, p)
		clients[i] = client{id: fmt.Sprintf("%s-pub-%d", r.Prefix, i), clean: true, role: p}
	}
	conns, err := r.loop.connect(r.target, r.Version, clients)
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

// subscriberClients returns n clients that check what they receive. Of each
// filters says what it subscribes to.
func (r *runner) subscriberClients(n int, clean bool, filters func(i int) []string) []client {
	clients := make([]client, n)
	for i := range clients {
		sub := newSubscriber(r.Scenario, &r.traffic, r.topics)
		r.subscribers = append(r.subscribers, sub)
		clients[i] = client{
			id: fmt.Sprintf("%s-sub-%d", r.Prefix, i), clean: clean, filters: filters(i), qos: r.QoS, role: sub,
		}
	}
	return clients
}

// everything returns the filter for all topics of the run.
func (r *runner) everything(int) []string { return []string{r.Prefix + "/#"} }

// liveClients returns the subscribers of a scenario whose subscribers are
// there all the time.
func (r *runner) liveClients() []client {
	r.traffic.fanout = 1
	part := func(i, first, end int) {
		r.subscribers[i].check = newPartChecker(r.Topics, first, end)
	}
	filters := r.everything
	switch r.Kind {
	case Pairs, Beside:
		filters = func(i int) []string {
			part(i, i*r.Topics, (i+1)*r.Topics)
			return []string{fmt.Sprintf("%s/%d/#", r.Prefix, i)}
		}
	case Subs:
		filters = func(i int) []string {
			first := i * perSubscriber
			end := min(first+perSubscriber, r.Publishers*r.Topics)
			part(i, first, end)
			return r.mixedFilters(first, end)
		}
	case Shared:
		r.group = newGroup(r.Publishers * r.Topics)
		filters = func(i int) []string {
			r.subscribers[i].check.group = r.group
			return []string{"$share/" + r.Prefix + "/" + r.Prefix + "/#"}
		}
	case FanIn:
	default:
		r.traffic.fanout = uint64(r.Subscribers)
	}
	return r.subscriberClients(r.Subscribers, true, filters)
}

// mixedFilters returns a filter for each topic from first up to end, which
// nothing else matches: plain ones and, more often, ones with a wildcard in
// front or at the end.
func (r *runner) mixedFilters(first, end int) []string {
	filters := make([]string, 0, end-first)
	for i := first; i < end; i++ {
		topic := r.topics[i/r.Topics][i%r.Topics]
		switch i % 3 {
		case 1:
			topic = "+" + topic[len(r.Prefix):]
		case 2:
			topic += "/#"
		}
		filters = append(filters, topic)
	}
	return filters
}

// online publishes to live subscribers, or to none, for the measured time.
func (r *runner) online() error {
	if _, err := r.loop.connect(r.target, r.Version, r.idleClients(r.Bystanders)); err != nil {
		return err
	}
	clients := r.liveClients()
	if _, err := r.loop.connect(r.target, r.Version, clients); err != nil {
		return err
	}
	if err := r.connectPublishers(); err != nil {
		return err
	}
	r.release()
	if err := r.forAWhile(r.Warm); err != nil {
		return err
	}
	if err := r.measure(string(r.Kind)); err != nil {
		return err
	}
	r.hold()
	return r.settle("deliver the rest")
}

// measure takes the figures of the load that is running.
func (r *runner) measure(name string) error {
	r.traffic.latency.Reset()
	r.traffic.late.Reset()
	before := r.done()
	if err := r.meter.start(); err != nil {
		return err
	}
	// A machine with other things to do may not even get to one message.
	r.loop.tick()
	end := r.loop.now + int64(r.Measure)
	enough := func() bool { return r.loop.now >= end && r.done()-before >= max(r.least, 1) }
	if err := r.loop.run(r.Measure+stallLimit, name, enough); err != nil {
		return err
	}
	phase, err := r.meter.stop(name, r.done()-before)
	if err != nil {
		return err
	}
	phase.latency(&r.traffic.latency)
	phase.Late99 = millis(r.traffic.late.Quantile(0.99))
	phase.Payload = int64(phase.Messages) * int64(r.Size)
	r.result.Phases = append(r.result.Phases, phase)
	return nil
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
