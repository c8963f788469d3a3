//go:build linux

package load

import (
	"errors"
	"fmt"
	"time"

	"cairnmq/bench/broker"
)

// sessionGroup is how many clients are connected at once to make sessions.
const sessionGroup = 1000

// sessionDrainLimit is how long the delivery of stored messages may take.
const sessionDrainLimit = 10 * time.Minute

// store publishes for sessions that are offline, then lets them come back.
func (r *runner) store() error {
	clients, err := r.keep()
	if err != nil {
		return err
	}
	return r.drain("drain", clients)
}

// keep makes the sessions and publishes for them.
func (r *runner) keep() ([]client, error) {
	clients := r.subscriberClients(r.Subscribers, false, r.everything)
	if err := r.leaveSessions(clients); err != nil {
		return nil, err
	}
	return clients, r.publishCount("publish")
}

// kill publishes for a session that is offline, kills the broker as soon as
// the last message is acknowledged, and looks for all of them when it is back.
func (r *runner) kill() error {
	if r.target.Restart == nil {
		return errors.New("this scenario kills the broker, so it is only for one that was started here")
	}
	clients, err := r.keep()
	if err != nil {
		return err
	}
	target, took, err := r.target.Restart()
	if err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	for _, p := range r.publishers {
		r.loop.drop(p.conn)
	}
	r.target, r.meter.target = target, target
	phase := Phase{Name: Restarted, Messages: uint64(r.Count), Seconds: took.Seconds()}
	if target.PID != 0 {
		usage, err := broker.ReadUsage(target.PID)
		if err != nil {
			return err
		}
		phase.RSSAnon, phase.RSSFile = usage.RSSAnon, usage.RSSFile
	}
	r.result.Phases = append(r.result.Phases, phase)
	return r.drain("drain", clients)
}

// beside measures latency at a fixed rate twice, alone and while another
// session slowly takes a backlog.
func (r *runner) beside() error {
	stored := *r.Scenario
	stored.Kind, stored.Prefix = Store, r.Prefix+"-backlog"
	stored.Subscribers, stored.Rate, stored.Pause = 1, 0, Default().Pause
	stored.Size, stored.Count, stored.Outstanding = r.BacklogSize, int(r.Backlog/int64(r.BacklogSize)), 0
	if err := stored.complete(); err != nil {
		return err
	}
	b := &runner{Scenario: &stored, target: r.target, loop: r.loop, result: r.result, topics: stored.topicNames(), meter: r.meter}
	defer func() {
		b.judge()
		r.sessions = append(r.sessions, b.sessions...)
	}()
	r.loop.Pause = stored.Pause
	clients, err := b.keep()
	if err != nil {
		return err
	}
	r.loop.Pause = r.Pause
	if _, err := r.loop.connect(r.target, r.Version, r.liveClients()); err != nil {
		return err
	}
	if err := r.connectPublishers(); err != nil {
		return err
	}
	r.release()
	if err := r.forAWhile(r.Warm); err != nil {
		return err
	}
	if err := r.measure("alone"); err != nil {
		return err
	}
	clients[0].filters = nil // the session has its subscription
	clients[0].slowRate = float64(r.SlowRate)
	conns, err := r.loop.connect(r.target, r.Version, clients)
	if err != nil {
		return err
	}
	if err := r.forAWhile(r.Warm); err != nil {
		return err
	}
	if err := r.measure("beside"); err != nil {
		return err
	}
	if b.traffic.delivered >= uint64(stored.Count) {
		return fmt.Errorf("the backlog of %d bytes was gone before the measuring was over", r.Backlog)
	}
	r.hold()
	if err := r.settle("deliver the rest"); err != nil {
		return err
	}
	if err := r.loop.speedUp(conns[0]); err != nil {
		return err
	}
	r.loop.Pause = stored.Pause
	if err := b.meter.start(); err != nil {
		return err
	}
	return b.receiveRest("drain", uint64(stored.Count), b.traffic.delivered)
}

// offline publishes past sessions subscribed to everything, and lets one of
// them come back to see that the messages are there.
func (r *runner) offline() error {
	clients := r.subscriberClients(r.Subscribers, false, func(int) []string { return []string{r.Filter} })
	if err := r.leaveSessions(clients); err != nil {
		return err
	}
	if err := r.publishCount("publish"); err != nil {
		return err
	}
	if len(clients) == 0 {
		return nil
	}
	r.subscribers = r.subscribers[:1]
	return r.drain("drain1", clients[:1])
}

// retained sets a message on every topic, then subscribes to all of them.
func (r *runner) retained() error {
	if err := r.publishCount("set"); err != nil {
		return err
	}
	clients := r.subscriberClients(1, true, func(int) []string { return []string{r.Filter} })
	r.subscribers[0].retained = true
	return r.deliver("deliver", clients, r.traffic.published)
}

// idle connects clients that do nothing, and watches the broker doing nothing.
func (r *runner) idle() error {
	if err := r.meter.start(); err != nil {
		return err
	}
	clients := r.idleClients(r.Subscribers)
	if _, err := r.loop.connect(r.target, r.Version, clients); err != nil {
		return err
	}
	phase, err := r.meter.stop("connect", uint64(len(clients)))
	if err != nil {
		return err
	}
	r.result.Phases = append(r.result.Phases, phase)

	before := r.meter.usage.RSSAnon
	if err := r.forAWhile(r.Warm); err != nil {
		return err
	}
	if err := r.meter.start(); err != nil {
		return err
	}
	if err := r.forAWhile(r.Measure); err != nil {
		return err
	}
	if phase, err = r.meter.stop("idle", 0); err != nil {
		return err
	}
	phase.AnonGrowth = float64(phase.RSSAnon-before) / float64(len(clients))
	phase.CPU, phase.GenCPU = 0, 0
	r.result.Phases = append(r.result.Phases, phase)
	return nil
}

// idleClients returns n clients with a subscription that nothing matches.
func (r *runner) idleClients(n int) []client {
	clients := make([]client, n)
	for i := range clients {
		clients[i] = client{
			id:      fmt.Sprintf("%s-idle-%d", r.Prefix, i),
			clean:   !r.Persistent,
			filters: []string{fmt.Sprintf("%s-idle/%d", r.Prefix, i)},
			qos:     r.QoS,
		}
		if r.Persistent {
			r.sessions = append(r.sessions, clients[i].id)
		}
	}
	return clients
}

// leaveSessions makes persistent sessions with a subscription and goes away.
func (r *runner) leaveSessions(clients []client) error {
	for i := range clients {
		r.sessions = append(r.sessions, clients[i].id)
	}
	for len(clients) > 0 {
		n := min(sessionGroup, len(clients))
		conns, err := r.loop.connect(r.target, r.Version, clients[:n])
		if err != nil {
			return err
		}
		if err := r.loop.disconnect(conns); err != nil {
			return err
		}
		clients = clients[n:]
	}
	return nil
}

// publishCount publishes Count messages, or what Limit permits, and waits for
// their acknowledgements.
func (r *runner) publishCount(name string) error {
	if err := r.connectPublishers(); err != nil {
		return err
	}
	if err := r.meter.start(); err != nil {
		return err
	}
	for i, p := range r.publishers {
		p.remaining = uint64((r.Count + i) / len(r.publishers))
	}
	if err := r.awaitAcks(name); err != nil {
		return err
	}
	phase, err := r.meter.stop(name, r.traffic.acked)
	if err != nil {
		return err
	}
	phase.latency(&r.traffic.latency)
	phase.Payload = int64(phase.Messages) * int64(r.Size)
	r.result.Phases = append(r.result.Phases, phase)
	return nil
}

// awaitAcks waits until everything that is to be published is acknowledged.
func (r *runner) awaitAcks(what string) error {
	r.loop.tick()
	began := r.loop.now
	last, since := uint64(0), began
	goal := uint64(r.Count)
	stalled := false
	err := r.loop.run(time.Hour, what, func() bool {
		if r.traffic.acked != last {
			last, since = r.traffic.acked, r.loop.now
		}
		if r.Limit > 0 && r.loop.now-began > int64(r.Limit) {
			r.hold()
			goal = r.traffic.published
		}
		stalled = r.loop.now-since > int64(stallLimit)
		return r.traffic.acked == goal || stalled
	})
	if err == nil && stalled {
		err = fmt.Errorf("%s: %d of %d messages acknowledged, then none for %v", what, r.traffic.acked, goal, stallLimit)
	}
	return err
}

// drain lets sessions come back and receive what was stored for them.
func (r *runner) drain(name string, clients []client) error {
	for i := range clients {
		clients[i].filters = nil // the session has its subscription
	}
	return r.deliver(name, clients, r.traffic.published*uint64(len(clients)))
}

// deliver connects subscribers and waits until n messages have come.
func (r *runner) deliver(name string, clients []client, n uint64) error {
	if err := r.meter.start(); err != nil {
		return err
	}
	conns, err := r.loop.connect(r.target, r.Version, clients)
	if err != nil {
		return err
	}
	for _, c := range conns {
		if !clients[0].clean && !c.sessionPresent {
			return fmt.Errorf("client %s: its session is gone, and with it %d messages", c.clientID, r.traffic.published)
		}
	}
	return r.receiveRest(name, n, 0)
}

// receiveRest waits until n messages have come, and ends the phase that the
// meter has begun when there were so many.
func (r *runner) receiveRest(name string, n, before uint64) error {
	last, since := r.traffic.delivered, r.loop.now
	if err := r.loop.run(sessionDrainLimit, name, func() bool {
		if r.traffic.delivered != last {
			last, since = r.traffic.delivered, r.loop.now
		}
		return r.traffic.delivered >= n || r.loop.now-since > int64(stallLimit)
	}); err != nil {
		return err
	}
	phase, err := r.meter.stop(name, r.traffic.delivered-before)
	if err != nil {
		return err
	}
	phase.Payload = int64(phase.Messages) * int64(r.Size)
	r.result.Phases = append(r.result.Phases, phase)
	return r.forAWhile(50 * time.Millisecond) // for repetitions
}
