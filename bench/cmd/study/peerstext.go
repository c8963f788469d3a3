//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	"cairnmq/bench/chart"
	"cairnmq/bench/load"
)

// peersText is the part of the page about all brokers.
func (l *lab) peersText(rows []row, players []*player, runs []run) string {
	var b strings.Builder
	where := l.conditions()
	if len(runs) > 0 {
		where = runs[len(runs)-1].Conditions
	}
	fmt.Fprintf(&b, "%s.\n", where)
	var versions []string
	for _, p := range players {
		if p.version != "" && p.name != always && p.name != classOS && p.name != natsAlways {
			versions = append(versions, p.name+" "+p.version)
		}
	}
	fmt.Fprintf(&b, "%s. %s\n\n", strings.Join(versions, ", "), medianWords(runs))
	for at := 0; at < len(rows); {
		end := at
		for end < len(rows) && rows[end].section == rows[at].section {
			end++
		}
		b.WriteString(section(rows, at, end, players, runs))
		at = end
	}
	return b.String()
}

// medianWords says how many rounds there were and how quiet the machine was.
func medianWords(runs []run) string {
	rounds := 0
	var others []float64
	for _, r := range runs {
		rounds = max(rounds, r.Round)
		for _, p := range r.Result.Phases {
			others = append(others, p.OtherMs)
		}
	}
	return roundWords(rounds, others)
}

// roundWords says the same of any study, from what everything but broker and
// generator took in each phase, in ms per second.
func roundWords(rounds int, others []float64) string {
	text := fmt.Sprintf("Medians of %d rounds.", rounds)
	if rounds == 1 {
		text = "One round."
	}
	if busy := median(others); busy > 100 {
		text += fmt.Sprintf(" **The machine was busy: other programs took %.1f of its cores meanwhile (median), so all rates and latencies are too bad.**", busy/1000)
	}
	return text
}

// section is one table: rows[at:end] by the players that have a cell in it.
func section(rows []row, at, end int, players []*player, runs []run) string {
	var columns []*player
	for _, p := range players {
		if slices.ContainsFunc(rows[at:end], func(r row) bool { return slices.Contains(r.players, p.name) }) {
			columns = append(columns, p)
		}
	}
	head := []string{strings.ToLower(rows[at].section)}
	for _, p := range columns {
		head = append(head, p.name)
	}
	var t table
	var notes []string
	t.head(append(head, "goal", "met")...)
	for i := at; i < end; i++ {
		r := &rows[i]
		cells := []string{r.label}
		met := ""
		for _, p := range columns {
			text, c := "", cell{}
			if found := of(rows, i, p.name, runs); len(found) > 0 {
				c = cellOf(r, found)
				text = r.words(c)
				if c.why != "" {
					notes = append(notes, fmt.Sprintf("- %s, %s: %s\n", r.label, p.name, c.why))
				}
				if p.name == interval || p.name == always && !slices.Contains(r.players, interval) {
					met = verdict(r, c)
					if base := slices.IndexFunc(rows, func(o row) bool { return o.label == r.against }); r.metBy != nil && base >= 0 {
						met = yesOrNo(c.wrong == "" && r.metBy(cellOf(&rows[base], of(rows, base, p.name, runs)).phase, c.phase))
					}
				}
			}
			cells = append(cells, text)
		}
		t.row(append(cells, r.goal, met)...)
	}
	return fmt.Sprintf("### %s\n\n%s\n\n%s\n", rows[at].section, cellWords(rows[at:end]), t.b.String()+"\n"+strings.Join(notes, ""))
}

func verdict(r *row, c cell) string {
	if r.met == nil {
		return ""
	}
	return yesOrNo(c.wrong == "" && r.met(c.phase))
}

func yesOrNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// cellWords says how to read the cells of rows.
func cellWords(rows []row) string {
	words := map[shown]string{
		traffic:    "messages a second · CPU µs of the broker per message",
		latency:    "p50 · p99 · p99.9 in ms from the moment a message was due to its delivery · CPU µs per message",
		roundTrip:  "p50 µs from PUBLISH to PUBACK · CPU µs per message",
		acked:      "messages a second · p50 · p99 in ms to PUBACK · CPU µs per message",
		connection: "bytes of anonymous memory per connection",
		restart:    "ms from the start of the program to the first CONNACK",
		lost:       "messages lost",
	}
	var parts []string
	for _, r := range rows {
		if !slices.Contains(parts, words[r.shown]) {
			parts = append(parts, words[r.shown])
		}
	}
	return "Cells: " + strings.Join(parts, "; or ") + "."
}

// words is the text of a cell.
func (r *row) words(c cell) string {
	p := c.phase
	switch {
	case c.wrong == "not here":
		return "not here"
	case c.wrong != "":
		return "**" + c.wrong + "**"
	}
	switch r.shown {
	case latency:
		return fmt.Sprintf("%s · %s · %s · %s", figure(p.P50), figure(p.P99), figure(p.P999), figure(p.CPU))
	case roundTrip:
		return fmt.Sprintf("%s · %s", figure(p.P50*1000), figure(p.CPU))
	case acked:
		return fmt.Sprintf("%s/s · %s · %s · %s", large(p.Rate), figure(p.P50), figure(p.P99), figure(p.CPU))
	case connection:
		return large(p.AnonGrowth)
	case restart:
		return figure(p.Seconds * 1000)
	case lost:
		return "0"
	}
	return fmt.Sprintf("%s/s · %s", large(p.Rate), figure(p.CPU))
}

// charts draws the rows that are for it.
func (l *lab) charts(rows []row, players []*player, runs []run) error {
	draw := func(file, title, axis string, in func(*row) bool, value func(load.Phase) float64, format func(float64) string) error {
		b := chart.Bars{Title: title, Axis: axis, Format: format}
		var columns []*player
		for _, p := range players {
			if p.name != classOS && p.name != floor && p.name != natsAlways {
				columns = append(columns, p)
				b.Series = append(b.Series, chart.Series{Name: p.name, Color: p.color})
			}
		}
		for i := range rows {
			if !in(&rows[i]) {
				continue
			}
			name, _, _ := strings.Cut(rows[i].label, ", per")
			g := chart.Group{Name: name}
			for _, p := range columns {
				v, note := 0.0, ""
				if found := of(rows, i, p.name, runs); len(found) > 0 {
					if c := cellOf(&rows[i], found); c.wrong != "" {
						note = c.wrong
					} else {
						v = value(c.phase)
					}
				}
				g.Values, g.Notes = append(g.Values, v), append(g.Notes, note)
			}
			b.Groups = append(b.Groups, g)
		}
		return l.picture(file, b.SVG())
	}
	inTable := func(r *row) bool { return r.chart }
	rated := func(r *row) bool { return r.shown == latency && r.section == "Latency" }
	ms := func(v float64) string { return figure(v) + " ms" }
	for _, c := range []struct {
		file, title, axis string
		in                func(*row) bool
		value             func(load.Phase) float64
		format            func(float64) string
	}{
		{"bench-cpu.svg", "CPU time of the broker per message: less is better", "µs per message", inTable,
			func(p load.Phase) float64 { return p.CPU }, func(v float64) string { return figure(v) + " µs" }},
		{"bench-rate.svg", "Messages per second: more is better", "messages per second", inTable,
			func(p load.Phase) float64 { return p.Rate }, func(v float64) string { return large(v) + "/s" }},
		{"bench-p99.svg", "Latency at a fixed rate, 99th percentile: less is better", "ms from due to delivered", rated,
			func(p load.Phase) float64 { return p.P99 }, ms},
	} {
		if err := draw(c.file, c.title, c.axis, c.in, c.value, c.format); err != nil {
			return err
		}
	}
	return nil
}
