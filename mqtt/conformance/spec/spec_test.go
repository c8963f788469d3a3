package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a repository with three requirements, and with what a row of the table changes.
func tree(t *testing.T, change map[string]string) string {
	t.Helper()
	files := map[string]string{
		"testdata/spec/mqtt5.tsv":    "MQTT-1.0.0-1\tserver\tOne\tsays one\nMQTT-1.0.0-2\tclient\tTwo\tsays two\n",
		"testdata/spec/mqtt311.tsv":  "MQTT311-1.0.0-1\tboth\tOne\tsays one\n",
		"testdata/spec/exempt.tsv":   "MQTT-1.0.0-2\tnobody can see it\n",
		"testdata/spec/open.tsv":     "",
		"mqtt/broker/one.go":         "package broker\n\nfunc (s *session) obey() {} // [MQTT-1.0.0-1], [MQTT311-1.0.0-1]\n",
		"mqtt/broker/one_test.go":    "package broker\n\nfunc TestOne(t *testing.T) {\n\tmqtttest.Proves(t, \"MQTT-1.0.0-1 MQTT311-1.0.0-1\")\n}\n",
		"mqtt/broker/silent_test.go": "package broker\n\n// [MQTT-1.0.0-2] in a comment, and in a test that does not claim it.\nfunc TestTwo(t *testing.T) { t.Log(\"MQTT-1.0.0-2\") }\n",
	}
	for name, text := range change {
		files[name] = text
	}
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestWhatIsWrongWithAMatrix(t *testing.T) {
	for name, row := range map[string]struct {
		change map[string]string
		want   []string
	}{
		"nothing": {nil, nil},
		"no test": {map[string]string{"mqtt/broker/one_test.go": "package broker\n"},
			[]string{"MQTT-1.0.0-1: no test", "MQTT311-1.0.0-1: no test"}},
		"no line": {map[string]string{"mqtt/broker/one.go": "package broker\n\n// [MQTT-1.0.0-1]\nvar x int\n"},
			[]string{"MQTT311-1.0.0-1: no line"}},
		"a client needs no line": {map[string]string{"testdata/spec/exempt.tsv": "",
			"mqtt/broker/two_test.go": "package broker\n\nfunc TestThree(t *testing.T) { proves(t, \"MQTT-1.0.0-2\") }\n"}, nil},
		"a number that does not exist": {map[string]string{"mqtt/broker/two.go": "package broker\n\n// [MQTT-1.0.0-9]\n"},
			[]string{"mqtt/broker/two.go:3: MQTT-1.0.0-9 does not exist"}},
		"a number that does not exist, in a test": {map[string]string{"mqtt/broker/two_test.go": "package broker\n\n// [MQTT311-1.0.0-2]\n"},
			[]string{"mqtt/broker/two_test.go:3: MQTT311-1.0.0-2 does not exist"}},
		"an excuse that is not needed": {map[string]string{"testdata/spec/exempt.tsv": "MQTT-1.0.0-2\tno\nMQTT-1.0.0-1\tno\n"},
			[]string{"MQTT-1.0.0-1: exempt.tsv excuses it, and TestOne proves it"}},
		"nothing is missing": {map[string]string{"testdata/spec/open.tsv": "MQTT-1.0.0-1\tsoon\n"},
			[]string{"MQTT-1.0.0-1: open.tsv excuses it, and nothing is missing"}},
		"open": {map[string]string{"testdata/spec/open.tsv": "MQTT-1.0.0-1\tsoon\nMQTT311-1.0.0-1\tsoon\n", "mqtt/broker/one_test.go": "package broker\n", "mqtt/broker/one.go": "package broker\n"}, nil},
	} {
		m, err := load(tree(t, row.change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := m.problems()
		ok := len(got) == len(row.want)
		for i := range got {
			ok = ok && strings.HasPrefix(got[i], row.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestTablesThatDoNotServe(t *testing.T) {
	for text, change := range map[string]map[string]string{
		"mqtt5.tsv:1: 2 fields, want 4":                  {"testdata/spec/mqtt5.tsv": "MQTT-1.0.0-1\tserver\n"},
		"mqtt5.tsv:2: MQTT-1.0.0-1 is there twice":       {"testdata/spec/mqtt5.tsv": strings.Repeat("MQTT-1.0.0-1\tserver\tx\ty\n", 2)},
		"open.tsv:1: there is no requirement MQTT-2.2.2": {"testdata/spec/open.tsv": "MQTT-2.2.2-1\tx\n"},
		"expected 'package'":                             {"mqtt/broker/one.go": "// MQTT-1.0.0-1\nfunc"},
	} {
		if _, err := load(tree(t, change)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}

// What a test claims counts if it was reported and has passed.
func TestResultsAreBelievedAndNotClaims(t *testing.T) {
	line := func(action, test, rest string) string {
		return `{"Action":"` + action + `","Package":"cairnmq/mqtt/broker","Test":"` + test + `"` + rest + "}\n"
	}
	attr := func(test, number string) string {
		return line("attr", test, `,"Key":"proves","Value":"`+number+`"`)
	}
	one, both := attr("TestOne", "MQTT-1.0.0-1"), attr("TestOne", "MQTT-1.0.0-1")+attr("TestOne", "MQTT311-1.0.0-1")
	for name, row := range map[string]struct {
		out  string
		want []string // verdicts of the two
	}{
		"both reported":           {both + line("pass", "TestOne", ""), []string{"proved", "proved"}},
		"one reported":            {one + line("pass", "TestOne", ""), []string{"proved", "tested"}},
		"failed":                  {both + line("fail", "TestOne", ""), []string{"failed", "failed"}},
		"skipped":                 {both + line("skip", "TestOne", ""), []string{"tested", "tested"}},
		"never run":               {"", []string{"tested", "tested"}},
		"by a subtest":            {one + attr("TestOne/a", "MQTT311-1.0.0-1") + line("pass", "TestOne/a", "") + line("pass", "TestOne", ""), []string{"proved", "proved"}},
		"a subtest fails":         {both + line("fail", "TestOne/a", "") + line("fail", "TestOne", ""), []string{"failed", "failed"}},
		"another test reports it": {attr("TestOther", "MQTT-1.0.0-1") + line("pass", "TestOther", ""), []string{"tested", "tested"}},
	} {
		m, err := load(tree(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.results(strings.NewReader(row.out)); err != nil {
			t.Fatal(err)
		}
		m.wasRun = true
		got := []string{m.by["MQTT-1.0.0-1"].verdict(), m.by["MQTT311-1.0.0-1"].verdict()}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
		if good := slices.Equal(row.want, []string{"proved", "proved"}); good != (len(m.problems()) == 0) {
			t.Errorf("%s: problems %q", name, m.problems())
		}
	}
}

func TestThePageNamesDeclarations(t *testing.T) {
	m, err := load(tree(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	page := string(m.page())
	for _, want := range []string{
		"| 1.0.0-1 | server | says one | `broker/one.go session.obey` | `broker TestOne` |",
		"| 1.0.0-2 | client | says two | - | none: nobody can see it |",
		"| MQTT 5 | 2 | 1 | 1 | 0 |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	path := filepath.Join(t.TempDir(), "page.md")
	if err := m.hold(path, true); err != nil {
		t.Fatal(err)
	}
	if err := m.hold(path, false); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.hold(path, false); err == nil {
		t.Error("an old page is taken")
	}
}
