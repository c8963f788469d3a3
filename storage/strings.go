package storage

import "unsafe"

// viewString is b as a string without a copy, for lookups that end before b
// changes.
func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
