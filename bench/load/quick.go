//go:build linux

package load

import (
	"time"

	"cairnmq/bench/wire"
)

// Quick returns every kind of scenario that a broker in use can stand, so small
// that all of them take a few seconds. Their checks are the full ones; their
// figures mean little.
func Quick() []Scenario {
	var all []Scenario
	for _, q := range []struct {
		name   string
		change func(*Scenario)
	}{
		{"fanin10", func(s *Scenario) { s.QoS = 0 }},
		{"fanin10", func(*Scenario) {}},
		{"fanin10", func(s *Scenario) { s.QoS = 2 }},
		{"fanin10", func(s *Scenario) { s.Size = MinPayload }},
		{"fanin10", func(s *Scenario) { s.Size = 4096 }},
		{"fanin4", func(s *Scenario) { s.Size, s.Window = 1<<20, 2 }},
		{"pairs10", func(s *Scenario) { s.QoS = 0 }},
		{"pairs10", func(s *Scenario) { s.Topics = 100 }},
		{"pairs10", func(s *Scenario) { s.Version = wire.V5 }},
		{"pairs10", func(s *Scenario) { s.Version, s.Properties = wire.V5, true }},
		{"pairs10", func(s *Scenario) { s.Rate, s.Bystanders = 1000, 50 }},
		{"fanout20", func(s *Scenario) { s.QoS = 0 }},
		{"fanout20", func(*Scenario) {}},
		{"publish10", func(*Scenario) {}},
		{"rtt", func(*Scenario) {}},
		{"shared4", func(*Scenario) {}},
		{"topics2000", func(*Scenario) {}},
		{"subs2000", func(*Scenario) {}},
		{"store2", func(*Scenario) {}},
		{"offline20", func(*Scenario) {}},
		{"beside2", func(s *Scenario) { s.Rate, s.SlowRate = 1000, 1e5 }},
		{"retained500", func(*Scenario) {}},
		{"idle100", func(s *Scenario) { s.Persistent = true }},
	} {
		s := Default()
		s.Warm, s.Measure, s.Count = 20*time.Millisecond, 150*time.Millisecond, 1000
		if err := s.SetName(q.name); err != nil {
			panic(err) // a wrong name just above
		}
		q.change(&s)
		all = append(all, s)
	}
	return all
}
