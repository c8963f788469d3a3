package index

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// whole makes an index with several tables and MANIFEST edits.
func whole(t *testing.T, dir string) (*history, []string) {
	h := &history{seed: 99}
	h.next(nil)
	for range 2 {
		x := mustOpen(t, dir, Options{})
		b := x.NewBatch()
		for range 3 {
			for range 15 {
				h.next(b)
				must(t, b.Apply())
			}
			must(t, x.Flush())
		}
		must(t, x.Close())
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return h, names
}

// readAll opens a damaged copy and reads all of it. It returns nil when nothing
// was noticed and the content is a state of h.
func readAll(dir string, h *history) (err error) {
	x, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	err = func() error {
		if err := x.Verify(); err != nil {
			return err
		}
		_, err := h.check(x, 0)
		return err
	}()
	if err != nil && errors.Is(err, ErrDamaged) {
		<-x.Failed() // reads tell the owner, too
	}
	closed := make(chan error, 1)
	go func() { closed <- x.Close() }()
	select {
	case cerr := <-closed:
		return errors.Join(err, cerr)
	case <-time.After(20 * time.Second):
		return errors.New("Close hangs")
	}
}

func TestDamageIsReportedNeverAPanic(t *testing.T) {
	original := t.TempDir()
	h, names := whole(t, original)
	if err := readAll(t.TempDir()+"/none", &history{states: []model{{}}}); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(21, 22))
	// Each row damages the content of one file; nil removes the file.
	damages := map[string]func(content []byte) []byte{
		"removed": func([]byte) []byte { return nil },
		"emptied": func([]byte) []byte { return []byte{} },
		"one bit flipped": func(c []byte) []byte {
			c[r.IntN(len(c))] ^= 1 << r.IntN(8)
			return c
		},
		"a stretch overwritten": func(c []byte) []byte {
			at := r.IntN(len(c))
			for i := at; i < min(at+64, len(c)); i++ {
				c[i] = byte(r.Uint32())
			}
			return c
		},
		"a stretch zeroed": func(c []byte) []byte {
			at := r.IntN(len(c))
			clear(c[at:min(at+512, len(c))])
			return c
		},
		"cut short":     func(c []byte) []byte { return c[:r.IntN(len(c))] },
		"longer":        func(c []byte) []byte { return append(c, 1, 2, 3, 4, 5, 6, 7, 8) },
		"another's":     func(c []byte) []byte { return []byte(strings.Repeat("hello ", 1000)) },
		"tail zeroed":   func(c []byte) []byte { clear(c[r.IntN(len(c)):]); return c },
		"first zeroed":  func(c []byte) []byte { clear(c[:1+r.IntN(len(c))]); return c },
		"byte inserted": func(c []byte) []byte { i := r.IntN(len(c)); return append(c[:i:i], append([]byte{7}, c[i:]...)...) },
	}
	noticed, missed := 0, map[string]int{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(original, name))
		must(t, err)
		for what, damage := range damages {
			tries := 4
			if what == "removed" || what == "emptied" || what == "longer" || what == "another's" {
				tries = 1
			}
			for range tries {
				dir := filepath.Join(t.TempDir(), "index")
				must(t, os.CopyFS(dir, os.DirFS(original)))
				path := filepath.Join(dir, name)
				if len(content) == 0 && what != "removed" {
					continue
				}
				if hurt := damage(append([]byte(nil), content...)); hurt == nil {
					must(t, os.Remove(path))
				} else {
					must(t, os.WriteFile(path, hurt, 0o644))
				}
				err := readAll(dir, h)
				switch {
				case err == nil:
					missed[name+" "+what]++
				case !errors.Is(err, ErrDamaged):
					t.Errorf("%s %s: %v", name, what, err)
				default:
					noticed++
				}
			}
		}
	}
	t.Logf("%d damages noticed; unnoticed, with a state of the past: %v", noticed, missed)
	if noticed < 100 {
		t.Error("hardly any damage was noticed")
	}
	for where := range missed {
		if strings.Contains(where, ".sst") {
			t.Errorf("unnoticed: %s", where)
		}
	}
}

func TestLostFilesAreDamage(t *testing.T) {
	original := t.TempDir()
	whole(t, original)
	for _, lost := range []string{"*.sst", "MANIFEST-*", "marker.manifest.*", "marker.format-version.*", "marker.*"} {
		dir := filepath.Join(t.TempDir(), "index")
		must(t, os.CopyFS(dir, os.DirFS(original)))
		paths, err := filepath.Glob(filepath.Join(dir, lost))
		must(t, err)
		for _, path := range paths {
			must(t, os.Remove(path))
		}
		before, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		if _, err := Open(dir, Options{}); len(paths) == 0 || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s (%d files) lost: %v", lost, len(paths), err)
		}
		after, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		if len(after) < len(before) {
			t.Errorf("%s lost: Open removed more, %d of %d files are left to study", lost, len(after), len(before))
		}
	}
}

// Every bit of every edit but the last: Pebble alone would stop reading there
// and delete the tables of all that followed.
func TestFlippedBitsInTheManifestLoseNoTables(t *testing.T) {
	dir := t.TempDir()
	whole(t, dir)
	paths, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	must(t, err)
	content, err := os.ReadFile(paths[len(paths)-1])
	must(t, err)
	if at, ok := manifestSound(content); !ok {
		t.Fatalf("a sound MANIFEST is refused at %d", at)
	}
	last := 0
	for off := 0; off < len(content); {
		size, ok := manifestChunk(content, off)
		if !ok {
			t.Fatalf("no chunk at %d of %d", off, len(content))
		}
		last, off = off, off+size
	}
	if last == 0 {
		t.Fatal("one edit only")
	}
	for bit := range 8 * last {
		content[bit/8] ^= 1 << (bit % 8)
		if _, ok := manifestSound(content); ok {
			t.Errorf("bit %d of byte %d of %d", bit%8, bit/8, last)
		}
		content[bit/8] ^= 1 << (bit % 8)
	}
	for cut := last; cut < len(content); cut++ { // what a crash can leave
		if at, ok := manifestSound(content[:cut]); !ok {
			t.Errorf("cut after %d of %d bytes: refused at %d", cut, len(content), at)
		}
	}
}

// A damaged table in level 0 fails every compaction for ever; nothing may hang
// or spin, and what is whole stays readable.
func TestDamageFoundInTheBackground(t *testing.T) {
	files := vfs.NewMem()
	o := Options{FS: files}
	x := mustOpen(t, "index", o)
	flushes := func(n int, id string) {
		for i := range n {
			apply(t, x, func(b *Batch) {
				b.SetSession(id, []byte{byte(i)})
				b.SetSession("z", []byte{byte(i)})
			})
			must(t, x.Flush())
		}
	}
	flushes(2, "a")
	must(t, x.Close())
	names, err := files.List("index")
	must(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			path := "index/" + name
			f, err := files.Open(path)
			must(t, err)
			content, err := io.ReadAll(f)
			must(t, err)
			must(t, f.Close())
			content[3] ^= 1 // in the first data block
			f, err = files.Create(path, vfs.WriteCategoryUnspecified)
			must(t, err)
			_, err = f.Write(content)
			must(t, err)
			must(t, f.Close())
			break
		}
	}
	x = mustOpen(t, "index", o)
	flushes(2*compactAt, "b")
	<-x.Failed() // by a compaction: nothing was read
	if !errors.Is(x.Err(), ErrDamaged) {
		t.Errorf("Err: %v", x.Err())
	}
	if row, ok, err := x.Session("b"); len(row) != 1 || !ok || err != nil {
		t.Errorf("a row that is whole: %q %v %v", row, ok, err)
	}
	must(t, x.Flush())
	must(t, x.Close())
}
