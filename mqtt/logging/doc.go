// Package logging sets up log/slog for the broker: text for people, JSON for machines.
//
// It promises:
//
//   - Each component has a level of its own, which can be changed while the broker runs.
//   - What clients put in a line cannot forge another line, cannot command a terminal, and is cut at MaxValue bytes.
//   - A line that repeats does not fill the disk. Of one message of one component only the first few in a second are
//     written; the rest are counted, and the count is written when the window ends. While the flood goes on the
//     window grows to a minute, with one full line and one count in it.
//
// It starts no goroutine: a count is written before the next line of any kind, or by Flush.
package logging
