// Spec makes the matrix of requirements: which line of the broker obeys each requirement of MQTT 3.1.1 and 5, and
// which test proves it over a real socket.
//
// The requirements are in testdata/spec. A line obeys a requirement if a comment or a string beside it has the number.
// A test proves one if it passes it to mqtttest.Proves. The matrix is not believed but checked: -run runs every test
// that claims to prove something, and counts only what the tests themselves reported before they passed.
//
// The exit code is 1 if a requirement is without a test, or one that binds a server without a line; if a number or an
// excuse is cited that does not exist or is not needed; and if -page names a page that says something else.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
)

func main() {
	run := flag.Bool("run", false, "run the tests that prove something")
	page := flag.String("page", "", "the page that must say the same, such as docs/conformance.md")
	write := flag.Bool("write", false, "write the page instead")
	quiet := flag.Bool("quiet", false, "do not print the matrix")
	flag.Parse()
	if err := spec(*run, *page, *write, *quiet); err != nil {
		fmt.Fprintln(os.Stderr, "spec:", err)
		os.Exit(1)
	}
}

func spec(run bool, page string, write, quiet bool) error {
	m, err := load(".")
	if err != nil {
		return err
	}
	if run {
		if err := m.run(); err != nil {
			return err
		}
	}
	if !quiet {
		m.print()
	}
	if page != "" {
		if err := m.hold(page, write); err != nil {
			return err
		}
	}
	for _, p := range m.problems() {
		fmt.Fprintln(os.Stderr, p)
	}
	if n := len(m.problems()); n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	return nil
}

// print writes the matrix for people.
func (m *matrix) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUIREMENT\tBINDS\tVERDICT\tCODE\tTESTS")
	for _, r := range m.list {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.number, r.binds, r.verdict(), lines(r.code), names(r.tests))
	}
	_ = w.Flush()
	fmt.Println(m.summary())
}

// hold compares a page with what it should say, or writes it.
func (m *matrix) hold(page string, write bool) error {
	want := m.page()
	if write {
		return os.WriteFile(page, want, 0o644)
	}
	have, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%s is not what the sources say: make docs writes it anew", page)
	}
	return nil
}
