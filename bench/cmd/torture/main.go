//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

// campaignCycles is how many cycles a data directory lives through.
const campaignCycles = 20

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("torture", flag.ExitOnError)
	cycles := flags.Int("cycles", 40, "cycles of start, load and kill")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano())%1e9, "of the random choices")
	limit := flags.Duration("limit", time.Hour, "give up after this time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *cycles < 1 {
		return errors.New("want the broker's program")
	}
	binary, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("the broker's program: %w", err)
	}
	fmt.Fprintf(out, "seed %d\n", *seed)
	began := time.Now()
	var total sums
	for n := 0; total.cycles < *cycles; n++ {
		dir, err := os.MkdirTemp("", "cairnmq-torture-")
		if err != nil {
			return err
		}
		c, err := newCampaign(out, binary, dir, *seed+uint64(n), n%2 == 1)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "campaign %d: %v\n", n+1, c.settings)
		stop := time.AfterFunc(*limit-time.Since(began), func() { c.cancel(fmt.Errorf("not done after %v: %w", *limit, context.DeadlineExceeded)) })
		err = c.run(min(campaignCycles, *cycles-total.cycles))
		stop.Stop()
		total.add(c)
		if err != nil {
			return fmt.Errorf("seed %d, campaign %d, after %d cycles: %w\nthe data directory is kept: %s", *seed, n+1, c.cycles, err, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%v\nnothing acknowledged was lost, %.0f s\n", total, time.Since(began).Seconds())
	return nil
}

// sums are the tallies of all campaigns.
type sums struct {
	tally
	acks, deliveries, connections, lookups, changes int64
	wills, repeated                                 int
}

func (s *sums) add(c *campaign) {
	s.cycles += c.cycles
	s.kills += c.kills
	s.startKills += c.startKills
	s.stops += c.stops
	s.stopKills += c.stopKills
	s.pauses += c.pauses
	s.cuts += c.cuts
	s.lost += c.lost
	s.surplus += c.surplus
	s.acks += c.acks.Load()
	s.deliveries += c.deliveries.Load()
	s.connections += c.connections.Load()
	s.lookups += c.lookups.Load()
	s.changes += c.changes.Load()
	s.wills += c.wills.fired()
	for _, x := range c.subscribers {
		if x.judge != nil {
			_, repeated := x.judge.counts()
			s.repeated += repeated
		}
	}
}

func (s sums) String() string {
	return fmt.Sprintf("%d cycles: killed under load %d, while starting %d, while ending %d; ended in order %d; stopped and continued %d, connections cut %d\n"+
		"%d connections, %d messages acknowledged, %d delivered, %d of them again, %d taken by small budgets (the ledger: %d)\n"+
		"%d wills, %d looks at all retained messages, %d changes of subscriptions",
		s.cycles, s.kills, s.startKills, s.stopKills, s.stops, s.pauses, s.cuts,
		s.connections, s.acks, s.deliveries, s.repeated, s.lost, s.lost+s.surplus, s.wills, s.lookups, s.changes)
}
