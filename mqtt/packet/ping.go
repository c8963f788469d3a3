package packet

// Pingreq asks whether the other side is there.
type Pingreq struct{}

// Pingresp says that it is.
type Pingresp struct{}

// Decode checks that a PINGREQ is nothing but its header.
func (*Pingreq) Decode(v Version, flags byte, body []byte) error {
	return decodeEmpty(v, PINGREQ, flags, body)
}

// Decode checks that a PINGRESP is nothing but its header.
func (*Pingresp) Decode(v Version, flags byte, body []byte) error {
	return decodeEmpty(v, PINGRESP, flags, body)
}

func decodeEmpty(v Version, t Type, flags byte, body []byte) error {
	if e := checkFlags(v, t, flags); e != nil {
		return e
	}
	r := reader{b: body}
	return r.end()
}

// Append appends the packet.
func (*Pingreq) Append(dst []byte, _ Version) []byte { return AppendPingreq(dst) }

// Append appends the packet.
func (*Pingresp) Append(dst []byte, _ Version) []byte { return AppendPingresp(dst) }

// AppendPingreq appends a PINGREQ, which is the same in all versions.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// AppendPingresp appends a PINGRESP, which is the same in all versions.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }
