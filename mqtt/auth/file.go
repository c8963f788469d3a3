package auth

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// maxFile bounds what is read, in case a path leads to something else: a hundred thousand users need 16 MiB.
const maxFile = 64 << 20

// File is a password file: a line of the form user:stored for each user, empty lines, and comments that begin with #.
type File struct {
	lines []line // in the order of the file
	users map[string]Stored
}

type line struct {
	user string // empty: a comment, or nothing
	text string
}

// ReadFile reads a password file. Errors name the line.
func ReadFile(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a password file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := ParseFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return f, nil
}

// ParseFile reads the content of a password file.
func ParseFile(data []byte) (*File, error) {
	f := &File{users: make(map[string]Stored)}
	for n, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		text = strings.TrimRight(text, "\r")
		if text == "" || text[0] == '#' {
			f.lines = append(f.lines, line{text: text})
			continue
		}
		user, stored, ok := strings.Cut(text, ":")
		if !ok {
			return nil, fmt.Errorf("%d: is not of the form user:password-hash", n+1)
		}
		if err := CheckUser(user); err != nil {
			return nil, fmt.Errorf("%d: %w", n+1, err)
		}
		if f.users[user] != nil {
			return nil, fmt.Errorf("%d: user %q is there already", n+1, user)
		}
		s, err := ParseStored(stored)
		if err != nil {
			return nil, fmt.Errorf("%d: the entry of user %q %w", n+1, user, err)
		}
		f.lines = append(f.lines, line{user, text})
		f.users[user] = s
	}
	return f, nil
}

// CheckUser refuses names that the file cannot hold or MQTT cannot carry.
func CheckUser(name string) error {
	switch {
	case name == "":
		return errors.New("the user name is empty")
	case len(name) > 65535:
		return errors.New("the user name is longer than the 65535 bytes of MQTT")
	case !utf8.ValidString(name):
		return errors.New("the user name is not valid UTF-8")
	case name[0] == '#', strings.ContainsAny(name, ":\r\n\x00"):
		return fmt.Errorf("the user name %q begins with # or contains a colon, a line break or a zero byte, which the file cannot hold", name)
	}
	return nil
}

// Len is the number of users.
func (f *File) Len() int { return len(f.users) }

// Users are the names in the order of the file.
func (f *File) Users() []string {
	var names []string
	for _, l := range f.lines {
		if l.user != "" {
			names = append(names, l.user)
		}
	}
	return names
}

// Has reports whether there is such a user.
func (f *File) Has(user string) bool { return f.users[user] != nil }

// Verify reports whether there is such a user with this password.
func (f *File) Verify(user string, password []byte) bool {
	s := f.users[user]
	return s != nil && s.Verify(password)
}

// Set adds a user or replaces one in its place.
func (f *File) Set(user string, s Stored) error {
	if err := CheckUser(user); err != nil {
		return err
	}
	text := user + ":" + s.String()
	if f.users[user] == nil {
		f.lines = append(f.lines, line{user, text})
	} else {
		for i := range f.lines {
			if f.lines[i].user == user {
				f.lines[i].text = text
			}
		}
	}
	f.users[user] = s
	return nil
}

// Delete removes a user and reports whether there was one.
func (f *File) Delete(user string) bool {
	if f.users[user] == nil {
		return false
	}
	delete(f.users, user)
	var rest []line
	for _, l := range f.lines {
		if l.user != user {
			rest = append(rest, l)
		}
	}
	f.lines = rest
	return true
}

// Bytes are the content of the file.
func (f *File) Bytes() []byte {
	var b bytes.Buffer
	for _, l := range f.lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Write puts the file in the place of the one at path, which keeps its rights; a new one is for its owner alone.
// Whoever reads meanwhile sees the old or the new one whole.
func (f *File) Write(path string) error {
	mode := os.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.Stat(path)
	if err == nil {
		mode = old.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(f.Bytes())
	err = errors.Join(err, tmp.Chmod(mode), keepOwner(tmp, old), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
