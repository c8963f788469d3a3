package auth

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := ParseFile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestChangingAUserLeavesTheRestAsItIs(t *testing.T) {
	const text = "# sensors\na:" + rfcEntry + "\n\nb:" + rfcEntry + "\n# end\n"
	f := parse(t, text)
	if string(f.Bytes()) != text || !slices.Equal(f.Users(), []string{"a", "b"}) || f.Len() != 2 {
		t.Fatalf("%q", f.Bytes())
	}
	s, err := NewSCRAM([]byte("new"), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "c"} {
		if err := f.Set(name, s); err != nil {
			t.Fatal(err)
		}
	}
	if !f.Delete("b") || f.Delete("b") || f.Has("b") || !f.Has("c") {
		t.Error("b is not deleted")
	}
	if want := "# sensors\na:" + s.String() + "\n\n# end\nc:" + s.String() + "\n"; string(f.Bytes()) != want {
		t.Errorf("got  %q\nwant %q", f.Bytes(), want)
	}
	for _, name := range []string{"", "#a", "a:b", "a\nb", "a\x00", "\xff", strings.Repeat("a", 65536)} {
		if f.Set(name, s) == nil {
			t.Errorf("takes a user called %.20q", name)
		}
	}
}

func TestBadLinesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"a:" + rfcEntry + "\nb":             "2: is not of the form",
		"\n\n:" + rfcEntry:                  "3: the user name is empty",
		"a:" + rfcEntry + "\na:" + rfcEntry: `2: user "a" is there already`,
		"a:b":                               `1: the entry of user "a" is not a form`,
		"\xff:" + rfcEntry:                  "1: the user name is not valid UTF-8",
	} {
		if _, err := ParseFile([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := ReadFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not a password file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestWritingKeepsRightsAndLinks(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "passwd"), filepath.Join(dir, "link")
	f := parse(t, "a:"+rfcEntry+"\n")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if os.PathSeparator == '/' && mode() != 0o600 {
		t.Errorf("a new file has mode %v", mode())
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	want := mode()
	if err := os.Symlink("passwd", link); err != nil {
		t.Skip(err)
	}
	f.Delete("a")
	if err := f.Write(link); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(path); err != nil || got.Len() != 0 || mode() != want {
		t.Errorf("%v, %v, mode %v", got, err, mode())
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
	if err := f.Write(filepath.Join(dir, "missing", "passwd")); err == nil {
		t.Error("writes into a directory that is not there")
	}
}
