package logging

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	shortWindow = time.Second
	longWindow  = time.Minute
	// maxLines bounds the limiter's memory. Messages are constants, so there are far fewer, unless somebody builds
	// one from what a client sent; then the surplus shares one entry per component and level.
	maxLines = 1024
)

// lineKey is what makes two lines equal. Attributes do not count: they are what varies in a flood.
type lineKey struct {
	component Component
	level     slog.Level
	message   string
}

// window counts the lines of one key since a moment.
type window struct {
	since  time.Time
	length time.Duration
	passed int
	left   int // lines left out
}

// summary tells of lines left out.
type summary struct {
	key          lineKey
	left         int
	since, until time.Time
}

// limiter decides which lines pass. It knows the time only from its caller.
type limiter struct {
	perSecond int

	mu struct {
		sync.Mutex
		windows map[lineKey]*window
		nextDue time.Time // no window ends before; zero: there is none
	}
}

func newLimiter(perSecond int) *limiter {
	l := &limiter{perSecond: perSecond}
	l.mu.windows = make(map[lineKey]*window)
	return l
}

// admit says whether a line passes, and which summaries are due before it.
func (l *limiter) admit(key lineKey, now time.Time) (pass bool, due []summary) {
	l.mu.Lock()
	defer l.mu.Unlock()
	due = l.endWindowsLocked(now)

	w := l.mu.windows[key]
	if w == nil && len(l.mu.windows) >= maxLines {
		key.message = "more kinds of lines than are counted apart"
		w = l.mu.windows[key]
	}
	if w == nil {
		w = &window{since: now, length: shortWindow}
		l.mu.windows[key] = w
		l.dueLocked(w)
	}
	allowed := l.perSecond
	if w.length > shortWindow {
		allowed = 1 // the flood goes on: one line as a sample
	}
	if w.passed < allowed {
		w.passed++
		return true, due
	}
	w.left++
	return false, due
}

// endWindowsLocked ends the windows that are over. After one that left lines out comes another of twice the
// length; after a quiet one the key is forgotten, and its next line starts afresh.
func (l *limiter) endWindowsLocked(now time.Time) []summary {
	if now.Before(l.mu.nextDue) || l.mu.nextDue.IsZero() {
		return nil
	}
	var due []summary
	l.mu.nextDue = time.Time{}
	for key, w := range l.mu.windows {
		if end := w.since.Add(w.length); now.Before(end) {
			l.dueLocked(w)
			continue
		}
		if w.left == 0 {
			delete(l.mu.windows, key)
			continue
		}
		due = append(due, summary{key: key, left: w.left, since: w.since, until: now})
		*w = window{since: now, length: min(2*w.length, longWindow)}
		l.dueLocked(w)
	}
	sortSummaries(due)
	return due
}

func (l *limiter) dueLocked(w *window) {
	if end := w.since.Add(w.length); l.mu.nextDue.IsZero() || end.Before(l.mu.nextDue) {
		l.mu.nextDue = end
	}
}

// flush returns the summaries of windows that are over; those that still run come later.
func (l *limiter) flush(now time.Time) []summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endWindowsLocked(now)
}

// close ends all windows and forgets them.
func (l *limiter) close(now time.Time) []summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []summary
	for key, w := range l.mu.windows {
		if w.left > 0 {
			due = append(due, summary{key: key, left: w.left, since: w.since, until: now})
		}
	}
	clear(l.mu.windows)
	l.mu.nextDue = time.Time{}
	sortSummaries(due)
	return due
}

func sortSummaries(all []summary) {
	slices.SortFunc(all, func(a, b summary) int {
		return cmp.Or(a.since.Compare(b.since),
			cmp.Compare(a.key.component, b.key.component),
			cmp.Compare(a.key.message, b.key.message),
			cmp.Compare(a.key.level, b.key.level))
	})
}

func timesMore(n int) string {
	if n == 1 {
		return " (repeated once more)"
	}
	return fmt.Sprintf(" (repeated %d times more)", n)
}
