package status

import (
	"runtime"
	"syscall"
	"unsafe"
)

const (
	// large is the size from which a segment lives outside the garbage collector's heap: there its gigabytes do not double
	// before they are collected, and large pages spare most look-ups a walk through the page tables.
	large = 1 << 20

	largePage = 2 << 20
)

// allot returns zeroed memory that belongs to s and is given back when nobody holds s any more.
func allot(s *segment, size int) []byte {
	if size < large {
		return make([]byte, size)
	}
	mem, err := syscall.Mmap(-1, 0, size+largePage, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return make([]byte, size)
	}
	runtime.AddCleanup(s, func(mem []byte) { _ = syscall.Munmap(mem) }, mem)
	// Memory that is not touched costs nothing, so the beginning can be moved to where large pages begin.
	begin := -int(uintptr(unsafe.Pointer(&mem[0]))) & (largePage - 1) //nolint:gosec // an address is only looked at
	if whole := size / largePage * largePage; whole > 0 {
		_ = syscall.Madvise(mem[begin:begin+whole], syscall.MADV_HUGEPAGE) // a wish
	}
	return mem[begin : begin+size : begin+size]
}
