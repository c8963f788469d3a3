package segment

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const fileTestSize = 64 << 10

// fileTestSegment makes a segment with n records of 100 bytes and leaves it open.
func fileTestSegment(t *testing.T, size int64, n int) *Segment {
	t.Helper()
	s, err := Create(OS{}, t.TempDir(), FileHead{Base: 1 << 20, Size: size, Salt: 7, Boot: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Abandon() })
	for i := range n {
		fileTestPut(s, fmt.Sprintf("%0100d", i))
	}
	return s
}

func fileTestPut(s *Segment, body string) Pos {
	copy(s.Reserve(len(body)), body)
	return s.Commit(len(body), &Head{Kind: 1, Wall: 5})
}

func fileTestSeal(t *testing.T, s *Segment) {
	t.Helper()
	if err := s.WriteSeal(OS{}, Seal{Records: 3, First: 5, Last: 5}, Head{Wall: 9}); err != nil {
		t.Fatal(err)
	}
}

func fileTestOpen(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// drain reads until ErrEnd.
func fileTestDrain(t *testing.T, f *File) (records int, damages []*Damage) {
	t.Helper()
	for {
		_, err := f.Next()
		var d *Damage
		switch {
		case errors.Is(err, ErrEnd):
			return records, damages
		case errors.As(err, &d):
			damages = append(damages, d)
		case err != nil:
			t.Fatal(err)
		default:
			records++
		}
		if len(damages) > 100 {
			t.Fatal("does not end")
		}
	}
}

func fileTestOverwrite(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// The records of fileTestSegment take 136 bytes each: 32 and 100 and padding.
func fileTestRecordAt(i int) int64 { return FileHeadLen + int64(i)*136 }

func TestFileReadsWhatIsLeft(t *testing.T) {
	for _, row := range []struct {
		name    string
		do      func(t *testing.T, s *Segment)
		records int
		damages int
		sealed  bool
		torn    bool
	}{
		{"untouched", func(*testing.T, *Segment) {}, 10, 0, false, false},
		{"sealed and cut", fileTestSeal, 10, 0, true, false},
		{"sealed, not yet cut", func(t *testing.T, s *Segment) {
			fileTestSeal(t, s)
			if err := os.Truncate(s.Path, fileTestSize); err != nil {
				t.Fatal(err)
			}
		}, 10, 0, true, false},
		{"a body flipped", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(3)+50, []byte{0xff})
		}, 9, 1, false, false},
		{"a length flipped", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(3)+1, []byte{0x7f})
		}, 9, 1, false, false},
		{"a length of a gigabyte", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(3), []byte{0, 0, 0, 0x40})
		}, 9, 1, false, false},
		{"a record zeroed", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(3), make([]byte, 136))
		}, 9, 1, false, false},
		{"two places", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(3), bytes.Repeat([]byte{0xaa}, 272))
			fileTestOverwrite(t, s.Path, fileTestRecordAt(7)+40, []byte{0xff})
		}, 7, 2, false, false},
		{"the last record torn", func(t *testing.T, s *Segment) {
			fileTestOverwrite(t, s.Path, fileTestRecordAt(9)+100, []byte{0xff})
		}, 9, 0, false, true},
		{"the seal flipped", func(t *testing.T, s *Segment) {
			fileTestSeal(t, s)
			fileTestOverwrite(t, s.Path, fileTestRecordAt(10)+40, []byte{0xff})
		}, 10, 1, false, true},
		{"cut in a record", func(t *testing.T, s *Segment) {
			if err := os.Truncate(s.Path, fileTestRecordAt(5)+60); err != nil {
				t.Fatal(err)
			}
		}, 5, 1, false, true},
		{"cut in the head of a record", func(t *testing.T, s *Segment) {
			if err := os.Truncate(s.Path, fileTestRecordAt(5)+3); err != nil {
				t.Fatal(err)
			}
		}, 5, 1, false, false},
		{"cut between records", func(t *testing.T, s *Segment) {
			if err := os.Truncate(s.Path, fileTestRecordAt(5)); err != nil {
				t.Fatal(err)
			}
		}, 5, 1, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := fileTestSegment(t, fileTestSize, 10)
			row.do(t, s)
			f := fileTestOpen(t, s.Path)
			records, damages := fileTestDrain(t, f)
			_, _, sealed := f.Sealed()
			if records != row.records || len(damages) != row.damages || sealed != row.sealed || (f.Torn() > 0) != row.torn {
				t.Fatalf("%d records, damages %v, sealed %v, torn %d", records, damages, sealed, f.Torn())
			}
			for _, d := range damages {
				if !errors.Is(d, ErrDamaged) || d.From >= d.To {
					t.Fatalf("damage %v", d)
				}
			}
			if n, again := fileTestDrain(t, f); n != 0 || len(again) != 0 {
				t.Fatalf("a second look found %d records and %v", n, again)
			}
		})
	}
}

func TestFileAgreesWithRecover(t *testing.T) {
	s := fileTestSegment(t, fileTestSize, 40)
	fileTestOverwrite(t, s.Path, fileTestRecordAt(5)+50, []byte{1})
	fileTestOverwrite(t, s.Path, fileTestRecordAt(20), make([]byte, 136))
	data, err := os.ReadFile(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	var want []Pos
	r, err := Recover(s.Path, data, 0, func(rec Record) error { want = append(want, rec.Pos); return nil })
	if err != nil {
		t.Fatal(err)
	}
	f := fileTestOpen(t, s.Path)
	var got []Pos
	damages := 0
	for {
		rec, err := f.Next()
		if errors.Is(err, ErrEnd) {
			break
		}
		if err != nil {
			d := r.Damages[damages]
			var mine *Damage
			if !errors.As(err, &mine) || mine.From != d.From || mine.To != d.To {
				t.Fatalf("%v, Recover says %v", err, &d)
			}
			damages++
			continue
		}
		got = append(got, rec.Pos)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || damages != len(r.Damages) || f.Pos() != s.Base+Pos(r.End) {
		t.Fatalf("%d records, %d damages, end %d", len(got), damages, f.Pos())
	}
}

func TestFileFollowsTheWriterToTheSeal(t *testing.T) {
	s := fileTestSegment(t, fileTestSize, 0)
	f := fileTestOpen(t, s.Path)
	for i := range 100 {
		if n, d := fileTestDrain(t, f); n != 0 || d != nil {
			t.Fatalf("%d records, %v before anything was written", n, d)
		}
		want := fmt.Sprintf("body %d", i)
		pos := fileTestPut(s, want)
		rec, err := f.Next()
		if err != nil || rec.Pos != pos || string(rec.Body) != want {
			t.Fatalf("record %d: %v, %v", i, rec, err)
		}
	}
	fileTestPut(s, "last")
	fileTestSeal(t, s)
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if n, d := fileTestDrain(t, f); n != 1 || d != nil {
		t.Fatalf("%d records, %v", n, d)
	}
	if seal, head, ok := f.Sealed(); !ok || seal.Records != 3 || head.Wall != 9 {
		t.Fatalf("seal %+v %+v %v", seal, head, ok)
	}
}

func TestFileFindsTheSealWithoutReading(t *testing.T) {
	s := fileTestSegment(t, fileTestSize, 10)
	f := fileTestOpen(t, s.Path)
	if _, _, ok := f.FindSeal(); ok {
		t.Fatal("found a seal in an open segment")
	}
	fileTestSeal(t, s)
	seal, head, ok := f.FindSeal()
	if !ok || seal.End != fileTestRecordAt(10) || head.Kind != KindSeal {
		t.Fatalf("seal %+v %+v %v", seal, head, ok)
	}
	if n, d := fileTestDrain(t, f); n != 10 || d != nil {
		t.Fatalf("%d records, %v", n, d)
	}
}

func TestFileSeesDamageBehindWhatItTookForTheEnd(t *testing.T) {
	s := fileTestSegment(t, fileTestSize, 5)
	fileTestOverwrite(t, s.Path, fileTestRecordAt(4), make([]byte, 136))
	f := fileTestOpen(t, s.Path)
	if n, d := fileTestDrain(t, f); n != 4 || d != nil {
		t.Fatalf("%d records, %v", n, d)
	}
	fileTestPut(s, "behind")
	if n, d := fileTestDrain(t, f); n != 0 || d != nil {
		t.Fatalf("searched the reserved space again: %d, %v", n, d)
	}
	f.Recheck()
	if n, d := fileTestDrain(t, f); n != 1 || len(d) != 1 {
		t.Fatalf("%d records, %v", n, d)
	}
}

func TestFileReadsRecordsLongerThanAChunk(t *testing.T) {
	s := fileTestSegment(t, 16<<20, 3)
	long := string(bytes.Repeat([]byte("0123456789abcdef"), 3<<16))
	fileTestPut(s, long)
	fileTestPut(s, "after")
	f := fileTestOpen(t, s.Path)
	for range 3 {
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := f.Next(); err != nil || string(rec.Body) != long {
		t.Fatalf("long record: %d bytes, %v", len(rec.Body), err)
	}
	if rec, err := f.Next(); err != nil || string(rec.Body) != "after" {
		t.Fatalf("%q, %v", rec.Body, err)
	}
}

func TestFileSpendsBoundedMemoryOnADamagedLength(t *testing.T) {
	s := fileTestSegment(t, 64<<20, 3)
	fileTestOverwrite(t, s.Path, fileTestRecordAt(1), []byte{0, 0, 0, 3}) // 48 MiB
	f := fileTestOpen(t, s.Path)
	if n, d := fileTestDrain(t, f); n != 2 || len(d) != 1 {
		t.Fatalf("%d records, %v", n, d)
	}
	if cap(f.buf) > 2*fileChunk {
		t.Fatalf("%d bytes of buffer", cap(f.buf))
	}
}

func TestFileGivesUpOnBytesMadeToBeSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := fileTestSegment(t, 32<<20, 1)
	// Every 8 bytes the length of a record of 4 MiB.
	fileTestOverwrite(t, s.Path, fileTestRecordAt(0), bytes.Repeat([]byte{0, 0, 0x40, 0, 1, 2, 3, 4}, 24<<17))
	f := fileTestOpen(t, s.Path)
	if n, d := fileTestDrain(t, f); n != 0 || d != nil {
		t.Fatalf("%d records, %v", n, d)
	}
}

func TestFileNoticesThatItWasReused(t *testing.T) {
	s := fileTestSegment(t, fileTestSize, 1)
	f := fileTestOpen(t, s.Path)
	fileTestDrain(t, f)
	f.Recheck()
	b := make([]byte, FileHeadLen)
	EncodeFileHead(b, FileHead{Base: 2 << 20, Size: fileTestSize, Salt: 8})
	fileTestOverwrite(t, s.Path, 0, b)
	if _, err := f.Next(); !errors.Is(err, ErrReplaced) {
		t.Fatalf("error %v", err)
	}
}

func TestOpenFileRefusesWhatIsNoSegment(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"empty", nil, ErrDamaged},
		{"short", []byte("CAIRNSEG"), ErrDamaged},
		{"text", bytes.Repeat([]byte("hello "), 100), ErrDamaged},
		{"newer", append([]byte("CAIRNSEG\x09\x00"), make([]byte, 100)...), ErrNewer},
	} {
		path := filepath.Join(dir, row.name)
		if err := os.WriteFile(path, row.bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path); !errors.Is(err, row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if _, err := OpenFile(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
