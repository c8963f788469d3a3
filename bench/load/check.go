//go:build linux

package load

import "fmt"

// Faults counts what a broker did wrong in a run.
type Faults struct {
	Lost       uint64 `json:"lost"`
	Repeated   uint64 `json:"repeated"`
	Misordered uint64 `json:"misordered"`
	// Damaged counts messages whose topic, QoS, retain flag or payload is not
	// what was published, and acknowledgements of nothing.
	Damaged uint64 `json:"damaged"`
}

// Any reports whether there were faults at all.
func (f Faults) Any() bool { return f != Faults{} }

func (f *Faults) add(g Faults) {
	f.Lost += g.Lost
	f.Repeated += g.Repeated
	f.Misordered += g.Misordered
	f.Damaged += g.Damaged
}

func (f Faults) String() string {
	return fmt.Sprintf("lost %d, repeated %d, misordered %d, damaged %d", f.Lost, f.Repeated, f.Misordered, f.Damaged)
}

// Checker follows the streams that one subscription receives. It is told of
// every message and, at the end, of how many were published.
type Checker struct {
	topics int
	next   []uint32 // per stream: one more than the highest sequence seen
	// missing holds the sequences that were jumped over and have not come
	// since. It is empty as long as the broker behaves.
	missing map[missed]struct{}
	// forgotten counts sequences jumped over when missing was full. If they
	// come after all they are called repeated; the run has failed either way.
	forgotten uint64
	faults    Faults
}

type missed struct {
	stream stream
	seq    uint32
}

// maxMissing bounds the memory that a run with heavy loss takes.
const maxMissing = 1 << 20

// NewChecker returns a Checker for messages of publishers 0 up to publishers,
// each with topics 0 up to topics.
func NewChecker(publishers, topics int) *Checker {
	return &Checker{
		topics:  topics,
		next:    make([]uint32, publishers*topics),
		missing: make(map[missed]struct{}),
	}
}

// Saw notes that message seq of s was received. It reports false for a stream
// that does not exist.
func (c *Checker) Saw(s stream, seq uint32) bool {
	at := int(s.publisher)*c.topics + int(s.topic)
	if int(s.topic) >= c.topics || at >= len(c.next) {
		c.faults.Damaged++
		return false
	}
	if seq == c.next[at] {
		c.next[at]++
		return true
	}
	c.sawOther(s, seq, &c.next[at])
	return true
}

// sawOther handles a sequence that is not the expected one.
func (c *Checker) sawOther(s stream, seq uint32, next *uint32) {
	if seq > *next {
		for ; *next < seq; *next++ {
			if len(c.missing) < maxMissing {
				c.missing[missed{s, *next}] = struct{}{}
			} else {
				c.forgotten++
			}
		}
		*next++
		return
	}
	late := missed{s, seq}
	if _, ok := c.missing[late]; ok {
		delete(c.missing, late)
		c.faults.Misordered++
		return
	}
	c.faults.Repeated++
}

// Faults returns what went wrong, given the number of messages published in
// every stream, in the order publisher 0 topic 0, publisher 0 topic 1, ...
func (c *Checker) Faults(published []uint32) Faults {
	f := c.faults
	f.Lost = uint64(len(c.missing)) + c.forgotten
	for i, n := range published {
		if n > c.next[i] {
			f.Lost += uint64(n - c.next[i])
		} else {
			// A sequence that was never published is no loss but an invention.
			f.Damaged += uint64(c.next[i] - n)
		}
	}
	return f
}
