package index

import (
	"bytes"
	"cmp"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// names are hostile to careless encodings: prefixes of one another, bytes that
// look like fields, the ends of the byte range.
func randomName(r *rand.Rand) string {
	alphabet := []string{"", "a", "a/", "b", "/", "\x00", "\x01", "\xff", "\xff\xff", "é", "m", "p", "\x7f\xff\xff\xff"}
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

func randomPos(r *rand.Rand) uint64 {
	edges := []uint64{0, 1, 255, 256, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}
	if r.IntN(2) == 0 {
		return edges[r.IntN(len(edges))]
	}
	return r.Uint64()
}

func TestKeyOrderIsFieldOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		pos1, pos2 := randomPos(r), randomPos(r)
		name1, name2 := randomName(r), randomName(r)
		check := func(what string, k1, k2 []byte, want int) {
			t.Helper()
			if got := bytes.Compare(k1, k2); got != want {
				t.Fatalf("%s: keys %q and %q compare %d, fields %d", what, k1, k2, got, want)
			}
		}
		check("position", appendPosKey(nil, prefixLoss, pos1), appendPosKey(nil, prefixLoss, pos2), cmp.Compare(pos1, pos2))
		check("name", appendNameKey(nil, prefixRetained, name1), appendNameKey(nil, prefixRetained, name2), cmp.Compare(name1, name2))
		check("postings", appendPostingsKey(nil, pos1, name1), appendPostingsKey(nil, pos2, name2),
			cmp.Or(cmp.Compare(pos1, pos2), cmp.Compare(name1, name2)))
		at1, at2 := int64(pos1), int64(pos2)
		check("due", appendDueKey(nil, at1, name1), appendDueKey(nil, at2, name2),
			cmp.Or(cmp.Compare(at1, at2), cmp.Compare(name1, name2)))
	}
}

func TestKeyDecodeUndoesEncode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		pos, name := randomPos(r), randomName(r)
		if got, ok := splitPosKey(appendPosKey(nil, prefixLoss, pos), prefixLoss); !ok || got != pos {
			t.Fatalf("position %d: got %d, %v", pos, got, ok)
		}
		if got, ok := splitNameKey(appendNameKey(nil, prefixReader, name), prefixReader); !ok || string(got) != name {
			t.Fatalf("name %q: got %q, %v", name, got, ok)
		}
		base, topic, ok := splitPosNameKey(appendPostingsKey(nil, pos, []byte(name)), prefixPostings)
		if !ok || base != pos || string(topic) != name {
			t.Fatalf("postings %d %q: got %d %q %v", pos, name, base, topic, ok)
		}
		at, id, ok := splitDueKey(appendDueKey(nil, int64(pos), name))
		if !ok || at != int64(pos) || string(id) != name {
			t.Fatalf("due %d %q: got %d %q %v", int64(pos), name, at, id, ok)
		}
	}
}

func TestKeyDecodeRefusesOtherShapes(t *testing.T) {
	for _, key := range []string{"", "l", "l1234567", "l123456789", "x12345678"} {
		if pos, ok := splitPosKey([]byte(key), prefixLoss); ok {
			t.Errorf("splitPosKey(%q) = %d", key, pos)
		}
	}
	if _, ok := splitNameKey([]byte("cx"), prefixReader); ok {
		t.Error("splitNameKey takes another prefix")
	}
}

func TestSuccessorIsTight(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50_000 {
		prefix := appendPostingsKey(nil, randomPos(r), randomName(r))
		other := appendPostingsKey(nil, randomPos(r), randomName(r))
		if r.IntN(2) == 0 {
			other = append(bytes.Clone(prefix), randomName(r)...)
		}
		inside := bytes.Compare(other, prefix) >= 0 && bytes.Compare(other, successor(prefix)) < 0
		if inside != bytes.HasPrefix(other, prefix) {
			t.Fatalf("prefix %q, successor %q, key %q: inside %v", prefix, successor(prefix), other, inside)
		}
	}
}

func TestMetaRow(t *testing.T) {
	want := Meta{Format: 7, LogID: [16]byte{1, 2, 3, 15: 9}}
	row := appendMeta(nil, want)
	if got, ok := decodeMeta(row); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	row[0]++
	if _, ok := decodeMeta(row); ok {
		t.Error("a row of another table version is accepted")
	}
}
