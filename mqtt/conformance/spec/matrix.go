package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// requirement is one row of the matrix.
type requirement struct {
	number  string
	binds   string // server, client, both
	section string
	text    string
	code    []place
	tests   []*proof
	// exempt is why there is nothing to test; open is what is missing for now.
	exempt, open string
}

// place is where a number is cited.
type place struct {
	file string // from the root of the repository, with slashes
	line int
	in   string // the declaration around it
}

// proof is a test that claims a requirement.
type proof struct {
	pkg, test string
	reported  bool // it said so when it was run, and passed
	failed    bool
}

// matrix is all of it.
type matrix struct {
	list   []*requirement
	by     map[string]*requirement
	wrong  []string // what is cited and does not exist
	wasRun bool
}

// Where the requirements are, from the root of the repository.
const specDir = "testdata/spec"

func load(root string) (*matrix, error) {
	m := &matrix{by: make(map[string]*requirement)}
	for _, file := range []string{"mqtt5.tsv", "mqtt311.tsv"} {
		err := table(filepath.Join(root, specDir, file), 4, func(f []string) error {
			r := &requirement{number: f[0], binds: f[1], section: f[2], text: f[3]}
			if m.by[r.number] != nil {
				return fmt.Errorf("%s is there twice", r.number)
			}
			m.list, m.by[r.number] = append(m.list, r), r
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for file, field := range map[string]func(*requirement) *string{
		"exempt.tsv": func(r *requirement) *string { return &r.exempt },
		"open.tsv":   func(r *requirement) *string { return &r.open },
	} {
		err := table(filepath.Join(root, specDir, file), 2, func(f []string) error {
			r := m.by[f[0]]
			if r == nil {
				return fmt.Errorf("there is no requirement %s", f[0])
			}
			*field(r) = f[1]
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return m, m.scan(root)
}

// table reads a file of tab-separated fields.
func table(path string, fields int, row func([]string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	sc := bufio.NewScanner(file)
	for n := 1; sc.Scan(); n++ {
		f := strings.Split(sc.Text(), "\t")
		if len(f) != fields {
			return fmt.Errorf("%s:%d: %d fields, want %d", path, n, len(f), fields)
		}
		if err := row(f); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return sc.Err()
}

// verdict is how it stands with a requirement.
func (r *requirement) verdict() string {
	var reported, failed bool
	for _, p := range r.tests {
		reported, failed = reported || p.reported, failed || p.failed
	}
	switch {
	case failed:
		return "failed"
	case reported:
		return "proved"
	case len(r.tests) > 0:
		return "tested"
	case r.exempt != "":
		return "exempt"
	case r.open != "":
		return "open"
	}
	return "missing"
}

// problems are what is wrong with the matrix, in words.
func (m *matrix) problems() []string {
	list := append([]string(nil), m.wrong...)
	for _, r := range m.list {
		wrong := func(format string, args ...any) {
			list = append(list, r.number+": "+fmt.Sprintf(format, args...))
		}
		if len(r.tests) == 0 && r.exempt == "" && r.open == "" {
			wrong("no test proves it (%s: %s)", r.binds, r.text)
		}
		if r.binds != "client" && len(r.code) == 0 && r.exempt == "" && r.open == "" {
			wrong("no line cites it (%s: %s)", r.binds, r.text)
		}
		if r.exempt != "" && len(r.tests) > 0 {
			wrong("exempt.tsv excuses it, and %s proves it", r.tests[0].test)
		}
		if r.open != "" && len(r.tests) > 0 && (len(r.code) > 0 || r.binds == "client") {
			wrong("open.tsv excuses it, and nothing is missing")
		}
		if r.exempt != "" && r.open != "" {
			wrong("it is in exempt.tsv and in open.tsv")
		}
		for _, p := range r.tests {
			switch {
			case !m.wasRun:
			case p.failed:
				wrong("%s, %s has failed", p.pkg, p.test)
			case !p.reported:
				wrong("%s, %s has the number and did not report it", p.pkg, p.test)
			}
		}
	}
	return list
}

// summary counts.
func (m *matrix) summary() string {
	counts := make(map[string]int)
	tests := make(map[string]bool)
	for _, r := range m.list {
		counts[r.verdict()]++
		for _, p := range r.tests {
			tests[p.pkg+" "+p.test] = true
		}
	}
	verdicts := make([]string, 0, len(counts))
	for v := range counts {
		verdicts = append(verdicts, v)
	}
	sort.Strings(verdicts)
	s := fmt.Sprintf("%d requirements, %d tests:", len(m.list), len(tests))
	for _, v := range verdicts {
		s += fmt.Sprintf(" %d %s", counts[v], v)
	}
	return s
}

func lines(places []place) string {
	var s []string
	for _, p := range places {
		s = append(s, fmt.Sprintf("%s:%d", p.file, p.line))
	}
	return orDash(strings.Join(s, " "))
}

func names(tests []*proof) string {
	var s []string
	for _, p := range tests {
		s = append(s, p.test)
	}
	return orDash(strings.Join(s, " "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
