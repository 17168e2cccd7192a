package main

import (
	"strings"
	"testing"
	"time"
)

// seconds is a sample of so many certificates in one second of everything.
func seconds(certs int) sample {
	return sample{certs: certs, wall: time.Second, cpu: time.Second, database: time.Second, limits: limits{signature: 1000, bound: 900}}
}

func measured(rows map[row][]sample) *results {
	r := &results{samples: map[row][]sample{}}
	for at, samples := range rows {
		for _, s := range samples {
			r.add(at, s)
		}
	}
	return r
}

func TestRatiosAreTakenWithinARoundAndTheirMedianCounts(t *testing.T) {
	ours, peer := row{outside, p256, 8}, row{stepCA, p256, 8}
	r := measured(map[row][]sample{ours: {seconds(100), seconds(900), seconds(400)}, peer: {seconds(100), seconds(100), seconds(100)}})
	if got := r.ratio(ours, peer, sample.rate); got != 4 {
		t.Errorf("the ratio is %v, not the middle one", got)
	}
	if got := r.ratio(ours, row{cfssl, p256, 8}, sample.rate); got != 0 {
		t.Errorf("against a peer that was not measured the ratio is %v", got)
	}
}

func TestTargetsSayWhetherEveryFigureReachesThem(t *testing.T) {
	for _, test := range []struct {
		name   string
		target target
		want   string
	}{
		{"reached", target{want: 0.5, reached: []figure{{0.5, ""}, {0.7, ""}}}, "yes  0.5, 0.7"},
		{"one is too little", target{want: 0.5, reached: []figure{{0.49, ""}, {0.7, ""}}}, "no   0.49, 0.7"},
		{"few enough", target{want: 60, atMost: true, reached: []figure{{59, "s"}}}, "yes  59 s"},
		{"too many", target{want: 60, atMost: true, reached: []figure{{61, "s"}}}, "no   61 s"},
		{"none", target{want: 60, missing: "because"}, "not measured: because"},
	} {
		if got := test.target.String(); !strings.HasSuffix(got, test.want) {
			t.Errorf("%s: %q does not end with %q", test.name, got, test.want)
		}
	}
}

func TestTargetsBeyondTheBoundAreCalledSo(t *testing.T) {
	slow := seconds(100)
	slow.limits.bound = 840
	for _, test := range []struct {
		sample sample
		beyond bool
	}{{seconds(100), false}, {slow, true}} {
		r := measured(map[row][]sample{{inside, rsa2048, 8}: {test.sample}})
		if line := r.targets()[0].String(); strings.Contains(line, "out of reach") != test.beyond {
			t.Errorf("bound %v: %s", test.sample.limits.bound, line)
		}
	}
}

func TestARatioThatTheBoundForbidsIsCalledSo(t *testing.T) {
	ours, peer := row{outside, rsa2048, 8}, row{stepCA, rsa2048, 8}
	for certs, beyond := range map[int]bool{360: false, 361: true} { // 2.5 times 360 is the bound
		line := measured(map[row][]sample{ours: {seconds(100)}, peer: {seconds(certs)}}).targets()[3].String()
		if strings.Contains(line, "out of reach") != beyond {
			t.Errorf("peer makes %d: %s", certs, line)
		}
	}
}

func TestTheTableLinesUp(t *testing.T) {
	r := measured(map[row][]sample{{inside, rsa2048, 8}: {seconds(1)}, {outside, p256, 32}: {seconds(123456)}, {stepCA, p256, 32}: {{certs: 10, wall: time.Second, cpu: time.Second}}})
	var out strings.Builder
	r.table(&out)
	lines := strings.Split(out.String(), "\n")
	end := strings.Index(lines[0], "with DB") + len("with DB")
	seen := 0
	for _, line := range lines[1:] {
		for _, name := range []string{inside, outside} {
			if strings.HasPrefix(line, name) {
				seen++
				if len(line) != len(lines[0]) || line[end-1] == ' ' || line[end] != ' ' {
					t.Errorf("%q is not under %q", line, lines[0])
				}
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d rows of 2", seen)
	}
}

func TestQuartersAreThoseOfTheWork(t *testing.T) {
	first, last := quarters([]footprint{{0, 10, 1}, {0.2, 20, 3}, {0.5, 1000, 1000}, {0.8, 30, 5}, {1, 50, 7}})
	if first.resident != 15 || first.heap != 2 || last.resident != 40 || last.heap != 6 {
		t.Errorf("first %v, last %v", first, last)
	}
	if target := memoryTarget(5, []footprint{{0, 100, 0}, {1, 109, 0}}); !target.met() {
		t.Error("nine per cent more is not flat")
	}
	if target := memoryTarget(5, []footprint{{0, 100, 0}, {1, 111, 0}}); target.met() {
		t.Error("eleven per cent more is flat")
	}
}
