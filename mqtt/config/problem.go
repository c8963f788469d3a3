package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Environment stands in Problem.File for a fault in an environment variable.
const Environment = "environment"

// Problem is one fault in the configuration. Line and Column count from 1; they are 0 where the fault has no place
// in a file.
type Problem struct {
	File         string
	Line, Column int
	Key          string // the full name of the key, or of the environment variable
	Msg          string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Msg)
	return b.String()
}

// Problems are all the faults of a configuration: the file's in the order of the file, then the environment's.
type Problems []Problem

// Error prints one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// origin is where a value was written.
type origin struct {
	file         string
	line, column int
	key          string // as the writer knows it, when that is not the full name: a variable
}

// report collects problems, and knows where each key was written.
type report struct {
	file     string
	origins  map[string]origin // by the full name of a key or table
	broken   map[string]bool   // keys already complained of: one complaint each is enough
	problems Problems
}

func newReport(file string) *report {
	return &report{file: file, origins: make(map[string]origin), broken: make(map[string]bool)}
}

// add notes a problem of the key called name, at the place where it, or else the nearest table around it, stands.
func (r *report) add(name, format string, args ...any) {
	if r.broken[name] {
		return
	}
	r.broken[name] = true
	p := Problem{File: r.file, Key: name, Msg: fmt.Sprintf(format, args...)}
	for around := name; around != ""; around = parentName(around) {
		if o, ok := r.origins[around]; ok {
			p.File, p.Line, p.Column = o.file, o.line, o.column
			if o.key != "" && around == name {
				p.Key = o.key
			}
			break
		}
	}
	r.problems = append(r.problems, p)
}

// line is the line on which name was written, as words for a message about another key.
func (r *report) line(name string) string {
	o, ok := r.origins[name]
	switch {
	case !ok:
		return ""
	case o.key != "":
		return " (" + o.key + ")"
	}
	return fmt.Sprintf(" (line %d)", o.line)
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(boolInt(a.File == Environment), boolInt(b.File == Environment)),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	return r.problems
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// parentName cuts the last step off: "retention[0].filter" to "retention[0]", that to "retention", that to "".
func parentName(name string) string {
	return name[:max(0, strings.LastIndexAny(name, ".["))]
}

// didYouMean returns the end of a message about an unknown name: the known name nearest to it, if one is near.
func didYouMean(name string, known []string) string {
	best, bestDistance := "", len(name)
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	// A third of the letters may differ; beyond that a guess confuses more than it helps.
	if best == "" || bestDistance > (len(name)+2)/3 {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}
