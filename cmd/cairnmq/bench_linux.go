package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"cairnmq/bench/load"
)

const benchHelp = `SCENARIO is one of these, with other numbers too (default: pairs10):

   fanin10        10 publishers, one subscriber to all of them
   pairs10, pair  publishers with a subscriber each
   fanout100      one publisher, 100 subscribers
   publish10      10 publishers, nobody subscribed
   rtt            one publisher with one message in flight
   shared4        10 publishers, a shared subscription of 4
   topics100000   fan-in over so many topics
   subs10000      so many subscriptions, two thirds with wildcards
   store          publish for a session that is away, then deliver to it
   offline100     publish while so many sessions are away
   beside100      latency while 100 MB go to a slow subscriber
   retained50000  set retained messages, then deliver them
   idle1000       connections that do nothing

Every message is checked: a run that lost, repeated, reordered or changed one
has failed, and so has the command. Topics and client identifiers begin with
--prefix; sessions and retained messages that a scenario makes are removed.`

func benchCommand() *cli.Command {
	byDefault := load.Default()
	return &cli.Command{
		Name:        "bench",
		Usage:       "load a broker and check every message that comes back",
		ArgsUsage:   "[SCENARIO...]",
		Description: benchHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "address", Aliases: []string{"a"}, Value: "127.0.0.1:1883", Usage: "load the broker at `HOST:PORT`, of any make"},
			&cli.IntFlag{Name: "pid", Usage: "process `NUMBER` of the broker, if it runs here, to read its CPU time and memory"},
			&cli.BoolFlag{Name: "quick", Usage: "every scenario for a moment, to see that all is well"},
			&cli.StringFlag{Name: "mqtt", Value: "3.1.1", Usage: "protocol `VERSION`: 3.1.1 or 5"},
			&cli.UintFlag{Name: "qos", Value: uint(byDefault.QoS), Usage: "`QOS` of publishers and subscribers"},
			&cli.IntFlag{Name: "size", Value: byDefault.Size, Usage: "`BYTES` of payload, at least 16"},
			&cli.IntFlag{Name: "window", Value: byDefault.Window, Usage: "`MESSAGES` in flight per publisher"},
			&cli.IntFlag{Name: "topics", Value: byDefault.Topics, Usage: "`TOPICS` per publisher"},
			&cli.Float64Flag{Name: "rate", Usage: "`MESSAGES` a second over all publishers (default: as many as possible)"},
			&cli.BoolFlag{Name: "properties", Usage: "publish with MQTT 5 properties"},
			&cli.DurationFlag{Name: "duration", Value: byDefault.Measure, Usage: "measure for so `LONG`"},
			&cli.DurationFlag{Name: "warm", Value: byDefault.Warm, Usage: "load the broker for so `LONG` before"},
			&cli.IntFlag{Name: "count", Value: byDefault.Count, Usage: "`MESSAGES` of store and offline"},
			&cli.IntFlag{Name: "rounds", Value: 1, Usage: "do everything `N` times"},
			&cli.StringFlag{Name: "prefix", Value: byDefault.Prefix, Usage: "begin topics and client identifiers with `TEXT`"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "user `NAME`"},
			&cli.StringFlag{Name: "password-file", Usage: "read the password from the first line of `FILE`"},
			&cli.BoolFlag{Name: "tls", Usage: "connect with TLS"},
			&cli.StringFlag{Name: "ca", Usage: "trust the certificates in `FILE` instead of the system's; means --tls"},
			&cli.StringFlag{Name: "cert", Usage: "client certificate in `FILE`, with --key; means --tls"},
			&cli.StringFlag{Name: "key", Usage: "key of the client certificate in `FILE`"},
			&cli.BoolFlag{Name: "insecure", Usage: "do not verify the broker's certificate; means --tls"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object per run"},
		},
		Action: benchmark,
	}
}

func benchmark(c *cli.Context) error {
	target, err := benchTarget(c)
	if err != nil {
		return err
	}
	scenarios, err := benchScenarios(c)
	if err != nil {
		return err
	}
	failed := 0
	for round := range c.Int("rounds") {
		for _, s := range scenarios {
			r := load.Run(s, target)
			r.Round = round + 1
			if err := printRun(c, &r); err != nil {
				return err
			}
			if r.Failed() {
				failed++
			}
			if c.Context.Err() != nil {
				return errors.New("interrupted")
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d runs failed", failed, c.Int("rounds")*len(scenarios))
	}
	return nil
}

func printRun(c *cli.Context, r *load.Result) error {
	if c.Bool("json") {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	_, err := os.Stdout.WriteString(r.String())
	return err
}

// benchScenarios are those that the arguments name, as the flags change them.
func benchScenarios(c *cli.Context) ([]load.Scenario, error) {
	var scenarios []load.Scenario
	names := c.Args().Slice()
	switch {
	case c.Bool("quick") && len(names) > 0:
		return nil, usageErrorf("--quick does every scenario, so it takes no arguments")
	case c.Bool("quick"):
		scenarios = load.Quick()
	case len(names) == 0:
		names = []string{"pairs10"}
	}
	for _, name := range names {
		s, err := benchScenario(c, name)
		if err != nil {
			return nil, usageErrorf("%w; %s", err, seeHelp(c))
		}
		scenarios = append(scenarios, s)
	}
	for i := range scenarios {
		scenarios[i].Prefix = c.String("prefix")
		// Others may use the broker, too.
		scenarios[i].Filter = scenarios[i].Prefix + "/#"
		scenarios[i].CleanUp = true
	}
	return scenarios, nil
}

func benchScenario(c *cli.Context, name string) (load.Scenario, error) {
	s := load.Default()
	version, ok := map[string]byte{"3.1.1": 4, "4": 4, "5": 5, "5.0": 5}[c.String("mqtt")]
	if !ok {
		return s, fmt.Errorf("--mqtt %q: want 3.1.1 or 5", c.String("mqtt"))
	}
	s.SetVersion(version)
	if c.Uint("qos") > 2 {
		return s, fmt.Errorf("--qos %d: want 0, 1 or 2", c.Uint("qos"))
	}
	s.QoS = byte(c.Uint("qos"))
	s.Size = c.Int("size")
	s.Window = c.Int("window")
	s.Topics = c.Int("topics")
	s.Rate = c.Float64("rate")
	s.Properties = c.Bool("properties")
	s.Measure = c.Duration("duration")
	s.Warm = c.Duration("warm")
	s.Count = c.Int("count")
	if err := s.SetName(name); err != nil {
		return s, err
	}
	return s, s.Check()
}

// benchTarget is the broker that the flags name.
func benchTarget(c *cli.Context) (load.Target, error) {
	address := c.String("address")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return load.Target{}, usageErrorf("--address %q: want host:port", address)
	}
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return load.Target{}, err
	}
	t := load.Target{
		Name: address,
		Addr: resolved.AddrPort(),
		PID:  c.Int("pid"),
		User: c.String("user"),
		Stop: c.Context.Done(),
	}
	t.Addr = netip.AddrPortFrom(t.Addr.Addr().Unmap(), t.Addr.Port())
	if file := c.String("password-file"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return t, err
		}
		t.Password, _, _ = strings.Cut(string(text), "\n")
		t.Password = strings.TrimSuffix(t.Password, "\r")
	}
	if c.Bool("tls") || c.Bool("insecure") || c.IsSet("ca") || c.IsSet("cert") {
		t.TLS, err = benchTLS(c, host)
	}
	return t, err
}

func benchTLS(c *cli.Context, host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, InsecureSkipVerify: c.Bool("insecure")}
	if file := c.String("ca"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, usageErrorf("--ca %s: no certificate in it", file)
		}
	}
	if c.IsSet("cert") != c.IsSet("key") {
		return nil, usageErrorf("--cert and --key go together")
	}
	if c.IsSet("cert") {
		pair, err := tls.LoadX509KeyPair(c.String("cert"), c.String("key"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
