//go:build !linux

package crl

// useLargePages does what it can where there is no such thing to ask for.
func useLargePages([]byte) {}
