//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"cairnmq/bench/broker"
	"cairnmq/bench/load"
	"cairnmq/bench/wire"
)

func main() {
	ok, err := measure(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mqttload:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// options are the flags that do not belong to a scenario.
type options struct {
	addr    string
	pid     int
	rounds  int
	seed    uint64
	json    bool
	dir     string
	brokers []broker.Spec
}

// measure does what the arguments say and reports whether all runs were good.
func measure(args []string, out, progress io.Writer) (bool, error) {
	base := load.Default()
	var o options
	flags := flag.NewFlagSet("mqttload", flag.ExitOnError)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:1883", "address of a broker that runs already")
	flags.IntVar(&o.pid, "pid", 0, "process number of that broker, to read its CPU time and memory")
	addBroker := func(s string) error {
		spec, err := broker.ParseSpec(s)
		o.brokers = append(o.brokers, spec)
		return err
	}
	flags.Func("broker", "`name=command` of a broker to start for every run; may be repeated", addBroker)
	flags.Func("compare", "the same as -broker", addBroker)
	flags.IntVar(&o.rounds, "rounds", 1, "runs of each scenario against each broker")
	flags.Uint64Var(&o.seed, "seed", 1, "of the order in which the brokers take their turns")
	flags.BoolVar(&o.json, "json", false, "print one JSON object per run instead of lines and a table")
	flags.StringVar(&o.dir, "dir", "", "where to make the data directories (default: the temporary directory)")
	version := flags.Int("version", 4, "protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5")
	qos := flags.Uint("qos", 1, "QoS of publishers and subscribers")
	flags.IntVar(&base.Size, "size", base.Size, "payload bytes")
	flags.IntVar(&base.Window, "window", base.Window, "messages in flight per publisher")
	flags.IntVar(&base.Topics, "topics", base.Topics, "topics per publisher")
	flags.Float64Var(&base.Rate, "rate", 0, "messages a second over all publishers (default: as many as possible)")
	flags.DurationVar(&base.Warm, "warm", base.Warm, "time under load before measuring")
	flags.DurationVar(&base.Measure, "measure", base.Measure, "time to measure")
	flags.IntVar(&base.Count, "count", base.Count, "messages of store and offline")
	flags.DurationVar(&base.Limit, "limit", 0, "end publishing of counted messages after this time (default: not)")
	flags.BoolVar(&base.Properties, "properties", false, "publish with MQTT 5 properties")
	flags.IntVar(&base.Outstanding, "outstanding", 0, "most deliveries on their way (default 10,000 or 4 MiB at QoS 0, 50,000 above)")
	flags.DurationVar(&base.Pause, "pause", base.Pause, "sleep when nothing has arrived; 0 waits for the next packet")
	flags.BoolVar(&base.Persistent, "persistent", false, "keep the sessions of idle connections")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: mqttload [flags] scenario ...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	base.Version = wire.Version(*version)
	base.QoS = byte(min(*qos, 3))

	if flags.NArg() == 0 {
		flags.Usage()
		return false, fmt.Errorf("no scenario named")
	}
	scenarios := make([]load.Scenario, flags.NArg())
	for i, name := range flags.Args() {
		scenarios[i] = base
		if err := scenarios[i].SetName(name); err != nil {
			return false, err
		}
	}
	report := func(r load.Result) {
		if o.json {
			_ = json.NewEncoder(out).Encode(r)
			return
		}
		fmt.Fprint(out, r.String())
	}
	if len(o.brokers) == 0 {
		return runOne(&o, scenarios, report)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := compare(ctx, &o, scenarios, report, progress)
	if err != nil {
		return false, err
	}
	if !o.json && len(results) > len(scenarios) {
		fmt.Fprint(out, "\n", markdown(results))
	}
	return allGood(results), nil
}

// runOne runs the scenarios against the broker that is there.
func runOne(o *options, scenarios []load.Scenario, report func(load.Result)) (bool, error) {
	addr, err := netip.ParseAddrPort(o.addr)
	if err != nil {
		return false, err
	}
	var results []load.Result
	for round := range o.rounds {
		for _, s := range scenarios {
			r := load.Run(s, load.Target{Name: o.addr, Addr: addr, PID: o.pid})
			r.Round = round + 1
			report(r)
			results = append(results, r)
		}
	}
	return allGood(results), nil
}

func allGood(results []load.Result) bool {
	for i := range results {
		if results[i].Failed() {
			return false
		}
	}
	return true
}
