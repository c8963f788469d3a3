package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cairnmq/cmd/cairnmq/show"
	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

func logCatCommand() *cli.Command {
	return &cli.Command{
		Name:      "cat",
		Usage:     "print records",
		ArgsUsage: "[DIR]",
		Description: "A line of text is: time, position, QoS, flags (r retain, w will, c carried, x expires; - none), publisher, topic, payload.\n" +
			"--from and --to take a position, an RFC 3339 time, a time ago (-90s, -2h, -3d), @beginning or @now.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringSliceFlag{Name: "topic", Aliases: []string{"t"}, Usage: "messages whose topic matches `FILTER`; may be repeated"},
			&cli.StringSliceFlag{Name: "kind", Usage: "records of this `KIND`: " + strings.Join(kindNames(), ", ") + ", or all; may be repeated", DefaultText: "message"},
			&cli.StringFlag{Name: "client", Usage: "what the client `ID` published, its session's events, its losses"},
			&cli.StringFlag{Name: "from", Usage: "begin at `WHERE`, including"},
			&cli.StringFlag{Name: "to", Usage: "end before `WHERE`"},
			&cli.IntFlag{Name: "n", Usage: "the first `N` records only"},
			&cli.IntFlag{Name: "tail", Usage: "the last `N` records only"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is appended, until interrupted"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` is text, json (one object per line) or raw (payloads only)"},
			&cli.IntFlag{Name: "max-payload", Value: 256, Usage: "print `N` bytes of a payload in text; 0: all"},
			&cli.StringFlag{Name: "delimiter", Value: "\n", DefaultText: "newline", Usage: "what follows each payload in raw"},
			&cli.BoolFlag{Name: "null", Usage: "a zero byte follows each payload in raw"},
		},
		Action: logCat,
	}
}

var formats = []string{"text", "json", "raw"}

// kindNames are the kinds that can be asked for: a seal is not shown.
func kindNames() []string {
	return slices.DeleteFunc(storage.KindNames(), func(s string) bool { return s == storage.KindName(storage.KindSeal) })
}

func logCat(c *cli.Context) error {
	q, err := catQuery(c)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	print, err := printer(c, out)
	if err != nil {
		return err
	}
	l, err := openLog(c)
	if err != nil {
		return err
	}
	found := finding{out: out}
	err = l.Read(c.Context, q, inspect.Visitor{Entry: print, Damage: found.damage, Idle: out.Flush})
	if errors.Is(err, context.Canceled) && q.Follow {
		err = nil // being interrupted is how a follower ends
	}
	return errors.Join(err, out.Flush(), found.err())
}

func catQuery(c *cli.Context) (inspect.Query, error) {
	q := inspect.Query{
		Topics: c.StringSlice("topic"), Client: c.String("client"), First: c.Int("n"),
		Tail: c.Int("tail"), HasTail: c.IsSet("tail"), Follow: c.Bool("follow"),
	}
	if c.IsSet("n") && q.First < 1 || q.Tail < 0 || c.Int("max-payload") < 0 {
		return q, usageErrorf("-n, --tail and --max-payload count: they take no such number")
	}
	names := c.StringSlice("kind")
	if len(names) == 0 {
		names = []string{storage.KindName(storage.KindMessage)}
	}
	for _, name := range names {
		kind, ok := storage.ParseKind(name)
		switch {
		case name == "all":
			q.Kinds = nil
		case !ok || kind == storage.KindSeal:
			return q, usageErrorf("unknown kind %q%s", name, nearest(name, kindNames()))
		default:
			q.Kinds = append(q.Kinds, kind)
		}
	}
	if slices.Contains(names, "all") {
		q.Kinds = nil
	}
	now := time.Now()
	var err error
	if q.From, err = inspect.ParseBound(c.String("from"), now); err != nil {
		return q, usageErrorf("--from: %w", err)
	}
	if q.To, err = inspect.ParseBound(c.String("to"), now); err != nil {
		return q, usageErrorf("--to: %w", err)
	}
	if err := q.Check(); err != nil {
		return q, usageErrorf("%w", err)
	}
	return q, nil
}

// printer writes an entry in the format asked for.
func printer(c *cli.Context, out *bufio.Writer) (func(*inspect.Entry) error, error) {
	switch format := c.String("format"); format {
	case "text":
		limit := c.Int("max-payload")
		return func(e *inspect.Entry) error {
			_, err := out.WriteString(show.Text(e, limit) + "\n")
			return err
		}, nil
	case "json":
		return func(e *inspect.Entry) error {
			line, err := show.JSON(e)
			if err == nil {
				_, err = out.Write(line)
			}
			return err
		}, nil
	case "raw":
		delimiter := c.String("delimiter")
		if c.Bool("null") {
			delimiter = "\x00"
		}
		return func(e *inspect.Entry) error {
			if e.Message == nil {
				return nil
			}
			if _, err := out.Write(e.Message.Payload); err != nil {
				return err
			}
			_, err := out.WriteString(delimiter)
			return err
		}, nil
	default:
		return nil, usageErrorf("unknown format %q%s", format, nearest(format, formats))
	}
}
