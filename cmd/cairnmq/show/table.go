package show

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"cairnmq/storage"
	"cairnmq/storage/inspect"
)

// Segments is the list of segments as a table, with a line of sums below and
// one line for each damage.
func Segments(w io.Writer, list []inspect.Segment, total *inspect.Total) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SEGMENT\tEND\tSTATE\tFIRST\tLAST\tRECORDS\tMESSAGES\tTOPICS\tUSED\tON DISK\tDAMAGE")
	for i := range list {
		s := &list[i]
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", Safe(s.Name), s.End, s.State, Time(s.First), Time(s.Last),
			s.Records, s.Messages, s.Topics, Bytes(s.Used), Bytes(s.Disk), damage(s))
	}
	fmt.Fprintf(t, "%d segments\t\t\t\t\t%d\t%d\t\t%s\t%s\t%d\n", total.Segments, total.Records, total.Messages,
		Bytes(total.Used), Bytes(total.Disk), total.Damages)
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range list {
		for j := range list[i].Damages {
			if _, err := fmt.Fprintf(w, "damage: %s\n", Safe(list[i].Damages[j].Error())); err != nil {
				return err
			}
		}
	}
	return nil
}

func damage(s *inspect.Segment) string {
	switch {
	case len(s.Damages) > 0:
		return fmt.Sprint(len(s.Damages))
	case s.Torn > 0:
		return fmt.Sprintf("torn %dB", s.Torn)
	case s.Scanned:
		return "none"
	}
	return "-" // not looked for
}

// LossSums adds losses up by cause and by reader.
type LossSums struct {
	Rows     int                `json:"rows"`
	Messages uint64             `json:"messages"`
	Causes   map[string]LossSum `json:"by_cause"`
	Readers  map[string]LossSum `json:"by_reader"`
}

// LossSum is one sum.
type LossSum struct {
	Rows     int    `json:"rows"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

func (s LossSum) plus(x *storage.Loss) LossSum {
	return LossSum{s.Rows + 1, s.Messages + x.Count, s.Bytes + x.Bytes}
}

// Everybody stands for the readers of a loss that concerns all.
const Everybody = "*"

// Add counts a row in. A gap that several readers share counts once in the
// sum and for its cause, and once for each of them.
func (s *LossSums) Add(x *storage.Loss) {
	if s.Causes == nil {
		s.Causes, s.Readers = make(map[string]LossSum), make(map[string]LossSum)
	}
	s.Rows++
	s.Messages += x.Count
	s.Causes[x.Cause.String()] = s.Causes[x.Cause.String()].plus(x)
	for _, r := range x.Readers {
		s.Readers[r] = s.Readers[r].plus(x)
	}
	if len(x.Readers) == 0 {
		s.Readers[Everybody] = s.Readers[Everybody].plus(x)
	}
}

// WriteText writes the sums as a table.
func (s *LossSums) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n%d rows, %d messages\n", s.Rows, s.Messages)
	sums(t, "CAUSE", s.Causes)
	sums(t, "READER", s.Readers)
	return t.Flush()
}

func sums(w io.Writer, title string, m map[string]LossSum) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(w, "%s\tROWS\tMESSAGES\tBYTES\n", title)
	for _, name := range sortedKeys(m) {
		x := m[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", word([]byte(name)), x.Rows, x.Messages, x.Bytes)
	}
}

func sortedKeys(m map[string]LossSum) []string { return slices.Sorted(maps.Keys(m)) }
