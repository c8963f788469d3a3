package mqtttest

import (
	"bytes"
	"strings"
	"sync"
)

// Lines keeps what a broker logs. It is safe for many goroutines.
type Lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is everything so far.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Tail is at most the last n bytes.
func (l *Lines) Tail(n int) string {
	s := l.String()
	return s[max(0, len(s)-n):]
}

// Count is how often a text occurs.
func (l *Lines) Count(what string) int { return strings.Count(l.String(), what) }
