//go:build linux

package main

import (
	"fmt"

	"cairnmq/bench/load"
)

// measured is one column of a series: a figure that may grow with its size.
type measured struct {
	name  string
	phase string
	of    func(load.Phase) float64
	show  func(float64) string
	unit  string // of the slope, per what the series counts in
}

// series is the same scenario at growing sizes.
type series struct {
	title   string
	counts  string  // what x is
	per     float64 // the slope is for so many of x
	sizes   []float64
	make    func(x float64) load.Scenario
	columns []measured
}

// Columns that several series have.
func cpuOf(phase string) measured {
	return measured{"CPU µs per message, " + phase, phase, func(p load.Phase) float64 { return p.CPU }, figure, "µs"}
}

func rateOf(phase string) measured {
	return measured{"messages a second, " + phase, phase, func(p load.Phase) float64 { return p.Rate }, large, "/s"}
}

func anonOf(phase string) measured {
	return measured{"anonymous MiB", phase, func(p load.Phase) float64 { return float64(p.RSSAnon) / (1 << 20) }, figure, "MiB"}
}

func fileOf(phase string) measured {
	return measured{"file MiB", phase, func(p load.Phase) float64 { return float64(p.RSSFile) / (1 << 20) }, figure, "MiB"}
}

// points measures a series: for every size the medians of the rounds, by phase.
func (l *lab) points(s *series, p *player, each func(x float64, phases map[string]load.Phase) error) error {
	for _, x := range s.sizes {
		scenario := s.make(x)
		byName := make(map[string][]load.Phase)
		for round := range l.rounds {
			r, output, err := load.RunFresh(l.ctx, scenario, p.live, l.dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(l.progress, "round %d: %s", round+1, r.String())
			if r.Skipped != "" {
				break
			}
			if r.Failed() {
				return fmt.Errorf("%s: %s (%v)\n%s", r.Scenario, r.Error, r.Faults, output)
			}
			for _, phase := range r.Phases {
				byName[phase.Name] = append(byName[phase.Name], phase)
				l.others = append(l.others, phase.OtherMs)
			}
		}
		phases := make(map[string]load.Phase)
		for name, all := range byName {
			phases[name] = medians(all)
		}
		if err := each(x, phases); err != nil {
			return err
		}
	}
	return nil
}

// text measures a series and returns it as a table with a slope for each column.
func (l *lab) text(s *series, p *player) (string, error) {
	var t table
	head := []string{s.counts}
	for _, c := range s.columns {
		head = append(head, c.name)
	}
	t.head(head...)
	var xs []float64
	ys := make([][]float64, len(s.columns))
	err := l.points(s, p, func(x float64, phases map[string]load.Phase) error {
		cells := []string{plainNumber(x)}
		if len(phases) > 0 {
			xs = append(xs, x)
		}
		for i, c := range s.columns {
			phase, ok := phases[c.phase]
			if !ok {
				cells = append(cells, "not here")
				continue
			}
			ys[i] = append(ys[i], c.of(phase))
			cells = append(cells, c.show(c.of(phase)))
		}
		t.row(cells...)
		return nil
	})
	if err != nil {
		return "", err
	}
	slopes := []string{"slope per " + plainNumber(s.per)}
	for i, c := range s.columns {
		slopes = append(slopes, fmt.Sprintf("%+.3g %s", slope(xs, ys[i])*s.per, c.unit))
	}
	t.row(slopes...)
	return fmt.Sprintf("### %s\n\n%s\n", s.title, t.b.String()), nil
}

// slope is that of the straight line with the least squares of distances.
func slope(xs, ys []float64) float64 {
	if len(xs) < 2 || len(xs) != len(ys) {
		return 0
	}
	var meanX, meanY float64
	for i := range xs {
		meanX += xs[i] / float64(len(xs))
		meanY += ys[i] / float64(len(xs))
	}
	var products, squares float64
	for i := range xs {
		products += (xs[i] - meanX) * (ys[i] - meanY)
		squares += (xs[i] - meanX) * (xs[i] - meanX)
	}
	if squares == 0 {
		return 0
	}
	return products / squares
}

// plainNumber writes a whole number with commas.
func plainNumber(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func gigabytes(bytes int64) string { return fmt.Sprintf("%g GB", float64(bytes)/1e9) }
