package packet

import "fmt"

// Version is a protocol level as it stands in CONNECT.
type Version byte

const (
	V31  Version = 3
	V311 Version = 4
	V5   Version = 5
)

// Valid reports whether v is a version this package speaks.
func (v Version) Valid() bool { return v == V31 || v == V311 || v == V5 }

func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return fmt.Sprintf("Version(%d)", byte(v))
}
