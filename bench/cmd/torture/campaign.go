//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/wire"
)

// campaign is one data directory and what is done to it.
type campaign struct {
	settings
	out    io.Writer
	binary string
	dir    string
	rng    *rand.Rand // of the one who kills

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	book        *book
	shelves     []*shelf
	wills       *wills
	ledger      ledger
	publishers  []*publisher
	subscribers []*subscriber
	watch       *subscriber // of the wills

	process *broker.Process

	mu    sync.Mutex
	port  int
	conns map[*conn]bool // true: may be cut

	epoch       atomic.Int64 // changes whenever the broker is about to end or to begin
	drain       atomic.Bool
	quota       atomic.Int64 // messages that may be published in this cycle
	acks        atomic.Int64
	connections atomic.Int64
	deliveries  atomic.Int64
	lookups     atomic.Int64
	changes     atomic.Int64
	clientCount int
	working     atomic.Int64 // clients that have not ended
	absent      atomic.Int64 // subscribers that have never been there
	tally
}

// tally is what a campaign has done, for the report.
type tally struct {
	cycles, kills, startKills, stops, stopKills, pauses, cuts, lost, surplus int
}

// Sizes of a campaign.
const (
	publishers = 5
	shelves    = 4
	cycleQuota = 1500 // messages
)

func newCampaign(out io.Writer, binary, dir string, seed uint64, tight bool) (*campaign, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &campaign{
		settings: drawSettings(rng, tight), out: out, binary: binary, dir: dir, rng: rng,
		book: newBook(publishers), wills: &wills{all: map[string]*will{}}, ledger: ledger{}, conns: map[*conn]bool{},
	}
	for range shelves {
		c.shelves = append(c.shelves, &shelf{acked: -1})
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	var err error
	c.port, err = broker.FreePort()
	return c, err
}

// errDone ends a campaign in which nothing went wrong.
var errDone = errors.New("the campaign is over")

// fail ends the campaign. The first failure counts.
func (c *campaign) fail(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	c.cancel(err)
	return err
}

func (c *campaign) failed() bool        { return c.ctx.Err() != nil }
func (c *campaign) draining() bool      { return c.drain.Load() }
func (c *campaign) currentEpoch() int64 { return c.epoch.Load() }

// pause waits, unless the campaign ends.
func (c *campaign) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.ctx.Done():
		return errOver
	}
}

func (c *campaign) dial(local bool) (net.Conn, error) {
	c.mu.Lock()
	network, addr := "tcp", fmt.Sprintf("127.0.0.1:%d", c.port)
	c.mu.Unlock()
	if local {
		network, addr = "unix", filepath.Join(c.dir, "socket")
	}
	return (&net.Dialer{}).DialContext(c.ctx, network, addr)
}

func (c *campaign) hold(x *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns[x] = x.cuttable; c.failed() {
		x.close()
	}
}

func (c *campaign) release(x *conn) {
	x.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, x)
}

func (c *campaign) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.conns {
		x.close()
	}
}

// cut closes one connection, whichever the map gives.
func (c *campaign) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x, ok := range c.conns {
		if ok {
			x.close()
			c.cuts++
			return
		}
	}
}

// run is the campaign from beginning to end.
func (c *campaign) run(cycles int) error {
	c.people()
	defer func() {
		c.cancel(errDone)
		c.closeAll()
		c.wg.Wait()
		if c.process != nil {
			c.process.Kill()
		}
	}()
	for range cycles {
		if c.cycle(); c.failed() {
			return c.cause()
		}
		c.cycles++
	}
	if err := c.finish(); err != nil {
		return err
	}
	if c.failed() {
		return c.cause()
	}
	return nil
}

func (c *campaign) cause() error {
	err := context.Cause(c.ctx)
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// begin starts the broker. It must come up: no state of the directory is an
// excuse.
func (c *campaign) begin() error {
	spec := broker.Spec{Name: "cairnmq", Args: []string{c.binary, "serve", "-c", "{dir}/torture.toml"}}
	c.mu.Lock()
	port := c.port
	c.mu.Unlock()
	text := strings.NewReplacer("{dir}", c.dir, "{port}", fmt.Sprint(port)).Replace(c.text())
	if err := os.WriteFile(filepath.Join(c.dir, "torture.toml"), []byte(text), 0o644); err != nil {
		return err
	}
	c.epoch.Add(1) // one who connects while the one before ends is not of this one
	p, err := broker.Start(spec, c.dir, port)
	if err != nil {
		return err
	}
	c.process = p
	return nil
}

// startLimit is how long a start may take on a busy machine.
const startLimit = time.Minute

// up starts the broker and waits until a client has been accepted.
func (c *campaign) up() error {
	for attempt := 0; ; attempt++ {
		before := c.connections.Load()
		if err := c.begin(); err != nil {
			return err
		}
		deadline := time.Now().Add(startLimit)
		for c.connections.Load() == before {
			if err := c.pause(time.Millisecond); err != nil {
				return c.cause()
			}
			if time.Now().After(deadline) {
				return c.fail("the broker runs and has accepted nobody in %v:\n%s", startLimit, c.process.Output())
			}
			if !c.process.Ended() {
				continue
			}
			if !strings.Contains(c.process.Output(), "address already in use") || attempt == 20 {
				return c.fail("the broker did not start:\n%s", c.process.Output())
			}
			// Somebody else has taken the port while the broker was down.
			if err := c.newPort(); err != nil {
				return err
			}
			break
		}
		if !c.process.Ended() {
			return nil
		}
	}
}

func (c *campaign) newPort() error {
	port, err := broker.FreePort()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.port = port
	return nil
}

// cycle is one life of the broker.
func (c *campaign) cycle() {
	for c.rng.IntN(4) == 0 { // killed while it starts
		if err := c.begin(); err != nil {
			_ = c.fail("start: %w", err)
			return
		}
		_ = c.pause(time.Duration(c.rng.IntN(30000)) * time.Microsecond)
		c.kill()
		c.startKills++
	}
	c.quota.Store(cycleQuota)
	if err := c.up(); err != nil {
		_ = c.fail("start: %w", err)
		return
	}
	c.disturb()
	if c.process.Ended() {
		_ = c.fail("the broker has ended by itself:\n%s", c.process.Output())
		return
	}
	switch c.rng.IntN(10) {
	case 0:
		c.stops++
		c.stop()
	case 1:
		c.epoch.Add(1)
		_ = syscall.Kill(c.process.PID(), syscall.SIGTERM)
		_ = c.pause(time.Duration(c.rng.IntN(8000)) * time.Microsecond)
		c.kill()
		c.stopKills++
	default:
		c.kill()
		c.kills++
	}
	if err := c.ledger.read(c.binary, filepath.Join(c.dir, "data")); err != nil {
		_ = c.fail("%w", err)
	}
}

// cycleLimit bounds a cycle in which little is acknowledged.
const cycleLimit = 500 * time.Millisecond

// disturb lets the broker work until the moment has come, and disturbs it
// meanwhile.
func (c *campaign) disturb() {
	until := c.acks.Load() + int64(c.rng.IntN(cycleQuota))
	deadline := time.Now().Add(time.Duration(c.rng.Int64N(int64(cycleLimit))))
	for c.acks.Load() < until && time.Now().Before(deadline) {
		if c.pause(time.Millisecond) != nil {
			return
		}
		switch c.rng.IntN(150) {
		case 0:
			_ = syscall.Kill(c.process.PID(), syscall.SIGSTOP)
			_ = c.pause(time.Duration(c.rng.IntN(40)) * time.Millisecond)
			_ = syscall.Kill(c.process.PID(), syscall.SIGCONT)
			c.pauses++
		case 1, 2, 3:
			c.cut()
		}
	}
}

func (c *campaign) kill() {
	c.epoch.Add(1)
	c.process.Kill()
}

// stopLimit is how long an orderly end may take on a busy machine.
const stopLimit = time.Minute

func (c *campaign) stop() {
	c.epoch.Add(1)
	if _, err := c.process.Stop(stopLimit); err != nil {
		_ = c.fail("%w", err)
	}
}

// people starts the clients. Each has its own goroutine, and run waits for
// them.
func (c *campaign) people() {
	c.audience()
	for i := range publishers {
		x := &publisher{client: c.client(fmt.Sprintf("pub%d", i), wire.V5-wire.Version(i%2)), window: 4 + 12*(i%3)}
		x.make = c.streamSource(i, x)
		c.publishers = append(c.publishers, x)
	}
	for i := range shelves {
		x := &publisher{client: c.client(fmt.Sprintf("shelf%d", i), wire.V5-wire.Version(i%2)), window: 1}
		x.make = c.shelfSource(i, x)
		c.publishers = append(c.publishers, x)
	}
	for _, x := range c.publishers {
		c.goes(c.afterAudience(x.run))
	}
	for i := range 4 {
		x := &mortal{client: c.client(fmt.Sprintf("mortal%d", i), wire.V5-wire.Version(i%2))}
		x.uncut, x.clean = true, i < 2
		if i == 2 {
			x.delay = 36000
		}
		c.goes(c.afterAudience(x.run))
	}
	for i := range 2 {
		x := &visitor{client: c.client(fmt.Sprintf("visitor%d", i), wire.V5-wire.Version(i%2))}
		x.clean = true
		c.goes(x.run)
		y := &changer{client: c.client(fmt.Sprintf("changer%d", i), wire.V5-wire.Version(i%2))}
		c.goes(y.run)
	}
}

// afterAudience holds back who publishes until those who are to get it have
// subscribed.
func (c *campaign) afterAudience(run func() error) func() error {
	return func() error {
		for c.absent.Load() > 0 {
			if err := c.pause(time.Millisecond); err != nil {
				return err
			}
		}
		return run()
	}
}

// audience starts the subscribers.
func (c *campaign) audience() {
	add := func(id string, v wire.Version, filter string, qos byte, edit func(*subscriber)) *subscriber {
		x := &subscriber{client: c.client(id, v), filter: filter, qos: qos}
		edit(x)
		if x.deliver == nil {
			x.judge = newJudge(c.book, filter, qos)
			// What is lost to a slow one is in the ledger, and not for us to know.
			x.judge.gapless, x.judge.late, x.judge.lossy = x.clean && !c.tight, x.clean, c.tight
			x.deliver = x.judge.deliver
		}
		c.subscribers = append(c.subscribers, x)
		c.absent.Add(1)
		c.goes(x.run)
		return x
	}
	add("all5", wire.V5, "t/#", 2, func(*subscriber) {})
	add("all4", wire.V311, "t/#", 2, func(x *subscriber) { x.slow = true })
	add("narrow5", wire.V5, "t/+/0", 1, func(x *subscriber) { x.receiveMaximum = 7 })
	add("seldom4", wire.V311, "t/1/#", 2, func(x *subscriber) { x.seldom = true })
	add("clean5", wire.V5, "t/#", 2, func(x *subscriber) { x.clean, x.receiveMaximum = true, 50 })
	add("clean4", wire.V311, "t/#", 1, func(x *subscriber) { x.clean, x.slow = true, true })
	add("zero5", wire.V5, "#", 0, func(x *subscriber) {
		x.clean = true
		judge := newJudge(c.book, "#", 0)
		judge.late, judge.lossy = true, c.tight
		x.judge, x.deliver = judge, func(topic string, payload []byte, qos byte) error {
			if topic[0] != 't' && topic[0] != 'x' {
				return nil
			}
			return judge.deliver(topic, payload, qos)
		}
	})
	add("exact5", wire.V5, "x/#", 2, func(x *subscriber) { x.seldom, x.receiveMaximum = true, 20 })
	add("exact4", wire.V311, "x/#", 2, func(x *subscriber) { x.seldom = true })
	c.watch = add("watch5", wire.V5, "w/#", 2, func(x *subscriber) {
		x.deliver = func(_ string, payload []byte, _ byte) error { return c.wills.deliver(payload) }
	})
}

func (c *campaign) client(id string, v wire.Version) client {
	c.clientCount++
	return client{campaign: c, id: id, version: v, rng: rand.New(rand.NewPCG(c.rng.Uint64(), uint64(c.clientCount)))}
}

func (c *campaign) goes(run func() error) {
	c.wg.Add(1)
	c.working.Add(1)
	go func() {
		defer c.wg.Done()
		defer c.working.Add(-1)
		_ = run() // what went wrong is the campaign's cause
	}()
}
