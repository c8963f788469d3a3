//go:build linux

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"cairnmq/bench/broker"
	"cairnmq/bench/wire"
)

// startLimit is how long a broker may take to accept its first client.
const startLimit = 10 * time.Minute

// Start starts a broker and waits until it has accepted an MQTT client. It
// returns how long that took from the start of the program. Refused attempts
// to connect are repeated every half millisecond.
func Start(s broker.Spec, dir string, port int) (*broker.Process, time.Duration, error) {
	p, err := broker.Start(s, dir, port)
	if err != nil {
		return nil, 0, err
	}
	took, err := await(p)
	if err != nil {
		output := p.Output()
		p.Kill()
		return nil, 0, fmt.Errorf("%w\n%s", err, output)
	}
	return p, took, nil
}

func await(p *broker.Process) (time.Duration, error) {
	for {
		err := greet(TargetOf(p))
		took := time.Since(p.Started)
		switch {
		case err == nil:
			return took, nil
		case p.Ended():
			return 0, fmt.Errorf("%s ended before it accepted a client", p.Name)
		case !errors.Is(err, unix.ECONNREFUSED) || took > startLimit:
			return 0, fmt.Errorf("%s: %w", p.Name, err)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// greet connects one client and lets it go.
func greet(t Target) error {
	l, err := NewLoop(0)
	if err != nil {
		return err
	}
	defer l.Close()
	_, err = l.connect(t, wire.V311, []client{{id: "bench-first", clean: true}})
	return err
}

// TargetOf returns a running broker as a target.
func TargetOf(p *broker.Process) Target {
	return Target{Name: p.Name, Addr: netip.MustParseAddrPort(p.Addr), PID: p.PID(), KeepAlive: p.KeepAlive}
}
