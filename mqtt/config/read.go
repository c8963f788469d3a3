package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// readTree carries the file into c.
func readTree(root *node, c *Config, r *report) {
	reader{c, r}.table(root, nil, "", nil)
}

type reader struct {
	c *Config
	r *report
}

// table reads the children of n: tables that are sections, and keys of s, the section that n itself is. At the root
// s is nil.
func (rd reader) table(n *node, s *section, name string, element any) {
	for _, child := range n.children {
		full := child.name
		if name != "" {
			full = name + "." + child.name
		}
		rd.r.origins[full] = origin{file: rd.r.file, line: child.line, column: child.column}

		if inner := sectionNamed(full); inner != nil {
			rd.section(child, inner)
			continue
		}
		if inner := s.partNamed(child.name); inner != nil {
			if child.kind != kindTable {
				rd.r.add(full, "is a table: write [%s]", full)
				continue
			}
			rd.table(child, inner, full, element)
			continue
		}
		var k *key
		if s != nil {
			k = s.keyNamed(child.name)
		}
		if k == nil {
			rd.r.add(full, "unknown %s%s", noun(child), suggest(s, child.name))
			continue
		}
		if words, ok := k.field(element).(*[]string); ok && child.kind == kindList {
			if err := setWords(words, child.children); err != nil {
				rd.r.add(full, "%v", err)
			}
			continue
		}
		if child.value == nil {
			rd.r.add(full, "expects %s, not %s", expects(k.field(element)), child.kind)
			continue
		}
		if err := set(k.field(element), child.value); err != nil {
			rd.r.add(full, "%v", err)
		}
	}
}

func noun(n *node) string {
	if n.kind == kindTable {
		return "table"
	}
	return "key"
}

// suggest looks for the name that was meant: beside the place where it stands first, then, for a key in the wrong
// place, everywhere.
func suggest(s *section, last string) string {
	var beside []string
	prefix := ""
	if s != nil {
		prefix = s.name + "."
		for _, k := range s.keys {
			beside = append(beside, k.name)
		}
	}
	for i := range sections {
		if sections[i].form == part && s != nil && s.form == named {
			beside = append(beside, sections[i].partName())
		}
	}
	for _, other := range sections {
		if name, ok := strings.CutPrefix(other.name, prefix); ok && !strings.Contains(name, ".") {
			beside = append(beside, name)
		}
	}
	if hint := didYouMean(last, beside); hint != "" {
		return hint
	}
	for _, other := range sections {
		if other.keyNamed(last) != nil {
			return fmt.Sprintf("; %s is a key of %s", last, other.title())
		}
	}
	return ""
}

func (rd reader) section(n *node, s *section) {
	switch {
	case s.form == list && n.kind != kindList:
		rd.r.add(s.name, "is a list of tables: write %s", s.title())
	case s.form == list:
		rd.list(n, s)
	case n.kind != kindTable:
		rd.r.add(s.name, "is a table: write %s", s.title())
	case s.form == named:
		rd.named(n, s)
	default:
		rd.table(n, s, s.name, s.elements(rd.c)[0])
	}
}

func (rd reader) list(n *node, s *section) {
	for i, item := range n.children {
		name := fmt.Sprintf("%s[%d]", s.name, i)
		rd.r.origins[name] = origin{file: rd.r.file, line: item.line, column: item.column}
		element := s.add(rd.c, "") // also for what is no table, so that the places of the others stay right
		if item.kind != kindTable {
			rd.r.add(name, "expects a table, not %s", item.kind)
			rd.r.breakAll(s, name)
			continue
		}
		rd.table(item, s, name, element)
	}
}

// named reads the servers, which are the only section of its form: a file that has any replaces the default one.
func (rd reader) named(n *node, s *section) {
	if len(n.children) > 0 {
		rd.c.Servers = nil
	}
	slices.SortStableFunc(n.children, func(a, b *node) int {
		return cmp.Compare(a.line, b.line) // a dotted key may have made a table before its header came
	})
	for _, child := range n.children {
		name := s.name + "." + child.name
		rd.r.origins[name] = origin{file: rd.r.file, line: child.line, column: child.column}
		if child.kind != kindTable {
			rd.r.add(name, "is not a server: a server has a name, as in [servers.main]")
			rd.r.broken[s.name] = true
			continue
		}
		rd.table(child, s, name, s.add(rd.c, child.name))
	}
}

// breakAll silences the checks of an element that could not be read.
func (r *report) breakAll(s *section, element string) {
	for _, k := range s.keys {
		r.broken[element+"."+k.name] = true
	}
}

// setWords stores a list of strings.
func setWords(field *[]string, items []*node) error {
	*field = nil
	for _, item := range items {
		word, ok := item.value.(string)
		if !ok {
			return fmt.Errorf("expects %s, with %s among them", expects(field), item.kind)
		}
		*field = append(*field, word)
	}
	return nil
}

// set stores a string, an int64 or a bool in a setting. The error does not name the key.
func set(field, value any) error {
	wrongType := fmt.Errorf("expects %s, not %s", expects(field), kindOf(value))
	switch field := field.(type) {
	case *int:
		n, ok := value.(int64)
		if !ok {
			return wrongType
		}
		if int64(int(n)) != n {
			return fmt.Errorf("%d is too large", n)
		}
		*field = int(n)
	case *bool:
		b, ok := value.(bool)
		if !ok {
			return wrongType
		}
		*field = b
	case *[]string:
		return wrongType
	case *Size:
		if n, ok := value.(int64); ok {
			*field = Size(n)
			return nil
		}
		return setText(field, value, wrongType)
	case *Duration:
		if n, ok := value.(int64); ok && n != 0 {
			return fmt.Errorf(`%d needs a unit; write for example "%ds"`, n, max(n, -n))
		} else if ok {
			*field = 0
			return nil
		}
		return setText(field, value, wrongType)
	default:
		s, ok := value.(string)
		if !ok {
			return wrongType
		}
		reflect.ValueOf(field).Elem().SetString(s)
	}
	return nil
}

func setText(field encoding.TextUnmarshaler, value any, wrongType error) error {
	s, ok := value.(string)
	if !ok {
		return wrongType
	}
	return field.UnmarshalText([]byte(s))
}

// setFromText is set for a value that came as text, from the environment.
func setFromText(field any, text string) error {
	var value any = text
	switch field := field.(type) {
	case *int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("expects %s, not %q", expects(field), text)
		}
		value = n
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("expects %s, not %q", expects(field), text)
		}
		value = text == "true"
	case *[]string:
		*field = nil
		for word := range strings.SplitSeq(text, ",") {
			*field = append(*field, strings.TrimSpace(word))
		}
		return nil
	}
	return set(field, value)
}

func kindOf(value any) string {
	switch value.(type) {
	case int64:
		return "a whole number"
	case bool:
		return "true or false"
	}
	return "a string"
}

// expects is the type of a setting in words.
func expects(field any) string {
	switch field.(type) {
	case *int:
		return "a whole number"
	case *bool:
		return "true or false"
	case *[]string:
		return "a list of strings"
	case *Size:
		return `a size such as "64MiB"`
	case *Duration:
		return `a duration such as "10s"`
	}
	return "a string"
}

// get is the setting as TOML would write it.
func get(field any) string {
	switch field := field.(type) {
	case *int:
		return strconv.Itoa(*field)
	case *bool:
		return strconv.FormatBool(*field)
	case *[]string:
		words := make([]string, len(*field))
		for i, word := range *field {
			words[i] = quote(word)
		}
		return "[" + strings.Join(words, ", ") + "]"
	case fmt.Stringer: // sizes and durations
		return quote(field.String())
	}
	return quote(reflect.ValueOf(field).Elem().String())
}

// quote writes a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
