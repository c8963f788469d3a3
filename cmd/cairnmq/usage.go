package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/urfave/cli/v2"
)

// groupAction answers a command that only has commands below it.
func groupAction(c *cli.Context) error {
	if !c.Args().Present() {
		if c.Command.HelpName == "" || len(c.Lineage()) <= 2 {
			return cli.ShowAppHelp(c)
		}
		return cli.ShowSubcommandHelp(c)
	}
	var known []string
	for _, sub := range c.Command.Subcommands {
		known = append(known, sub.Names()...)
	}
	return usageErrorf("unknown command %q%s; %s", c.Args().First(), nearest(c.Args().First(), known), seeHelp(c))
}

// onUsageError is for flags that are not known or have a wrong value.
func onUsageError(c *cli.Context, err error, _ bool) error {
	msg := err.Error()
	hint := ""
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		var known []string
		for _, f := range c.Command.Flags {
			known = append(known, f.Names()...)
		}
		name = strings.TrimPrefix(name, "-")
		msg = "unknown flag " + dashes(name)
		if n := nearestName(name, known); n != "" {
			hint = "; did you mean " + dashes(n) + "?"
		}
	}
	return usageErrorf("%s%s; %s", msg, hint, seeHelp(c))
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func seeHelp(c *cli.Context) string {
	name := c.Command.HelpName
	if name == "" {
		name = c.App.Name
	}
	return fmt.Sprintf("see %s --help", name)
}

func nearest(name string, known []string) string {
	if n := nearestName(name, known); n != "" {
		return fmt.Sprintf("; did you mean %s?", n)
	}
	return ""
}

// nearestName is the known name with the fewest letters changed, if they are
// few: a wild guess confuses more than it helps.
func nearestName(name string, known []string) string {
	best, distance := "", (len(name)+2)/3+1
	for _, k := range known {
		d := levenshtein.ComputeDistance(strings.ToLower(name), k)
		if strings.HasPrefix(k, name) && len(name) > 1 {
			d = min(d, 1)
		}
		if d < distance {
			best, distance = k, d
		}
	}
	return best
}

// oneArg is the only argument of a command, or the default.
func oneArg(c *cli.Context, byDefault string) (string, error) {
	switch c.NArg() {
	case 0:
		return byDefault, nil
	case 1:
		return c.Args().First(), nil
	}
	return "", usageErrorf("one argument at most, not %d: %s", c.NArg(), strings.Join(c.Args().Slice(), " "))
}

// flagsFirst moves the flags of a command before its arguments, because the
// flag package stops at the first argument and would take "log ls DIR --json"
// for two.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) > 0 && args[len(args)-1] == "--generate-bash-completion" {
		return args
	}
	commands, flags := app.Commands, app.Flags
	at := 1
	for at < len(args) {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if i < 0 {
			break
		}
		flags, commands = commands[i].Flags, commands[i].Subcommands
		at++
	}
	if len(commands) > 0 {
		return args // not a command with arguments of its own
	}
	var options, operands []string
	for rest := args[at:]; len(rest) > 0; rest = rest[1:] {
		switch word := rest[0]; {
		case word == "--":
			return slices.Concat(args[:at], options, []string{"--"}, operands, rest[1:])
		case len(word) < 2 || word[0] != '-':
			operands = append(operands, word)
		case takesValue(flags, word) && len(rest) > 1:
			options = append(options, word, rest[1])
			rest = rest[1:]
		default:
			options = append(options, word)
		}
	}
	if len(operands) > 0 {
		options = append(options, "--")
	}
	return slices.Concat(args[:at], options, operands)
}

// takesValue reports whether the word is a flag whose value is the next word.
func takesValue(flags []cli.Flag, word string) bool {
	name := strings.TrimLeft(word, "-")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}
