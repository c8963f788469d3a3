package segment

import (
	"fmt"
	"strconv"
	"strings"
)

// Pos is the byte position of a record in the log. Log id and Pos name one
// record for ever: no position is used twice. Zero is no position; the first
// segment of a log does not begin there.
type Pos uint64

// FirstBase is the base of the first segment of a log. It is not zero so
// that zero can mean "none".
const FirstBase Pos = 1 << 20

// Suffix of segment files.
const Suffix = ".seg"

// FileName is the name of the segment file with the given base.
func FileName(base Pos) string { return fmt.Sprintf("%020d%s", uint64(base), Suffix) }

// ParseFileName is the inverse of FileName.
func ParseFileName(name string) (Pos, bool) {
	digits, ok := strings.CutSuffix(name, Suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return Pos(n), err == nil
}

// Damage is a range of positions that cannot be read. It is an error that
// wraps ErrDamaged.
type Damage struct {
	File     string
	From, To Pos // [From, To)
	Err      error
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%s: positions %d to %d: %v", d.File, d.From, d.To, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }
