package packet

// Unsubscribe ends subscriptions.
type Unsubscribe struct {
	PacketID uint16
	Props    Properties
	Filters  []string
}

// Decode reads an UNSUBSCRIBE.
func (u *Unsubscribe) Decode(v Version, flags byte, body []byte) error {
	*u = Unsubscribe{}
	if e := checkFlags(v, UNSUBSCRIBE, flags); e != nil { // [MQTT-3.10.1-1], [MQTT311-3.10.1-1]
		return e
	}
	r := reader{b: body}
	u.PacketID = r.packetID()
	if v == V5 {
		u.Props.decode(&r, unsubscribeProps)
	}
	if r.err == nil && !r.more() { // [MQTT-3.10.3-2], [MQTT311-3.10.3-2]
		r.fail(protocolError("MQTT-3.10.3-2", "UNSUBSCRIBE without a filter"))
	}
	for r.more() {
		u.Filters = append(u.Filters, r.string()) // [MQTT-3.10.3-1]
	}
	return r.end()
}

// Append appends the packet.
func (u *Unsubscribe) Append(dst []byte, v Version) []byte {
	dst = append(dst, byte(UNSUBSCRIBE)<<4|reservedFlags(UNSUBSCRIBE))
	at := len(dst)
	dst = append(dst, byte(u.PacketID>>8), byte(u.PacketID))
	if v == V5 {
		dst = u.Props.append(dst, unsubscribeProps)
	}
	for _, filter := range u.Filters {
		dst = appendString(dst, filter)
	}
	return insertLength(dst, at)
}
