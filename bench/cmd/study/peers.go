//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cairnmq/bench/load"
)

// run is one line of the file of runs.
type run struct {
	Row    string // label of the first row that its scenario serves
	Player string
	Round  int
	// Conditions say where and when it was.
	Conditions string
	Result     load.Result
}

// peers runs every scenario against everybody whom it concerns, round by
// round, in an order that is shuffled each time.
func (l *lab) peers() error {
	players, err := l.allPlayers()
	if err != nil {
		return err
	}
	rows := slices.DeleteFunc(l.rows(), func(r row) bool { return !l.only.MatchString(r.label) })
	runs, err := l.oldRuns()
	if err != nil {
		return err
	}
	if !l.render {
		if runs, err = l.play(rows, players, runs); err != nil {
			return err
		}
	}
	if err := l.publish("peers", l.peersText(rows, players, runs)); err != nil {
		return err
	}
	return errors.Join(l.charts(rows, players, runs), faultsOfOurs(players, runs))
}

// oldRuns reads the file of runs, if it is to be gone on with.
func (l *lab) oldRuns() ([]run, error) {
	if !l.resume && !l.render {
		return nil, nil
	}
	f, err := os.Open(l.out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var runs []run
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r run
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", l.out, len(runs)+1, err)
		}
		runs = append(runs, r)
	}
	return runs, in.Err()
}

// play does the runs that are not there yet, and appends each to the file.
func (l *lab) play(rows []row, players []*player, runs []run) ([]run, error) {
	if err := os.MkdirAll(filepath.Dir(l.out), 0o755); err != nil {
		return nil, err
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if !l.resume {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(l.out, flags, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	done := make(map[string]bool)
	key := func(row, player string, round int) string { return fmt.Sprintf("%s\x00%s\x00%d", row, player, round) }
	for _, r := range runs {
		done[key(r.Row, r.Player, r.Round)] = true
	}
	order := rand.New(rand.NewPCG(uint64(len(runs)), 0))
	for round := 1; round <= l.rounds; round++ {
		for i, r := range rows {
			if i > 0 && sameScenario(&rows[i-1], &r) || r.once && round > 1 {
				continue
			}
			for _, at := range order.Perm(len(players)) {
				p := players[at]
				if !slices.Contains(r.players, p.name) || done[key(r.label, p.name, round)] {
					continue
				}
				one := run{Row: r.label, Player: p.name, Round: round, Conditions: l.conditions(), Result: l.once(&r, p)}
				if err := l.ctx.Err(); err != nil {
					return nil, fmt.Errorf("%w; go on with -resume", err)
				}
				fmt.Fprintf(l.progress, "round %d: %s", round, one.Result.String())
				runs = append(runs, one)
				if err := json.NewEncoder(f).Encode(one); err != nil {
					return nil, err
				}
			}
		}
	}
	return runs, nil
}

// once does a row's scenario to a player.
func (l *lab) once(r *row, p *player) load.Result {
	spec := p.live
	if r.stored {
		spec = p.stored
	}
	result, output, err := load.RunFresh(l.ctx, r.scenario, spec, l.dir)
	if err != nil {
		result = load.Result{Scenario: r.scenario.String(), Broker: p.name, Error: err.Error()}
	}
	if output != "" && p.ours {
		fmt.Fprintf(l.progress, "%s printed:\n%s\n", p.name, output)
	}
	return result
}

func sameScenario(a, b *row) bool { return a.section == b.section && a.scenario == b.scenario }

// of returns the runs of a row's scenario against a player.
func of(rows []row, i int, player string, runs []run) []run {
	for i > 0 && sameScenario(&rows[i-1], &rows[i]) {
		i--
	}
	var found []run
	for _, r := range runs {
		if r.Row == rows[i].label && r.Player == player {
			found = append(found, r)
		}
	}
	return found
}

// faultsOfOurs is the error if CairnMQ did anything wrong.
func faultsOfOurs(players []*player, runs []run) error {
	var faults []error
	for _, p := range players {
		for _, r := range runs {
			if p.ours && r.Player == p.name && r.Result.Failed() {
				faults = append(faults, fmt.Errorf("%s, %s, round %d: %s (%v)", r.Row, p.name, r.Round, r.Result.Error, r.Result.Faults))
			}
		}
	}
	return errors.Join(faults...)
}

// cell is the median of a phase over the runs of a player, or what went wrong.
type cell struct {
	phase load.Phase
	runs  int
	wrong string // in a few words; empty if there are figures
	why   string // the whole error, where the words say little
}

func cellOf(r *row, runs []run) cell {
	var good []load.Phase
	wrong, skipped, why := "", "", ""
	for _, one := range runs {
		if one.Result.Skipped != "" {
			skipped = "not here"
			continue
		}
		if one.Result.Failed() {
			if wrong = inWords(&one.Result); wrong == failed {
				why = one.Result.Error
			}
			continue
		}
		for _, p := range one.Result.Phases {
			if p.Name == r.phase {
				good = append(good, p)
			}
		}
	}
	if len(good) == 0 || wrong != "" {
		return cell{wrong: strings.TrimSpace(wrong + skipped), why: why}
	}
	return cell{phase: medians(good), runs: len(good)}
}

// inWords says what went wrong with a run.
func inWords(r *load.Result) string {
	f := r.Faults
	for _, known := range []struct{ in, words string }{
		{"session is gone", "all lost"}, {"refused with code", "not supported"}, {"disconnected with code", "not supported"},
		{"closed the connection", "closes the connection"}, {"never acknowledged", "never acknowledged all"}, {"then none for", "stops acknowledging"},
	} {
		if strings.Contains(r.Error, known.in) {
			return known.words
		}
	}
	var words []string
	for _, part := range []struct {
		n    uint64
		word string
	}{{f.Lost, "lost"}, {f.Repeated, "repeated"}, {f.Misordered, "out of order"}, {f.Damaged, "wrong"}} {
		if part.n > 0 {
			words = append(words, large(float64(part.n))+" "+part.word)
		}
	}
	if len(words) == 0 {
		return failed
	}
	return strings.Join(words, ", ")
}

// failed is the word for what has no other.
const failed = "failed"

// medians returns the median of every figure.
func medians(phases []load.Phase) load.Phase {
	m := phases[0]
	for _, figure := range []func(*load.Phase) *float64{
		func(p *load.Phase) *float64 { return &p.Seconds }, func(p *load.Phase) *float64 { return &p.Rate },
		func(p *load.Phase) *float64 { return &p.CPU }, func(p *load.Phase) *float64 { return &p.GenCPU },
		func(p *load.Phase) *float64 { return &p.P50 }, func(p *load.Phase) *float64 { return &p.P99 },
		func(p *load.Phase) *float64 { return &p.P999 }, func(p *load.Phase) *float64 { return &p.AnonGrowth },
		func(p *load.Phase) *float64 { return &p.OtherMs },
	} {
		values := make([]float64, len(phases))
		for i := range phases {
			values[i] = *figure(&phases[i])
		}
		*figure(&m) = median(values)
	}
	for _, figure := range []func(*load.Phase) *int64{
		func(p *load.Phase) *int64 { return &p.RSSAnon }, func(p *load.Phase) *int64 { return &p.RSSFile },
		func(p *load.Phase) *int64 { return &p.Written }, func(p *load.Phase) *int64 { return &p.Payload },
	} {
		values := make([]float64, len(phases))
		for i := range phases {
			values[i] = float64(*figure(&phases[i]))
		}
		*figure(&m) = int64(median(values))
	}
	return m
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
