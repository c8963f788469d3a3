//go:build linux

package load

import (
	"context"
	"os"
	"time"

	"cairnmq/bench/broker"
)

// stopLimit is how long a broker may take to end when asked to.
const stopLimit = 30 * time.Second

// RunFresh does a scenario to a broker that is started for it, with an empty
// data directory below dir (the temporary directory if that is ""), and stopped
// afterwards, also when ctx ends. The error is of the broker's start or of the directory; output is
// what the broker printed if the run has failed.
func RunFresh(ctx context.Context, s Scenario, spec broker.Spec, dir string) (r Result, output string, err error) {
	if err := raiseFileLimit(s.files()); err != nil {
		r = Result{Scenario: s.String(), Broker: spec.Name}
		r.fail(err)
		return r, "", nil
	}
	if dir, err = os.MkdirTemp(dir, "load-"+spec.Name+"-"); err != nil {
		return r, "", err
	}
	defer os.RemoveAll(dir)
	port, err := broker.FreePort()
	if err != nil {
		return r, "", err
	}
	p, _, err := Start(spec, dir, port)
	if err != nil {
		return r, "", err
	}
	target := TargetOf(p)
	target.Stop = ctx.Done()
	target.Restart = func() (Target, time.Duration, error) {
		p.Kill()
		next, took, err := Start(spec, dir, port)
		if err != nil {
			return Target{}, 0, err
		}
		p = next
		again := TargetOf(p)
		again.Stop = ctx.Done()
		return again, took, nil
	}
	r = Run(s, target)
	if r.Failed() {
		output = p.Output()
	}
	if _, err := p.Stop(stopLimit); err != nil && r.Error == "" {
		r.Error = err.Error()
	}
	return r, output, nil
}
