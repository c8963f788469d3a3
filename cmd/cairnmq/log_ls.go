package main

import (
	"encoding/json"
	"os"

	"github.com/urfave/cli/v2"

	"cairnmq/cmd/cairnmq/show"
	"cairnmq/storage/inspect"
)

func logListCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list the segments with what they hold",
		ArgsUsage: "[DIR]",
		Flags: []cli.Flag{
			configFlag(),
			jsonFlag(),
			&cli.BoolFlag{Name: "scan", Usage: "read everything and verify every checksum"},
		},
		Action: logList,
	}
}

func logList(c *cli.Context) error {
	l, err := openLog(c)
	if err != nil {
		return err
	}
	list, err := l.List(c.Bool("scan"))
	if err != nil {
		return err
	}
	var total inspect.Total
	for i := range list {
		total.Add(&list[i])
	}
	if c.Bool("json") {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			Path     string            `json:"path"`
			Segments []inspect.Segment `json:"segments"`
			Total    inspect.Total     `json:"total"`
		}{l.Path, list, total})
	} else {
		err = show.Segments(os.Stdout, list, &total)
	}
	if err == nil && total.Damages > 0 {
		return errDamage
	}
	return err
}
