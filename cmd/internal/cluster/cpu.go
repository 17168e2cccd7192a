package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit in which Linux counts processors' time for programs like this one.
const tick = 10 * time.Millisecond

// A cpuUse is how much processor time was used by whom.
type cpuUse struct {
	at    time.Time
	by    map[string]time.Duration // groups of processes, "load" is we ourselves
	other time.Duration            // by everything on this machine that is not ours
	idle  time.Duration
}

// cpu reads what has been used so far. A process that was ended takes its time with it.
func (c *cluster) cpu() cpuUse {
	u := cpuUse{at: time.Now(), by: map[string]time.Duration{}}
	groups := map[int]string{os.Getpid(): "load"}
	c.mu.Lock()
	for _, s := range c.services {
		s.mu.Lock()
		if s.cmd != nil {
			groups[s.cmd.Process.Pid] = strings.TrimRight(s.name, "-123456")
		}
		s.mu.Unlock()
	}
	c.mu.Unlock()
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	var ours time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; the 14th and 15th are user and system time
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 13 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, _ := strconv.Atoi(f[1])
		group := groups[pid]
		if group == "" && groups[parent] != "load" { // PostgreSQL's
			group = groups[parent]
		}
		if group == "" {
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		used := time.Duration(user+system) * tick
		u.by[group] += used
		ours += used
	}
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(first) {
		n, _ := strconv.Atoi(f)
		switch d := time.Duration(n) * tick; {
		case i == 0 || i > 8:
		case i == 4 || i == 5: // idle, waiting for a disk
			u.idle += d
		default:
			u.other += d
		}
	}
	u.other -= ours
	return u
}

// since is what was used in between.
func (u cpuUse) since(before cpuUse) cpuUse {
	d := cpuUse{at: u.at, by: map[string]time.Duration{}, other: max(0, u.other-before.other), idle: u.idle - before.idle}
	seconds := u.at.Sub(before.at).Seconds()
	share := func(used time.Duration) time.Duration { return time.Duration(float64(used) / seconds) }
	for group, used := range u.by {
		d.by[group] = share(max(0, used-before.by[group]))
	}
	d.other, d.idle = share(d.other), share(d.idle)
	return d
}

// busy is the share of all processors that was used, by us or others.
func (u cpuUse) busy() float64 { return 1 - u.idle.Seconds()/float64(runtime.NumCPU()) }

// String names groups of processes with the processors that they used, the most first.
func (u cpuUse) String() string {
	var names []string
	for name := range u.by {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(u.by[b] - u.by[a]) })
	var out []string
	for _, name := range names {
		if used := u.by[name].Seconds(); used >= 0.005 {
			out = append(out, fmt.Sprintf("%s %.2f", name, used))
		}
	}
	return strings.Join(out, ", ") + fmt.Sprintf(", others' %.2f", u.other.Seconds())
}
