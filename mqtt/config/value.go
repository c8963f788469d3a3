package config

import (
	"fmt"
	"log/slog"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. As text it is a number with or without a unit: "4096", "64MiB", "1.5GB".
type Size int64

// The binary units.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// Largest first, and binary before decimal, which is the order in which String tries them.
var sizeUnits = []struct {
	name  string
	bytes Size
}{
	{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3},
	{"B", 1},
}

// String returns the shortest exact form, so that reading it again gives the same size.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.bytes > 1 && s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Units may be in either case.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := splitNumber(string(text))
	factor := Size(1)
	if unit != "" {
		factor = 0
		for _, u := range sizeUnits {
			if strings.EqualFold(u.name, unit) {
				factor = u.bytes
			}
		}
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok || factor == 0 {
		return fmt.Errorf(`%q is not a size; write for example "64MiB", "1.5GB" or a number of bytes`, text)
	}
	// A big.Rat keeps 1.1GB exact where a float would not.
	value.Mul(value, new(big.Rat).SetInt64(int64(factor)))
	if !value.IsInt() {
		return fmt.Errorf("%q is not a whole number of bytes", text)
	}
	if !value.Num().IsInt64() {
		return fmt.Errorf("%q is too large", text)
	}
	*s = Size(value.Num().Int64())
	return nil
}

// splitNumber cuts "1.5 GB" into "1.5" and "GB". A number of unreasonable length counts as none.
func splitNumber(s string) (number, unit string) {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || s[end] == '.') {
		end++
	}
	if end > 30 {
		return "", s
	}
	return s[:end], strings.TrimLeft(s[end:], " ")
}

// Duration is a length of time, never negative. As text it has units, "200ms", "1h30m", and days: "7d", "1d12h".
type Duration time.Duration

// Day is 24 hours.
const Day = Duration(24 * time.Hour)

// Std returns the standard library's form.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns a form that reads back as the same duration: "0", "7d", "1h30m".
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	if d%Day == 0 {
		return strconv.FormatInt(int64(d/Day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	wrong := fmt.Errorf(`%q is not a duration; write for example "200ms", "10s", "1h30m" or "7d"`, s)

	var days Duration
	rest := s
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil {
			return wrong
		}
		if n > uint64(maxDuration/Day) {
			return fmt.Errorf("%q is too long", s)
		}
		days, rest = Duration(n)*Day, after
		if rest == "" {
			*d = days
			return nil
		}
	}
	if strings.ContainsAny(rest, "+-") {
		return wrong
	}
	parsed, err := time.ParseDuration(rest)
	if err != nil {
		return wrong
	}
	if Duration(parsed) > maxDuration-days {
		return fmt.Errorf("%q is too long", s)
	}
	*d = days + Duration(parsed)
	return nil
}

const maxDuration = Duration(1<<63 - 1)

// Level is a log level: debug, info, warn or error; empty where a level may be left to another key.
type Level string

// Slog returns the level in the form that log/slog uses. What is not a level counts as info.
func (l Level) Slog() slog.Level {
	switch l {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
