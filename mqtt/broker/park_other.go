//go:build !linux

package broker

import "errors"

// lot is nothing here: every connection keeps its goroutine.
type lot struct{}

func newLot() *lot { return nil }

func (*lot) close() {}

func (*lot) add(*conn) (uint64, error) { return 0, errors.ErrUnsupported }

func (*lot) remove(*conn, uint64) {}
