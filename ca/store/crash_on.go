//go:build crashtest

package store

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	crashAt, _  = strconv.ParseInt(os.Getenv("JPKI_CRASH_AT"), 10, 64)
	crashPoints atomic.Int64
)

// CrashPoint counts the places it is called at, from 1, and at the one that the environment's JPKI_CRASH_AT names kills the
// process as nothing inside it can notice. It exists only under the build tag crashtest.
func CrashPoint(when, what string) {
	if n := crashPoints.Add(1); n == crashAt {
		if f := strings.Fields(what); len(f) > 3 {
			what = strings.Join(f[:3], " ")
		}
		fmt.Fprintln(os.Stderr, "crash point", n, when, what)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

// CrashPoints returns how many places have been passed.
func CrashPoints() int64 { return crashPoints.Load() }

func crashPoint(when, what string) { CrashPoint(when, what) }
