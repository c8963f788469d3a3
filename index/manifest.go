package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// inspect looks at a directory before Pebble does, for what Pebble would
// silently take for a new or an older database, deleting the tables of the
// real one: a lost marker file, and a MANIFEST damaged before its end.
func inspect(files vfs.FS, dir string, readOnly bool) error {
	names, err := files.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	var tables bool
	for _, name := range names {
		tables = tables || strings.HasSuffix(name, ".sst")
	}
	if !readOnly {
		if names, err = undoTornMove(files, dir, names); err != nil {
			return err
		}
	}
	format, err := readMarker(names, "format-version")
	if err != nil {
		return err
	}
	if format != "" {
		v, err := strconv.ParseUint(format, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: format marker %q in %s", ErrDamaged, format, dir)
		}
		if pebble.FormatMajorVersion(v) > pebble.FormatNewest {
			return fmt.Errorf("%w: file format %d in %s, newest known %d", ErrNewer, v, dir, pebble.FormatNewest)
		}
	}
	manifest, err := readMarker(names, "manifest")
	if err != nil {
		return err
	}
	if manifest == "" {
		// A crash during the very first Open leaves a MANIFEST and no marker;
		// the format marker and tables only ever come after the marker.
		if tables || format != "" {
			return fmt.Errorf("%w: %s has no manifest marker", ErrDamaged, dir)
		}
		return nil
	}
	return inspectManifest(files, files.PathJoin(dir, manifest))
}

// undoTornMove removes a manifest marker that names no file while an older
// marker that names one is there. Pebble moves the marker by making a new one,
// removing the old one and syncing the directory, which also makes the entry of
// the new MANIFEST durable. So power was cut before that, and the disk has kept
// the entry of the marker and not that of the MANIFEST: the older pair holds.
func undoTornMove(files vfs.FS, dir string, names []string) ([]string, error) {
	var torn []string
	rest := slices.Clone(names)
	for {
		value, err := readMarker(rest, "manifest")
		if err != nil || value == "" {
			return names, err // damage, as will be said
		}
		if slices.Contains(names, value) {
			break
		}
		rest = slices.DeleteFunc(rest, func(n string) bool {
			dangles := strings.HasPrefix(n, "marker.manifest.") && strings.HasSuffix(n, "."+value)
			if dangles {
				torn = append(torn, n)
			}
			return dangles
		})
	}
	if len(torn) == 0 {
		return names, nil
	}
	for _, name := range torn {
		if err := files.Remove(files.PathJoin(dir, name)); err != nil {
			return names, err
		}
	}
	// Their numbers are given again, so they must not come back.
	return rest, syncDir(files, dir)
}

func syncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readMarker returns the value of the newest marker file called
// marker.<name>.<iteration>.<value>, or "" if there is none.
func readMarker(names []string, name string) (value string, err error) {
	var newest uint64
	for _, file := range names {
		rest, ok := strings.CutPrefix(file, "marker."+name+".")
		if !ok {
			continue
		}
		number, v, _ := strings.Cut(rest, ".")
		iteration, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return "", fmt.Errorf("%w: marker file %q", ErrDamaged, file)
		}
		if value == "" || iteration > newest {
			newest, value = iteration, v
		}
	}
	return value, nil
}

func inspectManifest(files vfs.FS, path string) error {
	f, err := files.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, path)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrDamaged, path, err)
	}
	if at, ok := manifestSound(content); !ok {
		return fmt.Errorf("%w: %s at offset %d", ErrDamaged, path, at)
	}
	return nil
}

// A MANIFEST is a sequence of blocks, each a sequence of chunks:
//
//	0          4          6      7
//	+----------+----------+------+-----------+
//	| crc LE   | size LE  | kind | size bytes|
//	+----------+----------+------+-----------+
//
// The checksum covers kind and payload. A chunk never crosses a block, and
// fewer than seven bytes at the end of a block are filler. Kind 0 is unwritten.
const (
	manifestBlock  = 32 << 10
	manifestHeader = 7
	maxChunkKind   = 4 // full, first, middle, last
)

// manifestSound reports false, and where, when content is broken at a place
// where a crash cannot break it. Only the last edit can be torn by a crash,
// because every edit is synced before the next is written: so the first chunk
// must be whole, and no whole chunk may follow a broken one.
func manifestSound(content []byte) (at int, ok bool) {
	off := 0
	for off < len(content) {
		if left := manifestBlock - off%manifestBlock; left < manifestHeader {
			off += left
			continue
		}
		size, whole := manifestChunk(content, off)
		if !whole {
			break
		}
		off += size
	}
	if off == 0 {
		return 0, false
	}
	for next := off + 1; next < len(content); next++ {
		if _, whole := manifestChunk(content, next); whole {
			return off, false
		}
	}
	return 0, true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// manifestChunk returns the length of the chunk at off, and whether it is whole.
func manifestChunk(content []byte, off int) (size int, whole bool) {
	end := min(len(content), off-off%manifestBlock+manifestBlock)
	b := content[off:end]
	if len(b) < manifestHeader || b[6] == 0 || b[6] > maxChunkKind {
		return 0, false
	}
	size = manifestHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) {
		return 0, false
	}
	sum := crc32.Checksum(b[6:size], castagnoli)
	sum = (sum>>15 | sum<<17) + 0xa282ead8
	return size, sum == binary.LittleEndian.Uint32(b)
}
