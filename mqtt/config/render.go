package config

import (
	"bytes"
	"fmt"
	"strings"
)

// TOML writes the configuration as a file without comments. Parsing that file gives an equal configuration.
func (c *Config) TOML() []byte {
	var b bytes.Buffer
	for _, s := range sections {
		for i, element := range s.elements(c) {
			if s.form == part && !s.appliesTo(element.(*Server)) {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintln(&b, s.header(i, element))
			for _, k := range s.keys {
				fmt.Fprintf(&b, "%s = %s\n", k.name, get(k.field(element)))
			}
		}
	}
	return b.Bytes()
}

// Example returns a file with every key, its default and what it means. Lists, which are empty by default, show one
// element that is commented out, and so do the parts of a server, with one that has them all: those lines have no
// space after the #.
func Example() []byte {
	c := Default()
	var b bytes.Buffer
	b.WriteString(`# The configuration of CairnMQ. Every key is here with its default; a file needs only those that differ.
# Sizes are written as "64MiB", "1.5GB" or a number of bytes, durations as "200ms", "1h30m" or "7d".
# A variable of the environment wins over the file: CAIRNMQ_STORAGE_DIR is dir in [storage].
`)
	firstPart := true
	for _, s := range sections {
		b.WriteByte('\n')
		if s.form == part && firstPart {
			firstPart = false
			fmt.Fprintf(&b, "# A server may have parts.\n#[servers.secure]\n#type = %q\n#listen = \"0.0.0.0:8084\"\n\n", WSS)
		}
		comment(&b, s.text)
		off := ""
		elements := s.elements(c)
		if s.form == list || s.form == part {
			off = "#"
			elements = []any{s.sample}
		}
		for i, element := range elements {
			fmt.Fprintf(&b, "%s%s\n", off, s.header(i, element))
			for _, k := range s.keys {
				b.WriteByte('\n')
				comment(&b, k.text)
				comment(&b, k.allowed())
				fmt.Fprintf(&b, "%s%s = %s\n", off, k.name, get(k.field(element)))
			}
		}
	}
	return b.Bytes()
}

func comment(b *bytes.Buffer, text string) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(b, "# %s\n", line)
	}
}

// header is the line above an element.
func (s *section) header(i int, element any) string {
	if s.form == list {
		return s.title()
	}
	return "[" + s.elementName(i, element) + "]"
}
