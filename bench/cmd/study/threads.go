//go:build linux

package main

import (
	"os"
	"strconv"
)

// everyThread does something to all threads of this process; those that they
// start later inherit it.
func everyThread(do func(tid int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := do(tid); err != nil {
			return err
		}
	}
	return nil
}
