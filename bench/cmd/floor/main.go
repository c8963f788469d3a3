//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:1884", "address to listen on")
	path := flag.String("log", "", "file to copy every message into (default: none)")
	size := flag.Int64("logsize", 256<<20, "bytes of that file; it is overwritten from the start when full")
	flag.Parse()
	log.Fatal("floor: ", serve(*listen, *path, *size))
}

// serve serves until the listener fails.
func serve(listen, path string, size int64) error {
	var h hub
	h.table.Store(&table{exact: map[string][]*peer{}, prefix: map[string][]*peer{}})
	if path != "" {
		var err error
		if h.log.mem, err = mapFile(path, size); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		// Ends with its connection; nothing waits for it, as nothing is kept.
		go func() {
			p := &peer{nc: nc}
			p.room.L = &p.mu
			if err := p.serve(&h); !errors.Is(err, io.EOF) {
				log.Printf("%s: %v", nc.RemoteAddr(), err)
			}
			h.remove(p)
			_ = nc.Close()
		}()
	}
}

func mapFile(path string, size int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// hub holds what the connections share.
type hub struct {
	table atomic.Pointer[table] // replaced whole
	mu    sync.Mutex            // held while replacing it
	log   ring
}

// ring is the log: a mapped file written round and round.
type ring struct {
	mem []byte
	end atomic.Int64
}

func (r *ring) append(packet []byte) {
	if r.mem == nil {
		return
	}
	end := r.end.Add(int64(len(packet)))
	at := (end - int64(len(packet))) % int64(len(r.mem))
	copy(r.mem[at:], packet)
}

// table says who receives what.
type table struct {
	exact  map[string][]*peer
	prefix map[string][]*peer // "a/b" for the filter "a/b/#"
}

func (t *table) clone() *table {
	c := &table{exact: map[string][]*peer{}, prefix: map[string][]*peer{}}
	for k, v := range t.exact {
		c.exact[k] = append([]*peer(nil), v...)
	}
	for k, v := range t.prefix {
		c.prefix[k] = append([]*peer(nil), v...)
	}
	return c
}

func (h *hub) change(f func(*table)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.table.Load().clone()
	f(t)
	h.table.Store(t)
}

func (h *hub) subscribe(p *peer, filter string) {
	h.change(func(t *table) {
		if filter == "#" {
			t.prefix[""] = append(t.prefix[""], p)
		} else if prefix, ok := strings.CutSuffix(filter, "/#"); ok {
			t.prefix[prefix] = append(t.prefix[prefix], p)
		} else {
			t.exact[filter] = append(t.exact[filter], p)
		}
	})
}

func (h *hub) remove(p *peer) {
	h.change(func(t *table) {
		for _, m := range []map[string][]*peer{t.exact, t.prefix} {
			for k, peers := range m {
				kept := peers[:0]
				for _, q := range peers {
					if q != p {
						kept = append(kept, q)
					}
				}
				m[k] = kept
			}
		}
	})
}

// maxQueued is how much may wait for a subscriber before publishers wait too.
const maxQueued = 1 << 20

// peer is one connection.
type peer struct {
	nc net.Conn
	// Of the goroutine that reads the connection.
	touched []*peer // got messages since the last flush
	acks    []byte
	// peersOf remembers lookups in the table it was filled from.
	peersOf map[string][]*peer
	from    *table

	subQoS byte
	nextID uint16 // under mu

	mu       sync.Mutex // guards what follows; any reading goroutine takes it to add messages
	room     sync.Cond
	out      []byte
	spare    []byte
	flushing bool
}

// serve reads packets until the connection ends, which is io.EOF if it was to.
func (p *peer) serve(h *hub) error {
	buf := make([]byte, 64<<10)
	n := 0
	for {
		got, err := p.nc.Read(buf[n:])
		if err != nil {
			return err
		}
		n += got
		used := 0
		for {
			bodyLen, lenLen := binary.Uvarint(buf[used+min(1, n-used) : n])
			total := 1 + lenLen + int(bodyLen)
			if lenLen <= 0 || used+total > n {
				if lenLen > 0 && total > len(buf) {
					buf = append(buf, make([]byte, total)...)
				}
				break
			}
			if err := p.packet(h, buf[used:used+total], 1+lenLen); err != nil {
				return err
			}
			used += total
		}
		n = copy(buf, buf[used:n])
		p.add(p.acks)
		p.acks = p.acks[:0]
		p.flush()
		for i, t := range p.touched {
			t.flush()
			p.touched[i] = nil
		}
		p.touched = p.touched[:0]
	}
}

// packet handles one packet, whose body begins at the given place.
func (p *peer) packet(h *hub, b []byte, body int) error {
	switch b[0] >> 4 {
	case 1:
		p.acks = append(p.acks, 0x20, 2, 0, 0)
	case 3:
		p.publish(h, b, body)
	case 4:
	case 8:
		filterLen := int(binary.BigEndian.Uint16(b[body+2:]))
		p.subQoS = min(b[body+4+filterLen], 1)
		h.subscribe(p, string(b[body+4:body+4+filterLen]))
		p.acks = append(p.acks, 0x90, 3, b[body], b[body+1], p.subQoS)
	case 12:
		p.acks = append(p.acks, 0xD0, 0)
	case 14:
		return io.EOF
	default:
		return fmt.Errorf("packet type %d is not known here", b[0]>>4)
	}
	return nil
}

func (p *peer) publish(h *hub, b []byte, body int) {
	h.log.append(b)
	qos := b[0] >> 1 & 3
	topicEnd := body + 2 + int(binary.BigEndian.Uint16(b[body:]))
	for _, to := range p.lookup(h.table.Load(), b[body+2:topicEnd]) {
		if to.deliver(b, topicEnd, qos) {
			p.touched = append(p.touched, to)
		}
	}
	if qos == 1 {
		p.acks = append(p.acks, 0x40, 2, b[topicEnd], b[topicEnd+1])
	}
}

func (p *peer) lookup(t *table, topic []byte) []*peer {
	if p.from != t {
		p.from, p.peersOf = t, make(map[string][]*peer)
	}
	if peers, ok := p.peersOf[string(topic)]; ok {
		return peers
	}
	name := string(topic)
	peers := append([]*peer(nil), t.exact[name]...)
	for prefix := name; ; {
		peers = append(peers, t.prefix[prefix]...)
		if prefix == "" {
			break
		}
		prefix = prefix[:max(strings.LastIndexByte(prefix, '/'), 0)]
	}
	p.peersOf[name] = peers
	return peers
}

// deliver copies a message into the buffer of p. It reports whether the buffer
// was empty, so that somebody must flush it.
func (p *peer) deliver(b []byte, topicEnd int, qos byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.out) > maxQueued && p.flushing {
		p.room.Wait()
	}
	empty := len(p.out) == 0
	if p.subQoS < qos {
		// One of QoS 0 for one of QoS 1: shorter by the packet identifier.
		p.out = append(p.out, 0x30)
		p.out = binary.AppendUvarint(p.out, uint64(len(b)-bodyAt(b)-2))
		p.out = append(p.out, b[bodyAt(b):topicEnd]...)
		p.out = append(p.out, b[topicEnd+2:]...)
		return empty
	}
	at := len(p.out)
	p.out = append(p.out, b...)
	if qos == 1 {
		p.nextID++
		p.nextID = max(p.nextID, 1)
		binary.BigEndian.PutUint16(p.out[at+topicEnd:], p.nextID)
	}
	return empty
}

// bodyAt returns where the body of a packet begins.
func bodyAt(b []byte) int {
	at := 1
	for b[at] >= 0x80 {
		at++
	}
	return at + 1
}

func (p *peer) add(b []byte) {
	if len(b) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, b...)
}

// flush writes the buffer unless another goroutine is at it, which then also
// writes what was added in the meantime.
func (p *peer) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushing {
		return
	}
	p.flushing = true
	for len(p.out) > 0 {
		b := p.out
		p.out = p.spare[:0]
		p.mu.Unlock()
		_, err := p.nc.Write(b)
		p.mu.Lock()
		p.spare = b
		if err != nil {
			p.out = p.out[:0] // its reading goroutine learns of it too
		}
		p.room.Broadcast()
	}
	p.flushing = false
}
