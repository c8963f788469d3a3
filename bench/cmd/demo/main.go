//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairnmq/bench/broker"
	"cairnmq/bench/load"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one demonstration.
type demo struct {
	out     io.Writer
	binary  string
	dir     string
	port    int
	window  int
	streams []stream

	broker  *broker.Process
	clients clients
}

func run(args []string, out io.Writer) error {
	d := demo{out: out}
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	flags.IntVar(&d.window, "window", 100, "readings of a sensor handed to its publisher and not acknowledged")
	limit := flags.Duration("limit", 2*time.Minute, "give up after this time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 || d.window < 1 {
		return errors.New("want the broker's program and the file with the readings")
	}
	var err error
	if d.binary, err = filepath.Abs(flags.Arg(0)); err != nil {
		return err
	}
	if _, err := os.Stat(d.binary); err != nil {
		return fmt.Errorf("the broker's program: %w", err)
	}
	if d.streams, err = readStreams(flags.Arg(1)); err != nil {
		return err
	}
	if d.port, err = broker.FreePort(); err != nil {
		return err
	}
	if d.clients, err = findClients(fmt.Sprintf("127.0.0.1:%d", d.port)); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "cairnmq-demo-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(d.dir) }()
	ctx, cancel := context.WithTimeoutCause(context.Background(), *limit, fmt.Errorf("not done after %v", *limit))
	defer cancel()
	return d.show(ctx)
}

// show is the demonstration from beginning to end.
func (d *demo) show(ctx context.Context) error {
	first, err := d.start()
	if err != nil {
		return err
	}
	defer func() { d.broker.Kill() }()
	d.say("broker started in an empty directory: %s from exec to the first CONNACK", millis(first))
	if err := d.clients.subscribe(ctx); err != nil {
		return err
	}
	d.say("subscriber %q subscribed to %s/# at QoS 1 and went offline; its session stays", subscriberID, topicRoot)

	publishers, err := d.publish(ctx)
	if err != nil {
		return err
	}
	if err := d.clients.publishEnd(ctx); err != nil {
		return err
	}
	checkers, err := d.receive(ctx, publishers)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"ls"}, {"cat", "-n", "3"}} {
		if err := d.log(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := d.broker.Stop(10 * time.Second); err != nil {
		return err
	}
	table, total := report(checkers)
	d.say("\n%s", table)
	if total.bad() {
		return fmt.Errorf("%d lost, %d out of order, %d altered", total.lost, total.misordered, total.altered)
	}
	d.say("every acknowledged reading was delivered, in order per topic")
	return nil
}

func (d *demo) start() (time.Duration, error) {
	spec := broker.Spec{Name: "cairnmq", Args: []string{d.binary, "serve", "--listen", "127.0.0.1:{port}", "--data", "{dir}/data"}}
	p, took, err := load.Start(spec, d.dir, d.port)
	if err != nil {
		return 0, err
	}
	d.broker = p
	return took, nil
}

// publish sends all readings, with a kill when half of them are acknowledged.
func (d *demo) publish(ctx context.Context) ([]*publisher, error) {
	total := 0
	for _, s := range d.streams {
		total += len(s.payloads)
	}
	d.say("publishing %d readings at QoS 1, one mosquitto_pub for each of %d sensors", total, len(d.streams))
	var acked atomic.Int64
	half := make(chan struct{})
	onAck := func() {
		if acked.Add(1) == int64(total/2) {
			close(half)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	publishers := make([]*publisher, len(d.streams))
	errs := make([]error, len(d.streams))
	var wg sync.WaitGroup
	for i, s := range d.streams {
		publishers[i] = newPublisher(s, d.clients, d.window, onAck)
		wg.Go(func() { errs[i] = publishers[i].run(ctx) })
	}
	var restart error
	select {
	case <-half:
		if restart = d.crash(&acked); restart != nil {
			cancel()
		}
	case <-ctx.Done():
	}
	wg.Wait()
	if err := errors.Join(append(errs, restart)...); err != nil {
		return nil, err
	}
	d.say("all %d acknowledged after %.1f s", acked.Load(), time.Since(begin).Seconds())
	return publishers, nil
}

// crash kills the broker and starts it again.
func (d *demo) crash(acked *atomic.Int64) error {
	d.broker.Kill()
	d.say("SIGKILL to the broker after %d acknowledgements", acked.Load())
	took, err := d.start()
	if err != nil {
		return err
	}
	d.say("broker started again: %s from exec to the first CONNACK", millis(took))
	return nil
}

// receive lets the subscriber come back, and checks what it gets.
func (d *demo) receive(ctx context.Context, publishers []*publisher) ([]*checker, error) {
	byTopic := make(map[string]*checker)
	checkers := make([]*checker, len(d.streams))
	for i, s := range d.streams {
		checkers[i] = newChecker(s)
		byTopic[s.topic] = checkers[i]
	}
	strangers := 0
	begin := time.Now()
	err := d.clients.receive(ctx, func(topic, payload string) {
		if c := byTopic[topic]; c != nil {
			c.deliver(payload)
		} else {
			strangers++
		}
	})
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	if strangers > 0 {
		err = errors.Join(err, fmt.Errorf("%d messages on topics that nobody published to", strangers))
	}
	for i, p := range publishers {
		checkers[i].finish(p.acked)
	}
	if err != nil {
		table, _ := report(checkers)
		return nil, fmt.Errorf("%w\n%s", err, table)
	}
	d.say("the subscriber came back and had everything %.1f s later", time.Since(begin).Seconds())
	return checkers, nil
}

// log prints what a log command says of the running broker's directory.
func (d *demo) log(ctx context.Context, args ...string) error {
	shown := strings.Join(args, " ")
	out, err := exec.CommandContext(ctx, d.binary, append(append([]string{"log"}, args...), filepath.Join(d.dir, "data"))...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cairnmq log %s: %w\n%s", shown, err, out)
	}
	d.say("\n$ cairnmq log %s DIR\n%s", shown, bytes.TrimRight(out, "\n"))
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
