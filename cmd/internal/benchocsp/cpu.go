package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpuTime returns the processor time that a process, its threads and its children have used, in nanoseconds as the
// scheduler keeps them: /proc/PID/stat counts hundredths of a second.
func cpuTime(pid int) (total time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d is not there", pid)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(thread, "schedstat"))
		if err != nil {
			continue // the thread has ended
		}
		used, _, _ := strings.Cut(string(stat), " ")
		n, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n)
		children, _ := os.ReadFile(filepath.Join(thread, "children"))
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return 0, err
			}
			t, err := cpuTime(id)
			if err != nil {
				return 0, err
			}
			total += t
		}
	}
	return total, nil
}
