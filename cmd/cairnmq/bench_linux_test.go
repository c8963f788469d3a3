package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestBench loads a broker that runs, ours, with the same program.
func TestBench(t *testing.T) {
	c := exec.CommandContext(t.Context(), binary, "serve", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--log-level", "info")
	c.Env = environment()
	errs, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(errs)
	var listening struct{ Msg, Address string }
	for listening.Msg != "listening" && in.Scan() {
		if err := json.Unmarshal(in.Bytes(), &listening); err != nil {
			t.Fatal(err)
		}
	}
	read := make(chan struct{}) // closed when the broker has ended
	go func() {
		defer close(read)
		for in.Scan() { // or the broker would wait for us
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-read
		_ = c.Wait()
	})
	out := ok(t, "bench", "--address", listening.Address, "--pid", strconv.Itoa(c.Process.Pid), "--json",
		"--duration", "50ms", "--warm", "0s", "--count", "200", "--mqtt", "5", "--properties",
		"fanin3", "store", "offline3", "retained50", "idle5")
	want := []string{"fanin", "publish drain", "publish drain1", "set deliver", "connect idle"}
	dec := json.NewDecoder(strings.NewReader(out))
	for _, phases := range want {
		var run struct {
			Phases []struct {
				Phase    string
				Messages int
				RSS      int `json:"rss_anon"`
			}
		}
		if err := dec.Decode(&run); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		var names []string
		for _, p := range run.Phases {
			names = append(names, p.Phase)
			if p.RSS == 0 || p.Messages == 0 && p.Phase != "idle" {
				t.Errorf("empty figures: %+v", p)
			}
		}
		if got := strings.Join(names, " "); got != phases {
			t.Errorf("phases %q, want %q", got, phases)
		}
	}
	if out := ok(t, "bench", "-a", listening.Address, "--duration", "20ms", "--warm", "0s"); !strings.HasPrefix(out, "pairs10 q1") {
		t.Errorf("without a scenario: %q", out)
	}
}

func TestBenchFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	if r := run(t, "bench", "-a", nobody, "pair"); r.code != 1 || !strings.Contains(r.out, "refused") || !strings.Contains(r.err, "1 of 1 runs failed") {
		t.Errorf("nobody listens: exit code %d, %s%s", r.code, r.out, r.err)
	}
	for _, tc := range []struct{ args, want string }{
		{"fan10", `scenario "fan10": unknown`},
		{"--mqtt 4.2 pair", `--mqtt "4.2": want 3.1.1 or 5`},
		{"--qos 3 pair", "--qos 3: want 0, 1 or 2"},
		{"--size 3 pair", "payload of 3 bytes"},
		{"--properties pair", "properties need MQTT 5"},
		{"--qos 0 store", "store at QoS 0"},
		{"--quick pair", "takes no arguments"},
		{"-a nowhere", `--address "nowhere": want host:port`},
		{"--cert x pair", "--cert and --key go together"},
		{"--ca bench_linux_test.go pair", "no certificate in it"},
	} {
		if r := run(t, append([]string{"bench"}, strings.Fields(tc.args)...)...); r.code != 2 || !strings.Contains(r.err, tc.want) {
			t.Errorf("%s: exit code %d, %q, want %q", tc.args, r.code, r.err, tc.want)
		}
	}
}
