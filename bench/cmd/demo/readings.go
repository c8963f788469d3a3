//go:build linux

package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
)

// topicRoot is the level above the sensors.
const topicRoot = "seattle"

// stream is one sensor: its topic, and the payloads in their order.
type stream struct {
	topic    string
	payloads []string
}

// readStreams reads a table whose first column is the time and whose others
// are one sensor each.
func readStreams(path string) ([]stream, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) < 2 || len(rows[0]) < 2 {
		return nil, fmt.Errorf("%s: want a head and at least one reading", path)
	}
	streams := make([]stream, len(rows[0])-1)
	for i := range streams {
		s := &streams[i]
		s.topic = topicRoot + "/" + rows[0][i+1]
		for n, row := range rows[1:] {
			value, err := strconv.ParseFloat(row[i+1], 64)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %s: %w", path, n+2, rows[0][i+1], err)
			}
			s.payloads = append(s.payloads, payload(n+1, row[0], value))
		}
	}
	return streams, nil
}

// payload is one reading as a message; numbers count from 1.
func payload(number int, time string, value float64) string {
	return fmt.Sprintf(`{"seq":%d,"time":%q,"value":%s}`, number, time, strconv.FormatFloat(value, 'f', -1, 64))
}
