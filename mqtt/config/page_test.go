package config

import (
	"bytes"
	"fmt"
	"strings"
)

//go:generate go test -run TestPageIsUpToDate -update

// page is docs/configuration.md. It lives among the tests because nothing else needs it.
func page() []byte {
	var b bytes.Buffer
	b.WriteString(`# Configuration

<!-- Written by "go generate ./mqtt/config" from the table in mqtt/config/keys.go. Edit that table, not this page. -->

CairnMQ reads one TOML file. Every key has a default, so the file needs only what differs, and no file at all is fine too.

- **Nothing is ignored.** An unknown key, table or variable is refused, with the nearest name that exists.
- **All problems come at once**, as ` + "`file:line:column: key: what is wrong`" + `.
- **Sizes** are numbers with KiB, MiB, GiB, TiB (powers of 1024), KB, MB, GB, TB (powers of 1000) or no unit, for bytes:
  ` + "`\"64MiB\"`, `\"1.5GB\"`, `4096`" + `.
- **Durations** have units, ms, s, m, h or d: ` + "`\"200ms\"`, `\"1h30m\"`, `\"7d\"`" + `. Only 0 goes without.
- **The environment wins over the file.** The variable of a key is below it. For a server, NAME is its name in capitals, with _
  for -; a server that the file does not have is added. A variable that is empty counts as not set. Lists of
  tables can be set in the file only; the words of other lists are separated by commas. Other variables that start with CAIRNMQ_ are refused, except CAIRNMQ_CONFIG and those that Kubernetes
  makes for a service called cairnmq (CAIRNMQ_PORT..., CAIRNMQ_SERVICE_...).

`)
	c := Default()
	for _, s := range sections {
		fmt.Fprintf(&b, "## `%s`\n\n%s\n\n", s.title(), s.text)
		elements := s.elements(c)
		if s.form == list { // empty by default
			elements = []any{s.add(c, "")}
		}
		element := elements[0]
		for _, k := range s.keys {
			fmt.Fprintf(&b, "### `%s`\n\n%s\n\n", k.name, k.text)
			if k.required && s.form == list {
				b.WriteString("- Required\n")
			} else {
				fmt.Fprintf(&b, "- Default: `%s`\n", get(k.field(element)))
			}
			if allowed := k.allowed(); allowed != "" {
				fmt.Fprintf(&b, "- Values: %s\n", allowed)
			}
			switch s.form {
			case table, part:
				fmt.Fprintf(&b, "- Variable: `%s`\n", envName(s.name, k.name))
			case named:
				fmt.Fprintf(&b, "- Variable: `%s`\n", envName(s.name, anyServer, k.name))
			}
			b.WriteByte('\n')
		}
		if s.form == list {
			fmt.Fprintf(&b, "```toml\n%s\n", s.title())
			for _, k := range s.keys {
				fmt.Fprintf(&b, "%s = %s\n", k.name, get(k.field(s.sample)))
			}
			b.WriteString("```\n\n")
		}
	}
	return []byte(strings.TrimRight(b.String(), "\n") + "\n")
}
