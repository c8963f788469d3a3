package segment

import (
	"fmt"
	"os"

	"github.com/edsrzf/mmap-go"
)

// mapping is the only place that knows mmap-go.
type mapping struct {
	m mmap.MMap
	// ahead makes the pages ahead of the tail, of a writable mapping.
	ahead filler
}

func mapFile(f *os.File, writable bool) (Mapping, error) {
	prot := mmap.RDONLY
	if writable {
		prot = mmap.RDWR
	}
	m, err := mmap.Map(f, prot, 0)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	x := &mapping{m: m}
	if writable {
		x.ahead.open(f)
	}
	return x, nil
}

func (m *mapping) Bytes() []byte { return m.m }

// Flush widens the range to whole pages, which msync demands.
func (m *mapping) Flush(from, to int) error {
	from, to = wholePages(from, to, len(m.m))
	if from >= to {
		return nil
	}
	if !flushParts {
		return m.m.Flush()
	}
	return m.m[from:to].Flush()
}

func (m *mapping) Populate(from, to int, fast bool) {
	if fast {
		m.ahead.fill(from, min(to, len(m.m)))
	} else if from, to = wholePages(from, to, len(m.m)); from < to {
		populate(m.m[from:to])
	}
}

func (m *mapping) Shrink(from, to int) {
	m.Forget(from, to) // what is mapped stays
	m.ahead.drop(from, min(to, len(m.m)))
}

func (m *mapping) Forget(from, to int) {
	// Inwards: a page that is in use at its other end stays.
	page := os.Getpagesize()
	from = (from + page - 1) &^ (page - 1)
	to &^= page - 1
	if from < to {
		forget(m.m[from:to])
	}
}

func (m *mapping) Unmap() error {
	m.ahead.close()
	return m.m.Unmap()
}

func wholePages(from, to, size int) (int, int) {
	page := os.Getpagesize()
	return from &^ (page - 1), min((to+page-1)&^(page-1), size)
}
