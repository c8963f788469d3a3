//go:build linux

package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestBuckets walks over the edges of all buckets: they must follow each other
// without gap or overlap.
func TestBuckets(t *testing.T) {
	for bucket := range numBuckets - 1 {
		top := bucketTop(bucket)
		if got := bucketOf(top); got != bucket {
			t.Fatalf("value %d, the top of bucket %d, is put in %d", top, bucket, got)
		}
		if got := bucketOf(top + 1); got != bucket+1 {
			t.Fatalf("value %d, one above bucket %d, is put in %d", top+1, bucket, got)
		}
	}
	if got := bucketOf(math.MaxInt64); got >= numBuckets {
		t.Errorf("the largest value is put in bucket %d of %d", got, numBuckets)
	}
	if got := bucketOf(-5); got != 0 {
		t.Errorf("a negative value is put in bucket %d", got)
	}
}

func TestQuantileAgainstSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Hist
	values := make([]int64, 50_000)
	for i := range values {
		values[i] = int64(math.Exp(r.Float64() * 20))
		h.Add(time.Duration(values[i]))
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := values[max(int(q*float64(len(values))+0.5), 1)-1]
		got := int64(h.Quantile(q))
		if got < want || float64(got) > float64(want)*(1+1.0/32)+1 {
			t.Errorf("quantile %v: %d, true value %d", q, got, want)
		}
	}
	if h.Count() != uint64(len(values)) {
		t.Errorf("count %d", h.Count())
	}
	h.Reset()
	if h.Count() != 0 || h.Quantile(0.5) != 0 {
		t.Error("not empty after Reset")
	}
}
