//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// publisher sends one stream with mosquitto_pub and notes what is
// acknowledged.
type publisher struct {
	stream
	clients clients
	window  int
	onAck   func() // called for every reading that is acknowledged first

	mu    sync.Mutex
	cond  *sync.Cond // acked or ended has changed
	acked []bool
	// of the process that runs
	sent    []int          // lines written to it: indexes of payloads
	lineOf  map[uint16]int // packet identifier to line
	waiting int            // lines written and not acknowledged
	ended   bool
}

func newPublisher(s stream, c clients, window int, onAck func()) *publisher {
	p := &publisher{stream: s, clients: c, window: window, onAck: onAck, acked: make([]bool, len(s.payloads))}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// After a mosquitto_pub that ended too early the next one is started, unless
// so many in a row got nothing acknowledged.
const (
	retryPause = 100 * time.Millisecond
	retries    = 50
)

// run publishes until everything is acknowledged. Some versions of
// mosquitto_pub end when the connection is lost, others connect again and send
// again by themselves; here both do.
func (p *publisher) run(ctx context.Context) error {
	rest := p.rest()
	for failures := 0; ; {
		said, err := p.process(ctx, rest)
		before := len(rest)
		if rest = p.rest(); len(rest) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %d of %d not acknowledged: %w", p.topic, len(rest), len(p.payloads), context.Cause(ctx))
		}
		if failures++; len(rest) < before {
			failures = 0
		}
		if failures == retries {
			return fmt.Errorf("%s: mosquitto_pub gets nothing acknowledged: %v: %s", p.topic, err, said)
		}
		time.Sleep(retryPause)
	}
}

// rest are the readings that are not acknowledged.
func (p *publisher) rest() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var rest []int
	for i, ok := range p.acked {
		if !ok {
			rest = append(rest, i)
		}
	}
	return rest
}

// process runs one mosquitto_pub with the readings given. It returns what the
// process complained of.
func (p *publisher) process(ctx context.Context, rest []int) (string, error) {
	p.mu.Lock()
	p.sent, p.lineOf, p.waiting, p.ended = p.sent[:0], make(map[uint16]int), 0, false
	p.mu.Unlock()
	// Without stdbuf the debug output would come in blocks.
	args := append([]string{"-oL", "mosquitto_pub"}, p.clients.args("demo-"+p.topic[len(topicRoot)+1:])...)
	cmd := exec.CommandContext(ctx, "stdbuf", append(args, "-t", p.topic, "-q", "1", "-l", "-d")...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	fed := make(chan struct{})
	go func() { // ends when all is written or the process has ended
		defer close(fed)
		p.feed(in, rest)
	}()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.line(lines.Bytes())
	}
	p.mu.Lock()
	p.ended = true
	p.cond.Broadcast()
	p.mu.Unlock()
	err = cmd.Wait()
	<-fed
	return complaints.String(), err
}

// feed writes readings, at most window of them ahead of what is acknowledged,
// so that a kill in the middle meets messages in flight and many still to come.
func (p *publisher) feed(in io.WriteCloser, rest []int) {
	defer in.Close()
	for _, i := range rest {
		p.mu.Lock()
		for p.waiting >= p.window && !p.ended {
			p.cond.Wait()
		}
		ended := p.ended
		p.sent = append(p.sent, i)
		p.waiting++
		p.mu.Unlock()
		if ended {
			return
		}
		if _, err := io.WriteString(in, p.payloads[i]+"\n"); err != nil {
			return
		}
	}
}

var (
	sendingLine = regexp.MustCompile(`sending PUBLISH \(d\d, q1, r0, m(\d+),`)
	pubackLine  = regexp.MustCompile(`received PUBACK \(Mid: (\d+), RC:(\d+)\)`)
)

// line takes a line of debug output. Lines of input are sent in their order,
// each with a packet identifier of its own: the first one that is new belongs to
// the first line, and so on. A reading counts as acknowledged only if the
// PUBACK says success.
func (p *publisher) line(text []byte) {
	sending := sendingLine.FindSubmatch(text)
	puback := pubackLine.FindSubmatch(text)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case sending != nil:
		id, _ := strconv.ParseUint(string(sending[1]), 10, 16)
		if _, ok := p.lineOf[uint16(id)]; !ok {
			p.lineOf[uint16(id)] = len(p.lineOf)
		}
	case puback != nil && string(puback[2]) == "0":
		id, _ := strconv.ParseUint(string(puback[1]), 10, 16)
		n, ok := p.lineOf[uint16(id)]
		if !ok || n >= len(p.sent) || p.acked[p.sent[n]] {
			return
		}
		p.acked[p.sent[n]] = true
		p.waiting--
		p.cond.Broadcast()
		p.onAck()
	}
}
