//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cairnmq/bench/broker"
	"cairnmq/bench/load"
)

// scaling measures CairnMQ on one core and two, and as things grow.
func (l *lab) scaling() error {
	p, err := l.cairn(interval, "{program} serve -c {cairnmq.toml}")
	if err != nil {
		return err
	}
	var b strings.Builder
	if l.only.MatchString("cores") {
		text, err := l.cores(p)
		if err != nil {
			return err
		}
		b.WriteString(text)
	}
	for _, s := range l.allSeries() {
		if !l.only.MatchString(s.title) {
			continue
		}
		text, err := l.text(&s, p)
		if err != nil {
			return err
		}
		b.WriteString(text)
	}
	head := fmt.Sprintf("%s; CairnMQ %s, class `interval`, QoS 1, 256 bytes where nothing else is said. %s\n\n", l.conditions(), p.version, roundWords(l.rounds, l.others))
	return l.publish("scaling", head+b.String())
}

// cairn is CairnMQ run by a command of its own.
func (l *lab) cairn(name, command string) (*player, error) {
	program, err := find(l.bin + "/cairnmq")
	if err != nil {
		return nil, err
	}
	spec, err := broker.ParseSpec(name + "=" + strings.ReplaceAll(command, "{program}", program))
	if err != nil {
		return nil, err
	}
	return &player{name: name, live: spec, stored: spec, version: versionOf(program, "version"), ours: true}, nil
}

// cores compares the broker on one core, with the generator on the other, to
// broker and generator on two.
func (l *lab) cores(two *player) (string, error) {
	one, err := l.cairn("one core", "taskset -c 0 {program} serve -c {cairnmq.toml}")
	if err != nil {
		return "", err
	}
	var t table
	t.head("scenario", "one core", "two cores")
	for _, s := range l.basics() {
		columns := make(map[string][]string)
		var names []string
		for _, p := range []*player{one, two} {
			phases, order, err := l.phasesOf(s, p, p == one)
			if err != nil {
				return "", err
			}
			names = order
			for _, name := range order {
				columns[name] = append(columns[name], fmt.Sprintf("%s/s · %s", large(phases[name].Rate), figure(phases[name].CPU)))
			}
		}
		for _, name := range names {
			t.row(append([]string{s.String() + ": " + name}, columns[name]...)...)
		}
	}
	return "### One core and two\n\nCells: messages a second · CPU µs of the broker per message. \"One core\": the broker on one, the load generator on the\n" +
		"other. \"Two\": both programs on both.\n\n" + t.b.String() + "\n", nil
}

// basics are the scenarios that say most about speed.
func (l *lab) basics() []load.Scenario {
	return []load.Scenario{
		l.scenario("fanin10", qos(0)), l.scenario("fanin10"), l.scenario("fanin10", qos(2)), l.scenario("pairs10", qos(0)), l.scenario("pairs10"),
		l.scenario("fanout100", qos(0)), l.scenario("fanout100"), l.scenario("publish10"), l.scenario("rtt"), l.scenario("store"), l.scenario("retained50000"),
	}
}

// phasesOf runs a scenario, with the generator on the last core if it is to
// stay out of the broker's way, and returns medians by phase, and their order.
func (l *lab) phasesOf(s load.Scenario, p *player, apart bool) (map[string]load.Phase, []string, error) {
	if apart {
		back, err := pin()
		if err != nil {
			return nil, nil, err
		}
		defer back()
	}
	one := series{sizes: []float64{0}, make: func(float64) load.Scenario { return s }}
	var found map[string]load.Phase
	err := l.points(&one, p, func(_ float64, phases map[string]load.Phase) error {
		found = phases
		return nil
	})
	var order []string
	for _, name := range []string{"connect", string(s.Kind), "publish", load.Restarted, "drain", "drain1", "set", "deliver"} {
		if _, ok := found[name]; ok && !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	return found, order, err
}

// pin keeps the threads that measure on the last core, until back is called.
// The broker must choose its own.
func pin() (back func(), err error) {
	var before, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			last.Zero()
			last.Set(cpu)
		}
	}
	if before.Count() < 2 {
		return nil, errors.New("there is only one core")
	}
	set := func(cpus *unix.CPUSet) error {
		return everyThread(func(tid int) error { return unix.SchedSetaffinity(tid, cpus) })
	}
	if err := set(&last); err != nil {
		return nil, err
	}
	return func() { _ = set(&before) }, nil // it worked the other way
}

func (l *lab) allSeries() []series {
	backlogs := []float64{}
	for size := 10e6; size < float64(l.backlog); size *= 10 {
		backlogs = append(backlogs, size/1e6)
	}
	backlogs = append(backlogs, float64(l.backlog)/1e6)
	named := func(kind string, changes ...func(*load.Scenario)) func(float64) load.Scenario {
		return func(x float64) load.Scenario { return l.scenario(fmt.Sprintf("%s%.0f", kind, x), changes...) }
	}
	return []series{
		{"Connections", "idle connections beside 10 pairs", 1000, []float64{0, 100, 1000, 5000, 10000},
			func(x float64) load.Scenario { return l.scenario("pairs10", bystanders(int(x))) },
			[]measured{cpuOf("pairs"), rateOf("pairs"), anonOf("pairs"), fileOf("pairs")}},
		{"Subscribers of one message", "subscribers", 100, []float64{1, 10, 100, 1000}, named("fanout", qos(0)),
			[]measured{cpuOf("fanout"), rateOf("fanout"), anonOf("fanout"), fileOf("fanout")}},
		{"Subscriptions", "subscriptions, two thirds with wildcards, one for each topic", 1000, []float64{1000, 10_000, 100_000}, named("subs"),
			[]measured{cpuOf("subs"), rateOf("subs"), anonOf("subs"), fileOf("subs")}},
		{"Topics", "topics", 1000, []float64{20, 1000, 10_000, 100_000, 1_000_000}, named("topics"),
			[]measured{cpuOf("fanin"), rateOf("fanin"), anonOf("fanin"), fileOf("fanin")}},
		{"Offline sessions", "sessions on `#`", 1000, []float64{0, 100, 1000, 10_000, 100_000}, named("offline", count(200_000)),
			[]measured{cpuOf("publish"), rateOf("publish"), anonOf("publish"), fileOf("publish")}},
		{"Retained messages", "retained messages", 1000, []float64{1000, 10_000, 100_000}, named("retained"),
			[]measured{cpuOf("set"), cpuOf("deliver"), anonOf("deliver"), fileOf("deliver")}},
		{"Backlog", "MB stored, in messages of 4 KiB", 1000, backlogs,
			func(x float64) load.Scenario { return l.scenario("kill", size(4096), count(int(x*1e6/4096))) },
			[]measured{
				{"ms from start to CONNACK, after SIGKILL", load.Restarted, func(p load.Phase) float64 { return p.Seconds * 1000 }, figure, "ms"},
				anonOf(load.Restarted), fileOf(load.Restarted), cpuOf("publish"), cpuOf("drain"),
			}},
	}
}
