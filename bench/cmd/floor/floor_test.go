//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/load"
)

// TestFloorDelivers checks that the bound does the work that it is a bound of.
func TestFloorDelivers(t *testing.T) {
	port, err := broker.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	failed := make(chan error, 1)
	go func() { failed <- serve(addr, filepath.Join(t.TempDir(), "log"), 1<<20) }() // ends with the test program

	target := load.Target{Name: "floor", Addr: netip.MustParseAddrPort(addr)}
	for _, name := range []string{"fanin3", "pairs3", "fanout20", "publish3", "rtt"} {
		for qos := range byte(2) {
			s := load.Default()
			s.QoS, s.Warm, s.Measure = qos, 10*time.Millisecond, 100*time.Millisecond
			if err := s.SetName(name); err != nil {
				t.Fatal(err)
			}
			if qos == 0 && s.Subscribers == 0 {
				continue
			}
			r := load.Run(s, target)
			for range 200 { // until it listens
				if r.Phases != nil || r.Faults.Any() {
					break
				}
				select {
				case err := <-failed:
					t.Fatal(err)
				case <-time.After(5 * time.Millisecond):
				}
				r = load.Run(s, target)
			}
			if r.Failed() || r.Phases[0].Messages == 0 {
				t.Errorf("%s QoS %d:\n%s", name, qos, r.String())
			}
		}
	}
}

func TestRingWraps(t *testing.T) {
	r := ring{mem: make([]byte, 10)}
	r.append([]byte("abcdefg"))
	r.append([]byte("hijkl")) // what does not fit at the end is cut off
	r.append([]byte("mno"))
	if got, want := string(r.mem), "abmnofghij"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
