//go:build linux

package load

import (
	"math/bits"
	"time"
)

// Hist counts durations in buckets whose width grows with the value: 32 to
// each power of two, so a quantile is at most 1/32 above the true one. The
// zero Hist is empty and ready.
type Hist struct {
	count   uint64
	max     int64
	buckets [numBuckets]uint64
}

const (
	subBits    = 5
	numBuckets = (64 - subBits) << subBits
)

// bucketOf returns the bucket of v. Below 64 ns there is one for every value;
// above, the highest bit selects a group of 32 and the next five bits one of
// them.
func bucketOf(v int64) int {
	if v < 1<<(subBits+1) {
		return int(max(v, 0))
	}
	shift := bits.Len64(uint64(v)) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// bucketTop returns the largest value of a bucket.
func bucketTop(bucket int) int64 {
	if bucket < 1<<(subBits+1) {
		return int64(bucket)
	}
	shift := bucket>>subBits - 1
	base := int64(bucket - shift<<subBits)
	return (base+1)<<shift - 1
}

// Add counts one duration.
func (h *Hist) Add(d time.Duration) { h.addN(int64(d), 1) }

func (h *Hist) addN(v int64, n uint64) {
	h.buckets[bucketOf(v)] += n
	h.count += n
	h.max = max(h.max, v)
}

// Count returns how many durations were added.
func (h *Hist) Count() uint64 { return h.count }

// Quantile returns the duration that the share q of all does not exceed.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.count)+0.5), 1)
	var sum uint64
	for i, n := range h.buckets {
		if sum += n; sum >= rank {
			return time.Duration(min(bucketTop(i), h.max))
		}
	}
	return time.Duration(h.max)
}

// Reset empties h.
func (h *Hist) Reset() { *h = Hist{} }
