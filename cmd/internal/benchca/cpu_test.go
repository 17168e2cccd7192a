package main

import (
	"testing"
	"time"
)

func TestOwnWorkIsNotOthers(t *testing.T) {
	start := meter{at: time.Unix(0, 0), busy: 100 * time.Second, ours: 10 * time.Second}
	end := meter{at: time.Unix(10, 0), busy: 110 * time.Second, ours: 20 * time.Second}
	if got := start.others(end); got != 0 {
		t.Errorf("others used %v, but all was ours", got)
	}
	end.ours = 15 * time.Second
	if got := start.others(end); got <= 0 || got > 0.5 {
		t.Errorf("others used %v of the processors, not half of one", got)
	}
}

func TestAProcessUsesTime(t *testing.T) {
	before := ownCPU()
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
		continue
	}
	if ownCPU() <= before {
		t.Error("a busy process used no processor time")
	}
}
