package listener

import "time"

// bucket admits a number of events per second, and after a quiet time a burst of them.
type bucket struct {
	perSecond, burst float64
	tokens           float64
	last             time.Time
}

// newBucket returns a full one. Without a burst it is what comes in a second.
func newBucket(perSecond, burst int) *bucket {
	if burst == 0 {
		burst = perSecond
	}
	return &bucket{perSecond: float64(perSecond), burst: float64(burst), tokens: float64(burst)}
}

// take reports whether an event at this time is admitted.
func (b *bucket) take(now time.Time) bool {
	if since := now.Sub(b.last); !b.last.IsZero() && since > 0 {
		b.tokens = min(b.burst, b.tokens+since.Seconds()*b.perSecond)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
