//go:build !linux

package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "load a broker and check every message that comes back (on Linux only)",
		Action: func(*cli.Context) error {
			return errors.New("bench needs Linux, for epoll and /proc; run it there with --address of this broker")
		},
	}
}
