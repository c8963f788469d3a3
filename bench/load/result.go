//go:build linux

package load

import (
	"fmt"
	"strings"
	"time"

	"cairnmq/bench/broker"
)

// Result is what one run of a scenario found.
type Result struct {
	Scenario string  `json:"scenario"`
	Broker   string  `json:"broker"`
	Round    int     `json:"round"`
	Phases   []Phase `json:"phases"`
	Faults   Faults  `json:"faults"`
	// Error says why the run could not be finished.
	Error string `json:"error,omitempty"`
	// Skipped says why it was not begun.
	Skipped string `json:"skipped,omitempty"`
}

// Failed reports whether the figures must not be used.
func (r *Result) Failed() bool { return r.Error != "" || r.Faults.Any() }

// Phase is the figures of one part of a run. The CPU figures are zero without
// the broker's process number.
type Phase struct {
	Name     string  `json:"phase"`
	Messages uint64  `json:"messages"` // or connections
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"` // messages a second
	// Microseconds of CPU time per message, of the broker and the generator.
	CPU    float64 `json:"cpu_us"`
	GenCPU float64 `json:"generator_cpu_us"`
	// Milliseconds of latency; zero if there was none to measure.
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	// Late99 is what of it, at a fixed rate, was the generator's own lateness
	// in publishing: the 99th percentile.
	Late99 float64 `json:"generator_late_p99_ms"`
	// Bytes resident when the phase ended.
	RSSAnon int64 `json:"rss_anon"`
	RSSFile int64 `json:"rss_file"`
	// AnonGrowth is the growth of anonymous memory per message, or per
	// connection.
	AnonGrowth float64 `json:"anon_growth_per_message"`
	// Bytes written to disk during the phase.
	Written int64 `json:"written"`
	// Payload is the bytes of payload that went through; zero if not counted.
	Payload int64 `json:"payload"`
	// BusyMs is the broker's CPU time in milliseconds per second.
	BusyMs float64 `json:"busy_ms_per_s"`
	// OtherMs is what everything but broker and generator took meanwhile, in
	// milliseconds per second. Where it is not small the rate means little.
	OtherMs float64 `json:"other_ms_per_s"`
}

// Restarted is the phase that has the time from the start of the broker's
// program to its first client in Seconds, and in Messages what it held.
const Restarted = "restart"

// String returns the run on one line per phase.
func (r *Result) String() string {
	var b strings.Builder
	head := fmt.Sprintf("%-26s %-12s", r.Scenario, r.Broker)
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "%s %s\n", head, p)
	}
	switch {
	case r.Skipped != "":
		fmt.Fprintf(&b, "%s left out: %s\n", head, r.Skipped)
	case r.Error != "":
		fmt.Fprintf(&b, "%s FAILED: %s (%v)\n", head, r.Error, r.Faults)
	case r.Faults.Any():
		fmt.Fprintf(&b, "%s FAILED: %v\n", head, r.Faults)
	}
	return b.String()
}

func (p Phase) String() string {
	var b strings.Builder
	if p.Name == Restarted {
		return fmt.Sprintf("%-8s start to CONNACK %s ms", p.Name, short(p.Seconds*1000))
	}
	known := p.RSSAnon > 0 // a broker whose figures can be read
	fmt.Fprintf(&b, "%-8s %9s msg/s", p.Name, count(p.Rate))
	if known {
		fmt.Fprintf(&b, "  cpu %6s µs", short(p.CPU))
	}
	fmt.Fprintf(&b, "  gen %6s µs", short(p.GenCPU))
	if p.P50 > 0 {
		fmt.Fprintf(&b, "  p50 %s p99 %s p99.9 %s ms", short(p.P50), short(p.P99), short(p.P999))
	}
	if p.Late99 > 0.05 {
		fmt.Fprintf(&b, " (generator late p99 %s)", short(p.Late99))
	}
	if !known {
		return b.String()
	}
	fmt.Fprintf(&b, "  rss %s+%s MiB", short(float64(p.RSSAnon)/(1<<20)), short(float64(p.RSSFile)/(1<<20)))
	if p.AnonGrowth != 0 {
		fmt.Fprintf(&b, " (%+.0f B each)", p.AnonGrowth)
	}
	if p.Written > 0 {
		fmt.Fprintf(&b, "  disk %s MiB", short(float64(p.Written)/(1<<20)))
	}
	if p.Name == "idle" {
		fmt.Fprintf(&b, "  busy %s ms/s", short(p.BusyMs))
	}
	if p.OtherMs > 50 {
		fmt.Fprintf(&b, "  (others took %.0f ms/s)", p.OtherMs)
	}
	return b.String()
}

// short writes a number with about three digits.
func short(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// count writes a large number in thousands or millions.
func count(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 1e3:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// meter takes the difference of the figures between two moments.
type meter struct {
	target Target
	begin  time.Time
	usage  broker.Usage
	gen    time.Duration
	all    time.Duration
}

// start begins a phase now.
func (m *meter) start() (err error) {
	if m.target.PID != 0 {
		if m.usage, err = broker.ReadUsage(m.target.PID); err != nil {
			return err
		}
	}
	if m.all, err = broker.MachineCPU(); err != nil {
		return err
	}
	m.gen, err = broker.CPUTime(0) // 0 is this process
	m.begin = time.Now()
	return err
}

// stop ends the phase in which n messages went through.
func (m *meter) stop(name string, n uint64) (Phase, error) {
	elapsed := time.Since(m.begin)
	gen, err := broker.CPUTime(0)
	if err != nil {
		return Phase{}, err
	}
	var now broker.Usage
	if m.target.PID != 0 {
		if now, err = broker.ReadUsage(m.target.PID); err != nil {
			return Phase{}, err
		}
	}
	all, err := broker.MachineCPU()
	if err != nil {
		return Phase{}, err
	}
	others := all - m.all - (gen - m.gen) - (now.CPU - m.usage.CPU)
	each := float64(max(n, 1))
	return Phase{
		Name:       name,
		Messages:   n,
		Seconds:    elapsed.Seconds(),
		Rate:       float64(n) / elapsed.Seconds(),
		CPU:        micros(now.CPU-m.usage.CPU) / each,
		GenCPU:     micros(gen-m.gen) / each,
		RSSAnon:    now.RSSAnon,
		RSSFile:    now.RSSFile,
		AnonGrowth: float64(now.RSSAnon-m.usage.RSSAnon) / each,
		Written:    now.WriteBytes - m.usage.WriteBytes,
		BusyMs:     micros(now.CPU-m.usage.CPU) / 1000 / elapsed.Seconds(),
		OtherMs:    max(micros(others)/1000/elapsed.Seconds(), 0),
	}, nil
}

// latency fills in the quantiles of h.
func (p *Phase) latency(h *Hist) {
	p.P50 = millis(h.Quantile(0.5))
	p.P99 = millis(h.Quantile(0.99))
	p.P999 = millis(h.Quantile(0.999))
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }

func micros(d time.Duration) float64 { return float64(d) / 1e3 }
