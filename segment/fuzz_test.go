package segment

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzRecords writes records, damages the bytes as the fuzzer likes, and reads
// them back: nothing panics, and what is read was written, byte for byte and
// in order.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("a body|another|"), uint16(70), []byte{1}, uint16(4096))
	f.Add([]byte("|||||"), uint16(64), []byte{0xff, 0xff, 0xff, 0xff}, uint16(100))
	f.Add(bytes.Repeat([]byte("longer bodies are longer|"), 20), uint16(200), bytes.Repeat([]byte{0}, 40), uint16(600))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, damage []byte, cut uint16) {
		const size = 8192
		data := make([]byte, size)
		EncodeFileHead(data, FileHead{Base: FirstBase, Size: size, Salt: 7})
		type written struct {
			pos  Pos
			body []byte
		}
		var want []written
		off := FileHeadLen
		for i, body := range bytes.Split(content, []byte("|")) {
			n := RecordHead + len(body)
			if off+PaddedLen(len(body))+SealLen > size {
				break
			}
			copy(data[off+RecordHead:], body)
			encodeRecord(data[off:off+n], 7, &Head{Kind: Kind(1 + i%20), Wall: int64(i)})
			want = append(want, written{FirstBase + Pos(off), body})
			off += PaddedLen(len(body))
		}
		// The header is checked by its own test: damage lies behind it.
		copy(data[max(int(at)%size, FileHeadLen):], damage)
		data = data[:max(min(int(cut), size), FileHeadLen)]

		next := 0
		r, err := Recover("fuzz", data, 0, func(rec Record) error {
			for next < len(want) && want[next].pos < rec.Pos {
				next++
			}
			// Damage may by its bytes be a sound record; whoever can make
			// a checksum can write one. It is told by its place.
			if next < len(want) && want[next].pos == rec.Pos && !bytes.Equal(rec.Body, want[next].body) && !bytes.Contains(damage, rec.Body) {
				t.Fatalf("record at %d reads as %q, written was %q", rec.Pos, rec.Body, want[next].body)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.End > int64(len(data)) {
			t.Fatalf("end %d behind the file's %d bytes", r.End, len(data))
		}
		for _, d := range r.Damages {
			if d.From >= d.To || !errors.Is(&d, ErrDamaged) {
				t.Fatalf("damage %v", &d)
			}
		}
	})
}
