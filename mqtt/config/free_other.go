//go:build !linux

package config

func freeSpace(string) (Size, bool) { return 0, false }
