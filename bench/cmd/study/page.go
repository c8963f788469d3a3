//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// publish writes a part of the page between its markers, or prints it.
func (l *lab) publish(part, text string) error {
	if l.page == "" {
		_, err := fmt.Fprintln(l.output, text)
		return err
	}
	page, err := os.ReadFile(l.page)
	if err != nil {
		return err
	}
	changed, err := between(string(page), part, text)
	if err != nil {
		return fmt.Errorf("%s: %w", l.page, err)
	}
	return os.WriteFile(l.page, []byte(changed), 0o644)
}

// between replaces what is between the markers of a part.
func between(page, part, text string) (string, error) {
	begin, end := "<!-- "+part+": begin -->\n", "<!-- "+part+": end -->"
	from := strings.Index(page, begin)
	to := strings.Index(page, end)
	if from < 0 || to < from {
		return "", fmt.Errorf("no markers %q and %q", strings.TrimSpace(begin), end)
	}
	return page[:from+len(begin)] + "\n" + strings.TrimSpace(text) + "\n\n" + page[to:], nil
}

// picture writes a chart beside the page.
func (l *lab) picture(name, svg string) error {
	if l.page == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(filepath.Dir(l.page), name), []byte(svg), 0o644)
}

// conditions says where and when, on one line.
func (l *lab) conditions() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // an empty word in the page, no more
	var fs unix.Statfs_t
	dir := l.dir
	if dir == "" {
		dir = os.TempDir()
	}
	_ = unix.Statfs(dir, &fs)
	memory := field("/proc/meminfo", "MemTotal")
	var kib int64
	_, _ = fmt.Sscan(memory, &kib)
	return fmt.Sprintf("%s, %d cores (%s), %d GiB, Linux %s %s, data on %s, Go %s",
		time.Now().UTC().Format("2 January 2006"), runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
		(kib+1<<19)>>20, unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]),
		fileSystem(int64(fs.Type)), strings.TrimPrefix(runtime.Version(), "go"))
}

func fileSystem(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs (no disk!)"
	}
	return fmt.Sprintf("file system %#x", magic)
}

// field returns the first value of a name in a file of "name: value" lines.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

// table is a table in Markdown.
type table struct {
	b strings.Builder
}

func (t *table) row(cells ...string) {
	t.b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// head begins the table.
func (t *table) head(cells ...string) {
	t.row(cells...)
	t.b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

// figure writes a number with three digits.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.01:
		return fmt.Sprintf("%.4f", v)
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// large writes a number in thousands or millions.
func large(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.0f k", v/1e3)
	case v >= 1e3:
		return fmt.Sprintf("%.1f k", v/1e3)
	}
	return figure(v)
}

func mib(bytes float64) string { return figure(bytes / (1 << 20)) }
