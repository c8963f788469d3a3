package filter

import (
	"strings"
	"testing"
)

var matches = []struct {
	clause, filter, topic string
	want                  bool
}{
	{"4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1", true},
	{"4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
	{"4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
	{"4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player10", false},
	{"4.7.1.2", "sport/#", "sport", true},
	{"4.7.1.2", "#", "sport/tennis", true},
	{"4.7.1.2", "#", "/", true},
	{"4.7.1.2", "/#", "/", true},
	{"4.7.1.2", "/#", "/a/b", true},
	{"4.7.1.2", "/#", "a", false},
	{"4.7.1.2", "a/#", "a/", true},
	{"4.7.1.2", "a/+/#", "a", false},
	{"4.7.1.2", "a/+/#", "a/b", true},
	{"4.7.1.2", "+/#", "a", true},
	{"4.7.1.3", "sport/tennis/+", "sport/tennis/player1", true},
	{"4.7.1.3", "sport/tennis/+", "sport/tennis/player1/ranking", false},
	{"4.7.1.3", "sport/+", "sport", false},
	{"4.7.1.3", "sport/+", "sport/", true},
	{"4.7.1.3", "+/+", "/finance", true},
	{"4.7.1.3", "/+", "/finance", true},
	{"4.7.1.3", "+", "/finance", false},
	{"4.7.1.3", "+", "", true},
	{"4.7.1.3", "a/+/c", "a//c", true},
	{"4.7.1.3", "a/+/c", "a/b/d/c", false},
	{"MQTT-4.7.2-1", "#", "$SYS/monitor", false},
	{"MQTT-4.7.2-1", "+/monitor", "$SYS/monitor", false},
	{"MQTT-4.7.2-1", "+", "$SYS", false},
	{"MQTT-4.7.2-1", "+/#", "$SYS/a", false},
	{"MQTT-4.7.2-1", "$SYS/#", "$SYS/monitor", true},
	{"MQTT-4.7.2-1", "$SYS/#", "$SYS", true},
	{"MQTT-4.7.2-1", "$SYS/monitor/+", "$SYS/monitor/clients", true},
	{"MQTT-4.7.2-1", "a/+", "a/$SYS", true},
	{"MQTT-4.7.2-1", "/#", "/$SYS", true},
	{"MQTT-4.7.3-1", "ACCOUNTS", "Accounts", false},
	{"MQTT-4.7.3-1", "Accounts payable", "Accounts payable", true},
	{"MQTT-4.7.3-1", "/finance", "finance", false},
	{"MQTT-4.7.3-4", "\u00c5", "A\u030a", false},
	{"MQTT-4.7.3-4", "a/b", "a/b/", false},
	{"MQTT-4.7.3-4", "a/b/", "a/b", false},
	{"MQTT-4.7.3-4", "a//b", "a/b", false},
	{"MQTT-4.7.3-4", "/", "/", true},
	{"MQTT-4.7.3-4", "a/b", "a/bc", false},
	{"MQTT-4.7.3-4", "a/bc", "a/b", false},
}

func TestMatch(t *testing.T) {
	for _, m := range matches {
		if got := Match(m.filter, m.topic); got != m.want {
			t.Errorf("%s: Match(%q, %q) = %v", m.clause, m.filter, m.topic, got)
		}
		if got := slowMatch(m.filter, m.topic); got != m.want {
			t.Errorf("%s: slowMatch(%q, %q) = %v", m.clause, m.filter, m.topic, got)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	yes := 0
	if n := testing.AllocsPerRun(100, func() {
		for _, m := range matches {
			if _, exact := Literal(m.filter); exact || Match(m.filter, m.topic) || Valid(m.filter) {
				yes++
			}
		}
	}); n != 0 || yes == 0 {
		t.Errorf("%v allocations, %d times yes", n, yes)
	}
}

func TestMatchOfTheLongestTopics(t *testing.T) {
	slashes, pluses := strings.Repeat("/", MaxLen), strings.Repeat("+/", MaxLen/2)+"+"
	if !Match(slashes, slashes) || !Match(pluses, slashes[:MaxLen/2]) || Match(pluses, slashes) {
		t.Error("wrong answer")
	}
}

var validity = []struct {
	clause, filter string
	want           bool
}{
	{"MQTT-4.7.3-1", "", false},
	{"MQTT-4.7.3-1", "/", true},
	{"MQTT-4.7.3-1", " ", true},
	{"MQTT-4.7.3-2", "a\x00b", false},
	{"MQTT-4.7.3-3", strings.Repeat("a", MaxLen), true},
	{"MQTT-4.7.3-3", strings.Repeat("a", MaxLen+1), false},
	{"MQTT-4.7.1-1", "#", true},
	{"MQTT-4.7.1-1", "sport/#", true},
	{"MQTT-4.7.1-1", "/#", true},
	{"MQTT-4.7.1-1", "+/#", true},
	{"MQTT-4.7.1-1", "sport/tennis#", false},
	{"MQTT-4.7.1-1", "sport/tennis/#/ranking", false},
	{"MQTT-4.7.1-1", "#/", false},
	{"MQTT-4.7.1-1", "##", false},
	{"MQTT-4.7.1-1", "#a", false},
	{"MQTT-4.7.1-1", "+#", false},
	{"MQTT-4.7.1-2", "+", true},
	{"MQTT-4.7.1-2", "+/tennis/#", true},
	{"MQTT-4.7.1-2", "sport/+/player1", true},
	{"MQTT-4.7.1-2", "/+", true},
	{"MQTT-4.7.1-2", "+/", true},
	{"MQTT-4.7.1-2", "sport+", false},
	{"MQTT-4.7.1-2", "+sport", false},
	{"MQTT-4.7.1-2", "a/+b/c", false},
	{"MQTT-4.7.1-2", "++", false},
	{"MQTT-4.7.1-2", "#+", false},
}

func TestValid(t *testing.T) {
	for _, v := range validity {
		if got := Valid(v.filter); got != v.want {
			t.Errorf("%s: Valid(%.40q) = %v", v.clause, v.filter, got)
		}
		if got := slowValid(v.filter); got != v.want {
			t.Errorf("%s: slowValid(%.40q) = %v", v.clause, v.filter, got)
		}
	}
}

func TestLiteral(t *testing.T) {
	for _, l := range []struct {
		filter, prefix string
		exact          bool
	}{
		{"a/b", "a/b", true},
		{"a/b/", "a/b/", true},
		{"a/b/+/c", "a/b/", false},
		{"a/b/+", "a/b/", false},
		{"a/#", "a", false},
		{"a//#", "a/", false},
		{"a/+/#", "a/", false},
		{"/#", "", false},
		{"#", "", false},
		{"+", "", false},
		{"+/a", "", false},
		{"$SYS/#", "$SYS", false},
	} {
		if prefix, exact := Literal(l.filter); prefix != l.prefix || exact != l.exact {
			t.Errorf("Literal(%q) = %q, %v; want %q, %v", l.filter, prefix, exact, l.prefix, l.exact)
		}
	}
}

// slowMatch is the rule, level by level.
func slowMatch(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "#") || strings.HasPrefix(filter, "+")) {
		return false
	}
	return slowLevels(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

func slowLevels(filter, topic []string) bool {
	switch {
	case len(filter) == 1 && filter[0] == "#":
		return true // whatever is left, also nothing
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return slowLevels(filter[1:], topic[1:])
}

func slowValid(filter string) bool {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if level == "#" && i == len(levels)-1 || level == "+" {
			continue
		}
		if strings.ContainsAny(level, "#+\x00") {
			return false
		}
	}
	return filter != "" && len(filter) <= MaxLen
}

func FuzzFilter(f *testing.F) {
	for _, m := range matches {
		f.Add(m.filter, m.topic)
	}
	for _, v := range validity {
		f.Add(v.filter, "a/b")
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		valid := Valid(filter)
		if want := slowValid(filter); valid != want {
			t.Errorf("Valid(%q) = %v", filter, valid)
		}
		got := Match(filter, topic)
		prefix, exact := Literal(filter)
		if !valid {
			return // no promise but to return
		}
		if want := slowMatch(filter, topic); got != want {
			t.Errorf("Match(%q, %q) = %v", filter, topic, got)
		}
		if got && (!strings.HasPrefix(topic, prefix) || exact && topic != filter) {
			t.Errorf("Literal(%q) = %q, %v, but it matches %q", filter, prefix, exact, topic)
		}
		if exact && !Match(filter, filter) {
			t.Errorf("%q does not match itself", filter)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for b.Loop() {
		Match("site/+/machine/7/#", "site/berlin/machine/7/temperature")
	}
}
