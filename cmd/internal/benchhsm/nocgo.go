//go:build !cgo

// Command benchhsm needs cgo, for a token to compare with.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "benchhsm: built without cgo; use make bench-hsm with a C compiler")
	os.Exit(1)
}
