package chart

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestBars(t *testing.T) {
	b := Bars{
		Title:  "CPU <per> message",
		Axis:   "µs",
		Series: []Series{{"one", "#123456"}, {"two & more", "#abcdef"}},
		Groups: []Group{
			{Name: "fan-in", Values: []float64{0.5, 50}},
			{Name: "kill", Values: []float64{3, 0}, Notes: []string{"", "all lost"}},
			{Name: "shared", Values: []float64{0, 9}},
		},
		Format: func(v float64) string { return fmt.Sprintf("%.3g µs", v) },
	}
	svg := b.SVG()
	bars, texts := 0, map[string]bool{}
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			for _, a := range token.Attr {
				if token.Name.Local == "rect" && a.Name.Local == "height" && a.Value == "13" {
					bars++
				}
				var v float64
				if a.Name.Local == "x" || a.Name.Local == "width" {
					if _, err := fmt.Sscan(a.Value, &v); err != nil || v < 0 || v > width {
						t.Errorf("%s=%q is outside of the picture", a.Name.Local, a.Value)
					}
				}
			}
		case xml.CharData:
			texts[strings.TrimSpace(string(token))] = true
		}
	}
	if bars != 4 {
		t.Errorf("%d bars, want 4", bars)
	}
	for _, want := range []string{"CPU <per> message", "two & more", "fan-in", "all lost", "–", "0.5 µs", "0.1", "100", "µs (logarithmic)"} {
		if !texts[want] {
			t.Errorf("no text %q in\n%s", want, svg)
		}
	}
	if empty := (&Bars{Format: b.Format}).SVG(); !strings.HasSuffix(empty, "</svg>\n") {
		t.Errorf("without values:\n%s", empty)
	}
}
