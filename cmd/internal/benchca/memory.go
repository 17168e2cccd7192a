package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A footprint is what the authority's process holds of memory at one moment of a long run.
type footprint struct {
	done           float64 // share of the run, 0 to 1
	resident, heap float64 // MiB
}

const (
	memoryClients = 32
	memoryChunk   = 2000 // cards made ahead, at most; another chunk is being issued meanwhile
	memoryEvery   = 250 * time.Millisecond
)

// watchMemory issues n certificates by a fresh server with a P-256 key, and looks at its memory all the while. Requests are
// made while others are issued, in chunks, and by another process than the one that is watched. out gets a line every tenth.
func (b *bench) watchMemory(ctx context.Context, n int, out io.Writer, advance func(certificates int)) ([]footprint, error) {
	url, err := b.newDatabase(ctx, "memory")
	if err != nil {
		return nil, err
	}
	a, err := b.startAuthority(ctx, url, p256)
	if err != nil {
		return nil, err
	}
	cards, issued := max(n/2, 1), atomic.Int64{}
	chunk := min(max(cards/40, 1), memoryChunk) // several to a tenth
	chunks := make(chan [][]byte)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(chunks)
		for done := 0; done < cards; done += chunk {
			some, err := makeCards(ctx, b.ring, b.prefix(), min(chunk, cards-done))
			if err != nil {
				return err
			}
			requests, err := a.orders(ctx, some, bothKinds)
			if err != nil {
				return err
			}
			select {
			case chunks <- requests:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	over := make(chan struct{})
	g.Go(func() error {
		defer close(over)
		for requests := range chunks {
			s, err := a.load(ctx, requests, memoryClients, len(bothKinds), time.Hour)
			if err == nil && s.failed > 0 {
				err = fmt.Errorf("%d requests failed", s.failed)
			}
			if err != nil {
				return err
			}
			issued.Add(int64(len(requests)))
			advance(len(bothKinds) * len(requests))
		}
		return nil
	})
	var prints []footprint
	g.Go(func() error {
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for told := -1; ; {
			f, err := a.footprint(ctx)
			if err != nil {
				return err
			}
			f.done = float64(issued.Load()) / float64(cards)
			prints = append(prints, f)
			if tenth := int(10 * f.done); tenth > told {
				told = tenth
				fmt.Fprintf(out, "%5d %%  %9.1f MiB resident  %9.1f MiB heap\n", 10*tenth, f.resident, f.heap)
			}
			select {
			case <-over:
				if f.done == 1 || ctx.Err() != nil {
					return ctx.Err()
				}
			case <-tick.C:
			}
		}
	})
	return prints, g.Wait()
}

// footprint looks at the server's memory now.
func (a *authority) footprint(ctx context.Context) (f footprint, err error) {
	const kiB, miB = 1 << 10, 1 << 20
	heap, err := a.metric(ctx, "go_memstats_heap_inuse_bytes")
	if err != nil {
		return f, err
	}
	text, err := os.Open(fmt.Sprintf("/proc/%d/status", a.pid))
	if err != nil {
		return f, err
	}
	defer func() { _ = text.Close() }()
	for lines := bufio.NewScanner(text); lines.Scan(); {
		if size, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			_, err := fmt.Sscan(size, &f.resident)
			f.resident, f.heap = f.resident*kiB/miB, heap/miB
			return f, err
		}
	}
	return f, fmt.Errorf("/proc tells no resident memory of process %d", a.pid)
}

// quarters are the averages over the first and the last quarter of a run.
func quarters(prints []footprint) (first, last footprint) {
	mean := func(from, to float64) (sum footprint) {
		n := 0.0
		for _, f := range prints {
			if from <= f.done && f.done <= to {
				sum.resident, sum.heap, n = sum.resident+f.resident, sum.heap+f.heap, n+1
			}
		}
		return footprint{resident: sum.resident / max(n, 1), heap: sum.heap / max(n, 1)}
	}
	return mean(0, 0.25), mean(0.75, 1)
}
