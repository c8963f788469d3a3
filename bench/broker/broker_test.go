//go:build linux

package broker

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSpec(t *testing.T) {
	for _, tc := range []struct {
		in   string
		name string
		args []string
	}{
		{"mosquitto", "mosquitto", []string{"mosquitto", "-c", "{mosquitto.conf}"}},
		{"m=/usr/sbin/mosquitto", "m", []string{"/usr/sbin/mosquitto", "-c", "{mosquitto.conf}"}},
		{"new=/a/cairnmq", "new", []string{"/a/cairnmq", "serve", "-c", "{cairnmq.toml}"}},
		{"x=prog 'a b' --port={port}  -d \"\"", "x", []string{"prog", "a b", "--port={port}", "-d", ""}},
	} {
		got, err := ParseSpec(tc.in)
		if err != nil || got.Name != tc.name || !slices.Equal(got.Args, tc.args) {
			t.Errorf("%s: got %q %q, %v", tc.in, got.Name, got.Args, err)
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSpec("n=bin/nats-server"); err != nil || !slices.Equal(got.Args, []string{wd + "/bin/nats-server", "-c", "{nats.conf}"}) {
		t.Errorf("a relative path: %v, %v", got, err)
	}
	for _, in := range []string{"", "x=", "=prog", "x=a 'b"} {
		if got, err := ParseSpec(in); err == nil {
			t.Errorf("%q: no error but %v", in, got)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	dir := t.TempDir()
	args, err := Spec{Args: []string{"p", "{dir}/x", "{port}", "{cairnmq.toml}"}}.command(dir, 1234)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"p", dir + "/x", "1234", dir + "/cairnmq.toml"}; !slices.Equal(args, want) {
		t.Errorf("got %q, want %q", args, want)
	}
	text, err := os.ReadFile(dir + "/cairnmq.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`dir = "` + dir + `/data"`, `listen = "127.0.0.1:1234"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestUsage burns CPU and memory and expects to see both.
func TestUsage(t *testing.T) {
	before, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	pages := make([]byte, size)
	begin := time.Now()
	for i := 0; time.Since(begin) < 50*time.Millisecond; i++ {
		pages[i*4096%size]++
	}
	for i := 0; i < size; i += 4096 {
		pages[i]++
	}
	after, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after.CPU - before.CPU; used < 10*time.Millisecond || used > 10*time.Second {
		t.Errorf("CPU time grew by %v in 50 ms of work", used)
	}
	if grown := after.RSSAnon - before.RSSAnon; grown < size/2 {
		t.Errorf("anonymous memory grew by %d after touching %d", grown, size)
	}
	runtime.KeepAlive(pages)
}

func TestProcessEnds(t *testing.T) {
	s := Spec{Name: "sleeper", Args: []string{"/bin/sleep", "60"}}
	p, err := Start(s, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if p.Ended() {
		t.Error("ended at once")
	}
	if _, err := CPUTime(p.PID()); err != nil {
		t.Error(err)
	}
	if _, err := p.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	if !p.Ended() {
		t.Error("still runs after Stop")
	}
	if _, err := p.Stop(time.Second); err == nil {
		t.Error("Stop of an ended process is no error")
	}
}
