package logging

import (
	"encoding"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/lmittmann/tint"
)

// MaxValue is the most bytes of one value in a line. A topic may have 65535 and is the client's to choose.
const MaxValue = 512

// shorten is the ReplaceAttr of JSON, which escapes by itself, except for the control characters above ASCII: some
// terminals obey those, and people do look at JSON on terminals.
func shorten(_ []string, a slog.Attr) slog.Attr {
	text, ok := textOf(a.Value)
	if ok && (len(text) > MaxValue || strings.ContainsFunc(text, isHighControl)) {
		a.Value = slog.StringValue(strings.Map(showControl, cut(text)))
	}
	return a
}

func isHighControl(c rune) bool { return c >= 0x7f && c < 0xa0 }

// showControl puts a sign in the place of those control characters.
func showControl(c rune) rune {
	if isHighControl(c) {
		return '␦'
	}
	return c
}

// disarm is the ReplaceAttr of text. The text handler quotes what is not printable, but with colours on it turns
// the characters \x1b of the quoted text into a real escape, so that a client identifier could command the terminal;
// and it does not quote the message.
func disarm(groups []string, a slog.Attr) slog.Attr {
	text, ok := textOf(a.Value)
	if !ok {
		return a
	}
	text = strings.ReplaceAll(cut(text), "\x1b", "␛")
	text = strings.ReplaceAll(text, `\x1b`, `\x␛`)
	if a.Key == slog.MessageKey && len(groups) == 0 {
		text = strings.Map(func(c rune) rune {
			if c < ' ' {
				return '␦'
			}
			return showControl(c)
		}, text)
	}
	a.Value = slog.StringValue(text)
	if a.Key == KeyError {
		return tint.Attr(brightRed, a)
	}
	return a
}

// brightRed is the number of that colour on a terminal.
const brightRed = 9

// textOf is the value as text, for the kinds that hold text of any length. A value that panics, such as a nil
// pointer that is called an error, costs its text and not the broker.
func textOf(v slog.Value) (text string, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			text, ok = fmt.Sprintf("!PANIC: %v", p), true
		}
	}()
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return v.String(), true
	case slog.KindAny:
	default:
		return "", false
	}
	switch x := v.Any().(type) {
	case slog.Level, *slog.Source: // the handlers have forms of their own for these
		return "", false
	case error:
		return x.Error(), true
	case encoding.TextMarshaler:
		if text, err := x.MarshalText(); err == nil {
			return string(text), true
		}
	}
	return fmt.Sprintf("%+v", v.Any()), true
}

// cut shortens text at a character's edge and says how long it was.
func cut(text string) string {
	if len(text) <= MaxValue {
		return text
	}
	end := MaxValue
	for end > MaxValue-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:end], len(text))
}
