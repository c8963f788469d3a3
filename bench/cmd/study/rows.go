//go:build linux

package main

import (
	"fmt"
	"time"

	"cairnmq/bench/load"
)

// kind of what a row shows.
type shown int

const (
	traffic    shown = iota // messages a second · CPU µs per message
	latency                 // p50 · p99 · p99.9 ms · CPU
	roundTrip               // p50 µs · CPU
	acked                   // messages a second · p50 · p99 ms · CPU
	connection              // bytes of anonymous memory per connection
	restart                 // ms from start to CONNACK
	lost                    // messages lost
)

// row is one line of the table: a phase of a scenario.
type row struct {
	section  string
	label    string
	scenario load.Scenario
	phase    string // which of the run's phases
	shown    shown
	players  []string
	stored   bool   // the brokers keep what they can
	goal     string // as words
	met      func(load.Phase) bool
	// against is the label of a row before it that the goal compares with.
	against string
	metBy   func(base, p load.Phase) bool
	chart   bool // a group of bars in the charts
	once    bool // in the first round only
}

func cpuAtMost(us float64) func(load.Phase) bool {
	return func(p load.Phase) bool { return p.CPU <= us }
}

func rateAndCPU(perSecond, us float64) func(load.Phase) bool {
	return func(p load.Phase) bool { return p.Rate >= perSecond && p.CPU <= us }
}

var (
	live    = []string{interval, always, mosquitto, mochi, nats, rumqttd, floor, floorAndLog}
	brokers = []string{interval, always, mosquitto, mochi, nats, rumqttd} // without the floor, which does not know everything
	classes = []string{interval, always, classOS, mosquitto, mochi, nats, rumqttd, floor, floorAndLog}
	newer   = []string{interval, always, mosquitto, mochi} // what speaks MQTT 5
	keepers = []string{interval, always, mosquitto, mochi, nats, rumqttd}
	few     = []string{interval, mosquitto, nats}
	us      = []string{interval}
)

// rows returns the whole table, section by section. Rows of the same scenario,
// which show different phases of its runs, follow each other.
func (l *lab) rows() []row {
	var all []row
	section := ""
	add := func(r row) {
		r.section = section
		all = append(all, r)
	}
	line := func(label string, s load.Scenario, goal string, met func(load.Phase) bool) {
		add(row{label: label, scenario: s, phase: string(s.Kind), players: live, goal: goal, met: met, chart: goal != ""})
	}

	section = "Traffic"
	line("fan-in 10 → 1, QoS 0", l.scenario("fanin10", qos(0)), "≤ 0.5 µs", cpuAtMost(0.5))
	line("fan-in 10 → 1, QoS 1", l.scenario("fanin10"), "≥ 1.5 M/s, ≤ 0.6 µs", rateAndCPU(1.5e6, 0.6))
	add(row{label: "fan-in 10 → 1, QoS 2", scenario: l.scenario("fanin10", qos(2)), phase: "fanin", players: brokers, goal: "≤ 1.2 µs", met: cpuAtMost(1.2), chart: true})
	line("10 pairs, QoS 0", l.scenario("pairs10", qos(0)), "≤ 0.45 µs", cpuAtMost(0.45))
	line("10 pairs, QoS 1", l.scenario("pairs10"), "≤ 0.7 µs", cpuAtMost(0.7))
	line("fan-out 1 → 100, QoS 0, per delivery", l.scenario("fanout100", qos(0)), "≤ 0.4 µs", cpuAtMost(0.4))
	line("fan-out 1 → 100, QoS 1, per delivery", l.scenario("fanout100"), "≤ 0.5 µs", cpuAtMost(0.5))
	line("publish only, QoS 1", l.scenario("publish10"), "≤ 0.4 µs", cpuAtMost(0.4))
	line("fan-in, QoS 1, 4 KiB", l.scenario("fanin10", size(4096)), "≤ 3.1 µs", cpuAtMost(3.1))
	section = "Other traffic"
	line("fan-in, QoS 1, 16 B", l.scenario("fanin10", size(load.MinPayload)), "", nil)
	line("fan-in, QoS 1, 1 MiB, window 4", l.scenario("fanin10", size(1<<20), window(4)), "", nil)
	line("10 pairs, QoS 1, 1,000 topics each", l.scenario("pairs10", topics(1000)), "", nil)
	line("fan-in, QoS 1, 1,000,000 topics", l.scenario("topics1000000"), "", nil)
	add(row{label: "100,000 subscriptions, QoS 1", scenario: l.scenario("subs100000"), phase: "subs", players: brokers})
	for _, r := range []row{
		{label: "10 pairs, QoS 1, MQTT 5", scenario: l.scenario("pairs10", mqtt5)},
		{label: "the same with properties", scenario: l.scenario("pairs10", properties)},
		{label: "shared subscription of 4, QoS 1", scenario: l.scenario("shared4")},
	} {
		r.phase, r.players = string(r.scenario.Kind), newer
		add(r)
	}

	section = "Latency"
	add(row{label: "round trip, one in flight", scenario: l.scenario("rtt"), phase: "rtt", shown: roundTrip, players: classes,
		goal: "p50 ≤ 32 µs", met: func(p load.Phase) bool { return p.P50 <= 0.032 }})
	add(row{label: "10 pairs, QoS 1, 10 k/s", scenario: l.scenario("pairs10", rate(10_000)), phase: "pairs", shown: latency, players: classes,
		goal: "≤ 0.11 · ≤ 0.40 ms", met: func(p load.Phase) bool { return p.P50 <= 0.11 && p.P99 <= 0.40 }})
	add(row{label: "10 pairs, QoS 1, 1 k/s", scenario: l.scenario("pairs10", rate(1_000)), phase: "pairs", shown: latency, players: classes})

	section = "A sync before every acknowledgement"
	add(row{label: "publish only, QoS 1, 1,000 in flight", scenario: l.scenario("publish10"), phase: "publish", shown: acked,
		players: []string{always, natsAlways}, stored: true, goal: "≥ 200 k/s, p50 ≤ 3 ms",
		met: func(p load.Phase) bool { return p.Rate >= 200e3 && p.P50 <= 3 }})

	section = "Stored"
	l.storedRows(add)

	section = "Connections"
	for _, n := range []string{"idle10000", "idle50000"} {
		add(row{label: n[4:len(n)-3] + ",000 idle connections, RSS each", scenario: l.scenario(n), phase: "idle", shown: connection,
			players: []string{interval, mosquitto, mochi, nats, rumqttd}, goal: "≤ 4 k", met: func(p load.Phase) bool { return p.AnonGrowth <= 4096 }})
	}
	return all
}

func (l *lab) storedRows(add func(row)) {
	pair := func(label, first, second string, s load.Scenario, goals [2]string, met [2]func(load.Phase) bool, players []string) {
		for i, phase := range []string{first, second} {
			names := [2]string{"publish", "deliver"}
			add(row{label: label + ": " + names[i], scenario: s, phase: phase, players: players, stored: true, goal: goals[i], met: met[i], chart: true})
		}
	}
	pair("50,000 for an offline session", "publish", "drain", l.scenario("store"),
		[2]string{"≥ 1 M/s, ≤ 0.5 µs", "≥ 700 k/s, ≤ 1.0 µs"}, [2]func(load.Phase) bool{rateAndCPU(1e6, 0.5), rateAndCPU(700e3, 1.0)}, keepers)
	pair("50,000 retained", "set", "deliver", l.scenario("retained50000"),
		[2]string{"≤ 0.6 µs", "≤ 1.0 µs"}, [2]func(load.Phase) bool{cpuAtMost(0.6), cpuAtMost(1.0)}, keepers)
	const past = "publish past %s on `#`"
	alone := fmt.Sprintf(past, "no session")
	for _, n := range []struct {
		name, label, goal string
		players           []string
	}{{"offline0", "no session", "", keepers}, {"offline1000", "1,000 sessions", "the same within 5 %", few}, {"offline100000", "100,000 sessions", "the same within 5 %", us}} {
		r := row{label: fmt.Sprintf(past, n.label), scenario: l.scenario(n.name, count(200_000), limit(5*time.Second)),
			phase: "publish", players: n.players, stored: true, goal: n.goal}
		if n.goal != "" {
			r.against, r.metBy = alone, func(base, p load.Phase) bool { return p.CPU <= 1.05*base.CPU }
		}
		add(r)
	}
	kill := l.scenario("kill50000")
	add(row{label: "50,000 acknowledged, SIGKILL: lost", scenario: kill, phase: "drain", shown: lost, players: keepers, stored: true, goal: "0",
		met: func(load.Phase) bool { return true }})
	atMost := func(ms float64) func(load.Phase) bool {
		return func(p load.Phase) bool { return p.Seconds*1000 <= ms }
	}
	add(row{label: "restart with 500,000 stored, after SIGKILL", scenario: l.scenario("kill500000"), phase: load.Restarted, shown: restart,
		players: []string{interval, always, nats}, stored: true, goal: "≤ 100 ms", met: atMost(100)})
	large := l.scenario("kill", size(4096), count(int(l.backlog/4096)))
	add(row{label: "restart with " + gigabytes(l.backlog), scenario: large, phase: load.Restarted, shown: restart,
		players: us, stored: true, goal: "≤ 100 ms", met: atMost(100), once: true})
	beside := l.scenario("beside", func(s *load.Scenario) { s.Backlog = l.backlog })
	beside.Measure = max(5*time.Second, l.measure)
	add(row{label: "10 k/s alone", scenario: beside, phase: "alone", shown: latency, players: us, stored: true, once: true})
	add(row{label: "10 k/s while " + gigabytes(l.backlog) + " go to a slow subscriber", scenario: beside, phase: "beside", shown: latency, players: us, stored: true,
		goal: "p99 within 2 ×", against: "10 k/s alone", metBy: func(base, p load.Phase) bool { return p.P99 <= 2*base.P99 }, once: true})
}
