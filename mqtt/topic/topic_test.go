package topic

import (
	"errors"
	"strings"
	"testing"

	"cairnmq/storage/filter"
)

// expect checks that err is nil if clause is "", and else that it wraps
// ErrInvalid and cites clause.
func expect(t *testing.T, what string, err error, clause string) {
	t.Helper()
	switch {
	case clause == "" && err != nil:
		t.Errorf("%.40q: %v", what, err)
	case clause != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "["+clause+"]")):
		t.Errorf("%.40q: got %v, want [%s]", what, err, clause)
	}
}

func TestValidateName(t *testing.T) {
	for _, c := range []struct{ name, clause string }{
		{"a", ""},
		{"/", ""},
		{"a//b", ""},
		{" ", ""},
		{"$SYS/x", ""},
		{strings.Repeat("/", MaxLen), ""},
		{"", "MQTT-4.7.3-1"},
		{"a\x00", "MQTT-4.7.3-2"},
		{strings.Repeat("a", MaxLen+1), "MQTT-4.7.3-3"},
		{"a/+", "MQTT-4.7.0-1"},
		{"a#b", "MQTT-4.7.0-1"},
	} {
		expect(t, c.name, ValidateName([]byte(c.name)), c.clause)
	}
}

func TestValidateFilter(t *testing.T) {
	for _, c := range []struct{ filter, clause string }{
		{"a/b", ""},
		{"#", ""},
		{"+/+/#", ""},
		{"/+/", ""},
		{"", "MQTT-4.7.3-1"},
		{"a/\x00", "MQTT-4.7.3-2"},
		{strings.Repeat("a", MaxLen+1), "MQTT-4.7.3-3"},
		{"a#", "MQTT-4.7.1-1"},
		{"a/#/b", "MQTT-4.7.1-1"},
		{"#/", "MQTT-4.7.1-1"},
		{"+#", "MQTT-4.7.1-1"},
		{"a+/b", "MQTT-4.7.1-2"},
		{"a/b/+c", "MQTT-4.7.1-2"},
		{"+/a/++", "MQTT-4.7.1-2"},
	} {
		expect(t, c.filter, ValidateFilter(c.filter), c.clause)
	}
}

func TestParseShared(t *testing.T) {
	for _, c := range []struct {
		filter, clause string
		shared         bool
		want           Shared
	}{
		{"a/b", "", false, Shared{}},
		{"$share", "", false, Shared{}},
		{"$shared/g/a", "", false, Shared{}},
		{"a/$share/g/b", "", false, Shared{}},
		{"$share/g/a", "", true, Shared{"g", "a"}},
		{"$share/g/#", "", true, Shared{"g", "#"}},
		{"$share/g//", "", true, Shared{"g", "/"}},
		{"$share/g/+/b/#", "", true, Shared{"g", "+/b/#"}},
		{"$share/g/$SYS/x", "", true, Shared{"g", "$SYS/x"}},
		{"$share/", "MQTT-4.8.2-1", true, Shared{}},
		{"$share//a", "MQTT-4.8.2-1", true, Shared{}},
		{"$share/+/a", "MQTT-4.8.2-2", true, Shared{}},
		{"$share/g#/a", "MQTT-4.8.2-2", true, Shared{}},
		{"$share/g", "MQTT-4.8.2-2", true, Shared{}},
		{"$share/g/", "MQTT-4.8.2-2", true, Shared{}},
		{"$share/g/a#", "MQTT-4.7.1-1", true, Shared{}},
		{"$share/g\x00/a", "MQTT-4.7.3-2", true, Shared{}},
		{"$share/g/" + strings.Repeat("a", MaxLen-5), "MQTT-4.7.3-3", true, Shared{}},
	} {
		got, shared, err := ParseShared(c.filter)
		expect(t, c.filter, err, c.clause)
		if got != c.want || shared != c.shared {
			t.Errorf("ParseShared(%q) = %+v, %v", c.filter, got, shared)
		}
	}
}

func FuzzTopic(f *testing.F) {
	for _, seed := range []string{"a/b", "$share/g/a/#", "+/+", "#", "a/#/b", "$share//x", "//", "a\x00"} {
		f.Add(seed, "a/b")
	}
	f.Fuzz(func(t *testing.T, f, name string) {
		err := ValidateFilter(f)
		if (err == nil) != filter.Valid(f) {
			t.Errorf("ValidateFilter(%q): %v", f, err)
		}
		if ValidateName([]byte(name)) == nil && ValidateFilter(name) != nil {
			t.Errorf("name %q is no filter", name)
		}
		if s, shared, err := ParseShared(f); shared && err == nil {
			if ValidateFilter(s.Filter) != nil || "$share/"+s.Group+"/"+s.Filter != f {
				t.Errorf("ParseShared(%q) = %+v", f, s)
			}
		}
		Match(f, name)
		if err != nil || ValidateName([]byte(name)) != nil {
			return
		}
		trie := NewTrie[int, int]()
		trie.Set(f, 1, 2)
		matched := 0
		trie.Match(name, func(int, int) { matched++ })
		if (matched == 1) != Match(f, name) || matched > 1 {
			t.Errorf("trie matches %q with %q %d times", f, name, matched)
		}
		if !trie.Delete(f, 1) || trie.root.kids != nil {
			t.Errorf("%q cannot be deleted", f)
		}
	})
}
