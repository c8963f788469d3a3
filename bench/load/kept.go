//go:build linux

package load

import (
	"fmt"
	"runtime"
)

// Kept is messages that a broker holds for an offline session, and the
// knowledge of what they were.
type Kept struct {
	runner  *runner
	clients []client
}

// Keep does the first half of a store scenario: it makes the sessions and
// publishes for them.
func Keep(s Scenario, target Target) (*Kept, Phase, error) {
	if err := s.complete(); err != nil {
		return nil, Phase{}, err
	}
	k := &Kept{}
	r := &runner{Scenario: &s, result: &Result{}, topics: s.topicNames()}
	k.runner = r
	err := k.with(target, func() (err error) {
		k.clients, err = r.keep()
		return err
	})
	if err != nil {
		return nil, Phase{}, err
	}
	return k, r.result.Phases[0], nil
}

// Deliver does the second half, perhaps after the broker was started anew: the
// sessions come back and get their messages.
func (k *Kept) Deliver(target Target) Result {
	r := k.runner
	r.result = &Result{Scenario: r.String(), Broker: target.Name}
	err := k.with(target, func() error { return r.drain("drain", k.clients) })
	if err != nil {
		r.result.Error = err.Error()
	}
	r.judge()
	return *r.result
}

// with gives the runner a loop for the time of do.
func (k *Kept) with(target Target, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, err := NewLoop(k.runner.Pause)
	if err != nil {
		return err
	}
	defer l.Close()
	k.runner.loop, k.runner.target, k.runner.meter.target = l, target, target
	return do()
}

// LeaveSessions makes n persistent sessions subscribed to filter, and leaves
// them offline.
func LeaveSessions(target Target, n int, filter string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, err := NewLoop(0)
	if err != nil {
		return err
	}
	defer l.Close()
	s := Default()
	r := &runner{Scenario: &s, target: target, loop: l}
	clients := make([]client, n)
	for i := range clients {
		clients[i] = client{id: fmt.Sprintf("bench-offline-%d", i), filters: []string{filter}, qos: 1}
	}
	return r.leaveSessions(clients)
}
