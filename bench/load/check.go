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
	first  int      // number of its first stream, counted over publishers and topics
	next   []uint32 // per stream: one more than the highest sequence seen
	// missing holds the sequences that were jumped over and have not come
	// since. It is empty as long as the broker behaves.
	missing map[missed]struct{}
	// forgotten counts sequences jumped over when missing was full. If they
	// come after all they are called repeated; the run has failed either way.
	forgotten uint64
	faults    Faults
	group     *group // of a shared subscription; nil otherwise
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
	return newPartChecker(topics, 0, publishers*topics)
}

// newPartChecker returns a Checker for a subscription that gets only streams
// from first up to end, counted over all publishers and their topics.
func newPartChecker(topics, first, end int) *Checker {
	return &Checker{
		topics:  topics,
		first:   first,
		next:    make([]uint32, end-first),
		missing: make(map[missed]struct{}),
	}
}

// Saw notes that message seq of s was received. It reports false for a stream
// that does not exist or belongs to others.
func (c *Checker) Saw(s stream, seq uint32) bool {
	at := int(s.publisher)*c.topics + int(s.topic) - c.first
	if int(s.topic) >= c.topics || at < 0 || at >= len(c.next) {
		c.faults.Damaged++
		return false
	}
	if c.group != nil {
		c.sawShared(at, seq)
		return true
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

// sawShared handles a message that any member of the group might have got. A
// member must see its share of a stream in order; what it jumps over is for
// the others.
func (c *Checker) sawShared(at int, seq uint32) {
	switch fresh, ok := c.group.mark(at, seq); {
	case !ok:
		c.faults.Damaged++
	case !fresh:
		c.faults.Repeated++
	case seq < c.next[at]:
		c.faults.Misordered++
	default:
		c.next[at] = seq + 1
	}
}

// Faults returns what went wrong, given the number of messages published in
// every stream of all publishers, in the order publisher 0 topic 0, publisher 0
// topic 1, ... What a group lost, the group knows.
func (c *Checker) Faults(published []uint32) Faults {
	f := c.faults
	if c.group != nil {
		return f
	}
	f.Lost = uint64(len(c.missing)) + c.forgotten
	for i, n := range published[c.first : c.first+len(c.next)] {
		if n > c.next[i] {
			f.Lost += uint64(n - c.next[i])
		} else {
			// A sequence that was never published is no loss but an invention.
			f.Damaged += uint64(c.next[i] - n)
		}
	}
	return f
}

// group is what the members of a shared subscription have received together.
type group struct {
	seen  [][]uint64 // by stream: a bit for each sequence
	count []uint32   // of these bits
	end   []uint32   // one more than the highest
}

func newGroup(streams int) *group {
	return &group{seen: make([][]uint64, streams), count: make([]uint32, streams), end: make([]uint32, streams)}
}

// mark notes a sequence. It reports whether it is the first of its number, and
// whether that number can be at all.
func (g *group) mark(at int, seq uint32) (fresh, ok bool) {
	const ahead = 1 << 24 // further ahead than any broker holds back
	word, bit := int(seq/64), uint64(1)<<(seq%64)
	if word >= len(g.seen[at]) {
		if seq > g.end[at]+ahead {
			return false, false
		}
		g.seen[at] = append(g.seen[at], make([]uint64, word+1-len(g.seen[at]))...)
	}
	if g.seen[at][word]&bit != 0 {
		return false, true
	}
	g.seen[at][word] |= bit
	g.count[at]++
	g.end[at] = max(g.end[at], seq+1)
	return true, true
}

// faults returns what all members together lost or invented.
func (g *group) faults(published []uint32) (f Faults) {
	for i, n := range published {
		if g.end[i] > n {
			f.Damaged += uint64(g.end[i] - n)
		} else {
			f.Lost += uint64(n - g.count[i])
		}
	}
	return f
}
