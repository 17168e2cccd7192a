package ocspload

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// nap sleeps for a short while, precisely.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil)
}

// cpuTime returns the processor time this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A machine is what /proc/stat said of all processors, in ticks.
type machine struct{ busy, all float64 }

func readMachine() (m machine) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	for i, f := range bytes.Fields(line) {
		n, err := strconv.ParseFloat(string(f), 64)
		if i == 0 || i > 8 || err != nil { // cpu user nice system idle iowait irq softirq steal
			continue
		}
		if m.all += n; i != 4 && i != 5 {
			m.busy += n
		}
	}
	return m
}

// busySince returns the share of the processors in use since then, negative if it is not known.
func (m machine) busySince() float64 {
	now := readMachine()
	if now.all <= m.all {
		return -1
	}
	return (now.busy - m.busy) / (now.all - m.all)
}
