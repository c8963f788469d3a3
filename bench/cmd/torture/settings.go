//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
)

// settings are what a campaign is run with, drawn from its seed.
type settings struct {
	segmentSize, maxBytes, checkpointBytes int // KiB
	checkpointInterval                     string
	class, sessions                        string
	rule                                   string // class of t/0/#, empty: none
	outbox, maxInflight, mapped            int
	// tight: the budget is too small, and messages are lost to whoever is
	// away.
	tight bool
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func drawSettings(r *rand.Rand, tight bool) settings {
	s := settings{
		segmentSize: pick(r, 64, 128, 512), maxBytes: 2 << 20, checkpointBytes: pick(r, 64, 256, 2048),
		checkpointInterval: pick(r, "100ms", "1s", "1h"), class: pick(r, "always", "interval", "os"),
		outbox: pick(r, 16, 200, 4096), maxInflight: pick(r, 10, 200, 1000), mapped: pick(r, 1, 4), tight: tight,
	}
	if s.class != "always" {
		s.sessions = pick(r, "", "os", "interval")
		s.rule = pick(r, "", "always")
	}
	if tight {
		s.segmentSize, s.maxBytes = pick(r, 64, 128), 2500
	}
	return s
}

// text is the configuration; dir is where the data and the socket go.
func (s settings) text() string {
	rule := ""
	if s.rule != "" {
		rule = fmt.Sprintf("[[durability.rules]]\nfilter = \"t/0/#\"\nclass = %q\n", s.rule)
	}
	return fmt.Sprintf(`[log]
level = "info"
format = "json"

[storage]
dir = "{dir}/data"
segment_size = "%dKiB"
max_bytes = "%dKiB"
checkpoint_bytes = "%dKiB"
checkpoint_interval = %q
mapped_segments = %d

[durability]
default = %q
sessions = %q
interval = "20ms"
%s
[sessions]
outbox = %d
max_inflight = %d

[limits]
max_packet_size = "32KiB"

[servers.main]
listen = "127.0.0.1:{port}"

[servers.local]
type = "unix"
listen = "{dir}/socket"
`, s.segmentSize, s.maxBytes, s.checkpointBytes, s.checkpointInterval, s.mapped, s.class, s.sessions, rule, s.outbox, s.maxInflight)
}

func (s settings) String() string {
	return fmt.Sprintf("class %s, sessions %q, rule %q, segments of %d KiB, budget %d KiB, checkpoints %d KiB/%s, outbox %d, inflight %d",
		s.class, s.sessions, s.rule, s.segmentSize, s.maxBytes, s.checkpointBytes, s.checkpointInterval, s.outbox, s.maxInflight)
}
