package logging

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// clock is a time that moves only when told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// writeAllKinds logs one line of each kind that matters.
func writeAllKinds(r *Root) {
	storage := r.For(Storage)
	storage.Info("recovered", KeySegment, "00000000000000000000.seg", KeyPos, uint64(4096), "took", 1500*time.Millisecond)
	storage.Error("sync failed", Err(fmt.Errorf("sync segment: %w", errors.New("input/output error"))))
	client := r.For(Client).With(KeyClient, "sensor 7", KeyPeer, "192.0.2.1:5000")
	client.Warn("packet refused", KeyPacket, "PUBLISH", KeyReason, 0x97, KeyServer, "main")
	client.Debug("left out: below the level")
	client.WithGroup("will").Info("will set", "topic", "a/b", "qos", 1)
	client.Info("hostile", KeyClient, "a\nb\x1b[31m \\x1b[2J\u009b2J", KeyReason, strings.Repeat("é", 400))
}

func TestFormats(t *testing.T) {
	for name, o := range map[string]Options{
		"text.golden":   {Format: FormatText, Color: ColorNever},
		"colour.golden": {Format: FormatText, Color: ColorAlways},
		"json.golden":   {Format: FormatJSON},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			o.Now = newClock().now
			writeAllKinds(New(&b, o))
			checkGolden(t, name, b.Bytes())
			if lines := strings.Count(b.String(), "\n"); lines != 5 {
				t.Errorf("%d lines, want 5: a value must not start a line", lines)
			}
		})
	}
}

func TestColoursOnlyWhereAskedFor(t *testing.T) {
	const escape = "\x1b"
	for _, test := range []struct {
		color Color
		want  bool
	}{{ColorAlways, true}, {ColorNever, false}, {ColorAuto, false}, {"", false}} {
		var b bytes.Buffer
		New(&b, Options{Format: FormatText, Color: test.color}).For(Broker).Info("started")
		if got := strings.Contains(b.String(), escape); got != test.want {
			t.Errorf("color %q: coloured = %v, want %v", test.color, got, test.want)
		}
	}
}

func TestHostileValuesCannotCommandTheTerminal(t *testing.T) {
	for _, hostile := range []string{"\x1b[2J", `\x1b[2J`, `\x1b[2J needs quotes`, "\x1b]0;title\a", `\\x1b[2J x`} {
		var quiet, loud bytes.Buffer
		for _, b := range []*bytes.Buffer{&quiet, &loud} {
			value := hostile
			if b == &quiet {
				value = "harmless"
			}
			New(b, Options{Format: FormatText, Color: ColorAlways}).For(Client).Info("hello "+value, KeyClient, value,
				Err(errors.New(value)), "struct", struct{ ID string }{value})
		}
		if got, want := strings.Count(loud.String(), "\x1b"), strings.Count(quiet.String(), "\x1b"); got != want {
			t.Errorf("%q: %d escapes, want the %d of a harmless line: %q", hostile, got, want, loud.String())
		}
	}
}

func TestAutoIsJSONAwayFromTerminals(t *testing.T) {
	var b bytes.Buffer
	New(&b, Options{}).For(Broker).Info("started")
	if !strings.HasPrefix(b.String(), "{") {
		t.Errorf("got %q, want JSON", b.String())
	}
}

func TestValueThatPanicsCostsOnlyItsText(t *testing.T) {
	for _, format := range []Format{FormatText, FormatJSON} {
		var b bytes.Buffer
		var missing *os.PathError
		New(&b, Options{Format: format}).For(Broker).Info("started", Err(missing))
		if !strings.Contains(b.String(), "started") {
			t.Errorf("%s: got %q", format, b.String())
		}
	}
}

func TestLevels(t *testing.T) {
	var b bytes.Buffer
	r := New(&b, Options{Format: FormatText, Level: slog.LevelWarn, Components: map[Component]slog.Level{
		Storage: slog.LevelDebug,
	}})
	written := func(l *slog.Logger, level slog.Level) bool {
		b.Reset()
		l.Log(t.Context(), level, "line")
		return b.Len() > 0
	}
	storage, broker := r.For(Storage), r.For(Broker).With("extra", 1)
	check := func(when string, l *slog.Logger, lowest slog.Level) {
		t.Helper()
		if !written(l, lowest) || written(l, lowest-1) {
			t.Errorf("%s: the lowest level written is not %v", when, lowest)
		}
	}
	check("own level", storage, slog.LevelDebug)
	check("level of the root", broker, slog.LevelWarn)

	r.SetLevel(Broker, slog.LevelError)
	check("changed at run time", broker, slog.LevelError)
	check("the other one stays", storage, slog.LevelDebug)

	r.SetLevels(slog.LevelInfo, map[Component]slog.Level{Broker: slog.LevelDebug})
	check("all changed, own", broker, slog.LevelDebug)
	check("all changed, no longer own", storage, slog.LevelInfo)
	check("asked for later", r.For("uplink"), slog.LevelInfo)
	if got := r.Level(Storage); got != slog.LevelInfo {
		t.Errorf("Level = %v", got)
	}
}

func TestFlood(t *testing.T) {
	var b bytes.Buffer
	c := newClock()
	r := New(&b, Options{Format: FormatText, Color: ColorNever, PerSecond: 3, Now: c.now})
	client, storage := r.For(Client), r.For(Storage)

	for i := range 100 {
		client.Warn("connection refused", KeyPeer, fmt.Sprintf("192.0.2.%d", i))
	}
	storage.Info("other lines pass")
	client.Info("connection refused") // another level is another line
	c.advance(time.Second)
	storage.Info("after the first window")
	for range 100 {
		client.Warn("connection refused", KeyPeer, "192.0.2.200")
		c.advance(20 * time.Millisecond)
	}
	r.Flush()
	c.advance(4 * time.Second) // a quiet window
	r.Flush()
	for range 5 {
		client.Warn("connection refused", KeyPeer, "192.0.2.201")
	}
	r.Close()
	checkGolden(t, "flood.golden", b.Bytes())
}

func TestFloodOfADayIsSmall(t *testing.T) {
	var b bytes.Buffer
	c := newClock()
	log := New(&b, Options{Format: FormatText, Color: ColorNever, Now: c.now}).For(Client)
	for range 24 * 60 * 60 {
		for range 12 {
			log.Warn("connection refused", KeyPeer, "192.0.2.1")
		}
		c.advance(time.Second)
	}
	if lines := strings.Count(b.String(), "\n"); lines > 3000 {
		t.Errorf("%d lines in a day, want at most two a minute", lines)
	}
}

func TestFloodOfDifferentMessagesIsBounded(t *testing.T) {
	var b bytes.Buffer
	c := newClock()
	r := New(&b, Options{Format: FormatText, Color: ColorNever, Now: c.now})
	log := r.For(Client)
	for i := range 100_000 {
		log.Warn(fmt.Sprintf("hello %d", i))
	}
	if lines := strings.Count(b.String(), "\n"); lines > maxLines+DefaultPerSecond {
		t.Errorf("%d lines", lines)
	}
	if n := len(r.limiter.mu.windows); n > maxLines+1 {
		t.Errorf("the limiter keeps %d windows", n)
	}
}

func TestEveryLineIsWrittenOrCounted(t *testing.T) {
	var b lockedBuffer
	c := newClock()
	r := New(&b, Options{Format: FormatText, Color: ColorNever, Now: c.now})
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for range writers {
		log := r.For(Client)
		wg.Go(func() {
			for range each {
				log.Info("line")
				c.advance(time.Millisecond)
			}
		})
	}
	wg.Wait()
	r.Close()

	sum := 0
	for line := range strings.Lines(b.String()) {
		n := 1
		if _, rest, ok := strings.Cut(line, KeyRepeated+"="); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
		}
		sum += n
	}
	if sum != writers*each {
		t.Errorf("%d lines written or counted, want %d", sum, writers*each)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { return l.b.String() }

func BenchmarkLineLeftOut(b *testing.B) {
	log := New(&lockedBuffer{}, Options{Format: FormatJSON}).For(Client)
	b.ReportAllocs()
	for b.Loop() {
		log.Warn("connection refused", KeyPeer, "192.0.2.1")
	}
}
