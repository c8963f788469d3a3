//go:build linux

package load

import (
	"fmt"
	"time"
)

// sessionDrainLimit is how long the delivery of stored messages may take.
const sessionDrainLimit = 10 * time.Minute

// store publishes for sessions that are offline, then lets them come back.
func (r *runner) store() error {
	clients := r.subscriberClients(r.Subscribers, false, func(int) string { return "bench/#" })
	if err := r.leaveSessions(clients); err != nil {
		return err
	}
	if err := r.publishCount("publish"); err != nil {
		return err
	}
	return r.drain("drain", clients)
}

// offline publishes past sessions subscribed to everything, and lets one of
// them come back to see that the messages are there.
func (r *runner) offline() error {
	clients := r.subscriberClients(r.Subscribers, false, func(int) string { return "#" })
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
	clients := r.subscriberClients(1, true, func(int) string { return "#" })
	r.subscribers[0].retained = true
	return r.deliver("deliver", clients, uint64(r.Count))
}

// idle connects clients that do nothing, and watches the broker doing nothing.
func (r *runner) idle() error {
	if err := r.meter.start(); err != nil {
		return err
	}
	clients := make([]client, r.Subscribers)
	for i := range clients {
		clients[i] = client{
			id:     fmt.Sprintf("bench-idle-%d", i),
			clean:  !r.Persistent,
			filter: fmt.Sprintf("bench/idle/%d", i),
			qos:    r.QoS,
		}
	}
	if _, err := r.loop.connect(r.target.Addr, r.Version, clients); err != nil {
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

// leaveSessions makes persistent sessions with a subscription and goes away.
func (r *runner) leaveSessions(clients []client) error {
	const group = 1000 // connections at once
	for len(clients) > 0 {
		n := min(group, len(clients))
		conns, err := r.loop.connect(r.target.Addr, r.Version, clients[:n])
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

// publishCount publishes Count messages and waits for their acknowledgements.
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
	r.result.Phases = append(r.result.Phases, phase)
	return nil
}

// awaitAcks waits until Count messages are acknowledged.
func (r *runner) awaitAcks(what string) error {
	last, since := uint64(0), r.loop.now
	stalled := false
	err := r.loop.run(time.Hour, what, func() bool {
		if r.traffic.acked != last {
			last, since = r.traffic.acked, r.loop.now
		}
		stalled = r.loop.now-since > int64(stallLimit)
		return r.traffic.acked == uint64(r.Count) || stalled
	})
	if err == nil && stalled {
		err = fmt.Errorf("%s: %d of %d messages acknowledged, then none for %v", what, r.traffic.acked, r.Count, stallLimit)
	}
	return err
}

// drain lets sessions come back and receive what was stored for them.
func (r *runner) drain(name string, clients []client) error {
	for i := range clients {
		clients[i].filter = "" // the session has its subscription
	}
	return r.deliver(name, clients, uint64(r.Count)*uint64(len(clients)))
}

// deliver connects subscribers and waits until n messages have come.
func (r *runner) deliver(name string, clients []client, n uint64) error {
	r.traffic.latency.Reset()
	if err := r.meter.start(); err != nil {
		return err
	}
	conns, err := r.loop.connect(r.target.Addr, r.Version, clients)
	if err != nil {
		return err
	}
	for _, c := range conns {
		if !clients[0].clean && !c.sessionPresent {
			return fmt.Errorf("client %s: its session is gone", c.clientID)
		}
	}
	last, since := r.traffic.delivered, r.loop.now
	if err := r.loop.run(sessionDrainLimit, name, func() bool {
		if r.traffic.delivered != last {
			last, since = r.traffic.delivered, r.loop.now
		}
		return r.traffic.delivered >= n || r.loop.now-since > int64(stallLimit)
	}); err != nil {
		return err
	}
	phase, err := r.meter.stop(name, r.traffic.delivered)
	if err != nil {
		return err
	}
	r.result.Phases = append(r.result.Phases, phase)
	return r.forAWhile(50 * time.Millisecond) // for repetitions
}
