//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"cairnmq/bench/load"
)

// compare runs every scenario against every broker, round by round. The order
// of the brokers is shuffled in each round, so that what else the machine does
// hits all of them alike.
func compare(ctx context.Context, o *options, scenarios []load.Scenario, report func(load.Result), progress io.Writer) ([]load.Result, error) {
	order := rand.New(rand.NewPCG(o.seed, 0))
	var results []load.Result
	for _, s := range scenarios {
		for round := range o.rounds {
			for _, i := range order.Perm(len(o.brokers)) {
				r, output, err := load.RunFresh(ctx, s, o.brokers[i], o.dir)
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					return nil, err
				}
				if output != "" {
					fmt.Fprintf(progress, "%s printed:\n%s\n", r.Broker, output)
				}
				r.Round = round + 1
				report(r)
				results = append(results, r)
			}
		}
	}
	return results, nil
}

// row is the runs of one phase of one scenario against one broker.
type row struct {
	scenario, phase, broker string
	phases                  []load.Phase
	failed                  int
}

// markdown returns the medians of the runs as a table. Failed runs are counted
// and leave their figures out.
func markdown(results []load.Result) string {
	var b strings.Builder
	b.WriteString("| scenario | phase | broker | msg/s | CPU µs/msg | generator µs/msg | p50 ms | p99 ms | p99.9 ms | RSS anon MiB | RSS file MiB | B/msg or conn | disk MiB | busy ms/s | others ms/s | runs |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows(results) {
		median := func(of func(load.Phase) float64) float64 {
			values := make([]float64, len(r.phases))
			for i, p := range r.phases {
				values[i] = of(p)
			}
			return median(values)
		}
		runs := fmt.Sprint(len(r.phases))
		if r.failed > 0 {
			runs += fmt.Sprintf(", **%d FAILED**", r.failed)
		}
		const mib = 1 << 20
		fmt.Fprintf(&b, "| %s | %s | %s | %.0f | %.3g | %.2g | %.3f | %.3f | %.3f | %.1f | %.1f | %.0f | %.1f | %.1f | %.0f | %s |\n",
			r.scenario, r.phase, r.broker,
			median(func(p load.Phase) float64 { return p.Rate }),
			median(func(p load.Phase) float64 { return p.CPU }),
			median(func(p load.Phase) float64 { return p.GenCPU }),
			median(func(p load.Phase) float64 { return p.P50 }),
			median(func(p load.Phase) float64 { return p.P99 }),
			median(func(p load.Phase) float64 { return p.P999 }),
			median(func(p load.Phase) float64 { return float64(p.RSSAnon) / mib }),
			median(func(p load.Phase) float64 { return float64(p.RSSFile) / mib }),
			median(func(p load.Phase) float64 { return p.AnonGrowth }),
			median(func(p load.Phase) float64 { return float64(p.Written) / mib }),
			median(func(p load.Phase) float64 { return p.BusyMs }),
			median(func(p load.Phase) float64 { return p.OtherMs }),
			runs)
	}
	return b.String()
}

// rows groups runs by scenario, phase and broker, in the order they first
// appear, the brokers by name.
func rows(results []load.Result) []*row {
	var all []*row
	find := func(scenario, phase, broker string) *row {
		for _, r := range all {
			if r.scenario == scenario && r.phase == phase && r.broker == broker {
				return r
			}
		}
		all = append(all, &row{scenario: scenario, phase: phase, broker: broker})
		return all[len(all)-1]
	}
	for i := range results {
		r := &results[i]
		if r.Failed() {
			name := "–"
			if len(r.Phases) > 0 {
				name = r.Phases[0].Name
			}
			find(r.Scenario, name, r.Broker).failed++
			continue
		}
		for _, p := range r.Phases {
			row := find(r.Scenario, p.Name, r.Broker)
			row.phases = append(row.phases, p)
		}
	}
	scenarios := make(map[string]int) // in order of appearance
	for i, r := range all {
		if _, ok := scenarios[r.scenario+r.phase]; !ok {
			scenarios[r.scenario+r.phase] = i
		}
	}
	slices.SortStableFunc(all, func(a, b *row) int {
		if d := scenarios[a.scenario+a.phase] - scenarios[b.scenario+b.phase]; d != 0 {
			return d
		}
		return strings.Compare(a.broker, b.broker)
	})
	return all
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
