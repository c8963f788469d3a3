//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// finish lets everything come to an end, and draws up the account.
func (c *campaign) finish() error {
	if err := c.up(); err != nil {
		return err
	}
	c.drain.Store(true)
	if err := c.settle(); err != nil {
		return err
	}
	c.closeAll()
	c.stop()
	if c.failed() {
		return c.cause()
	}
	data := filepath.Join(c.dir, "data")
	if out, err := exec.Command(c.binary, "log", "ls", "--scan", data).CombinedOutput(); err != nil {
		return c.fail("log ls --scan: %w\n%s", err, tail(out))
	}
	if err := c.ledger.read(c.binary, data); err != nil {
		return c.fail("%w", err)
	}
	return c.account()
}

// patience is how long nothing may happen while something is still to come.
const patience = time.Minute

// settle waits until everybody has what is due, in the account's own terms.
func (c *campaign) settle() error {
	last, since := "", time.Now()
	var before int64
	for {
		waiting, err := c.outstanding()
		if err != nil || waiting == "" {
			return err
		}
		if now := c.deliveries.Load() + c.acks.Load(); waiting != last || now != before {
			last, before, since = waiting, now, time.Now()
		}
		if time.Since(since) > patience {
			return c.fail("nothing has come for %v; still waiting for %s", patience, waiting)
		}
		if err := c.pause(20 * time.Millisecond); err != nil {
			return fmt.Errorf("%w; waiting for %s", c.cause(), waiting)
		}
	}
}

// outstanding says what is still to come; nothing if all is there.
func (c *campaign) outstanding() (string, error) {
	for _, x := range c.publishers {
		x.mu.Lock()
		n := len(x.open)
		x.mu.Unlock()
		if n > 0 {
			return fmt.Sprintf("%d acknowledgements for %s", n, x.id), nil
		}
	}
	// Those with an end of their own: publishers, and all but subscribers.
	if n := c.working.Load() - int64(len(c.subscribers)); n > 0 {
		return fmt.Sprintf("%d clients that are to end", n), nil
	}
	if n, key := c.wills.missing(); n > 0 {
		return fmt.Sprintf("%d wills, one is %q", n, key), nil
	}
	if c.tight {
		if err := c.ledger.read(c.binary, filepath.Join(c.dir, "data")); err != nil {
			return "", c.fail("%w", err)
		}
	}
	for _, x := range c.subscribers {
		if !x.accountable() {
			continue
		}
		x.mu.Lock()
		n, example := x.judge.missing()
		x.mu.Unlock()
		if lost := c.ledger.lost(x.id); n > lost {
			return fmt.Sprintf("%d messages for %s, of which the ledger explains %d; one is %v", n, x.id, lost, example), nil
		}
	}
	return "", nil
}

// accountable: everything that was acknowledged must come, or be in the
// ledger.
func (x *subscriber) accountable() bool {
	return x.judge != nil && !x.clean && (!x.tight || strings.HasPrefix(x.filter, "x/"))
}

// account is the last word: nothing too much, and the ledger right.
func (c *campaign) account() error {
	if key, ok := c.wills.wrong(); ok {
		return c.fail("will %q came though it was not due", key)
	}
	for _, x := range c.subscribers {
		if !x.accountable() {
			continue
		}
		n, _ := x.judge.missing()
		lost := c.ledger.lost(x.id)
		// The ledger may say more, never less: a message taken while it is in
		// flight counts as lost, a segment that is being read while it goes
		// may still be delivered, and a kill between the row and the drop
		// leaves a row of what is not lost. Each of these is a part of a
		// segment.
		if room := len(x.held) + c.ledger.largest(x.id)*(1+c.kills+c.stopKills); lost < n || lost > n+room {
			return c.fail("%s misses %d messages, and the ledger says %d, which is not between that and %d more", x.id, n, lost, room)
		}
		c.surplus += lost - n
		c.lost += n
	}
	return nil
}

// ledger is the broker's loss ledger, as "log losses" prints it. Rows go with
// their segments, so it is read again and again.
type ledger map[uint64]lossRow

type lossRow struct {
	Position uint64
	Cause    string
	Readers  []string
	Messages int
	From, To uint64
}

func (l ledger) read(binary, data string) error {
	out, err := exec.Command(binary, "log", "losses", "--json", data).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 4 {
		return nil // killed before there was a log
	}
	if err != nil {
		return fmt.Errorf("log losses: %w\n%s", err, tail(out))
	}
	for line := range strings.Lines(string(out)) {
		var row lossRow
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return fmt.Errorf("log losses: %w in %q", err, line)
		}
		if row.To > 0 {
			l[row.Position] = row
		}
	}
	return nil
}

// lost adds up what the ledger says of a reader. If the broker is killed
// between writing a row and dropping the segment, it writes the row again: of
// rows that end at the same position the last one counts.
func (l ledger) lost(reader string) (n int) {
	last := map[uint64]lossRow{}
	for _, row := range l {
		for _, r := range row.Readers {
			if r == reader && row.Cause != "expiry" && last[row.To].Position <= row.Position {
				last[row.To] = row
			}
		}
	}
	for _, row := range last {
		n += row.Messages
	}
	return n
}

// largest is the largest of a reader's rows.
func (l ledger) largest(reader string) (n int) {
	for _, row := range l {
		if slices.Contains(row.Readers, reader) {
			n = max(n, row.Messages)
		}
	}
	return n
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }
