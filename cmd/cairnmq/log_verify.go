package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"cairnmq/cmd/cairnmq/show"
	"cairnmq/storage"
)

func logVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "verify every checksum, and every reference from the index to the log",
		ArgsUsage: "[DIR]",
		Description: "DIR is a data directory or a copy of one. Nothing is changed. Beside a running broker the\n" +
			"segments are verified and the index is not. Do not start a broker on DIR meanwhile.\n\n" + exitHelp,
		Flags:  []cli.Flag{configFlag(), jsonFlag()},
		Action: logVerify,
	}
}

func logVerify(c *cli.Context) error {
	configured := ""
	if c.NArg() == 0 {
		cfg, err := loadConfig(c.String("config"))
		if err != nil {
			return err
		}
		configured = cfg.Storage.Dir
	}
	dir, err := oneArg(c, configured)
	if err != nil {
		return err
	}
	v, err := storage.Verify(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &codeError{exitNoLog, fmt.Errorf("%s is not a data directory: %w", dir, err)}
	}
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	if c.Bool("json") {
		err = json.NewEncoder(out).Encode(v)
	} else {
		err = writeVerified(out, v)
	}
	if err = errors.Join(err, out.Flush()); err == nil && len(v.Problems) > 0 {
		err = fmt.Errorf("%w: problems found: %d", errDamage, len(v.Problems))
	}
	return err
}

func writeVerified(out io.Writer, v *storage.Verified) error {
	for _, p := range v.Problems {
		if _, err := fmt.Fprintf(out, "PROBLEM  %s: %s\n", show.Safe(p.Where), show.Safe(p.What)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "log      %d segments, %d records, %d messages, %d bytes: every checksum computed\n"+
		"index    %s", v.Segments, v.Records, v.Messages, v.Bytes, v.Index)
	if err == nil && v.Index == "verified" {
		_, err = fmt.Fprintf(out, ": %d postings, %d retained messages, %d sessions with %d in flight, %d rows of the ledger",
			v.Postings, v.Retained, v.Sessions, v.Inflight, v.Losses)
	}
	verdict := "sound"
	if len(v.Problems) > 0 {
		verdict = fmt.Sprintf("problems: %d; the broker starts all the same, and fences what is damaged", len(v.Problems))
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "\nverdict  %s\n", verdict)
	}
	return err
}
