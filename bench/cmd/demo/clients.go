//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
)

// clients are the mosquitto programs, told where the broker is.
type clients struct{ host, port string }

// needed are the programs that must be there.
var needed = []string{"mosquitto_pub", "mosquitto_sub", "stdbuf"}

func findClients(addr string) (clients, error) {
	var missing []string
	for _, name := range needed {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return clients{}, fmt.Errorf("not installed: %s; on Debian and Ubuntu: apt-get install mosquitto-clients coreutils", strings.Join(missing, ", "))
	}
	host, port, err := net.SplitHostPort(addr)
	return clients{host, port}, err
}

// args are what both programs are told: where to, and as whom.
func (c clients) args(id string) []string { return []string{"-h", c.host, "-p", c.port, "-i", id} }

const (
	subscriberID = "demo-subscriber"
	endTopic     = topicRoot + "/end"
)

func (c clients) subscriber(ctx context.Context, more ...string) *exec.Cmd {
	args := append(c.args(subscriberID), "-c", "-q", "1", "-t", topicRoot+"/#")
	return exec.CommandContext(ctx, "mosquitto_sub", append(args, more...)...)
}

// subscribe makes the persistent session and leaves.
func (c clients) subscribe(ctx context.Context) error {
	if out, err := c.subscriber(ctx, "-E").CombinedOutput(); err != nil {
		return fmt.Errorf("mosquitto_sub: %w: %s", err, out)
	}
	return nil
}

// publishEnd publishes the message behind all readings.
func (c clients) publishEnd(ctx context.Context) error {
	args := append(c.args("demo-end"), "-q", "1", "-t", endTopic, "-m", "end")
	if out, err := exec.CommandContext(ctx, "mosquitto_pub", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mosquitto_pub: %w: %s", err, out)
	}
	return nil
}

// receive goes on with the persistent session and calls each for every message
// up to the end.
func (c clients) receive(ctx context.Context, each func(topic, payload string)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := c.subscriber(ctx, "-F", "%t %p")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := false
	for lines := bufio.NewScanner(out); !done && lines.Scan(); {
		topic, payload, _ := strings.Cut(lines.Text(), " ")
		if done = topic == endTopic; !done {
			each(topic, payload)
		}
	}
	stop()
	err = cmd.Wait() // killed by stop if all went well
	if !done {
		return errors.Join(errors.New("mosquitto_sub ended before the end came"), err)
	}
	return nil
}
