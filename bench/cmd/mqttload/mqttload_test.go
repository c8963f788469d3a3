//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"cairnmq/bench/load"
)

const mosquitto = "/usr/sbin/mosquitto"

func TestCompareMosquitto(t *testing.T) {
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skip("mosquitto is not installed")
	}
	var out, progress bytes.Buffer
	ok, err := measure([]string{
		"-dir", t.TempDir(), "-rounds", "2", "-warm", "10ms", "-measure", "50ms", "-count", "500",
		"-broker", "one=" + mosquitto, "-compare", "two=" + mosquitto + " -c {mosquitto.conf}",
		"fanin3", "store",
	}, &out, &progress)
	if err != nil || !ok {
		t.Fatalf("good %v, %v\n%s%s", ok, err, out.String(), progress.String())
	}
	table := out.String()[strings.Index(out.String(), "\n\n")+2:]
	if got := strings.Count(table, "\n"); got != 2+6 {
		t.Errorf("%d lines, want a head of 2 and 3 phases of 2 brokers:\n%s", got, table)
	}
	if strings.Count(table, "| 2 |\n") != 6 {
		t.Errorf("not all rows are of 2 runs:\n%s", table)
	}
}

func TestJSON(t *testing.T) {
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skip("mosquitto is not installed")
	}
	var out, progress bytes.Buffer
	ok, err := measure([]string{"-dir", t.TempDir(), "-json", "-warm", "10ms", "-measure", "50ms", "-broker", mosquitto, "pair"}, &out, &progress)
	if err != nil || !ok {
		t.Fatalf("good %v, %v\n%s%s", ok, err, out.String(), progress.String())
	}
	var r load.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Broker != "mosquitto" || r.Round != 1 || len(r.Phases) != 1 || r.Phases[0].CPU == 0 {
		t.Errorf("%v in %s", err, out.String())
	}
}

// TestFailureIsTold wants a bad status, not only a message, from a run that
// could not be done.
func TestFailureIsTold(t *testing.T) {
	var out, progress bytes.Buffer
	ok, err := measure([]string{"-addr", "127.0.0.1:1", "pair"}, &out, &progress)
	if ok || err != nil || !strings.Contains(out.String(), "FAILED") {
		t.Errorf("good %v, %v\n%s", ok, err, out.String())
	}
	if ok, err = measure([]string{"-dir", t.TempDir(), "-broker", "x=/bin/false", "pair"}, &out, &progress); ok || err == nil {
		t.Errorf("a broker that ends at once: good %v, %v", ok, err)
	}
}

func TestFailedRunsAreNoFigures(t *testing.T) {
	table := markdown([]load.Result{
		{Scenario: "s", Broker: "b", Phases: []load.Phase{{Name: "p", Rate: 1000}}},
		{Scenario: "s", Broker: "a", Phases: []load.Phase{{Name: "p", Rate: 10}}},
		{Scenario: "s", Broker: "b", Phases: []load.Phase{{Name: "p", Rate: 9e9}}, Faults: load.Faults{Lost: 1}},
		{Scenario: "s", Broker: "b", Phases: []load.Phase{{Name: "p", Rate: 2000}}},
		{Scenario: "s", Broker: "b", Phases: []load.Phase{{Name: "p", Rate: 6000}}},
	})
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[2], "| s | p | a | 10 |") ||
		!strings.HasPrefix(lines[3], "| s | p | b | 2000 |") || !strings.HasSuffix(lines[3], "| 3, **1 FAILED** |") {
		t.Errorf("got\n%s", table)
	}
}
