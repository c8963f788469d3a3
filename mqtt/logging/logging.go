package logging

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
)

// Keys of attributes that mean the same in every component.
const (
	KeyComponent = "component"
	KeyClient    = "client" // the client identifier
	KeyPeer      = "peer"   // the address of the other end
	KeyPacket    = "packet" // the type of an MQTT packet
	KeyServer    = "server" // the name of a server in the configuration
	KeyReason    = "reason" // an MQTT reason code, or why in words
	KeyPos       = "pos"    // a position in the log
	KeySegment   = "segment"
	KeyError     = "error"
	KeyRepeated  = "repeated" // on the line that stands for lines left out: how many
)

// Err is the attribute of an error.
func Err(err error) slog.Attr { return slog.Any(KeyError, err) }

// Component is a part of the broker that has a level of its own.
type Component string

// The components.
const (
	Broker    Component = "broker"
	Client    Component = "client"
	Storage   Component = "storage"
	Index     Component = "index"
	Listener  Component = "listener"
	Retention Component = "retention"
)

// Components lists them all.
func Components() []Component {
	return []Component{Broker, Client, Storage, Index, Listener, Retention}
}

// Format is the form of a line.
type Format string

// The formats. FormatAuto is text on a terminal and JSON elsewhere.
const (
	FormatAuto Format = "auto"
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// Color says when text is coloured.
type Color string

// ColorAuto colours on a terminal, unless NO_COLOR is set in the environment.
const (
	ColorAuto   Color = "auto"
	ColorAlways Color = "always"
	ColorNever  Color = "never"
)

// DefaultPerSecond is the limit of equal lines per second where Options does not say.
const DefaultPerSecond = 10

// Options are the settings of New. The zero value is ready for use.
type Options struct {
	Format     Format // empty: FormatAuto
	Color      Color  // empty: ColorAuto
	Level      slog.Level
	Components map[Component]slog.Level // levels that differ from Level
	PerSecond  int                      // 0: DefaultPerSecond; below 0: no limit
	Now        func() time.Time         // nil: time.Now
}

// Root is where all lines of the broker come together. It is safe for concurrent use.
type Root struct {
	sink    slog.Handler // writes to w; takes every level
	limiter *limiter     // nil: no limit
	now     func() time.Time

	levels struct {
		sync.Mutex // held by SetLevel, SetLevels and For; the loggers read their LevelVar without it
		byDefault  slog.Level
		own        map[Component]slog.Level     // those that differ from byDefault
		effective  map[Component]*slog.LevelVar // one for each component that was asked for
	}
}

// New returns a Root that writes to w, one Write per line.
func New(w io.Writer, o Options) *Root {
	r := &Root{sink: newSink(w, o), now: o.Now}
	if r.now == nil {
		r.now = time.Now
	}
	switch {
	case o.PerSecond == 0:
		r.limiter = newLimiter(DefaultPerSecond)
	case o.PerSecond > 0:
		r.limiter = newLimiter(o.PerSecond)
	}
	r.levels.effective = make(map[Component]*slog.LevelVar)
	r.SetLevels(o.Level, o.Components)
	return r
}

// everyLevel is below any level in use: the sink does not choose, the components do.
const everyLevel = slog.Level(-1 << 30)

func newSink(w io.Writer, o Options) slog.Handler {
	terminal := isTerminal(w)
	if o.Format == FormatJSON || o.Format != FormatText && !terminal {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: everyLevel, ReplaceAttr: shorten})
	}
	coloured := o.Color == ColorAlways
	if o.Color == ColorAuto || o.Color == "" {
		_, refused := os.LookupEnv("NO_COLOR")
		coloured = terminal && !refused
	}
	return tint.NewTextHandler(w, &tint.Options{
		Level:       everyLevel,
		TimeFormat:  "2006-01-02T15:04:05.000Z07:00",
		NoColor:     !coloured,
		ReplaceAttr: disarm,
	})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && isatty.IsTerminal(f.Fd())
}

// For returns the logger of a component. Loggers of one component share its level. A component that is not in
// Components has no level of its own until SetLevel gives it one.
func (r *Root) For(component Component) *slog.Logger {
	r.levels.Lock()
	defer r.levels.Unlock()
	level, ok := r.levels.effective[component]
	if !ok {
		level = new(slog.LevelVar)
		level.Set(r.levelLocked(component))
		r.levels.effective[component] = level
	}
	return slog.New(&handler{
		root:      r,
		component: component,
		level:     level,
		inner:     r.sink.WithAttrs([]slog.Attr{slog.String(KeyComponent, string(component))}),
	})
}

func (r *Root) levelLocked(component Component) slog.Level {
	if own, ok := r.levels.own[component]; ok {
		return own
	}
	return r.levels.byDefault
}

// Level returns the level of a component.
func (r *Root) Level(component Component) slog.Level {
	r.levels.Lock()
	defer r.levels.Unlock()
	return r.levelLocked(component)
}

// SetLevel changes the level of one component.
func (r *Root) SetLevel(component Component, level slog.Level) {
	r.levels.Lock()
	defer r.levels.Unlock()
	r.levels.own[component] = level
	if effective, ok := r.levels.effective[component]; ok {
		effective.Set(level)
	}
}

// SetLevels changes all levels, as if New had been called with them.
func (r *Root) SetLevels(level slog.Level, components map[Component]slog.Level) {
	r.levels.Lock()
	defer r.levels.Unlock()
	r.levels.byDefault = level
	r.levels.own = make(map[Component]slog.Level)
	for component, own := range components {
		r.levels.own[component] = own
	}
	for component, effective := range r.levels.effective {
		effective.Set(r.levelLocked(component))
	}
}

// Flush writes the counts of lines that were left out in windows that have ended. The broker calls it now and then,
// so that the end of a flood shows even if nothing else happens.
func (r *Root) Flush() {
	if r.limiter != nil {
		// A failure to log has nowhere to be logged; slog drops what Handle returns, too.
		_ = r.writeSummaries(r.limiter.flush(r.now()))
	}
}

// Close writes all counts, also of windows that have not ended. Lines that come later are still written.
func (r *Root) Close() {
	if r.limiter != nil {
		_ = r.writeSummaries(r.limiter.close(r.now()))
	}
}

func (r *Root) writeSummaries(summaries []summary) error {
	var firstErr error
	for _, s := range summaries {
		record := slog.NewRecord(s.until, s.key.level, s.key.message, 0)
		record.AddAttrs(
			slog.String(KeyComponent, string(s.key.component)),
			slog.Int(KeyRepeated, s.left),
			slog.String("within", s.until.Sub(s.since).Round(time.Millisecond).String()),
		)
		record.Message += timesMore(s.left)
		if err := r.sink.Handle(context.Background(), record); err != nil && firstErr == nil {
			firstErr = err
		}
	}
	return firstErr
}

// handler is a component's entry to the sink.
type handler struct {
	root      *Root
	component Component
	level     *slog.LevelVar
	inner     slog.Handler // the sink with the component's attributes
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	record.Time = h.root.now()
	if l := h.root.limiter; l != nil {
		pass, summaries := l.admit(lineKey{h.component, record.Level, record.Message}, record.Time)
		if err := h.root.writeSummaries(summaries); err != nil {
			return err
		}
		if !pass {
			return nil
		}
	}
	return h.inner.Handle(ctx, record)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h2 := *h
	h2.inner = h.inner.WithAttrs(attrs)
	return &h2
}

func (h *handler) WithGroup(name string) slog.Handler {
	h2 := *h
	h2.inner = h.inner.WithGroup(name)
	return &h2
}
