package topic

import (
	"slices"
	"strings"
)

// Trie holds subscriptions: values by filter and key. Any number of goroutines
// may Match at once while none changes it; everything else its owner must lock.
// Filters must be valid.
//
// A node stands for a run of whole levels, as in a radix tree: a filter that
// shares no level with others is one node, however many levels it has, and a
// node without entries has at least two children. So memory is proportional to
// the bytes of the filters, also for a filter of 65,535 slashes.
//
// Match visits a node at most once, and compares the name with it level by
// level. At each level it may have to follow the name and "+", so in the worst
// case, filters with "+" and names in all combinations, it visits 2^levels
// nodes, or all there are, whichever is less. Ordinary filters make it visit a
// few. It does not recurse.
type Trie[K comparable, V any] struct {
	root node[K, V]
	len  int
}

// node is small because there are many: 64 bytes, most of them leaves.
type node[K comparable, V any] struct {
	// label is one or more levels, joined by slashes. The root has none at all,
	// which is not the same as one empty level. "+" stands for itself, and "#"
	// can only come last, so a node that ends in it is a leaf.
	label   string
	entries entries[K, V]   // of the filter that ends here
	kids    *children[K, V] // nil in a leaf
}

// children are found by the first level of their labels, in which no two agree.
// A few are in list, more are in byLevel.
type children[K comparable, V any] struct {
	list    []*node[K, V]
	byLevel map[string]*node[K, V]
}

// manyKids is where list becomes byLevel, and half of it where it changes back.
const manyKids = 8

// entries are in no order. Many are found by byKey, in a few one looks.
type entries[K comparable, V any] struct {
	list  []entry[K, V]
	byKey map[K]int
}

type entry[K comparable, V any] struct {
	key K
	v   V
}

// manyEntries is where byKey is made, and half of it where it is dropped.
const manyEntries = 16

// NewTrie returns an empty trie.
func NewTrie[K comparable, V any]() *Trie[K, V] { return &Trie[K, V]{} }

// Len returns the number of subscriptions.
func (t *Trie[K, V]) Len() int { return t.len }

// Set stores v for filter and key, and reports whether it replaced a value.
func (t *Trie[K, V]) Set(filter string, key K, v V) (replaced bool) {
	n := t.node(filter)
	replaced = n.entries.set(key, v)
	if !replaced {
		t.len++
	}
	return replaced
}

// node returns the node at which filter ends, making it if need be. Labels are
// copies: a short one must not keep a long filter in memory.
func (t *Trie[K, V]) node(filter string) *node[K, V] {
	n, rest := &t.root, filter
	for {
		kid := n.kids.find(firstLevel(rest))
		if kid == nil {
			kid = &node[K, V]{label: strings.Clone(rest)}
			n.addKid(kid)
			return kid
		}
		same := commonLevels(kid.label, rest)
		if same < len(kid.label) {
			upper := &node[K, V]{label: strings.Clone(kid.label[:same])}
			n.kids.remove(kid)
			kid.label = kid.label[same+1:]
			upper.addKid(kid)
			n.addKid(upper)
			kid = upper
		}
		if same == len(rest) {
			return kid
		}
		n, rest = kid, rest[same+1:]
	}
}

// Delete removes what Set stored for filter and key, and reports whether there
// was anything.
func (t *Trie[K, V]) Delete(filter string, key K) (existed bool) {
	parent, n, rest := (*node[K, V])(nil), &t.root, filter
	for more := true; more; {
		kid := n.kids.find(firstLevel(rest))
		if kid == nil {
			return false
		}
		same := commonLevels(kid.label, rest)
		if same < len(kid.label) {
			return false
		}
		parent, n = n, kid
		if more = same < len(rest); more {
			rest = rest[same+1:]
		}
	}
	if !n.entries.delete(key) {
		return false
	}
	t.len--
	t.prune(parent, n)
	return true
}

// prune restores, after n has lost an entry, that nodes without entries have at
// least two children.
func (t *Trie[K, V]) prune(parent, n *node[K, V]) {
	if len(n.entries.list) > 0 {
		return
	}
	if n.kids.len() > 0 {
		n.mergeOnlyKid()
		return
	}
	parent.kids.remove(n)
	if parent.kids.len() == 0 {
		parent.kids = nil
	}
	if parent != &t.root && len(parent.entries.list) == 0 {
		parent.mergeOnlyKid()
	}
}

// mergeOnlyKid makes n, which has no entries, and its child one, if it has one
// child only.
func (n *node[K, V]) mergeOnlyKid() {
	if n.kids.len() != 1 {
		return
	}
	kid := n.kids.only()
	*n = node[K, V]{label: n.label + "/" + kid.label, entries: kid.entries, kids: kid.kids}
}

// visit is a node whose label has matched, and where in the name the next level
// begins; past the end of the name if there is none.
type visit[K comparable, V any] struct {
	n  *node[K, V]
	at int
}

// Match calls fn for every subscription whose filter matches name, in no order;
// for a key with several such filters once for each. fn must not change the
// trie. Nothing is allocated unless more than 64 branches are open at once.
func (t *Trie[K, V]) Match(name string, fn func(key K, v V)) {
	var space [64]visit[K, V]
	open := append(space[:0], visit[K, V]{&t.root, 0})
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		if at.at > len(name) {
			at.n.entries.each(fn)
		}
		kids := at.n.kids
		if kids == nil {
			continue
		}
		candidates := kids.list
		var picked [3]*node[K, V]
		if kids.byLevel != nil {
			candidates = kids.pick(&picked, name, at.at)
		}
		for _, kid := range candidates {
			if at.n == &t.root && hidden(kid.label, name) {
				continue
			}
			next, all, ok := walk(kid.label, name, at.at)
			switch {
			case all:
				kid.entries.each(fn)
			case ok:
				open = append(open, visit[K, V]{kid, next})
			}
		}
	}
}

// hidden reports whether a filter that begins like label is one that does not
// match names like this [MQTT-4.7.2-1].
func hidden(label, name string) bool {
	return len(name) > 0 && name[0] == '$' && len(label) > 0 && (label[0] == '+' || label[0] == '#')
}

// walk compares label with the levels of name from at on. ok means that name
// goes on, or ends, at next; all, that label ends in "#" and takes the rest.
func walk(label, name string, at int) (next int, all, ok bool) {
	for {
		level := firstLevel(label)
		if level == "#" {
			return 0, true, true // also when name has ended: "a/#" matches "a"
		}
		if at > len(name) {
			return 0, false, false
		}
		own := firstLevel(name[at:])
		if level != "+" && level != own {
			return 0, false, false
		}
		at += len(own) + 1
		if len(level) == len(label) {
			return at, false, true
		}
		label = label[len(level)+1:]
	}
}

// Walk calls fn for every subscription, in no order. fn must not change the trie.
func (t *Trie[K, V]) Walk(fn func(filter string, key K, v V)) {
	type step struct {
		n      *node[K, V]
		filter string
	}
	var open []step
	t.root.kids.each(func(kid *node[K, V]) { open = append(open, step{kid, kid.label}) })
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		at.n.entries.each(func(key K, v V) { fn(at.filter, key, v) })
		at.n.kids.each(func(kid *node[K, V]) { open = append(open, step{kid, at.filter + "/" + kid.label}) })
	}
}

// firstLevel returns s up to the first slash.
func firstLevel(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

// commonLevels returns the length of the longest run of whole levels with which
// both a and b begin; they have at least the first in common.
func commonLevels(a, b string) int {
	same := 0
	for i := 0; ; i++ {
		aEnds, bEnds := i == len(a) || a[i] == '/', i == len(b) || b[i] == '/'
		if aEnds && bEnds {
			same = i
		}
		if i == len(a) || i == len(b) || a[i] != b[i] {
			return same
		}
	}
}

func (n *node[K, V]) addKid(kid *node[K, V]) {
	if n.kids == nil {
		n.kids = &children[K, V]{}
	}
	n.kids.add(kid)
}

func (c *children[K, V]) len() int {
	if c == nil {
		return 0
	}
	return len(c.list) + len(c.byLevel)
}

// find returns the child whose label begins with level, or nil.
func (c *children[K, V]) find(level string) *node[K, V] {
	if c == nil {
		return nil
	}
	for _, kid := range c.list {
		if firstLevel(kid.label) == level {
			return kid
		}
	}
	return c.byLevel[level]
}

// pick puts into picked the children that can match name from at on.
func (c *children[K, V]) pick(picked *[3]*node[K, V], name string, at int) []*node[K, V] {
	found := picked[:0]
	for _, wildcard := range [...]string{"#", "+"} {
		if kid := c.byLevel[wildcard]; kid != nil {
			found = append(found, kid)
		}
	}
	if at <= len(name) {
		kid := c.byLevel[firstLevel(name[at:])]
		if kid != nil && !slices.Contains(found, kid) {
			found = append(found, kid)
		}
	}
	return found
}

func (c *children[K, V]) add(kid *node[K, V]) {
	if c.byLevel == nil && len(c.list) < manyKids {
		c.list = append(c.list, kid)
		return
	}
	if c.byLevel == nil {
		c.byLevel = make(map[string]*node[K, V], 2*manyKids)
		for _, k := range c.list {
			c.byLevel[firstLevel(k.label)] = k
		}
		c.list = nil
	}
	c.byLevel[firstLevel(kid.label)] = kid
}

func (c *children[K, V]) remove(kid *node[K, V]) {
	if c.byLevel == nil {
		i := slices.Index(c.list, kid)
		c.list = slices.Delete(c.list, i, i+1)
		return
	}
	delete(c.byLevel, firstLevel(kid.label))
	if len(c.byLevel) <= manyKids/2 {
		for _, k := range c.byLevel {
			c.list = append(c.list, k)
		}
		c.byLevel = nil
	}
}

// only returns one child, of a node that has just one.
func (c *children[K, V]) only() (kid *node[K, V]) {
	c.each(func(k *node[K, V]) { kid = k })
	return kid
}

func (c *children[K, V]) each(fn func(kid *node[K, V])) {
	if c == nil {
		return
	}
	for _, kid := range c.list {
		fn(kid)
	}
	for _, kid := range c.byLevel {
		fn(kid)
	}
}

func (e *entries[K, V]) each(fn func(key K, v V)) {
	for i := range e.list {
		fn(e.list[i].key, e.list[i].v)
	}
}

// find returns the place of key in list, or -1.
func (e *entries[K, V]) find(key K) int {
	if e.byKey != nil {
		if i, ok := e.byKey[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(e.list, func(have entry[K, V]) bool { return have.key == key })
}

func (e *entries[K, V]) set(key K, v V) (replaced bool) {
	if i := e.find(key); i >= 0 {
		e.list[i].v = v
		return true
	}
	e.list = append(e.list, entry[K, V]{key, v})
	switch {
	case e.byKey != nil:
		e.byKey[key] = len(e.list) - 1
	case len(e.list) > manyEntries:
		e.byKey = make(map[K]int, 2*len(e.list))
		for i := range e.list {
			e.byKey[e.list[i].key] = i
		}
	}
	return false
}

// delete moves the last entry to the place of the one that goes.
func (e *entries[K, V]) delete(key K) (existed bool) {
	i := e.find(key)
	if i < 0 {
		return false
	}
	last := len(e.list) - 1
	e.list[i] = e.list[last]
	e.list[last] = entry[K, V]{} // no reference may stay behind
	e.list = e.list[:last]
	if e.byKey != nil {
		if i != last {
			e.byKey[e.list[i].key] = i
		}
		delete(e.byKey, key)
		if last <= manyEntries/2 {
			e.byKey = nil
		}
	}
	if last == 0 {
		e.list = nil
	} else if 4*last < cap(e.list) {
		e.list = slices.Clip(append([]entry[K, V](nil), e.list...))
	}
	return true
}
