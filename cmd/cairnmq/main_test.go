package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairnmq/mqtt/packet"
	"cairnmq/segment"
	"cairnmq/storage"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cairnmq-cli")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "cairnmq")
	if out, err := exec.Command("go", "build", "-pgo=off", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// result of a run of the binary.
type result struct {
	out, err string
	code     int
}

// environment without the variables that the program reads.
func environment(extra ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CAIRNMQ_") {
			env = append(env, e)
		}
	}
	return append(env, extra...)
}

func run(t *testing.T, args ...string) result {
	t.Helper()
	return runIn(t, "", nil, args...)
}

func runIn(t *testing.T, dir string, env []string, args ...string) result {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, args...)
	c.Dir, c.Env = dir, environment(env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// ok runs the program and wants exit code 0 and silence on standard error.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := run(t, args...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("cairnmq %q: exit code %d, %s", args, r.code, r.err)
	}
	return r.out
}

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func openLogAt(t *testing.T, dir string) *storage.Log {
	t.Helper()
	l, err := storage.Open(dir, storage.Options{SegmentSize: 64 << 10, Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func publish(t *testing.T, l *storage.Log, msgs ...storage.Message) {
	t.Helper()
	end, class, err := l.AppendMessages(msgs)
	for i := range msgs {
		err = errors.Join(err, msgs[i].Err)
	}
	if err == nil {
		err = l.Wait(end, class)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Advance()
}

func closeLog(t *testing.T, l *storage.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// numbered are n messages with their number as payload, padded.
func numbered(first, n int) []storage.Message {
	var out []storage.Message
	for i := first; i < first+n; i++ {
		out = append(out, storage.Message{Publisher: "meter", Topic: fmt.Appendf(nil, "t/%d", i%3), Payload: fmt.Appendf(nil, "%0100d", i), QoS: 1})
	}
	return out
}

// smallLog has a few records of several kinds, always the same.
func smallLog(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l := openLogAt(t, dir)
	if _, _, err := l.AppendEvents(
		storage.EventOpened("meter", 5, true, 60, nil, l.Head()),
		storage.EventSubscribed("meter", []storage.Sub{{Filter: "cmd/meter/#", QoS: 1}}),
	); err != nil {
		t.Fatal(err)
	}
	text, one := "text/plain", byte(1)
	props := (&packet.Properties{PayloadFormat: &one, ContentType: &text}).AppendPublish(nil)
	publish(t, l,
		storage.Message{Publisher: "meter", Topic: []byte("plant/1/power"), Payload: []byte(`{"w":230}`), QoS: 1, Props: props},
		storage.Message{Publisher: "meter", Topic: []byte("plant/1/state"), Payload: []byte("on"), QoS: 2, Retain: true, PacketID: 7},
		storage.Message{Publisher: "evil", Topic: []byte("plant/2,x"), Payload: []byte("\x1b[2Jgone\nfake"), HasExpiry: true, Expiry: 60},
		storage.Message{Publisher: "cam", Topic: []byte("plant/3"), Payload: []byte{0xff, 0xd8, 0, 1}},
	)
	if err := l.RecordLoss(storage.Loss{Cause: storage.CauseExpiry, Readers: []string{"scada", "ui"}, From: 1048640, To: 1049000, Count: 2, Bytes: 99, Detail: "expired"}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	return dir
}

// bigLog has n numbered messages in several segments.
func bigLog(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	l := openLogAt(t, dir)
	for i := 0; i < n; i += 50 {
		publish(t, l, numbered(i, 50)...)
	}
	closeLog(t, l)
	return dir
}

func lines(s string) int { return strings.Count(s, "\n") }

func TestUsage(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.toml")
	bad := filepath.Join(t.TempDir(), "bad.toml")
	writeFile(t, good, "[log]\nlevel = \"warn\"\n")
	writeFile(t, bad, "[log]\nlevl = \"warn\"\n[storage]\nmax_bytes = true\n")
	empty := t.TempDir()
	for _, row := range []struct {
		args string
		code int
		out  string // beginning of what is printed
		err  string // a part of the message
	}{
		{"", 0, "NAME:\n   cairnmq - ", ""},
		{"help", 0, "NAME:\n   cairnmq - ", ""},
		{"--help", 0, "NAME:\n   cairnmq - ", ""},
		{"log", 0, "NAME:\n   cairnmq log - ", ""},
		{"log cat --help", 0, "NAME:\n   cairnmq log cat - ", ""},
		{"config", 0, "NAME:\n   cairnmq config - ", ""},
		{"--version", 0, "cairnmq version ", ""},
		{"version", 0, "cairnmq ", ""},
		{"version --json", 0, `{"version":`, ""},
		{"config example", 0, "# The configuration of CairnMQ", ""},
		{"config check " + good, 0, good + ": no problems\n", ""},
		{"config explain -c " + good, 0, "[log]\nlevel = \"warn\"\n", ""},
		{"config check " + bad, 2, "", "bad.toml:2:1: log.levl: unknown key; did you mean level?\n"},
		{"config check " + bad, 2, "", "bad.toml:4:"},
		{"config check", 2, "", "needs a FILE"},
		{"config check /missing", 2, "", "open /missing: no such file"},
		{"config chek x", 2, "", `unknown command "chek"; did you mean check?; see cairnmq config --help`},
		{"sreve", 2, "", `unknown command "sreve"; did you mean serve?; see cairnmq --help`},
		{"zzzzzz", 2, "", "unknown command \"zzzzzz\"; see cairnmq --help\n"},
		{"--versoin", 2, "", "unknown flag --versoin; did you mean --version?; see cairnmq --help"},
		{"log ls --jsn", 2, "", "unknown flag --jsn; did you mean --json?; see cairnmq log ls --help"},
		{"log cat -n x", 2, "", `invalid value "x" for flag -n`},
		{"log cat --topic", 2, "", "flag needs an argument"},
		{"log cat -n 0", 2, "", "-n"},
		{"log cat --topic a/#/b", 2, "", `"a/#/b" is not a topic filter`},
		{"log cat --kind mesage", 2, "", `unknown kind "mesage"; did you mean message?`},
		{"log cat --kind seal", 2, "", `unknown kind "seal"`},
		{"log cat --format jsom", 2, "", `unknown format "jsom"; did you mean json?`},
		{"log cat --from yesterday", 2, "", "--from: \"yesterday\" is neither"},
		{"log cat --follow --to 5", 2, "", "follow"},
		{"log ls a b", 2, "", "one argument at most"},
		{"log ls -c " + bad, 2, "", "unknown key"},
		{"log ls /missing", 4, "", "no log there: /missing does not exist"},
		{"log cat " + empty, 4, "", "holds no segments"},
		{"log losses " + empty, 4, "", "holds no segments"},
		{"serve x", 2, "", "serve takes no arguments"},
		{"serve -c /missing", 2, "", "open /missing"},
		{"serve -c " + bad, 2, "", "bad.toml:2:1"},
		{"serve --log-level lout", 2, "", "log.level"},
		{"passwd", 2, "", "passwd needs a USER"},
		{"passwd a", 2, "", "passwd needs --file"},
		{"passwd a b", 2, "", "one argument at most"},
		{"passwd -f /missing/x #a", 2, "", "begins with #"},
		{"passwd -f " + empty + " a", 1, "", "is not a password file"},
		{"passwd -f " + empty + "/x --delete a", 1, "", "no such file"},
		{"passwd -f " + empty + "/x --hash md5 a", 2, "", "unknown hash \"md5\""},
		{"passwd -f " + empty + "/x a", 1, "", "the password is empty; nothing was changed"},
		{"completion basj", 2, "", "did you mean bash?"},
		{"completion", 2, "", "want one of"},
	} {
		r := run(t, strings.Fields(row.args)...)
		if r.code != row.code || !strings.HasPrefix(r.out, row.out) || !strings.Contains(r.err, row.err) || (row.code == 0) != (r.err == "") {
			t.Errorf("cairnmq %s: exit code %d\n%s%s", row.args, r.code, r.out, r.err)
		}
		if row.code != 0 && r.out != "" {
			t.Errorf("cairnmq %s: an error, and yet it prints %.100s", row.args, r.out)
		}
		if row.code != 0 && !strings.Contains(row.args, "bad") && lines(r.err) != 1 {
			t.Errorf("cairnmq %s: an error of %d lines: %s", row.args, lines(r.err), r.err)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestExplainKnowsFileAndEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	writeFile(t, path, "[storage]\ndir = \"/from/file\"\nmax_bytes = \"1GiB\"\n")
	r := runIn(t, "", []string{"CAIRNMQ_CONFIG=" + path, "CAIRNMQ_STORAGE_DIR=/from/env"}, "config", "explain")
	if r.code != 0 || !strings.Contains(r.out, `dir = "/from/env"`) || !strings.Contains(r.out, `max_bytes = "1GiB"`) {
		t.Fatalf("%d %s%s", r.code, r.out, r.err)
	}
	back := filepath.Join(t.TempDir(), "back.toml")
	writeFile(t, back, r.out)
	ok(t, "config", "check", back)
}

// plain puts a P for each position: they are pinned elsewhere.
func plain(s string) string { return positions.ReplaceAllString(s, "P") }

var positions = regexp.MustCompile(`\b10[0-9]{5}\b`)

const catText = `2026-01-02T03:00:00.000Z P q1 - meter plant/1/power {"w":230}
2026-01-02T03:00:00.000Z P q2 r meter plant/1/state on
2026-01-02T03:00:00.000Z P q0 x evil plant/2,x \x1b[2Jgone\nfake
2026-01-02T03:00:00.000Z P q0 - cam plant/3 0xffd80001
`

const catAll = `2026-01-02T03:00:00.000Z P boot clean_shutdown=false recovered_end=P
2026-01-02T03:00:00.000Z P opened meter version=5 clean_start=true expiry=1m0s cursor=P
2026-01-02T03:00:00.000Z P subscribed meter cmd/meter/# qos1
` + catText + `2026-01-02T03:00:00.000Z P loss expiry: 2 messages, positions P to P readers=scada,ui (expired)
2026-01-02T03:00:00.000Z P shutdown
`

func TestCat(t *testing.T) {
	dir := smallLog(t)
	second := strings.Fields(strings.SplitAfter(ok(t, "log", "cat", dir), "\n")[1])[1] // its position
	want := strings.SplitAfter(catText, "\n")
	for _, row := range []struct {
		args string
		want string
	}{
		{"", catText},
		{"--kind all", catAll},
		{"-t plant/1/#", want[0] + want[1]},
		{"-t plant/1/power -t plant/3", want[0] + want[3]},
		{"-t plant/2,x", want[2]},
		{"-t nothing", ""},
		{"--client meter", want[0] + want[1]},
		{"-n 2", want[0] + want[1]},
		{"--tail 1", want[3]},
		{"--tail 0", ""},
		{"--from " + second, want[1] + want[2] + want[3]},
		{"--to " + second, want[0]},
		{"--from 2026-01-02T03:00:00Z", catText},
		{"--to 2026-01-02T03:00:00Z", ""},
		{"--from -1h --to @now", ""},
		{"--max-payload 3 -n 1", strings.Replace(want[0], `{"w":230}`, `{"w... (9 bytes)`, 1)},
		{"--format raw -n 2", "{\"w\":230}\non\n"},
		{"--format raw -n 2 --null", "{\"w\":230}\x00on\x00"},
		{"--format raw -n 2 --delimiter ;", `{"w":230};on;`},
	} {
		// Flags may stand before and after the directory.
		if got := plain(ok(t, append(append([]string{"log", "cat"}, strings.Fields(row.args)...), dir)...)); got != row.want {
			t.Errorf("log cat %s:\n%s", row.args, got)
		}
		if got := plain(ok(t, append([]string{"log", "cat", dir}, strings.Fields(row.args)...)...)); got != row.want {
			t.Errorf("log cat DIR %s:\n%s", row.args, got)
		}
	}
}

func TestCatJSON(t *testing.T) {
	out := ok(t, "log", "cat", "--format", "json", "--kind", "all", smallLog(t))
	var kinds []string
	for line := range strings.Lines(out) {
		var x struct {
			Kind, Topic, Payload string
			PayloadEncoding      string `json:"payload_encoding"`
			Properties           struct {
				ContentType string `json:"content_type"`
			}
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		kinds = append(kinds, x.Kind)
		switch {
		case x.Topic == "plant/1/power" && x.Properties.ContentType != "text/plain",
			x.Topic == "plant/3" && (x.PayloadEncoding != "base64" || x.Payload != "/9gAAQ=="),
			x.Topic == "plant/2,x" && x.Payload != "\x1b[2Jgone\nfake":
			t.Errorf("%s", line)
		}
	}
	if fmt.Sprint(kinds) != "[boot opened subscribed message message message message loss shutdown]" {
		t.Fatalf("%v", kinds)
	}
}

func TestLosses(t *testing.T) {
	dir := smallLog(t)
	const want = `2026-01-02T03:00:00.000Z P expiry 2 messages 99 bytes positions P-P readers scada,ui (expired)

1 rows, 2 messages
CAUSE   ROWS  MESSAGES  BYTES
expiry  1     2         99
READER  ROWS  MESSAGES  BYTES
scada   1     2         99
ui      1     2         99
`
	if got := plain(ok(t, "log", "losses", dir)); got != want {
		t.Errorf("got %s", got)
	}
	if got := ok(t, "log", "losses", dir, "--client", "nobody"); got != "\n0 rows, 0 messages\n" {
		t.Errorf("got %q", got)
	}
	got := ok(t, "log", "losses", "--json", dir)
	if lines(got) != 2 || !strings.Contains(got, `"from":1048640,"to":1049000`) || !strings.Contains(got, `{"sums":{"rows":1,"messages":2,`) {
		t.Errorf("got %s", got)
	}
}

func TestList(t *testing.T) {
	dir := bigLog(t, 1000)
	for _, flag := range []string{"--json", "--scan"} {
		var x struct {
			Segments []struct {
				State    string
				Messages int
				Scanned  bool
			}
			Total struct{ Messages, Segments, Damages int }
		}
		if err := json.Unmarshal([]byte(ok(t, "log", "ls", flag, "--json", dir)), &x); err != nil {
			t.Fatal(err)
		}
		if x.Total.Messages != 1000 || x.Total.Damages != 0 || x.Total.Segments < 3 || len(x.Segments) != x.Total.Segments {
			t.Errorf("%+v", x)
		}
		if x.Segments[0].State != "sealed" || x.Segments[0].Scanned != (flag == "--scan") || x.Segments[len(x.Segments)-1].State != "active" {
			t.Errorf("%+v", x)
		}
	}
	out := ok(t, "log", "ls", dir)
	if !strings.HasPrefix(out, "SEGMENT") || !strings.Contains(out, "00000000000001048576.seg") || !strings.Contains(out, " segments ") {
		t.Errorf("%s", out)
	}
}

func TestDefaultDirectory(t *testing.T) {
	work := t.TempDir()
	if err := os.Rename(smallLog(t), filepath.Join(work, "data")); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "c.toml")
	writeFile(t, conf, "[storage]\ndir = \""+filepath.Join(work, "data")+"\"\n")
	for _, r := range []result{
		runIn(t, work, nil, "log", "cat"),
		runIn(t, "", nil, "log", "cat", "-c", conf),
		runIn(t, "", []string{"CAIRNMQ_CONFIG=" + conf}, "log", "cat"),
		runIn(t, "", []string{"CAIRNMQ_STORAGE_DIR=" + filepath.Join(work, "data")}, "log", "cat"),
	} {
		if r.code != 0 || plain(r.out) != catText {
			t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
		}
	}
}

func TestCopyWithoutIndex(t *testing.T) {
	dir := smallLog(t)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index", "damaged", "LOCK"} {
		if err := os.RemoveAll(filepath.Join(copied, name)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(copied, "log", segment.FileName(segment.FirstBase))
	for _, path := range []string{copied, filepath.Join(copied, "log"), file} {
		if got := plain(ok(t, "log", "cat", "--kind", "all", path)); got != catAll {
			t.Errorf("%s: %s", path, got)
		}
	}
	if err := os.Chmod(file, 0o400); err != nil { // reading is all that is needed
		t.Fatal(err)
	}
	ok(t, "log", "ls", "--scan", copied)
}

func TestLogVerify(t *testing.T) {
	dir := bigLog(t, 1000)
	if got := ok(t, "log", "verify", dir); !strings.Contains(got, "verdict  sound") || !strings.Contains(got, "index    verified") {
		t.Error(got)
	}
	var v storage.Verified
	if err := json.Unmarshal([]byte(ok(t, "log", "verify", "--json", dir)), &v); err != nil || v.Messages != 1000 || len(v.Problems) != 0 {
		t.Errorf("%v, %+v", err, v)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	patch(t, files[0], 10_000, []byte{0xee})
	r := run(t, "log", "verify", dir)
	if r.code != exitDamage || !strings.Contains(r.out, "PROBLEM  "+filepath.Base(files[0])) || !strings.Contains(r.err, "problems found: 1") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := run(t, "log", "verify", t.TempDir()); r.code != exitNoLog {
		t.Errorf("exit code %d for a directory without a log", r.code)
	}
}

func TestDamage(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(t *testing.T, path string)
		min  int // messages that must come through of 1000
	}{
		{"a flipped byte", func(t *testing.T, path string) { patch(t, path, 10_000, []byte{0xee}) }, 999},
		{"zeros", func(t *testing.T, path string) { patch(t, path, 10_000, make([]byte, 4096)) }, 960},
		{"a header of text", func(t *testing.T, path string) { patch(t, path, 0, []byte("what is this")) }, 500},
		{"a cut file", func(t *testing.T, path string) {
			if err := os.Truncate(path, 20_001); err != nil {
				t.Fatal(err)
			}
		}, 600},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := bigLog(t, 1000)
			files, _ := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
			row.do(t, files[1])
			r := run(t, "log", "cat", dir)
			if r.code != 3 || lines(r.out) < row.min || lines(r.out) >= 1000 || lines(r.err) != 2 || !strings.Contains(r.err, "damage: "+files[1]) {
				t.Errorf("log cat: exit code %d, %d lines, %s", r.code, lines(r.out), r.err)
			}
			r = run(t, "log", "ls", "--scan", dir)
			if r.code != 3 || !strings.Contains(r.out, "damaged") || !strings.Contains(r.out, "damage: "+files[1]) {
				t.Errorf("log ls: exit code %d\n%s%s", r.code, r.out, r.err)
			}
			if r := run(t, "log", "losses", dir); r.code != 3 {
				t.Errorf("log losses: exit code %d", r.code)
			}
		})
	}
}

func patch(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, off)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFollowALiveLog(t *testing.T) {
	dir := t.TempDir()
	l := openLogAt(t, dir)
	publish(t, l, numbered(0, 10)...)
	c := exec.CommandContext(t.Context(), binary, "log", "cat", "--tail", "1", "-f", "--format", "raw", dir)
	c.Env = environment()
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	expect := func(i int) {
		t.Helper()
		if !in.Scan() || in.Text() != fmt.Sprintf("%0100d", i) {
			t.Fatalf("message %d is %q; %s", i, in.Text(), errs.String())
		}
	}
	expect(9) // now it follows
	for i := 10; i < 2010; i += 100 {
		publish(t, l, numbered(i, 100)...)
		for j := range 100 {
			expect(i + j)
		}
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := c.Wait(); err != nil || len(rest) != 0 || errs.Len() != 0 {
		t.Fatalf("after the interrupt: %v, %q, %s", err, rest, errs.String())
	}
	closeLog(t, l)
}

func TestBrokenPipeEndsQuietly(t *testing.T) {
	dir := bigLog(t, 2000)
	for _, args := range [][]string{{"log", "cat", dir}, {"log", "cat", "--format", "json", dir}, {"log", "ls", dir}, {"config", "example"}} {
		c := exec.CommandContext(t.Context(), binary, args...)
		c.Env = environment()
		var errs bytes.Buffer
		c.Stderr = &errs
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		c.Stdout = w
		if err := c.Run(); err != nil || errs.Len() != 0 {
			t.Errorf("%q: %v, %s", args, err, errs.String())
		}
		_ = w.Close()
	}
}

func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	const script = `source <(cairnmq completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cairnmq_complete; echo "${COMPREPLY[*]}"`
	for _, row := range []struct{ line, want string }{
		{"lo", "log"},
		{"log c", "cat"},
		{"log ", "ls cat losses verify help h"},
		{"log cat --fo", "--follow --format"},
		{"log cat --format j", "json"},
		{"log cat --kind del", "delivered"},
		{"completion z", "zsh"},
		{"config ex", "example explain"},
		{"log ls ", ""}, // bash goes on with file names
	} {
		c := exec.CommandContext(t.Context(), bash, append([]string{"-c", script, "bash", "cairnmq"}, strings.Split(row.line, " ")...)...)
		c.Env = environment("PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		if err != nil || strings.Join(strings.Fields(string(out)), " ") != row.want {
			t.Errorf("%q: %q, %v", row.line, out, err)
		}
	}
	for _, shell := range []string{"zsh", "fish", "powershell"} {
		if out := ok(t, "completion", shell); !strings.Contains(out, "cairnmq") {
			t.Errorf("%s: %s", shell, out)
		}
	}
}

// The broker starts, answers, is inspected while it runs, refuses a second one
// on its directory, and ends in order on a signal.
func TestServe(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		dir := filepath.Join(t.TempDir(), "data")
		socket := filepath.Join(t.TempDir(), "s")
		c := exec.CommandContext(t.Context(), binary, "serve", "--data", dir, "--listen", socket, "--log-level", "info")
		c.Env = environment()
		errs, err := c.StderrPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		in := bufio.NewScanner(errs)
		for in.Scan() && !strings.Contains(in.Text(), "listening") {
			log.WriteString(in.Text() + "\n")
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatalf("%v; %s", err, log.String())
		}
		_ = conn.Close()
		if got := ok(t, "log", "cat", "--kind", "boot", dir); lines(got) != 1 {
			t.Errorf("live: %s", got)
		}
		if r := run(t, "serve", "--data", dir, "--listen", socket+"2"); r.code != 1 || !strings.Contains(r.err, "in use by another process") {
			t.Errorf("a second broker: exit code %d, %s", r.code, r.err)
		}
		if err := c.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, errs)
		if err := c.Wait(); err != nil {
			t.Errorf("after %v: %v", signal, err)
		}
		if got := ok(t, "log", "cat", "--kind", "shutdown", dir); lines(got) != 1 {
			t.Errorf("after %v: %s", signal, got)
		}
	}
}
