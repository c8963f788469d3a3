//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"cairnmq/bench/load"
)

func main() {
	if err := study(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "study:", err)
		os.Exit(1)
	}
}

// lab is what all parts of a study share.
type lab struct {
	ctx      context.Context // ends when the study is interrupted
	bin      string          // directory of the programs
	dir      string          // for data directories
	page     string          // to write into; empty for none
	out      string          // lines of JSON
	resume   bool
	render   bool
	rounds   int
	measure  time.Duration
	backlog  int64 // bytes of the largest
	only     *regexp.Regexp
	players  *regexp.Regexp
	output   io.Writer
	progress io.Writer
	others   []float64 // ms per second that other programs took, by phase
}

func study(args []string, output, progress io.Writer) error {
	parts := map[string]func(*lab) error{"peers": (*lab).peers, "scaling": (*lab).scaling, "small": (*lab).small, "smoke": (*lab).smoke}
	if len(args) == 0 || parts[args[0]] == nil {
		return errors.New("want peers, scaling, small or smoke")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l := lab{ctx: ctx, output: output, progress: progress}
	flags := flag.NewFlagSet("study "+args[0], flag.ContinueOnError)
	flags.StringVar(&l.bin, "bin", "bin", "directory with cairnmq, floor and peers/")
	flags.StringVar(&l.dir, "dir", "", "where to make the data directories (default: the temporary directory)")
	flags.StringVar(&l.page, "page", "", "page to write the tables into, and charts beside it (default: print them)")
	flags.StringVar(&l.out, "out", "out/"+args[0]+".jsonl", "file for one line of JSON per run")
	flags.BoolVar(&l.resume, "resume", false, "keep the runs that are in -out, and do the others")
	flags.BoolVar(&l.render, "render", false, "measure nothing; make the tables from -out")
	flags.IntVar(&l.rounds, "rounds", 3, "runs of each, of which the median counts")
	flags.DurationVar(&l.measure, "measure", 2*time.Second, "time to measure, where there is one")
	backlog := flags.Float64("backlog", 10, "the largest backlog, in GB")
	only := flags.String("only", "", "`regexp` of rows to do")
	players := flags.String("brokers", "", "`regexp` of brokers to run")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 || l.rounds < 1 || *backlog <= 0 {
		return fmt.Errorf("arguments %q, %d rounds, %g GB: out of range", strings.Join(flags.Args(), " "), l.rounds, *backlog)
	}
	l.backlog = int64(*backlog * 1e9)
	var err error
	if l.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if l.players, err = regexp.Compile(*players); err != nil {
		return err
	}
	return parts[args[0]](&l)
}

// scenario makes one from its name and changes.
func (l *lab) scenario(name string, changes ...func(*load.Scenario)) load.Scenario {
	s := load.Default()
	s.Measure = l.measure
	for _, change := range changes {
		change(&s)
	}
	if err := s.SetName(name); err != nil {
		panic(err) // a wrong name in this program
	}
	return s
}

// Changes of scenarios.
func qos(q byte) func(*load.Scenario)     { return func(s *load.Scenario) { s.QoS = q } }
func size(n int) func(*load.Scenario)     { return func(s *load.Scenario) { s.Size = n } }
func window(n int) func(*load.Scenario)   { return func(s *load.Scenario) { s.Window = n } }
func topics(n int) func(*load.Scenario)   { return func(s *load.Scenario) { s.Topics = n } }
func rate(r float64) func(*load.Scenario) { return func(s *load.Scenario) { s.Rate = r } }
func count(n int) func(*load.Scenario)    { return func(s *load.Scenario) { s.Count = n } }
func mqtt5(s *load.Scenario)              { s.SetVersion(5) }
func properties(s *load.Scenario)         { s.SetVersion(5); s.Properties = true }
func limit(d time.Duration) func(*load.Scenario) {
	return func(s *load.Scenario) { s.Limit = d }
}
func bystanders(n int) func(*load.Scenario) {
	return func(s *load.Scenario) { s.Bystanders = n }
}
