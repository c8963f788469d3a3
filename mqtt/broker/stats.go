package broker

import (
	"math"
	"sync/atomic"
	"time"
)

// stats are counted on the way of messages: once for each read, write or
// batch, not for each message.
type stats struct {
	bytesIn, bytesOut     atomic.Int64
	packetsIn, packetsOut atomic.Int64
	publishIn, publishOut atomic.Int64
	publishDropped        atomic.Int64 // refused, expired, or larger than a client takes
	payloadIn             atomic.Int64 // bytes
	sockets               atomic.Int64 // accepted
	connections           atomic.Int64 // CONNECTs accepted
	expired               atomic.Int64 // sessions
	connectedMax          atomic.Int64
}

// connected counts a client that has come in; now is how many there are.
func (t *stats) connected(now int) {
	t.connections.Add(1)
	for n := int64(now); ; {
		most := t.connectedMax.Load()
		if n <= most || t.connectedMax.CompareAndSwap(most, n) {
			return
		}
	}
}

// came counts the publishes of a batch.
func (t *stats) came(in *batch) {
	if in.publishes == 0 {
		return
	}
	payload := 0
	for i := range in.msgs {
		payload += len(in.msgs[i].Payload)
	}
	t.publishIn.Add(int64(in.publishes))
	t.payloadIn.Add(int64(payload))
	if in.dropped > 0 {
		t.publishDropped.Add(int64(in.dropped))
	}
}

// left counts the publishes that a flusher has written.
func (t *stats) left(w *work) {
	if w.sent > 0 {
		t.publishOut.Add(int64(w.sent))
		t.packetsOut.Add(int64(w.sent))
		w.sent = 0
	}
}

// load is what happens in a minute, on average over a time that has passed:
// what is older counts less and less, as in the load of a Unix system.
type load struct {
	last    int64
	average [len(loadTimes)]float64
}

// loadTimes are the times that the averages are over.
var loadTimes = [...]struct {
	name string
	over time.Duration
}{{"1min", time.Minute}, {"5min", 5 * time.Minute}, {"15min", 15 * time.Minute}}

// observe takes the counter's value, a time after the last.
func (l *load) observe(count int64, passed time.Duration) {
	if passed <= 0 {
		return
	}
	rate := float64(count-l.last) / passed.Minutes()
	l.last = count
	for i, t := range loadTimes {
		keep := math.Exp(-float64(passed) / float64(t.over))
		l.average[i] = l.average[i]*keep + rate*(1-keep)
	}
}
