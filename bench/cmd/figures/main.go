//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/load"
)

func main() {
	if err := measure(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// figures is one run of the program.
type figures struct {
	spec     broker.Spec
	dir      string
	restarts int
	sessions int
	rounds   int
	count    int
	verify   bool
	progress io.Writer
	rows     [][2]string
}

func measure(args []string, out, progress io.Writer) error {
	f := figures{progress: progress}
	flags := flag.NewFlagSet("figures", flag.ExitOnError)
	backlogs := flags.String("backlog", "1GB,10GB", "sizes of the backlogs to restart with; empty for none")
	size := flags.Int("size", 4096, "payload bytes of the backlog")
	flags.StringVar(&f.dir, "dir", "", "where to make the data directories (default: the temporary directory)")
	flags.IntVar(&f.restarts, "restarts", 5, "restarts with each backlog")
	flags.IntVar(&f.sessions, "sessions", 10_000, "offline sessions; 0 leaves this part out")
	flags.IntVar(&f.rounds, "rounds", 5, "rounds of publishing with and without the sessions")
	flags.IntVar(&f.count, "count", 200_000, "messages of each of these rounds")
	flags.BoolVar(&f.verify, "verify", true, "deliver and check the backlog after the last restart")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one argument, the broker")
	}
	var err error
	if f.spec, err = broker.ParseSpec(flags.Arg(0)); err != nil {
		return err
	}
	var failed error
	for _, backlog := range strings.FieldsFunc(*backlogs, func(r rune) bool { return r == ',' }) {
		bytes, err := parseSize(backlog)
		if err == nil {
			err = f.restart(backlog, bytes, *size)
		}
		failed = errors.Join(failed, err)
	}
	failed = errors.Join(failed, f.idle())
	if f.sessions > 0 {
		failed = errors.Join(failed, f.offline())
	}
	fmt.Fprint(out, f.markdown())
	return failed
}

// restart publishes a backlog for an offline session, then kills the broker
// and starts it again, and again.
func (f *figures) restart(name string, backlog int64, size int) error {
	dir, port, remove, err := f.place()
	if err != nil {
		return err
	}
	defer remove()
	p, first, err := load.Start(f.spec, dir, port)
	if err != nil {
		return err
	}
	defer func() { p.Kill() }()
	f.row("start, empty directory", millis(first))

	s := load.Default()
	if err := s.SetName("store"); err != nil {
		return err
	}
	s.Size = size
	s.Count = int(backlog / int64(size))
	fmt.Fprintf(f.progress, "publishing %d messages, %s\n", s.Count, name)
	kept, phase, err := load.Keep(s, load.TargetOf(p))
	if err != nil {
		return fmt.Errorf("backlog of %s: %w", name, err)
	}
	f.row("publish "+name+" backlog, "+strconv.Itoa(size)+" B", fmt.Sprintf("%.0f msg/s, %.2f µs CPU/msg, disk %s", phase.Rate, phase.CPU, mib(phase.Written)))
	f.row("data directory with "+name, mib(diskUse(dir)))

	var took []float64
	for i := range f.restarts {
		p.Kill()
		next, d, err := load.Start(f.spec, dir, port)
		if err != nil {
			return fmt.Errorf("restart %d with %s: %w", i+1, name, err)
		}
		p = next
		took = append(took, d.Seconds()*1000)
		fmt.Fprintf(f.progress, "restart with %s: %s\n", name, millis(d))
	}
	f.row("SIGKILL, start to CONNACK with "+name, spread(took, "ms"))
	if u, err := broker.ReadUsage(p.PID()); err == nil {
		f.row("memory after this start", memory(u))
	}
	if !f.verify {
		return nil
	}
	r := kept.Deliver(load.TargetOf(p))
	if r.Failed() {
		f.row("delivery of "+name, "**FAILED** "+strings.TrimSpace(r.Error+" "+r.Faults.String()))
		return fmt.Errorf("delivery of %s: %s %v", name, r.Error, r.Faults)
	}
	d := r.Phases[0]
	f.row("delivery of "+name+" after it", fmt.Sprintf("%.0f msg/s, %.2f µs CPU/msg, nothing lost", d.Rate, d.CPU))
	return nil
}

// idle looks at a broker that was never used.
func (f *figures) idle() error {
	dir, port, remove, err := f.place()
	if err != nil {
		return err
	}
	defer remove()
	p, _, err := load.Start(f.spec, dir, port)
	if err != nil {
		return err
	}
	defer p.Kill()
	before, err := broker.ReadUsage(p.PID())
	if err != nil {
		return err
	}
	const watch = 5 * time.Second
	time.Sleep(watch) // what happens in this time is what is measured
	u, err := broker.ReadUsage(p.PID())
	if err != nil {
		return err
	}
	f.row("memory idle", memory(u))
	f.row("CPU idle", fmt.Sprintf("%.2f ms/s", float64(u.CPU-before.CPU)/1e6/watch.Seconds()))
	return nil
}

// offline compares a broker with offline sessions to one without. Both run all
// the time and are loaded in turn.
func (f *figures) offline() error {
	var brokers [2]*broker.Process // without, with sessions
	for i := range brokers {
		dir, port, remove, err := f.place()
		if err != nil {
			return err
		}
		defer remove()
		if brokers[i], _, err = load.Start(f.spec, dir, port); err != nil {
			return err
		}
		defer brokers[i].Kill()
	}
	with := load.TargetOf(brokers[1])
	before, err := broker.ReadUsage(with.PID)
	if err != nil {
		return err
	}
	fmt.Fprintf(f.progress, "making %d sessions\n", f.sessions)
	begin := time.Now()
	if err := load.LeaveSessions(with, f.sessions, "#"); err != nil {
		return fmt.Errorf("make %d sessions: %w", f.sessions, err)
	}
	elapsed := time.Since(begin)
	after, err := broker.ReadUsage(with.PID)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d offline sessions on #", f.sessions)
	f.row("make "+name, fmt.Sprintf("%.0f sessions/s, %.1f µs CPU each", float64(f.sessions)/elapsed.Seconds(),
		float64(after.CPU-before.CPU)/1e3/float64(f.sessions)))
	f.row("memory with "+name, fmt.Sprintf("%s, %+.0f B anonymous each", memory(after), float64(after.RSSAnon-before.RSSAnon)/float64(f.sessions)))
	return f.publishPast(brokers, name)
}

// publishPast publishes to both brokers in turn, swapping who is first.
func (f *figures) publishPast(brokers [2]*broker.Process, name string) error {
	s := load.Default()
	if err := s.SetName("offline0"); err != nil {
		return err
	}
	s.Count = f.count
	var cpu, rate [2][]float64
	for round := range f.rounds {
		for turn := range brokers {
			i := (turn + round) % 2
			r := load.Run(s, load.TargetOf(brokers[i]))
			if r.Failed() {
				return fmt.Errorf("publish with %s: %s %v", name, r.Error, r.Faults)
			}
			fmt.Fprintf(f.progress, "sessions %-5t %s\n", i == 1, r.Phases[0])
			cpu[i] = append(cpu[i], r.Phases[0].CPU)
			rate[i] = append(rate[i], r.Phases[0].Rate)
		}
	}
	for i, label := range []string{"no session", name} {
		f.row("publish with "+label, fmt.Sprintf("%s; %.0f msg/s", spread(cpu[i], "µs CPU/msg"), median(rate[i])))
		if u, err := broker.ReadUsage(brokers[i].PID()); err == nil {
			f.row("memory after this", memory(u))
		}
	}
	return nil
}

// place makes a data directory and finds a port.
func (f *figures) place() (dir string, port int, remove func(), err error) {
	if dir, err = os.MkdirTemp(f.dir, "figures-"); err != nil {
		return "", 0, nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	if port, err = broker.FreePort(); err != nil {
		remove()
		return "", 0, nil, err
	}
	return dir, port, remove, nil
}

func (f *figures) row(name, value string) {
	fmt.Fprintf(f.progress, "%s: %s\n", name, value)
	f.rows = append(f.rows, [2]string{name, value})
}

func (f *figures) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| figure | %s |\n|---|---|\n", f.spec.Name)
	for _, r := range f.rows {
		fmt.Fprintf(&b, "| %s | %s |\n", r[0], r[1])
	}
	return b.String()
}

// parseSize reads a number of bytes with a decimal unit, such as 10GB.
func parseSize(s string) (int64, error) {
	number, unit := strings.TrimRight(s, "kMGTB"), 1.0
	switch s[len(number):] {
	case "", "B":
	case "kB":
		unit = 1e3
	case "MB":
		unit = 1e6
	case "GB":
		unit = 1e9
	case "TB":
		unit = 1e12
	default:
		return 0, fmt.Errorf("size %q: unknown unit", s)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n <= 0 || n*unit > math.MaxInt64/2 {
		return 0, fmt.Errorf("size %q: want a number and kB, MB, GB or TB", s)
	}
	return int64(n * unit), nil
}

// diskUse adds up the blocks of all files below dir.
func diskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file that went away meanwhile uses nothing
		}
		if info, err := d.Info(); err == nil {
			sum += blocks(info)
		}
		return nil
	})
	return sum
}

func memory(u broker.Usage) string {
	return fmt.Sprintf("%s anonymous, %s file", mib(u.RSSAnon), mib(u.RSSFile))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// spread writes the median and the extremes.
func spread(values []float64, unit string) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f %s (%.2f to %.2f in %d)", median(values), unit, slices.Min(values), slices.Max(values), len(values))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
