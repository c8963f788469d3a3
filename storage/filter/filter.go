package filter

import "strings"

// MaxLen is the longest topic name or filter, in bytes [MQTT-4.7.3-3].
const MaxLen = 65535

// Valid reports whether f is a topic filter. That its bytes are UTF-8 is the
// codec's to check.
func Valid(f string) bool {
	if len(f) == 0 || len(f) > MaxLen { // [MQTT-4.7.3-1], [MQTT-4.7.3-3], [MQTT311-4.7.3-1], [MQTT311-4.7.3-3]
		return false
	}
	for i := range len(f) {
		switch f[i] {
		case 0: // [MQTT-4.7.3-2], [MQTT311-4.7.3-2]
			return false
		case '#': // alone in its level and last: [MQTT-4.7.1-1], [MQTT311-4.7.1-2]
			if i != len(f)-1 || !levelStart(f, i) {
				return false
			}
		case '+': // alone in its level: [MQTT-4.7.1-2], [MQTT311-4.7.1-3]
			if !levelStart(f, i) || i+1 < len(f) && f[i+1] != '/' {
				return false
			}
		}
	}
	return true
}

func levelStart(s string, i int) bool { return i == 0 || s[i-1] == '/' }

// Match reports whether filter matches topic.
func Match(filter, topic string) bool {
	if len(topic) > 0 && topic[0] == '$' && len(filter) > 0 && isWildcard(filter[0]) {
		return false // [MQTT-4.7.2-1], [MQTT311-4.7.2-1]
	}
	for {
		if filter == "#" {
			return true
		}
		filterEnd, topicEnd := strings.IndexByte(filter, '/'), strings.IndexByte(topic, '/')
		level, name := upTo(filter, filterEnd), upTo(topic, topicEnd)
		if level != "+" && level != name {
			return false
		}
		switch {
		case filterEnd < 0:
			return topicEnd < 0
		case topicEnd < 0:
			return filter[filterEnd:] == "/#" // "a/#" also matches the parent, "a"
		}
		filter, topic = filter[filterEnd+1:], topic[topicEnd+1:]
	}
}

// upTo returns s up to end, or all of it if end is negative.
func upTo(s string, end int) string {
	if end < 0 {
		return s
	}
	return s[:end]
}

func isWildcard(c byte) bool { return c == '+' || c == '#' }

// Literal returns the longest string with which every topic that filter matches
// begins, as far as it stands in filter itself, and whether filter matches that
// one topic only. So "a/b/+/c" gives "a/b/", and "a/#" gives "a", because it
// matches the parent, too.
func Literal(filter string) (prefix string, exact bool) {
	for i := range len(filter) {
		switch filter[i] {
		case '+':
			return filter[:i], false // what follows cannot do without this level
		case '#':
			return strings.TrimSuffix(filter[:i], "/"), false
		}
	}
	return filter, true
}
