package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"cairnmq/cmd/cairnmq/show"
	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

func logLossesCommand() *cli.Command {
	return &cli.Command{
		Name:      "losses",
		Usage:     "print the loss ledger, as far as it is in the log, and its sums",
		ArgsUsage: "[DIR]",
		Flags: []cli.Flag{
			configFlag(),
			jsonFlag(),
			&cli.StringFlag{Name: "client", Usage: "what the reader `ID` has lost"},
			&cli.StringFlag{Name: "from", Usage: "begin at `WHERE`: as log cat"},
			&cli.StringFlag{Name: "to", Usage: "end before `WHERE`"},
		},
		Action: logLosses,
	}
}

func logLosses(c *cli.Context) error {
	q := inspect.Query{Client: c.String("client")}
	now := time.Now()
	var err error
	if q.From, err = inspect.ParseBound(c.String("from"), now); err != nil {
		return usageErrorf("--from: %w", err)
	}
	if q.To, err = inspect.ParseBound(c.String("to"), now); err != nil {
		return usageErrorf("--to: %w", err)
	}
	l, err := openLog(c)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	found := finding{out: out}
	enc := json.NewEncoder(out)
	var sums show.LossSums
	err = l.Losses(c.Context, q, func(x *storage.Loss) error {
		sums.Add(x)
		if c.Bool("json") {
			return enc.Encode(x)
		}
		_, err := fmt.Fprintln(out, show.Loss(x))
		return err
	}, found.damage)
	if err == nil && c.Bool("json") {
		err = enc.Encode(struct {
			Sums *show.LossSums `json:"sums"`
		}{&sums})
	} else if err == nil {
		err = sums.WriteText(out)
	}
	return errors.Join(err, out.Flush(), found.err())
}
