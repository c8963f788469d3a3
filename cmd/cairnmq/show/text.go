package show

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

// TimeFormat is how text shows an instant, always in UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Safe escapes what is not printable and leaves the rest alone. Spaces stay:
// a line is for people.
func Safe(s string) string {
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unsafe(r):
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// unsafe are control characters, what has no shape, what changes the
// direction of writing, bytes that are no UTF-8, and the backslash, which
// would otherwise not be told from an escape.
func unsafe(r rune) bool {
	return r == utf8.RuneError || r == '\\' || !unicode.IsPrint(r)
}

// payload is text where it can be, else hex, cut at limit bytes (0: not cut).
func payload(b []byte, limit int) string {
	rest := ""
	if limit > 0 && len(b) > limit {
		rest = fmt.Sprintf("... (%d bytes)", len(b))
		b = b[:limit]
	}
	if text := cutRune(b, rest != ""); utf8.Valid(text) {
		return Safe(string(text)) + rest
	}
	return "0x" + hex.EncodeToString(b) + rest
}

// cutRune drops the beginning of a character that was cut in the middle.
func cutRune(b []byte, cut bool) []byte {
	if !cut {
		return b
	}
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return b[:i]
			}
			break
		}
	}
	return b
}

// Text is an entry in one line: time, position, and then for a message its
// QoS, flags, publisher, topic and payload, for an event its kind, client and
// what it says.
func Text(e *inspect.Entry, maxPayload int) string {
	head := fmt.Sprintf("%s %d", e.WallTime().UTC().Format(TimeFormat), e.Pos)
	if m := e.Message; m != nil {
		return fmt.Sprintf("%s q%d%s %s %s %s", head, e.Flags&storage.FlagQoS, flags(e.Flags),
			word(m.Publisher), word(m.Topic), payload(m.Payload, maxPayload))
	}
	line := head + " " + storage.KindName(e.Kind)
	if e.Unclear {
		return line + " not understood: " + payload(e.Body, max(maxPayload, 64))
	}
	if e.Event.Client != "" {
		line += " " + word([]byte(e.Event.Client))
	}
	if words := e.Event.String(); words != "" {
		line += " " + Safe(words)
	}
	return line
}

// flags are letters: r retain, w will, c carried, x expires.
func flags(f uint8) string {
	out := ""
	for _, x := range []struct {
		bit    uint8
		letter string
	}{{storage.FlagRetain, "r"}, {storage.FlagWill, "w"}, {storage.FlagCarried, "c"}, {storage.FlagExpiry, "x"}} {
		if f&x.bit != 0 {
			out += x.letter
		}
	}
	if out == "" {
		return " -"
	}
	return " " + out
}

// word is a name as one word, so that a line can be cut at its spaces.
func word(b []byte) string {
	if len(b) == 0 {
		return `""`
	}
	return strings.ReplaceAll(Safe(string(b)), " ", `\x20`)
}

// Loss is a row of the ledger in one line.
func Loss(x *storage.Loss) string {
	readers := "everybody"
	if len(x.Readers) > 0 {
		names := make([]string, len(x.Readers))
		for i, r := range x.Readers {
			names[i] = word([]byte(r))
		}
		readers = strings.Join(names, ",")
	}
	line := fmt.Sprintf("%s %d %v %d messages %d bytes positions %d-%d readers %s",
		x.When.UTC().Format(TimeFormat), x.At, x.Cause, x.Count, x.Bytes, x.From, x.To, readers)
	if x.Detail != "" {
		line += " (" + Safe(x.Detail) + ")"
	}
	return line
}

// Time is an instant, or a dash.
func Time(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(TimeFormat)
}

// Bytes is a number of bytes with a unit.
func Bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1fGiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1fKiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%dB", n)
}
