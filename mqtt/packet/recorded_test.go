package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const recordedDir = "../../testdata/packets"

// recorded is one file of testdata/packets; its README has the format.
type recorded struct {
	name       string
	version    Version
	fromServer bool
	accepted   bool
	shorter    bool // encodes differently
	code       string
	cite       string
	raw        []byte
}

func readRecorded(tb testing.TB) []recorded {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(recordedDir, "*.hex"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no recorded packets in %s: %v", recordedDir, err)
	}
	var all []recorded
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		rec := recorded{name: strings.TrimSuffix(filepath.Base(path), ".hex")}
		if err := rec.parse(string(text)); err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		all = append(all, rec)
	}
	return all
}

func (rec *recorded) parse(text string) error {
	var digits strings.Builder
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case key == "# version":
			rec.version = Version(value[0] - '0')
		case key == "# from":
			rec.fromServer = value == "server"
		case key == "# expect":
			rec.accepted = strings.HasPrefix(value, "ok")
			rec.shorter = value == "ok, shorter"
			rec.code, rec.cite, _ = strings.Cut(value, " ")
		case !strings.HasPrefix(key, "#"):
			digits.WriteString(strings.ReplaceAll(key, " ", ""))
		}
	}
	if !rec.version.Valid() || rec.code == "" {
		return errors.New("version or expectation missing")
	}
	var err error
	rec.raw, err = hex.DecodeString(digits.String())
	return err
}

// decodeFrom is Decode that knows whether a PUBLISH came from a server.
func decodeFrom(v Version, f Frame, fromServer bool) (Packet, error) {
	if f.Type == PUBLISH && !fromServer {
		p := new(Publish)
		return p, p.Decode(v, f.Flags, f.Body)
	}
	return Decode(v, f)
}

func TestRecordedPackets(t *testing.T) {
	for _, rec := range readRecorded(t) {
		t.Run(rec.name, func(t *testing.T) {
			f, _, ok, err := ReadFrame(rec.raw, 0)
			if !ok || err != nil || f.Size != len(rec.raw) {
				t.Fatalf("the file is not one frame: %v %v", ok, err)
			}
			p, err := decodeFrom(rec.version, f, rec.fromServer)
			if rec.accepted {
				acceptRecorded(t, &rec, p, err)
				return
			}
			var violation *Error
			if !errors.As(err, &violation) {
				t.Fatalf("accepted, or not refused with an *Error: %v", err)
			}
			if code := fmt.Sprintf("0x%02x", byte(violation.Code)); code != rec.code {
				t.Errorf("refused with %s (%v), want %s", code, violation, rec.code)
			}
			if rec.cite != "" && violation.Cite != rec.cite {
				t.Errorf("refused because of %q, want %q", violation.Cite, rec.cite)
			}
		})
	}
}

func acceptRecorded(t *testing.T, rec *recorded, p Packet, err error) {
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	again := p.Append(nil, rec.version)
	switch {
	case rec.shorter && bytes.Equal(again, rec.raw):
		t.Errorf("encodes to the same bytes, expected a tidier form")
	case !rec.shorter && !bytes.Equal(again, rec.raw):
		t.Errorf("encodes differently:\n got %x\nwant %x", again, rec.raw)
	}
}

// TestEveryTruncationIsIncomplete cuts each packet after each byte.
func TestEveryTruncationIsIncomplete(t *testing.T) {
	for _, rec := range readRecorded(t) {
		for cut := range rec.raw {
			_, need, ok, err := ReadFrame(rec.raw[:cut], 0)
			if ok || err != nil || need <= cut || need > len(rec.raw) {
				t.Errorf("%s cut at %d of %d: need %d, ok %v, %v", rec.name, cut, len(rec.raw), need, ok, err)
			}
		}
	}
}
