package main

import (
	"bytes"
	"fmt"
	"strings"
)

// page is docs/conformance.md. It names declarations and not lines, so that it changes only when something does.
func (m *matrix) page() []byte {
	var b bytes.Buffer
	b.WriteString(`# Conformance

<!-- Written by "make docs" from testdata/spec, the sources and the tests. Edit those, not this page. -->

Every normative requirement of MQTT 5 and MQTT 3.1.1, by its number in the standard; where the broker obeys it; and the
test that proves it. The wording is ours and short: the standard's own is what counts.

- A **line** obeys a requirement if it has the number beside it: ` + "`[MQTT-3.8.3-4]`" + ` is of MQTT 5, ` + "`[MQTT311-3.8.3-4]`" + ` of 3.1.1.
- A **test** proves one over a real socket, against a running broker, and says so by calling ` + "`mqtttest.Proves`" + `.
- ` + "`make spec`" + ` runs these tests, counts only what they reported before they passed, and fails if a requirement has no
  test, or one that binds a server no line, or if a number does not exist.
- Requirements of clients are here too: what is tested is how the broker takes it when one is broken.
- The tests in ` + "`mqtt/conformance`" + ` know nothing of the broker but its address. ` + "`MQTT_BROKER=host:port go test ./mqtt/conformance`" + `
  holds another broker to them.

`)
	fmt.Fprintf(&b, "| | requirements | tested | exempt | open |\n|---|---|---|---|---|\n")
	for _, v := range specs {
		c := m.count(v.prefix)
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", v.name, c["all"], c["tested"]+c["proved"]+c["failed"], c["exempt"], c["open"]+c["missing"])
	}
	b.WriteString("\nPackages are named without `mqtt/`.\n")
	for _, v := range specs {
		fmt.Fprintf(&b, "\n## %s\n\n| requirement | binds | says | line | test |\n|---|---|---|---|---|\n", v.name)
		for _, r := range m.list {
			if !strings.HasPrefix(r.number, v.prefix) {
				continue
			}
			test := pageTests(r.tests)
			switch r.verdict() {
			case "exempt":
				test = "none: " + r.exempt
			case "open":
				test = "**open**: " + r.open
			case "missing":
				test = "**missing**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", strings.TrimPrefix(r.number, v.prefix), r.binds, r.text, pageCode(r.code), test)
		}
	}
	return b.Bytes()
}

var specs = []struct{ name, prefix string }{{"MQTT 5", "MQTT-"}, {"MQTT 3.1.1", "MQTT311-"}}

func (m *matrix) count(prefix string) map[string]int {
	c := make(map[string]int)
	for _, r := range m.list {
		if strings.HasPrefix(r.number, prefix) {
			c["all"]++
			c[r.verdict()]++
		}
	}
	return c
}

func pageCode(places []place) string {
	var list []string
	seen := make(map[string]bool)
	for _, p := range places {
		s := strings.TrimPrefix(p.file, "mqtt/")
		if p.in != "" {
			s += " " + p.in
		}
		if !seen[s] {
			seen[s] = true
			list = append(list, "`"+s+"`")
		}
	}
	return orDash(strings.Join(list, ", "))
}

func pageTests(tests []*proof) string {
	var list []string
	for _, p := range tests {
		list = append(list, "`"+strings.TrimPrefix(p.pkg, "mqtt/")+" "+p.test+"`")
	}
	return orDash(strings.Join(list, ", "))
}
