package broker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// author draws operations. It knows who is connected, because most operations
// of the others would do nothing.
type author struct {
	*rand.Rand
	connected map[string]bool
}

func (r *author) pick(words ...string) string { return words[r.IntN(len(words))] }

func (r *author) connect(c string) string {
	r.connected[c] = true
	op := "connect " + c + " " + r.pick("keep", "keep", "keep", "keep", "clean")
	if r.IntN(4) == 0 {
		op += fmt.Sprintf(" will %d %d %s", r.IntN(3), r.IntN(2), r.pick("0", "600"))
	}
	if r.IntN(3) == 0 {
		op += fmt.Sprintf(" limit %d", 1+r.IntN(3))
	}
	return op
}

func (r *author) end(op, c string) string {
	delete(r.connected, c)
	return op + " " + c
}

// operation is the next one.
func (r *author) operation() string {
	c := r.pick("a", "a", "b", "c")
	if !r.connected[c] && r.IntN(3) > 0 {
		return r.connect(c)
	}
	switch n := r.IntN(100); {
	case n < 4:
		return r.connect(c)
	case n < 6:
		return r.end("disconnect", c)
	case n < 11:
		return r.end("drop", c)
	case n < 12:
		return r.end("will", c)
	case n < 26:
		return fmt.Sprintf("subscribe %s %s %d %d %d %d %d", c, r.filter(), r.IntN(3), r.IntN(2)*r.IntN(2), r.IntN(2), r.IntN(3), r.IntN(3))
	case n < 31:
		return "unsubscribe " + c + " " + r.filter()
	case n < 60:
		return fmt.Sprintf("publish %s %s %d %d %d %s", c, r.topic(), r.IntN(3), r.IntN(2), r.IntN(4)/3, r.pick("0", "0", "1000"))
	case n < 64:
		delete(r.connected, c)
		return fmt.Sprintf("cut %s %s %d %d 0 0", c, r.topic(), r.IntN(3), r.IntN(2))
	case n < 68:
		return "again " + c
	case n < 75:
		return "finish " + c
	case n < 80:
		return "hold " + c
	case n < 83:
		return "half " + c
	case n < 87:
		return "ack " + c
	case n < 90:
		return "pass " + r.pick("400", "900")
	case n < 92:
		return "checkpoint"
	}
	clear(r.connected)
	return r.pick("restart", "kill", "kill", "power", "power")
}

func (r *author) topic() string  { return r.pick("t", "t/1", "t/2", "u") }
func (r *author) filter() string { return r.pick("t", "t/#", "t/+", "#", "+/1") }

func sequence(seed uint64, n int) (ops []string) {
	r := author{rand.New(rand.NewPCG(seed, 2)), map[string]bool{}}
	for range n {
		ops = append(ops, r.operation())
	}
	return ops
}

// try plays a sequence from the beginning.
func try(t testing.TB, ops []string) error {
	p := newPlayer(t)
	defer p.close()
	return p.play(ops)
}

// shrink leaves out what the failure does not need: halves, quarters, ... and
// single operations. What fails is tried twice, lest an accident lead astray.
func shrink(t testing.TB, ops []string) []string {
	fails := func(ops []string) bool {
		for range 2 {
			if try(t, ops) == nil {
				return false
			}
		}
		return true
	}
	for size := len(ops) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(ops); {
			rest := append(append([]string(nil), ops[:from]...), ops[from+size:]...)
			if fails(rest) {
				ops = rest
			} else {
				from += size
			}
		}
	}
	return ops
}

// TestRandomOperations plays random sequences against the broker and a model
// of it. CAIRNMQ_SEQUENCES is how many instead of a few, CAIRNMQ_SEED where
// they begin.
func TestRandomOperations(t *testing.T) {
	skipPowerCuts(t)
	count, first := 40, 1
	if s := os.Getenv("CAIRNMQ_SEQUENCES"); s != "" {
		count, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("CAIRNMQ_SEED"); s != "" {
		first, _ = strconv.Atoi(s)
	}
	for seed := first; seed < first+count; seed++ {
		ops := sequence(uint64(seed), 60)
		if err := try(t, ops); err != nil {
			t.Logf("seed %d: %v; shrinking %d operations", seed, err, len(ops))
			ops = shrink(t, ops)
			t.Fatalf("seed %d: %v\nshrunk to %d operations:\n%s\n%v", seed, err, len(ops), strings.Join(ops, "\n"), try(t, ops))
		}
	}
}
