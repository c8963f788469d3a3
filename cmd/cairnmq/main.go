package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitDamage  = 3
	exitNoLog   = 4
)

const exitHelp = `Exit codes:
   0  all is well; also when the reader of the output went away, or a follower was interrupted
   1  failure
   2  wrong usage or configuration
   3  damage was found (log ls, log cat, log losses)
   4  no log there, or an empty one`

func main() {
	// Without this a closed pipe ends the process by a signal; we want the
	// error of the write.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends in order, the second one at once.
	context.AfterFunc(ctx, stop)
	app := newApp()
	code := report(app.RunContext(ctx, flagsFirst(app, os.Args)))
	stop()
	os.Exit(code)
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                 "cairnmq",
		Usage:                "an MQTT broker that keeps every message in one log, and tools to read it",
		Version:              buildVersion().Version,
		EnableBashCompletion: true,
		// A topic filter may contain a comma.
		DisableSliceFlagSeparator: true,
		CustomAppHelpTemplate: cli.AppHelpTemplate + `
` + exitHelp + "\n",
		Commands: []*cli.Command{serveCommand(), logCommand(), benchCommand(), configCommand(), passwdCommand(), versionCommand(), completionCommand()},
		Action:   groupAction,
		// report prints errors and chooses the code.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   onUsageError,
	}
	prepare(app.Commands)
	return app
}

// prepare gives every command what all have in common.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = onUsageError
		if len(c.Subcommands) > 0 {
			c.Action = groupAction
			prepare(c.Subcommands)
		} else {
			c.HideHelpCommand = true
			c.BashComplete = complete(c)
		}
	}
}

// codeError is an error with an exit code of its own.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

// errDamage ends a command that has already said what is damaged.
var errDamage = errors.New("damage was found")

// report prints err, if it is one, and returns the exit code.
func report(err error) int {
	var coded *codeError
	switch {
	case err == nil, readerWentAway(err):
		return exitOK
	case errors.Is(err, errDamage):
		complain(err)
		return exitDamage
	}
	complain(err)
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailure
}

// readerWentAway reports whether whoever reads our output has had enough.
func readerWentAway(err error) bool {
	var write *fs.PathError
	return errors.Is(err, syscall.EPIPE) && errors.As(err, &write) && write.Path == os.Stdout.Name()
}

func complain(err error) { fmt.Fprintf(os.Stderr, "cairnmq: %v\n", err) }
