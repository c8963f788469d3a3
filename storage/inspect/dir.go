package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairnmq/segment"
	"cairnmq/storage"
)

// Pos is a position in the log.
type Pos = storage.Pos

// ErrNoLog: there are no segments at the path.
var ErrNoLog = errors.New("no log there")

// pollEvery is how long a follower waits before it looks again.
const pollEvery = 100 * time.Millisecond

// Log is a place with segment files.
type Log struct {
	// Path is what was opened.
	Path string
	// Wait returns when a follower is to look again, or with an error that
	// ends it. It is a field so that tests need not sleep.
	Wait func(context.Context) error

	dir  string // of the segments
	only string // file name, if one segment was asked for
}

// Open finds the segments at path: a data directory, a directory with segment
// files in it, or one segment file.
func Open(path string) (*Log, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s does not exist", ErrNoLog, path)
	}
	if err != nil {
		return nil, err
	}
	l := &Log{Path: path, dir: path, Wait: pause}
	if !info.IsDir() {
		l.dir, l.only = filepath.Dir(path), filepath.Base(path)
		return l, nil
	}
	// A data directory has its segments in log/.
	if sub := filepath.Join(path, "log"); isDir(sub) {
		l.dir = sub
	}
	files, err := l.files()
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no segments", ErrNoLog, path)
	}
	return l, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func pause(ctx context.Context) error {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// file is a segment file by its name, not yet looked into.
type file struct {
	name string
	path string
	base Pos // by the name; zero if one file with another name was asked for
}

// files lists the segment files by position.
func (l *Log) files() ([]file, error) {
	if l.only != "" {
		base, _ := segment.ParseFileName(l.only)
		return []file{{l.only, filepath.Join(l.dir, l.only), base}}, nil
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var out []file
	for _, e := range entries {
		if base, ok := segment.ParseFileName(e.Name()); ok && !e.IsDir() {
			out = append(out, file{e.Name(), filepath.Join(l.dir, e.Name()), base})
		}
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// open opens a segment file and checks that it is the one that its name says.
func (f file) open() (*segment.File, error) {
	s, err := segment.OpenFile(f.path)
	if err != nil {
		return nil, err
	}
	if f.base != 0 && s.Base != f.base {
		err := fmt.Errorf("%s: %w: header says base %d", f.path, segment.ErrDamaged, s.Base)
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// beingMade reports whether the file has nothing in it yet. A broker reserves
// the last file before it writes the header.
func (f file) beingMade() bool {
	r, err := os.Open(f.path)
	if err != nil {
		return false
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, segment.MinSize)
	n, _ := r.ReadAt(b, 0)
	return !slices.ContainsFunc(b[:n], func(x byte) bool { return x != 0 })
}

// unreadable is the damage that a file whose header cannot be read stands
// for. How much it held is not known: its own size is the least.
func (f file) unreadable(cause error) *segment.Damage {
	size := int64(0)
	if info, err := os.Stat(f.path); err == nil {
		size = info.Size()
	}
	return &segment.Damage{File: f.path, From: f.base, To: f.base + Pos(max(size, 1)), Err: cause}
}
