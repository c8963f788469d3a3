package topic

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"cairnmq/storage/filter"
)

// MaxLen is the longest topic name or filter, in bytes [MQTT-4.7.3-3].
const MaxLen = filter.MaxLen

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("invalid topic")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// ValidateName returns nil if name may be published to.
func ValidateName(name []byte) error {
	switch {
	case len(name) == 0:
		return invalid("name is empty [MQTT-4.7.3-1]")
	case len(name) > MaxLen:
		return invalid("name has %d bytes, at most %d are allowed [MQTT-4.7.3-3]", len(name), MaxLen)
	}
	if i := bytes.IndexByte(name, 0); i >= 0 {
		return invalid("name has a NUL at byte %d [MQTT-4.7.3-2]", i)
	}
	if i := bytes.IndexAny(name, "+#"); i >= 0 {
		return invalid("name has the wildcard %q at byte %d [MQTT-4.7.0-1]", name[i], i) // [MQTT311-4.7.1-1]
	}
	return nil
}

// ValidateFilter returns nil if f is a topic filter. For "$share/" filters use
// ParseShared as well.
func ValidateFilter(f string) error {
	if filter.Valid(f) {
		return nil
	}
	switch {
	case f == "":
		return invalid("filter is empty [MQTT-4.7.3-1]")
	case len(f) > MaxLen:
		return invalid("filter has %d bytes, at most %d are allowed [MQTT-4.7.3-3]", len(f), MaxLen)
	}
	if i := strings.IndexByte(f, 0); i >= 0 {
		return invalid("filter has a NUL at byte %d [MQTT-4.7.3-2]", i)
	}
	for i, more := 0, true; more; {
		var level, rest string
		level, rest, more = strings.Cut(f[i:], "/")
		switch {
		case strings.Contains(level, "#") && (level != "#" || more):
			return invalid("%q in a filter must be a whole level and the last, at byte %d [MQTT-4.7.1-1]",
				"#", i+strings.Index(level, "#"))
		case strings.Contains(level, "+") && level != "+":
			return invalid("%q in a filter must be a whole level, at byte %d [MQTT-4.7.1-2]",
				"+", i+strings.Index(level, "+"))
		}
		i = len(f) - len(rest)
	}
	return invalid("filter %q", f) // not reached while filter.Valid refuses for these reasons only
}

// Match reports whether the filter matches the name.
func Match(f, name string) bool { return filter.Match(f, name) }

// Shared is a shared subscription: members of a Group share what Filter matches.
type Shared struct{ Group, Filter string }

const sharePrefix = "$share/"

// ParseShared takes "$share/group/filter" apart. shared is false, and err nil,
// if f does not begin like that; an ordinary filter is not validated.
func ParseShared(f string) (s Shared, shared bool, err error) {
	rest, shared := strings.CutPrefix(f, sharePrefix)
	if !shared {
		return Shared{}, false, nil
	}
	if len(f) > MaxLen {
		return Shared{}, true, ValidateFilter(f)
	}
	group, inner, more := strings.Cut(rest, "/")
	switch {
	case group == "":
		return Shared{}, true, invalid("shared subscription without a share name [MQTT-4.8.2-1]")
	case strings.ContainsAny(group, "+#"):
		return Shared{}, true, invalid("share name %q has a wildcard [MQTT-4.8.2-2]", group)
	case strings.IndexByte(group, 0) >= 0:
		return Shared{}, true, invalid("share name has a NUL [MQTT-4.7.3-2]")
	case !more || inner == "":
		return Shared{}, true, invalid("share name %q is not followed by a filter [MQTT-4.8.2-2]", group)
	}
	if err := ValidateFilter(inner); err != nil {
		return Shared{}, true, err
	}
	return Shared{Group: group, Filter: inner}, true, nil
}
