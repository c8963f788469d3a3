package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"cairnmq/segment"
	"cairnmq/storage/inspect"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "read a log without the broker: a live directory, a copy, or single segment files",
		Description: "DIR is a data directory, a directory with segment files, or one segment file.\n" +
			"Without DIR it is storage.dir of the configuration given with -c, or ./data.\n" +
			"Nothing is locked and nothing is written.\n\n" + exitHelp,
		Subcommands: []*cli.Command{logListCommand(), logCatCommand(), logLossesCommand(), logVerifyCommand()},
	}
}

// openLog opens what the arguments of a log command name.
func openLog(c *cli.Context) (*inspect.Log, error) {
	configured := ""
	if c.NArg() == 0 {
		cfg, err := loadConfig(c.String("config"))
		if err != nil {
			return nil, err
		}
		configured = cfg.Storage.Dir
	}
	dir, err := oneArg(c, configured)
	if err != nil {
		return nil, err
	}
	l, err := inspect.Open(dir)
	if errors.Is(err, inspect.ErrNoLog) {
		return nil, &codeError{exitNoLog, err}
	}
	return l, err
}

// finding tells of damage on the way, and at the end that there was some.
type finding struct {
	out   *bufio.Writer // flushed before, so that the order of lines is true
	count int
}

func (f *finding) damage(d *segment.Damage) {
	f.count++
	_ = f.out.Flush() // its error comes again at the end
	fmt.Fprintf(os.Stderr, "cairnmq: damage: %v\n", d)
}

func (f *finding) err() error {
	if f.count == 0 {
		return nil
	}
	return fmt.Errorf("%w: ranges that cannot be read: %d", errDamage, f.count)
}
