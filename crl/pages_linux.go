package crl

import "syscall"

// useLargePages asks for memory in large pages, of which the processor remembers where they are: with small ones every look-up
// in a long list would have to find that out, too. Without them all is slower, and otherwise the same.
func useLargePages(b []byte) {
	const largePage = 2 << 20
	if len(b) >= largePage {
		_ = syscall.Madvise(b, syscall.MADV_HUGEPAGE)
	}
}
