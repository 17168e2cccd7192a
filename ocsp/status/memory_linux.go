package status

import (
	"runtime"
	"syscall"
)

// large is the size from which a segment lives outside the garbage collector's heap: there its gigabytes do not double
// before they are collected, and large pages spare most look-ups a walk through the page tables.
const large = 1 << 20

// allot returns zeroed memory that belongs to s and is given back when nobody holds s any more.
func allot(s *segment, size int) []byte {
	if size < large {
		return make([]byte, size)
	}
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size)
	}
	_ = syscall.Madvise(mem, syscall.MADV_HUGEPAGE) // a wish
	runtime.AddCleanup(s, func(mem []byte) { _ = syscall.Munmap(mem) }, mem)
	return mem
}
