package config

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// node is a value of the file together with its place, which the decoder of go-toml does not hand out. The types
// of package unstable stay within this file.
type node struct {
	line, column int
	value        any     // string, int64 or bool; nil for tables, lists and what no key accepts
	kind         string  // in words, for messages: "a string", "a table"
	children     []*node // of a table, each with a name; of a list, without
	name         string
	header       bool // a table that had a [header] of its own
}

const (
	kindTable = "a table"
	kindList  = "a list"
)

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// parseTree returns the file as a tree, or nil if it is not TOML. What is given twice is reported here; the first
// one counts.
func parseTree(data []byte, r *report) *node {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // some editors begin a file with this mark

	var ignored map[string]any
	decodeErr := toml.Unmarshal(data, &ignored)

	b := treeBuilder{report: r, root: &node{kind: kindTable}}
	b.parser.Reset(data)
	b.table = b.root
	for b.parser.NextExpression() {
		b.expression(b.parser.Expression())
	}
	if b.parser.Error() == nil && b.repeats > 0 {
		return b.root // decodeErr says the same of the first repeat
	}
	if decodeErr != nil {
		r.syntax(decodeErr)
		return nil
	}
	return b.root
}

func (r *report) syntax(err error) {
	p := Problem{File: r.file, Msg: err.Error()}
	var decodeErr *toml.DecodeError
	if errors.As(err, &decodeErr) {
		p.Line, p.Column = decodeErr.Position()
	}
	// Repeats that came before it are no help without the rest of the file.
	r.problems = append(r.problems[:0], p)
}

// treeBuilder follows the expressions of a file. It leans on toml.Unmarshal having found the file to be sound, and
// of unsound ones it understands only repeats.
type treeBuilder struct {
	parser  unstable.Parser
	report  *report
	root    *node
	table   *node // that the next key belongs to
	repeats int
}

// step is one part of a dotted key.
type step struct {
	name         string
	line, column int
}

func (b *treeBuilder) steps(keys unstable.Iterator) []step {
	var steps []step
	for keys.Next() {
		n := keys.Node()
		at := b.parser.Shape(n.Raw).Start
		steps = append(steps, step{name: string(n.Data), line: at.Line, column: at.Column})
	}
	return steps
}

func (b *treeBuilder) expression(e *unstable.Node) {
	switch e.Kind {
	case unstable.Table:
		b.tableHeader(b.steps(e.Key()))
	case unstable.ArrayTable:
		b.listHeader(b.steps(e.Key()))
	case unstable.KeyValue:
		b.keyValue(b.table, e)
	}
}

func (b *treeBuilder) tableHeader(steps []step) {
	last := len(steps) - 1
	parent := b.descend(b.root, steps[:last])
	if first := parent.child(steps[last].name); first != nil && (first.header || first.kind != kindTable) {
		b.repeat(steps, first)
		b.table = &node{kind: kindTable}
		return
	}
	b.table = enter(parent, steps[last])
	b.table.header = true
	b.table.line, b.table.column = steps[last].line, steps[last].column
}

func (b *treeBuilder) listHeader(steps []step) {
	last := len(steps) - 1
	parent := b.descend(b.root, steps[:last])
	all := parent.child(steps[last].name)
	if all == nil {
		all = enter(parent, steps[last])
		all.kind = kindList
	}
	b.table = &node{kind: kindTable, line: steps[last].line, column: steps[last].column}
	if all.kind != kindList {
		b.repeat(steps, all)
		return
	}
	all.children = append(all.children, b.table)
}

func (b *treeBuilder) keyValue(table *node, e *unstable.Node) {
	steps := b.steps(e.Key())
	last := len(steps) - 1
	parent := b.descend(table, steps[:last])
	if first := parent.child(steps[last].name); first != nil {
		b.repeat(steps, first)
		return
	}
	n := enter(parent, steps[last])
	b.fill(n, e.Value())
}

// descend walks to a table, making those that are not there yet. A list stands for its last element.
func (b *treeBuilder) descend(from *node, steps []step) *node {
	for _, s := range steps {
		next := from.child(s.name)
		if next == nil {
			next = enter(from, s)
		}
		if next.kind == kindList && len(next.children) > 0 {
			next = next.children[len(next.children)-1]
		}
		from = next
	}
	return from
}

// enter returns the table called s within parent, new if need be.
func enter(parent *node, s step) *node {
	if n := parent.child(s.name); n != nil {
		return n
	}
	n := &node{kind: kindTable, name: s.name, line: s.line, column: s.column}
	parent.children = append(parent.children, n)
	return n
}

func (b *treeBuilder) fill(n *node, v *unstable.Node) {
	switch v.Kind {
	case unstable.String:
		n.kind, n.value = "a string", string(v.Data)
	case unstable.Bool:
		n.kind, n.value = "true or false", string(v.Data) == "true"
	case unstable.Integer:
		n.kind = "a whole number"
		// Base 0 reads what TOML allows: 0x, 0o, 0b and underscores.
		if i, err := strconv.ParseInt(string(v.Data), 0, 64); err == nil {
			n.value = i
		}
	case unstable.Float:
		n.kind = "a number with a fraction"
	case unstable.Array:
		n.kind = kindList
		for items := v.Children(); items.Next(); {
			item := &node{line: n.line, column: n.column}
			b.fill(item, items.Node())
			n.children = append(n.children, item)
		}
	case unstable.InlineTable:
		n.kind = kindTable
		for pairs := v.Children(); pairs.Next(); {
			b.keyValue(n, pairs.Node())
		}
	default:
		n.kind = "a date or time"
	}
}

func (b *treeBuilder) repeat(steps []step, first *node) {
	b.repeats++
	last := steps[len(steps)-1]
	b.report.problems = append(b.report.problems, Problem{
		File: b.report.file, Line: last.line, Column: last.column, Key: last.name,
		Msg: "is given twice; the first is on line " + strconv.Itoa(first.line),
	})
}
