package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// lookups are what a look-up in the published list takes once it is in memory, and what waiting for that memory takes: all in
// nanoseconds of processor time but octets.
type lookups struct {
	memory float64 // one read of as much memory as the list takes, whose place the one before tells
	huge   float64 // the same in huge pages, where the system has them
	find   float64 // List.Find of serials that are listed, each after the one before
	many   float64 // List.FindAll of them
	absent float64 // List.FindAll of serials that are not listed, as most are that are asked about
	peer   float64 // a Go map of them; 0 for longer lists
	octets float64 // resident for an entry
}

const asked = 400_000 // serials

// measureLookups runs them in a process of its own.
func measureLookups(ctx context.Context, dir string) (l lookups, err error) {
	out, err := exec.CommandContext(ctx, os.Args[0], "task", "lookups", dir).Output() //nolint:gosec // this program
	if err != nil {
		return l, err
	}
	_, err = fmt.Sscan(string(out), &l.memory, &l.huge, &l.find, &l.many, &l.absent, &l.peer, &l.octets)
	return l, err
}

// runLookups measures and prints them.
func runLookups(dir string) error {
	_, cert, err := openKey(dir)
	if err != nil {
		return err
	}
	der, err := os.ReadFile(filepath.Join(dir, "crl", crl.ID{Issuer: issuer}.Path()))
	if err != nil {
		return err
	}
	before := resident()
	list, err := crl.Load(bytes.NewReader(der), cert)
	if err != nil {
		return err
	}
	entries := list.Head().Entries
	l := lookups{octets: float64(resident()-before) / float64(entries)}
	runtime.KeepAlive(der)

	serials := make([]jpki.Serial, 0, entries)
	for e := range list.All() {
		serials = append(serials, e.Serial)
	}
	rnd := rand.New(rand.NewPCG(2, uint64(entries))) //nolint:gosec // test data
	rnd.Shuffle(len(serials), func(i, j int) { serials[i], serials[j] = serials[j], serials[i] })
	some := slices.Clone(serials[:min(asked, entries)])

	for _, huge := range []bool{false, true} {
		memory, err := pages(entries*32, huge)
		if err != nil {
			return err
		}
		each := chase(memory, rnd)
		if huge {
			l.huge = each
		} else {
			l.memory = each
		}
	}
	missed := 0
	l.find = perQuestion(len(some), func() {
		for i := 0; i < len(some); {
			e, ok := list.Find(some[i])
			if !ok {
				missed++
			}
			i += 1 + int(e.Reason)>>8 // which is 0: but the processor has to wait for it
		}
	})
	found := 0
	l.many = perQuestion(len(some), func() {
		for range list.FindAll(some) {
			found++
		}
	})
	none := slices.Clone(some)
	for i, s := range some {
		octets := s.Bytes()
		octets[len(octets)-1] ^= 1
		if none[i], err = jpki.SerialFromBytes(octets); err != nil {
			return err
		}
	}
	l.absent = perQuestion(len(none), func() {
		for range list.FindAll(none) {
			missed++ // random serials have no neighbours
		}
	})
	if entries < 2*stdlibLimit { // there are those of the update, too
		peer := make(map[jpki.Serial]uint32, entries)
		for i, s := range serials {
			peer[s] = uint32(i)
		}
		l.peer = perQuestion(len(some), func() {
			for i := 0; i < len(some); {
				at, ok := peer[some[i]]
				if !ok {
					missed++
				}
				i += 1 + int(at>>31)
			}
		})
	}
	if missed > 0 || found%len(some) != 0 {
		return fmt.Errorf("%d wrong answers, %d found together of %d", missed, found, len(some))
	}
	_, err = fmt.Println(l.memory, l.huge, l.find, l.many, l.absent, l.peer, l.octets)
	return err
}

// perQuestion returns the nanoseconds that a question took, the least of three times: anything else on the machine adds.
func perQuestion(questions int, ask func()) (least float64) {
	runtime.GC()
	for i := range 3 {
		start := cpuSeconds()
		ask()
		if each := (cpuSeconds() - start) * 1e9 / float64(questions); i == 0 || each < least {
			least = each
		}
	}
	return least
}

// resident returns the octets that are in use.
func resident() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// chase walks through lines of 64 octets, each of which says where the next one is, and returns the nanoseconds of a step.
func chase(lines [][8]uint64, rnd *rand.Rand) float64 {
	order := rnd.Perm(len(lines))
	for i, at := range order {
		lines[at][0] = uint64(order[(i+1)%len(order)])
	}
	at := uint64(0)
	each := perQuestion(1<<20, func() {
		for range 1 << 20 {
			at = lines[at][0]
		}
	})
	runtime.KeepAlive(at)
	return each
}

func (b *bench) reportLookups(w io.Writer, size int, target func(size int, what string, ratio, limit float64, atLeast bool)) {
	median := func(of func(lookups) float64) float64 {
		var all []float64
		for _, l := range b.lookups[size] {
			all = append(all, of(l))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	memory := median(func(l lookups) float64 { return l.memory })
	find := median(func(l lookups) float64 { return l.find })
	_, _ = fmt.Fprintf(w, "%-10d one read of as much memory: %.0f ns, in huge pages %.0f ns\n", size, memory, median(func(l lookups) float64 { return l.huge }))
	if peer := median(func(l lookups) float64 { return l.peer }); peer > 0 {
		_, _ = fmt.Fprintf(w, "%-10d one look-up in a Go map: %.0f ns\n", size, peer)
	}
	target(size, "one look-up in memory: ns", find, 100, false)
	target(size, "one look-up in memory / one read of as much memory", find/memory, 1.5, false)
	target(size, "look-ups of many at once: ns each", median(func(l lookups) float64 { return l.many }), 100, false)
	target(size, "look-ups of many at once, none listed: ns each", median(func(l lookups) float64 { return l.absent }), 100, false)
	target(size, "resident octets an entry", median(func(l lookups) float64 { return l.octets }), 40, false)
}
