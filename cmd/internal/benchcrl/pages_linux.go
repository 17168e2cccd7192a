package main

import (
	"syscall"
	"unsafe"
)

// pages returns so many octets of memory as lines of 64, in pages of 4 KiB or in huge ones, if the system gives them to who asks.
func pages(octets int, huge bool) ([][8]uint64, error) {
	octets = (octets + 2<<20 - 1) &^ (2<<20 - 1)
	b, err := syscall.Mmap(-1, 0, octets, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	advice := syscall.MADV_NOHUGEPAGE
	if huge {
		advice = syscall.MADV_HUGEPAGE
	}
	_ = syscall.Madvise(b, advice)                                           // a system without huge pages has only the others
	return unsafe.Slice((*[8]uint64)(unsafe.Pointer(&b[0])), octets/64), nil //nolint:gosec // pages are aligned
}
