package topic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
)

type subscription struct {
	filter string
	key    int
}

// check fails unless the nodes obey what Trie and node say of them.
func check[K comparable, V any](t *testing.T, trie *Trie[K, V]) {
	t.Helper()
	var visit func(n *node[K, V], root bool)
	visit = func(n *node[K, V], root bool) {
		kids := 0
		seen := map[string]bool{}
		n.kids.each(func(kid *node[K, V]) {
			kids++
			level := firstLevel(kid.label)
			if seen[level] || n.kids.find(level) != kid {
				t.Errorf("children of %q: level %q twice or not found", n.label, level)
			}
			seen[level] = true
			visit(kid, false)
		})
		if n.kids != nil && kids == 0 {
			t.Errorf("node %q has an empty set of children", n.label)
		}
		if !root && len(n.entries.list) == 0 && kids < 2 {
			t.Errorf("node %q has no entries and %d children", n.label, kids)
		}
		if n.entries.byKey != nil && len(n.entries.byKey) != len(n.entries.list) {
			t.Errorf("node %q: %d keys for %d entries", n.label, len(n.entries.byKey), len(n.entries.list))
		}
	}
	visit(&trie.root, true)
}

func randomLevels(r *rand.Rand, wild bool) string {
	alphabet := []string{"", "a", "b", "ab", "c", "$a", "d", "e", "f", "g", "h", "i", "j", "k"}
	var levels []string
	for range 1 + r.IntN(5) {
		if wild && r.IntN(3) == 0 {
			levels = append(levels, "+")
			continue
		}
		levels = append(levels, alphabet[min(r.IntN(len(alphabet)), r.IntN(len(alphabet)))])
	}
	if wild && r.IntN(4) == 0 {
		levels[len(levels)-1] = "#"
	}
	if s := strings.Join(levels, "/"); s != "" {
		return s
	}
	return "/"
}

// Random changes, against a plain list and Match.
func TestTrieAgainstAList(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		trie := NewTrie[int, int]()
		list := map[subscription]int{}
		keys := []int{3, 40}[seed%2]
		for step := range 1500 {
			s := subscription{randomLevels(r, true), r.IntN(keys)}
			switch {
			case step%500 < 250 || r.IntN(4) == 0: // growing, then shrinking
				_, had := list[s]
				if replaced := trie.Set(s.filter, s.key, step); replaced != had {
					t.Fatalf("Set(%q, %d) = %v", s.filter, s.key, replaced)
				}
				list[s] = step
			default:
				if r.IntN(4) > 0 {
					for s = range list {
						break
					}
				}
				_, had := list[s]
				if existed := trie.Delete(s.filter, s.key); existed != had {
					t.Fatalf("Delete(%q, %d) = %v", s.filter, s.key, existed)
				}
				delete(list, s)
			}
			if trie.Len() != len(list) {
				t.Fatalf("Len() = %d, want %d", trie.Len(), len(list))
			}
			if step%10 == 0 {
				compare(t, trie, list, randomLevels(r, false))
			}
			if step%100 == 0 {
				check(t, trie)
				walked := map[subscription]int{}
				trie.Walk(func(filter string, key, v int) { walked[subscription{filter, key}] = v })
				if !maps.Equal(walked, list) {
					t.Fatalf("Walk: %v, want %v", walked, list)
				}
			}
		}
		for s := range list {
			if !trie.Delete(s.filter, s.key) {
				t.Fatalf("Delete(%+v) finds nothing", s)
			}
		}
		if trie.Len() != 0 || trie.root.kids != nil {
			t.Fatalf("nodes are left in an empty trie of length %d", trie.Len())
		}
	}
}

func compare(t *testing.T, trie *Trie[int, int], list map[subscription]int, name string) {
	t.Helper()
	want := map[[2]int]int{}
	for s, v := range list {
		if Match(s.filter, name) {
			want[[2]int{s.key, v}]++
		}
	}
	got := map[[2]int]int{}
	trie.Match(name, func(key, v int) { got[[2]int{key, v}]++ })
	if !maps.Equal(got, want) {
		t.Fatalf("Match(%q) = %v, want %v", name, got, want)
	}
}

func TestTrieReportsAKeyOncePerFilter(t *testing.T) {
	trie := NewTrie[string, int]()
	for i, filter := range []string{"a/b", "a/+", "a/#", "#", "+/b", "a/b/#", "x"} {
		trie.Set(filter, "key", i)
	}
	sum := 0
	trie.Match("a/b", func(_ string, v int) { sum += 1 << v })
	if sum != 0b111111 {
		t.Errorf("matched %b", sum)
	}
}

// [MQTT-4.7.2-1]
func TestTrieHidesDollarTopicsFromWildcards(t *testing.T) {
	trie := NewTrie[string, int]()
	for _, filter := range []string{"#", "+/x", "+/#", "+", "$SYS/#", "$SYS/+", "$SYS/x"} {
		trie.Set(filter, filter, 0)
	}
	for range 20 { // also when the root has a map of children
		var got []string
		trie.Match("$SYS/x", func(key string, _ int) { got = append(got, key) })
		if len(got) != 3 {
			t.Errorf("matched %q", got)
		}
		trie.Set(fmt.Sprint("other", trie.Len()), "", 0)
	}
}

func TestTrieEmptyLevels(t *testing.T) {
	trie := NewTrie[string, int]()
	filters := []string{"/", "//", "/a", "a/", "a//b", "/+", "+/", "/#", "a/+/b", "a"}
	for _, filter := range filters {
		trie.Set(filter, filter, 0)
	}
	for _, name := range []string{"/", "//", "/a", "a/", "a//b", "a", "///", "a/b"} {
		got := map[string]bool{}
		trie.Match(name, func(key string, _ int) { got[key] = true })
		for _, filter := range filters {
			if got[filter] != Match(filter, name) {
				t.Errorf("filter %q, name %q: %v", filter, name, got[filter])
			}
		}
	}
}

// Neither depth nor width may cost more than the bytes that make them.
func TestTrieDeepAndWide(t *testing.T) {
	start := time.Now()
	trie := NewTrie[int, int]()
	deep := strings.Repeat("/", MaxLen)
	trie.Set(deep, 0, 0)
	trie.Set(strings.Repeat("+/", MaxLen/2)+"#", 0, 0)
	for i := range 500 { // a chain of nodes
		trie.Set(deep[:1+i*130], i, 0)
	}
	matched := 0
	trie.Match(deep, func(int, int) { matched++ })
	if matched != 2 {
		t.Errorf("%d matches, want 2", matched)
	}
	check(t, trie)
	for i := range 500 {
		trie.Delete(deep[:1+i*130], i)
	}
	for key := range 100_000 { // everybody wants the same
		trie.Set("all/#", key, 0)
	}
	for key := range 100_000 {
		trie.Delete("all/#", key)
	}
	if trie.Len() != 2 {
		t.Errorf("%d left, want 2", trie.Len())
	}
	// Quadratic would be minutes.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTrieDoesNotKeepLongFilters(t *testing.T) {
	trie := NewTrie[int, int]()
	long := "a/" + strings.Repeat("x", 60_000)
	trie.Set(long, 1, 0)
	trie.Set("a/y", 1, 0)
	trie.Delete(long, 1)
	trie.Set("a/z", 1, 0)
	var labels []string
	trie.root.kids.each(func(n *node[int, int]) { labels = append(labels, n.label) })
	if len(labels) != 1 || labels[0] != "a" {
		t.Errorf("labels %.40q", labels)
	}
	check(t, trie)
}

// plant is what a site with many machines subscribes to: most filters name one
// thing, some ask for a kind of thing everywhere.
func plant(i int) string {
	site, machine := i%40, i/40
	switch i % 10 {
	case 0:
		return fmt.Sprintf("factory/site%d/machine%05d/#", site, machine)
	case 1:
		return fmt.Sprintf("factory/+/machine%05d/alarm", machine)
	default:
		return fmt.Sprintf("factory/site%d/machine%05d/sensor%d/value", site, machine, i%7)
	}
}

func plantTrie(n int) *Trie[string, *int] {
	trie := NewTrie[string, *int]()
	for i := range n {
		trie.Set(plant(i), fmt.Sprintf("client-%06d", i), nil)
	}
	return trie
}

func TestTrieMemory(t *testing.T) {
	const n = 100_000
	keys := make([]string, n)
	filters := make([]string, n)
	bytes := 0
	for i := range n {
		keys[i], filters[i] = fmt.Sprintf("client-%06d", i), plant(i)
		bytes += len(filters[i])
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	trie := NewTrie[string, *int]()
	for i := range n {
		trie.Set(filters[i], keys[i], nil)
	}
	per := float64(heap()-before) / n
	t.Logf("%.0f bytes per subscription, of a mean filter of %d bytes; a node has %d", per, bytes/n,
		unsafe.Sizeof(node[string, *int]{}))
	if per > 300 {
		t.Errorf("%.0f bytes per subscription", per)
	}
	if trie.Len() != n {
		t.Errorf("%d subscriptions", trie.Len())
	}
	runtime.KeepAlive(keys)
	runtime.KeepAlive(filters)
}

func TestTrieMatchAllocatesNothing(t *testing.T) {
	trie := plantTrie(20_000)
	matched := 0
	count := func(string, *int) { matched++ }
	if n := testing.AllocsPerRun(100, func() {
		trie.Match("factory/site3/machine00123/sensor3/value", count)
		trie.Match("factory/site1/machine00001/alarm", count)
		trie.Match("nobody/wants/this", count)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if matched == 0 {
		t.Error("nothing matched")
	}
}

func BenchmarkTrieMatch(b *testing.B) {
	trie := plantTrie(100_000)
	names := make([]string, 4096)
	for i := range names {
		names[i] = fmt.Sprintf("factory/site%d/machine%05d/sensor%d/value", i%40, i*37%2500, i%7)
	}
	matched := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		trie.Match(names[i%len(names)], func(string, *int) { matched++ })
	}
}

// All filters of eight levels out of "a" and "+": the worst case of Match.
func BenchmarkTrieMatchWorst(b *testing.B) {
	trie := NewTrie[int, int]()
	for i := range 256 {
		levels := make([]string, 8)
		for l := range levels {
			levels[l] = []string{"a", "+"}[i>>l&1]
		}
		trie.Set(strings.Join(levels, "/"), i, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		trie.Match("a/a/a/a/a/a/a/a", func(int, int) {})
	}
}

func BenchmarkTrieSetDelete(b *testing.B) {
	trie := plantTrie(100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		trie.Delete(plant(i%100_000), fmt.Sprintf("client-%06d", i%100_000))
		trie.Set(plant(i%100_000), fmt.Sprintf("client-%06d", i%100_000), nil)
	}
}
