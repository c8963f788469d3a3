package session

// Inbound is the set of packet identifiers of QoS 2 messages that were
// received and are not yet released.
type Inbound struct {
	bits []uint64 // 8 KiB, made by the first QoS 2 message
	n    int
}

// Len is the number of identifiers.
func (s *Inbound) Len() int { return s.n }

// Has reports whether id is in the set.
func (s *Inbound) Has(id uint16) bool {
	return s.bits != nil && s.bits[id/64]&(1<<(id%64)) != 0
}

// Add reports false if id was there already: the message is a repetition and
// is not delivered again [MQTT-4.3.3-10].
func (s *Inbound) Add(id uint16) bool {
	if s.bits == nil {
		s.bits = make([]uint64, 1024)
	}
	if s.Has(id) {
		return false
	}
	s.bits[id/64] |= 1 << (id % 64)
	s.n++
	return true
}

// Remove reports false if id was not there.
func (s *Inbound) Remove(id uint16) bool {
	if !s.Has(id) {
		return false
	}
	s.bits[id/64] &^= 1 << (id % 64)
	s.n--
	return true
}

// List returns the identifiers in order.
func (s *Inbound) List() []uint16 {
	list := make([]uint16, 0, s.n)
	for i, word := range s.bits {
		for b := range 64 {
			if word&(1<<b) != 0 {
				list = append(list, uint16(i*64+b))
			}
		}
	}
	return list
}
