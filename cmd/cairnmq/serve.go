package main

import (
	"errors"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"cairnmq/mqtt/broker"
	"cairnmq/mqtt/config"
	"cairnmq/mqtt/logging"
)

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, EnvVars: []string{"CAIRNMQ_CONFIG"},
		Usage: "read the configuration from `FILE` (default: none, built-in values)"}
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the broker until it is interrupted; a second signal ends it at once",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "listen", Usage: "listen on `ADDR` (host:port, or the path of a unix socket) instead of what the only server of the configuration says"},
			&cli.StringFlag{Name: "data", Usage: "keep the log in `DIR` instead of storage.dir"},
			&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` instead of log.level: debug, info, warn or error"},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageErrorf("serve takes no arguments, but there is %q", c.Args().First())
	}
	cfg, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	if err := override(c, cfg); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// Messages in flight allocate nothing, so collections are rare, and
		// may as well come at half of Go's default and keep the process small.
		debug.SetGCPercent(50)
	}
	logs := logging.New(os.Stderr, cfg.Log.Options())
	defer logs.Close()
	for _, w := range cfg.Warnings() {
		logs.For(logging.Broker).Warn(w)
	}
	stop, err := serveProfiles(cfg.Debug.Pprof, logs)
	if err != nil {
		return err
	}
	defer stop()
	return broker.Run(c.Context, cfg, logs)
}

// override lays the flags over the configuration.
func override(c *cli.Context, cfg *config.Config) error {
	if c.IsSet("data") {
		cfg.Storage.Dir = c.String("data")
	}
	if c.IsSet("log-level") {
		cfg.Log.Level = config.Level(c.String("log-level"))
	}
	if c.IsSet("listen") {
		if len(cfg.Servers) != 1 {
			return usageErrorf("--listen needs a configuration with one server, this one has %d", len(cfg.Servers))
		}
		server := &cfg.Servers[0]
		server.Listen = c.String("listen")
		switch path := strings.Contains(server.Listen, "/"); {
		case path:
			server.Type = config.Unix
		case server.Type == config.Unix:
			server.Type = config.TCP
		}
	}
	if err := cfg.Validate(); err != nil {
		return usageErrorf("%w", err)
	}
	return nil
}

// loadConfig reads a file, or the built-in values if there is none, and lays
// the environment over it.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	var problems config.Problems
	var file *fs.PathError
	if errors.As(err, &problems) || errors.As(err, &file) {
		return nil, usageErrorf("%w", err)
	}
	return cfg, err
}
