//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// tally is what became of the readings.
type tally struct {
	acknowledged, delivered, lost, repeated, misordered, altered int
}

func (t tally) bad() bool { return t.lost+t.misordered+t.altered > 0 }

func (t *tally) add(x tally) {
	t.acknowledged += x.acknowledged
	t.delivered += x.delivered
	t.lost += x.lost
	t.repeated += x.repeated
	t.misordered += x.misordered
	t.altered += x.altered
}

// checker follows the deliveries of one stream.
type checker struct {
	stream
	seen    []bool
	highest int // number of the latest reading delivered
	tally
}

func newChecker(s stream) *checker {
	return &checker{stream: s, seen: make([]bool, len(s.payloads))}
}

// deliver takes the next payload of the topic.
func (c *checker) deliver(payload string) {
	var x struct{ Seq int }
	if json.Unmarshal([]byte(payload), &x) != nil || x.Seq < 1 || x.Seq > len(c.payloads) || c.payloads[x.Seq-1] != payload {
		c.altered++
		return
	}
	switch {
	case c.seen[x.Seq-1]:
		c.repeated++
		return
	case x.Seq < c.highest:
		c.misordered++
	}
	c.seen[x.Seq-1] = true
	c.tally.delivered++
	c.highest = max(c.highest, x.Seq)
}

// finish compares with what was acknowledged.
func (c *checker) finish(acked []bool) tally {
	for i, ok := range acked {
		if !ok {
			continue
		}
		c.acknowledged++
		if !c.seen[i] {
			c.lost++
		}
	}
	return c.tally
}

// report is the result as a table.
func report(checkers []*checker) (string, tally) {
	var b strings.Builder
	var total tally
	line := func(name string, t tally) {
		fmt.Fprintf(&b, "%-20s %12d %10d %6d %9d %13d %8d\n", name, t.acknowledged, t.delivered, t.lost, t.repeated, t.misordered, t.altered)
	}
	fmt.Fprintf(&b, "%-20s %12s %10s %6s %9s %13s %8s\n", "topic", "acknowledged", "delivered", "lost", "repeated", "out of order", "altered")
	for _, c := range checkers {
		line(c.topic, c.tally)
		total.add(c.tally)
	}
	line("all", total)
	return b.String(), total
}
