//go:build linux

package main

import (
	"errors"
	"fmt"

	"cairnmq/bench/load"
)

// smoke does every scenario to CairnMQ for a moment. Its figures are printed
// and mean nothing; what counts is that no run has a fault.
func (l *lab) smoke() error {
	players, err := l.allPlayers()
	if err != nil {
		return err
	}
	scenarios := append(load.Quick(), l.scenario("kill2000"))
	var failed []error
	for _, p := range players {
		if p.name != interval && p.name != always {
			continue
		}
		for _, s := range scenarios {
			if p.name == always && s.Kind != load.Kill && s.Kind != load.Pairs {
				continue // a class is no other code for the rest
			}
			r, output, err := load.RunFresh(l.ctx, s, p.live, l.dir)
			if err != nil {
				return fmt.Errorf("%s: %w", s.String(), err)
			}
			fmt.Fprint(l.output, r.String())
			if r.Failed() {
				fmt.Fprintf(l.progress, "%s printed:\n%s\n", p.name, output)
				failed = append(failed, fmt.Errorf("%s, %s: %s (%v)", p.name, r.Scenario, r.Error, r.Faults))
			}
		}
	}
	return errors.Join(failed...)
}
