//go:build faults

package main

import (
	"crypto"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Built with the tag faults, the program has faults that cannot be had from outside: libfaketime does not reach a static
// program, and a key that is in memory is not lost with its file. JPKI_FAULTS names a file that is read again and again;
// its lines are "clock -10m", for what the clock says too much, and "key fails" or "key hangs". No release is built so.

type faults struct {
	clock atomic.Int64
	key   atomic.Pointer[string]
}

var readFaults = sync.OnceValue(func() *faults {
	f := &faults{}
	path := os.Getenv("JPKI_FAULTS")
	if path == "" {
		return f
	}
	f.read(path)
	go func() {
		for {
			time.Sleep(5 * time.Millisecond)
			f.read(path)
		}
	}()
	return f
})

func (f *faults) read(path string) {
	text, _ := os.ReadFile(path) //nolint:gosec // of the operator who wants faults
	var offset time.Duration
	key := ""
	for line := range strings.Lines(string(text)) {
		switch what, how, _ := strings.Cut(strings.TrimSpace(line), " "); what {
		case "clock":
			offset, _ = time.ParseDuration(how)
		case "key":
			key = how
		}
	}
	f.clock.Store(int64(offset))
	f.key.Store(&key)
}

// clock is the machine's, and what the fault adds; a jump is one of the time of day and of all that is reckoned by it.
func clock() func() time.Time {
	f := readFaults()
	return func() time.Time { return time.Now().Add(time.Duration(f.clock.Load())) }
}

// A faultyKey is one in another machine, which can be away.
type faultyKey struct {
	crypto.Signer
	f *faults
}

func faulty(key crypto.Signer) crypto.Signer {
	if os.Getenv("JPKI_FAULTS") == "" {
		return key
	}
	return faultyKey{key, readFaults()}
}

func (k faultyKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	for *k.f.key.Load() == "hangs" {
		time.Sleep(5 * time.Millisecond)
	}
	if *k.f.key.Load() == "fails" {
		return nil, errors.New("the key is away")
	}
	return k.Signer.Sign(rand, digest, opts)
}
