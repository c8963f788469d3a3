package auth

import (
	"math"
	"net/netip"
	"sync"
	"time"
)

const (
	// freeGuesses are wrong passwords that cost nothing: people mistype.
	freeGuesses = 3
	// forgetGuess is how long one of them is remembered.
	forgetGuess = 20 * time.Second
	// firstWait doubles with each wrong password beyond the free ones, up to longestWait.
	firstWait   = 100 * time.Millisecond
	longestWait = 4 * time.Second
	// maxWaiting is how many guesses from one address may wait at a time. More are refused at once.
	maxWaiting = 4
	// maxAddresses bounds the memory.
	maxAddresses = 4096
)

// Guesses counts wrong passwords by the address that they came from. It is safe for many goroutines, and knows the time
// only from its caller.
type Guesses struct {
	mu        sync.Mutex
	addresses map[netip.Prefix]*guesser
}

type guesser struct {
	wrong   float64 // one less for each forgetGuess since at
	at      time.Time
	waiting int
}

// NewGuesses knows nobody yet.
func NewGuesses() *Guesses { return &Guesses{addresses: make(map[netip.Prefix]*guesser)} }

// origin is whom an address counts for: IPv6 networks are given to one customer in pieces of 64 bits. All that have no
// address, such as Unix sockets, are one.
func origin(peer string) netip.Prefix {
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := at.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// Begin says how long a guess from an address must wait before it is looked at. If ok, the caller waits and then calls
// done; else too many wait already.
func (g *Guesses) Begin(peer string, now time.Time) (wait time.Duration, done func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.addresses[origin(peer)]
	if x == nil {
		return 0, func() {}, true
	}
	if x.forget(now); x.wrong < freeGuesses {
		return 0, func() {}, true
	}
	if x.waiting >= maxWaiting {
		return 0, nil, false
	}
	x.waiting++
	wait = time.Duration(float64(firstWait) * math.Exp2(math.Floor(x.wrong-freeGuesses)))
	return min(wait, longestWait), func() { g.waited(x) }, true
}

func (g *Guesses) waited(x *guesser) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x.waiting--
}

// Wrong counts a guess that was wrong.
func (g *Guesses) Wrong(peer string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := origin(peer)
	x := g.addresses[key]
	if x == nil {
		if len(g.addresses) >= maxAddresses {
			g.evictLocked(now)
		}
		x = &guesser{at: now}
		g.addresses[key] = x
	}
	x.forget(now)
	// More is remembered than the longest wait needs, so that it stays long while the guessing goes on.
	x.wrong = min(x.wrong+1, 16)
}

func (x *guesser) forget(now time.Time) {
	since := now.Sub(x.at)
	if since <= 0 {
		return
	}
	x.wrong = max(0, x.wrong-float64(since)/float64(forgetGuess))
	x.at = now
}

// evictLocked forgets the most harmless of a few. To look at all would make a guess from a new address expensive.
func (g *Guesses) evictLocked(now time.Time) {
	var victim netip.Prefix
	least, looked := math.Inf(1), 0
	for key, x := range g.addresses { // in random order
		x.forget(now)
		if x.waiting == 0 && x.wrong < least {
			victim, least = key, x.wrong
		}
		if looked++; looked == 8 {
			break
		}
	}
	delete(g.addresses, victim)
}
