package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"cairnmq/mqtt/config"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "write, check and explain configurations",
		Subcommands: []*cli.Command{
			{
				Name:   "example",
				Usage:  "print a file with every key, its default and what it means",
				Action: configExample,
			},
			{
				Name:      "check",
				Usage:     "check a file and the environment; print every problem with its line, and warnings",
				ArgsUsage: "FILE",
				Action:    configCheck,
			},
			{
				Name:   "explain",
				Usage:  "print the configuration in effect: defaults, file and environment",
				Flags:  []cli.Flag{configFlag()},
				Action: configExplain,
			},
		},
	}
}

func configExample(c *cli.Context) error {
	_, err := os.Stdout.Write(config.Example())
	return err
}

func configCheck(c *cli.Context) error {
	path, err := oneArg(c, os.Getenv("CAIRNMQ_CONFIG"))
	if err != nil {
		return err
	}
	if path == "" {
		return usageErrorf("config check needs a FILE")
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintln(os.Stderr, "warning:", w)
	}
	_, err = fmt.Printf("%s: no problems\n", path)
	return err
}

func configExplain(c *cli.Context) error {
	path, err := oneArg(c, c.String("config"))
	if err != nil {
		return err
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(cfg.TOML())
	return err
}
