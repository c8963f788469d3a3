//go:build linux

package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cairnmq/bench/load"
)

func TestSlope(t *testing.T) {
	for _, tc := range []struct {
		xs, ys []float64
		want   float64
	}{
		{nil, nil, 0},
		{[]float64{5}, []float64{1}, 0},
		{[]float64{2, 2}, []float64{1, 3}, 0},
		{[]float64{0, 10, 20}, []float64{1, 21, 41}, 2},
		{[]float64{0, 1, 2, 3}, []float64{1, 0, 2, 1}, 0.2},
	} {
		if got := slope(tc.xs, tc.ys); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("%v %v: %v, want %v", tc.xs, tc.ys, got, tc.want)
		}
	}
}

func TestBetween(t *testing.T) {
	page := "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
	got, err := between(page, "x", "new\n\n")
	if want := "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if again, err := between(got, "x", "new"); err != nil || again != got {
		t.Errorf("a second time: %q, %v", again, err)
	}
	for _, bad := range []string{"", "<!-- x: begin -->\n", "<!-- x: end --><!-- x: begin -->\n"} {
		if _, err := between(bad, "x", "new"); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := plainNumber(v); got != want {
			t.Errorf("%v: %q", v, got)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.00123: "0.0012", 0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 1234: "1234"} {
		if got := figure(v); got != want {
			t.Errorf("%v: %q", v, got)
		}
	}
}

// TestRowsCanRun checks every scenario of the studies without a broker.
func TestRowsCanRun(t *testing.T) {
	l := lab{measure: time.Second, backlog: 1e9, rounds: 1}
	seen := make(map[string]bool)
	for _, r := range l.rows() {
		if err := r.scenario.Check(); err != nil {
			t.Errorf("%s: %v", r.label, err)
		}
		if seen[r.label] || r.phase == "" || len(r.players) == 0 {
			t.Errorf("%s: twice, or without phase or brokers", r.label)
		}
		seen[r.label] = true
	}
	for _, s := range l.allSeries() {
		for _, x := range s.sizes {
			if err := s.make(x); err.Check() != nil {
				t.Errorf("%s at %v: %v", s.title, x, err.Check())
			}
		}
	}
}

// TestCells: what a run did wrong must be seen, and never as a figure.
func TestCells(t *testing.T) {
	r := &row{phase: "p"}
	good := func(rate float64) run {
		return run{Result: load.Result{Phases: []load.Phase{{Name: "o", Rate: 7}, {Name: "p", Rate: rate, CPU: 2}}}}
	}
	bad := good(9e9)
	bad.Result.Faults.Lost = 12_000
	for _, tc := range []struct {
		name string
		runs []run
		want string
	}{
		{"the median of three", []run{good(3000), good(1000), good(2000)}, "2.0 k/s · 2.00"},
		{"one lost something", []run{good(1000), bad}, "**12 k lost**"},
		{"an error", []run{{Result: load.Result{Error: "client x: its session is gone"}}}, "**all lost**"},
		{"an unknown error", []run{{Result: load.Result{Error: "boom"}}}, "**failed**"},
		{"left out", []run{{Result: load.Result{Skipped: "too many files"}}}, "not here"},
	} {
		if got := r.words(cellOf(r, tc.runs)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	ours := []*player{{name: interval, ours: true}}
	bad.Player = interval
	if err := faultsOfOurs(ours, []run{bad}); err == nil {
		t.Error("a fault of CairnMQ is no error")
	}
	bad.Player = mosquitto
	if err := faultsOfOurs(ours, []run{bad}); err != nil {
		t.Errorf("a fault of another broker: %v", err)
	}
}

// TestPeersBesideTheFloor does two rows with Mosquitto, writes the page, then
// goes on where it ended, and makes the page from the file alone.
func TestPeersBesideTheFloor(t *testing.T) {
	if _, err := find("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	if err := os.WriteFile(page, []byte("<!-- peers: begin -->\n<!-- peers: end -->\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	args := []string{"peers", "-bin", dir, "-dir", dir, "-page", page, "-out", filepath.Join(dir, "runs.jsonl"), "-measure", "50ms",
		"-brokers", "Mosquitto|NATS", "-only", "^10 pairs, QoS 1$|SIGKILL: lost"}
	do := func(more ...string) string {
		t.Helper()
		if err := study(slices.Concat(args, more), &progress, &progress); err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	text := do("-rounds", "1")
	for _, want := range []string{`\| 10 pairs, QoS 1 \| [^|*]+/s · [\d.]+ \| ≤ 0.7 µs \|  \|`, `SIGKILL: lost \| \*\*all lost\*\* \| 0 \|`, `Mosquitto \d`, "One round"} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if !strings.Contains(progress.String(), "NATS is left out") {
		t.Errorf("not a word about NATS:\n%s", progress.String())
	}
	if svg, err := os.ReadFile(filepath.Join(dir, "bench-cpu.svg")); err != nil || !bytes.Contains(svg, []byte("10 pairs, QoS 1")) {
		t.Errorf("chart: %v", err)
	}
	lines := func() int {
		data, err := os.ReadFile(filepath.Join(dir, "runs.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(data, []byte("\n"))
	}
	if n := lines(); n != 2 {
		t.Errorf("%d runs, want 2", n)
	}
	if text := do("-rounds", "2", "-resume"); !strings.Contains(text, "Medians of 2 rounds") || lines() != 4 {
		t.Errorf("%d runs after the second round\n%s", lines(), text)
	}
	before := text
	if text = do("-render"); lines() != 4 || text == before {
		t.Errorf("%d runs, or the page is that of one round", lines())
	}
}
