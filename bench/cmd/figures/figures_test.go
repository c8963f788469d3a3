//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1GB": 1e9, "10GB": 1e10, "1.5MB": 15e5, "7": 7, "20B": 20, "3kB": 3000} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "GB", "-1GB", "1XB", "1MGB", "0", "9e30"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: no error but %d", in, got)
		}
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{0: nil, 3: {3}, 2: {3, 1}, 5: {9, 5, 1}} {
		if got := median(values); got != want {
			t.Errorf("%v: %v, want %v", values, got, want)
		}
	}
}

// TestLossIsTold runs everything against mosquitto, which by design loses what
// it holds when it is killed: the program must say so, and do the rest.
func TestLossIsTold(t *testing.T) {
	const mosquitto = "/usr/sbin/mosquitto"
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skip("mosquitto is not installed")
	}
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	var out, progress bytes.Buffer
	err := measure([]string{"-dir", t.TempDir(), "-backlog", "1MB", "-restarts", "2", "-sessions", "20", "-rounds", "2", "-count", "500", mosquitto}, &out, &progress)
	if err == nil || !strings.Contains(err.Error(), "session is gone") || !strings.Contains(out.String(), "**FAILED**") {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"SIGKILL, start to CONNACK with 1MB", "memory idle", "publish with no session", "publish with 20 offline sessions on #"} {
		if !strings.Contains(out.String(), "| "+want+" |") {
			t.Errorf("no row %q in\n%s", want, out.String())
		}
	}
}
