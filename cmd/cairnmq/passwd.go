package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"cairnmq/mqtt/auth"
	"cairnmq/mqtt/config"
)

var hashes = []string{"scram-sha-256", "argon2id"}

func passwdCommand() *cli.Command {
	return &cli.Command{
		Name:      "passwd",
		Usage:     "add a user to the password file, change a password, or delete a user",
		ArgsUsage: "USER",
		Description: "The password is asked for on a terminal, twice, and else is the first line of standard input. It is never an\n" +
			"argument: those end up in the history of the shell and in the list of processes. A broker that runs takes the\n" +
			"new file up by itself.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "change `FILE`, which is made if need be", DefaultText: "auth.password_file of the configuration"},
			&cli.BoolFlag{Name: "delete", Usage: "delete the user"},
			&cli.BoolFlag{Name: "verify", Usage: "change nothing, and say whether the password is right; exit code 1 if it is not"},
			&cli.StringFlag{Name: "hash", Value: hashes[0], Usage: "`HASH` is scram-sha-256, which serves SCRAM clients too, or argon2id, which is harder to guess from a stolen file"},
			&cli.IntFlag{Name: "iterations", Value: auth.DefaultIterations, Usage: "`N` iterations for scram-sha-256. A SCRAM client goes through all of them itself: small devices want fewer"},
		},
		Action: passwd,
	}
}

func passwd(c *cli.Context) error {
	user, err := oneArg(c, "")
	if err == nil && user == "" {
		err = usageErrorf("passwd needs a USER")
	}
	if err != nil {
		return err
	}
	if err := auth.CheckUser(user); err != nil {
		return usageErrorf("%w", err)
	}
	path, err := passwordFile(c)
	if err != nil {
		return err
	}
	f, err := auth.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !c.Bool("delete") && !c.Bool("verify") {
		f, err = auth.ParseFile(nil)
	}
	if err != nil {
		return err
	}
	switch {
	case c.Bool("delete") || c.Bool("verify"):
		if !f.Has(user) {
			return fmt.Errorf("%s: there is no user %q", path, user)
		}
		if c.Bool("verify") {
			return verify(f, user)
		}
		f.Delete(user)
	default:
		if err := setPassword(c, f, user); err != nil {
			return err
		}
	}
	return f.Write(path)
}

func passwordFile(c *cli.Context) (string, error) {
	if path := c.String("file"); path != "" {
		return path, nil
	}
	cfg := config.Default()
	if name := c.String("config"); name != "" {
		data, err := os.ReadFile(name)
		if err == nil {
			// The files that it names may be yet to come: it is not checked for them.
			cfg, err = config.Parse(name, data, os.Environ())
		}
		if err != nil {
			return "", usageErrorf("%w", err)
		}
	}
	if cfg.Auth.PasswordFile == "" {
		return "", usageErrorf("passwd needs --file, or --config with a configuration that has auth.password_file")
	}
	return cfg.Auth.PasswordFile, nil
}

func verify(f *auth.File, user string) error {
	password, err := askPassword("Password: ")
	if err == nil && !f.Verify(user, password) {
		err = errors.New("the password is wrong")
	}
	return err
}

func setPassword(c *cli.Context, f *auth.File, user string) error {
	hash := c.String("hash")
	if !slices.Contains(hashes, hash) {
		return usageErrorf("unknown hash %q%s", hash, nearest(hash, hashes))
	}
	password, err := askPassword("New password: ")
	if err != nil {
		return err
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		again, err := askPassword("Again: ")
		if err != nil {
			return err
		}
		if !bytes.Equal(again, password) {
			return errors.New("the two are not the same; nothing was changed")
		}
	}
	if len(password) == 0 {
		return errors.New("the password is empty; nothing was changed")
	}
	if hash == "argon2id" {
		return f.Set(user, auth.NewArgon2id(password))
	}
	s, err := auth.NewSCRAM(password, c.Int("iterations"))
	if err != nil {
		return usageErrorf("--iterations: %w", err)
	}
	return f.Set(user, s)
}

// askPassword reads a password without showing it, or a line of what is no terminal.
func askPassword(prompt string) ([]byte, error) {
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		fmt.Fprint(os.Stderr, prompt)
		password, err := term.ReadPassword(fd)
		fmt.Fprintln(os.Stderr)
		return password, err
	}
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), err
}
