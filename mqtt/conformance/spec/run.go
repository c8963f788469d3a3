package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Key, Value, Output string
}

// run runs every test that claims something.
func (m *matrix) run() error {
	tests := make(map[string][]string)
	for _, r := range m.list {
		for _, p := range r.tests {
			if !slices.Contains(tests[p.pkg], p.test) {
				tests[p.pkg] = append(tests[p.pkg], p.test)
			}
		}
	}
	m.wasRun = true
	for _, pkg := range slices.Sorted(maps.Keys(tests)) {
		names := tests[pkg]
		cmd := exec.Command("go", "test", "-json", "-count=1", "-run", "^("+strings.Join(names, "|")+")$", "./"+pkg)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := m.results(out); err != nil {
			return fmt.Errorf("%s: %w", pkg, err)
		}
		var failed *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
			return fmt.Errorf("%s: %w", pkg, err)
		}
	}
	return nil
}

// results takes in the output of go test -json. What a test or a subtest reported counts when it has passed; a test
// with a subtest that failed fails as well.
func (m *matrix) results(out io.Reader) error {
	claims := make(map[string][]string) // by the name of the test
	text := make(map[string][]string)
	for d := json.NewDecoder(out); ; {
		var e event
		if err := d.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "attr":
			if e.Key == "proves" {
				claims[key] = append(claims[key], e.Value)
			}
		case "output":
			text[key] = append(text[key], e.Output)
		case "build-output":
			fmt.Fprint(os.Stderr, e.Output)
		case "pass", "fail":
			if e.Action == "fail" {
				fmt.Fprint(os.Stderr, strings.Join(text[key], ""))
			}
			m.result(e, claims[key])
			delete(text, key)
		}
	}
}

func (m *matrix) result(e event, numbers []string) {
	top, _, _ := strings.Cut(e.Test, "/")
	for _, r := range m.list {
		for _, p := range r.tests {
			if p.test != top || !strings.HasSuffix(e.Package, "/"+p.pkg) {
				continue
			}
			p.failed = p.failed || e.Action == "fail"
			p.reported = p.reported || e.Action == "pass" && slices.Contains(numbers, r.number)
		}
	}
}
