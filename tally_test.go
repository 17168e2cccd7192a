package jpki_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

func TestTally(t *testing.T) {
	var tally jpki.Tally
	if got := tally.Snapshot(); len(got) != 0 {
		t.Errorf("a new tally has counted %v", got)
	}
	const workers, times, labels = 8, 1000, 4
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range times {
				tally.Add(strconv.Itoa(i % labels))
				if i%100 == 0 {
					tally.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	const each = workers * times / labels
	got := tally.Snapshot()
	if diff := cmp.Diff(map[string]uint64{"0": each, "1": each, "2": each, "3": each}, got); diff != "" {
		t.Error(diff)
	}
	got["0"] = 0
	if tally.Snapshot()["0"] != each {
		t.Error("a snapshot is not a copy")
	}
}
