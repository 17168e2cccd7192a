//go:build !faults

package main

import (
	"crypto"
	"time"
)

// clock is the machine's.
func clock() func() time.Time { return time.Now }

// faulty is the key as it is.
func faulty(key crypto.Signer) crypto.Signer { return key }
