package segment

import (
	"fmt"
	"runtime/debug"
	"syscall"
	"unsafe"
)

// A page of a mapping that the disk cannot deliver is no error of a read: it
// is a fault (SIGBUS), which ends the process unless the goroutine has asked
// for a panic in its place. So whoever touches mapped bytes for the first time
// does so between debug.SetPanicOnFault and a recover, and gets an error about
// one range.

// faultPage is the least size of a page on the platforms that we know: to touch
// one byte in each is to touch all of them.
const (
	faultShift = 12
	faultPage  = 1 << faultShift
)

// fault turns what a recover has caught into an error if it was a fault within
// data. Anything else goes on as the panic that it is.
func fault(caught any, data []byte) (off int, err error) {
	f, ok := caught.(interface {
		error
		Addr() uintptr
	})
	if !ok {
		panic(caught)
	}
	at := f.Addr() - uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	if at >= uintptr(len(data)) {
		panic(caught)
	}
	return int(at), fmt.Errorf("%w: the disk cannot deliver the page at offset %d: %w", ErrDamaged, int(at)&^(faultPage-1), syscall.EIO)
}

// touch reads a byte of every page of [from, to). It is not to be inlined: the
// compiler would leave out what nobody uses.
//
//go:noinline
func touch(data []byte, from, to int) (sum byte) {
	for ; from < to; from = (from + faultPage) &^ (faultPage - 1) {
		sum += data[from]
	}
	return sum
}

// readable returns how far data can be read from off on, at most to its end.
func readable(data []byte, off int) (to int) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if caught := recover(); caught != nil {
			at, _ := fault(caught, data)
			to = max(at&^(faultPage-1), off)
		}
	}()
	touch(data, off, len(data))
	return len(data)
}

// tryRecord is decodeRecord of bytes that may not be readable. Those of the
// record that it finds have been read a moment ago.
func tryRecord(data []byte, off int, salt uint32, verify bool, rec *Record) (next int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if caught := recover(); caught != nil {
			_, err = fault(caught, data)
		}
	}()
	next, err = decodeRecord(data, off, salt, verify, rec)
	if err == nil && !verify && off>>faultShift != (next-1)>>faultShift {
		touch(data, off, min(next, len(data)))
	}
	return next, err
}

// tryResync is resync that goes around what cannot be read.
func tryResync(data []byte, off int, salt uint32, blank int) (int, bool) {
	for off < len(data) {
		to := readable(data, off)
		if at, ok := resync(data[:to], off, salt, blank); ok {
			return at, true
		}
		for off = to; off < len(data) && readable(data[:min(off+faultPage, len(data))], off) == off; {
			off = (off + faultPage) &^ (faultPage - 1)
		}
	}
	return 0, false
}

// Try calls fn, which reads or writes data, a mapping, and returns an error if
// a page of it cannot be had.
func Try(data []byte, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if caught := recover(); caught != nil {
			_, err = fault(caught, data)
		}
	}()
	return fn()
}
