package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cairnmq/mqtt/auth"
)

// passwdWith runs the command with this on standard input.
func passwdWith(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, append([]string{"passwd"}, args...)...)
	c.Env = environment()
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestPasswd(t *testing.T) {
	dir := t.TempDir()
	path, conf := filepath.Join(dir, "users"), filepath.Join(dir, "c.toml")
	writeFile(t, conf, "[auth]\npassword_file = \""+filepath.ToSlash(path)+"\"\n") // which is not there yet
	for _, row := range []struct {
		input string
		args  []string
	}{
		{"secret\n", []string{"-f", path, "anna"}},
		{"pass word", []string{"-c", conf, "bert", "--hash", "argon2id"}},
		{"three\r\n", []string{"--iterations", "4096", "-c", conf, "carl"}},
		{"four\n", []string{"-f", path, "anna"}}, // changed
		{"", []string{"-f", path, "--delete", "carl"}},
	} {
		if out, err := passwdWith(t, row.input, row.args...); err != nil || out != "" {
			t.Fatalf("passwd %q: %v %s", row.args, err, out)
		}
	}
	f, err := auth.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Verify("anna", []byte("four")) || f.Verify("anna", []byte("secret")) || !f.Verify("bert", []byte("pass word")) || f.Len() != 2 {
		t.Errorf("got\n%s", f.Bytes())
	}
	data, err := os.ReadFile(path)
	if err != nil || bytes.Contains(data, []byte("four")) || !bytes.Contains(data, []byte("anna:SCRAM-SHA-256$100000:")) || !bytes.Contains(data, []byte("bert:$argon2id$")) {
		t.Errorf("got %v\n%s", err, data)
	}
	ok(t, "config", "check", conf)
	if out, err := passwdWith(t, "four\n", "-f", path, "--verify", "anna"); err != nil || out != "" {
		t.Errorf("a right password: %v %s", err, out)
	}
	for input, want := range map[string]string{"three\n": "the password is wrong", "": "the password is wrong"} {
		if out, err := passwdWith(t, input, "-f", path, "--verify", "anna"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v %s", input, err, out)
		}
	}
	if out, err := passwdWith(t, "", "-f", path, "--delete", "carl"); err == nil || !strings.Contains(out, `there is no user "carl"`) {
		t.Errorf("deleting nobody: %v %s", err, out)
	}
	if out, err := passwdWith(t, "x\n", "-f", path, "--iterations", "1", "anna"); err == nil || !strings.Contains(out, "--iterations: 1 iterations are out of range") {
		t.Errorf("too few iterations: %v %s", err, out)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, data) {
		t.Errorf("what failed has changed the file: %v\n%s", err, again)
	}
}
