package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func stationBatch() *cobra.Command {
	var result string
	var g generation
	c := &cobra.Command{
		Use: "batch FILE", Short: "Do the work of many cards, one a line; goes on where it was interrupted",
		Long: `Sends the lines of FILE, each {"key", "op", "holder", "token", "requests"}, to the authority and appends each answer to the
result file, in the order of the lines. Interrupted in whatever way, the same command goes on: lines with an answer are
skipped, the others are sent with their own keys and get the certificates they would have got. A problem that passes
(rate-limited, unavailable, …) is no answer: the line is tried again.

With -generate N, FILE is made first: N cards for N new residents with software keys, which takes about 0.3 s a card and
processor. -keys FILE keeps the keys, and takes them from there the next time, for a fresh sandbox. -trial-keys makes keys
in a hurry that share their primes: good for trials of this command and for nothing else.

Exit code 3: every line was answered, some with a problem.`,
		Example: `  jpki station batch cards.ndjson
  jpki station batch -generate 1000 -trial-keys cards.ndjson
  jpki station batch -generate 20000 -keys keys.pem cards.ndjson -out done.ndjson`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if g.cards < 0 || g.cards == 0 && (g.keys != "" || g.trial) || g.keys != "" && g.trial {
				return usageError{errors.New("-keys and -trial-keys exclude each other and go with -generate N")}
			}
			if result == "" {
				result = strings.TrimSuffix(args[0], ".ndjson") + ".result.ndjson"
			}
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			if g.cards > 0 {
				if err := g.generate(c.Context(), env, args[0]); err != nil {
					return err
				}
			}
			station, err := env.Station()
			if err != nil {
				return err
			}
			b := &batchRun{station: station, in: args[0], pause: time.Second}
			if err := b.open(result); err != nil {
				return err
			}
			bars, bar := progress(c.Context(), "batch", b.total, len(b.answered))
			b.bar = bar
			err = b.run(c.Context())
			if err = errors.Join(err, b.close()); err != nil {
				bar.Abort(false)
			}
			bars.Wait()
			fmt.Fprintln(c.ErrOrStderr(), b.summary())
			if err == nil && len(b.refused) > 0 {
				return errNo
			}
			return err
		},
	}
	c.Flags().StringVar(&result, "out", "", "the result file (default FILE.result.ndjson)")
	c.Flags().IntVar(&g.cards, "generate", 0, "make FILE first, with so many cards")
	c.Flags().StringVar(&g.keys, "keys", "", "with -generate: file of private keys to use and to fill up")
	c.Flags().BoolVar(&g.trial, "trial-keys", false, "with -generate: weak keys, made fast")
	return c
}

// linesPerRequest is how many lines one request has at most; the authority would take more.
const linesPerRequest = 20_000

// syncEvery is how many answers may be lost, and are fetched again, when the machine stops.
const syncEvery = 200

// fruitless is after how many rounds without one answer a batch is given up.
const fruitless = 5

// A batchRun sends the lines of a file that have no answer in the result file.
type batchRun struct {
	station *client.Client
	in      string
	pause   time.Duration // before trying again
	bar     *mpb.Bar

	out      *os.File
	unsynced int
	total    int            // lines that are not blank
	answered map[int]string // line → key
	refused  map[jpki.Problem]int
	passing  map[jpki.Problem]int // of the present round
}

// open reads what has been answered, drops a torn last line, and counts the lines to do.
func (b *batchRun) open(result string) (err error) {
	b.answered, b.refused = map[int]string{}, map[jpki.Problem]int{}
	keys := map[int]string{}
	for n, text := range fileLines(b.in, &err) {
		var l client.BatchLine
		_ = json.Unmarshal(text, &l)
		keys[n] = l.Key
	}
	if err != nil {
		return err
	}
	b.total = len(keys)
	if b.out, err = os.OpenFile(result, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	whole := int64(0)
	for r := bufio.NewReader(b.out); ; {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var res client.BatchResult
		if err := json.Unmarshal(text, &res); err != nil {
			return fmt.Errorf("%s is no result file: %w", result, err)
		}
		if key, known := keys[res.Line]; !known || res.Key != "" && res.Key != key {
			return fmt.Errorf("%s answers another file than %s: line %d", result, b.in, res.Line)
		}
		b.note(res)
		whole += int64(len(text))
	}
	if err := b.out.Truncate(whole); err != nil {
		return err
	}
	_, err = b.out.Seek(whole, io.SeekStart)
	return err
}

func (b *batchRun) note(r client.BatchResult) {
	b.answered[r.Line] = r.Key
	if r.Problem != nil {
		b.refused[r.Problem.Problem()]++
	}
}

// run sends what has no answer, in rounds, until everything has one.
func (b *batchRun) run(ctx context.Context) error {
	for idle := 0; len(b.answered) < b.total; {
		before := len(b.answered)
		b.passing = map[jpki.Problem]int{}
		err := b.round(ctx)
		if e := b.sync(); e != nil || ctx.Err() != nil {
			return errors.Join(ctx.Err(), e)
		}
		if idle++; len(b.answered) > before {
			idle = 0
		}
		if p := jpki.ProblemOf(err); err != nil && !passes(p) || idle == fruitless {
			return errors.Join(err, fmt.Errorf("%d lines have no answer; the same command goes on with them", b.total-len(b.answered)))
		}
		if len(b.answered) < b.total && (err != nil || len(b.passing) > 0) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(b.pause << idle):
			}
		}
	}
	return nil
}

// round makes one request for the next lines without an answer.
func (b *batchRun) round(ctx context.Context) error {
	var mu sync.Mutex // the lines are read by the sender's goroutine
	var sent []int
	var local []client.BatchResult
	var readErr error
	skip := maps.Clone(b.answered)
	lines := func(yield func(client.BatchLine) bool) {
		for n, text := range fileLines(b.in, &readErr) {
			if _, done := skip[n]; done {
				continue
			}
			var l client.BatchLine
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&l); err != nil || d.More() {
				p := jpki.Malformed
				mu.Lock()
				local = append(local, client.BatchResult{Line: n, Problem: &jpki.ProblemDetails{Type: jpki.ProblemBase + string(p), Title: p.Title(""), Status: p.HTTPStatus(), Detail: "not a line of a batch"}})
				mu.Unlock()
				continue
			}
			mu.Lock()
			sent = append(sent, n)
			full := len(sent) == linesPerRequest
			mu.Unlock()
			if !yield(l) || full {
				return
			}
		}
	}
	var failed error
	for r, err := range b.station.Batch(ctx, lines) {
		if err != nil {
			failed = err
			break
		}
		mu.Lock()
		known := r.Line >= 1 && r.Line <= len(sent)
		if known {
			r.Line = sent[r.Line-1]
		}
		mu.Unlock()
		if !known {
			failed = jpki.Errorf(jpki.Unavailable, "an answer to a line that was not sent")
			break
		}
		if err := b.write(r); err != nil {
			return err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, r := range local {
		if err := b.write(r); err != nil {
			return err
		}
	}
	return errors.Join(failed, readErr)
}

// passes reports whether a problem goes away by itself.
func passes(p jpki.Problem) bool {
	return slices.Contains([]jpki.Problem{jpki.RateLimited, jpki.Unavailable, jpki.InProgress, jpki.Conflict, jpki.Internal}, p)
}

func (b *batchRun) write(r client.BatchResult) error {
	if r.Problem != nil && passes(r.Problem.Problem()) {
		b.passing[r.Problem.Problem()]++
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// One write a line: what a killed process has written stays.
	if _, err := b.out.Write(append(text, '\n')); err != nil {
		return err
	}
	b.note(r)
	b.bar.Increment()
	if b.unsynced++; b.unsynced == syncEvery {
		return b.sync()
	}
	return nil
}

func (b *batchRun) sync() error {
	b.unsynced = 0
	return b.out.Sync()
}

func (b *batchRun) close() error { return errors.Join(b.out.Sync(), b.out.Close()) }

func (b *batchRun) summary() string {
	n := 0
	for _, k := range b.refused {
		n += k
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d of %d lines answered, %d refused", len(b.answered), b.total, n)
	for _, p := range slices.Sorted(maps.Keys(b.refused)) {
		fmt.Fprintf(&text, "\n  %6d  %s", b.refused[p], p)
	}
	return text.String()
}

// fileLines yields the lines of a file that are not blank, by number from 1. What goes wrong is in *failed afterwards.
func fileLines(path string, failed *error) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		f, err := os.Open(path)
		if err != nil {
			*failed = err
			return
		}
		defer func() { _ = f.Close() }()
		s := bufio.NewScanner(f)
		s.Buffer(nil, client.MaxBatchLine+1)
		n := 0
		for s.Scan() {
			if n++; len(bytes.TrimSpace(s.Bytes())) > 0 && !yield(n, s.Bytes()) {
				return
			}
		}
		if s.Err() != nil {
			*failed = fmt.Errorf("%s, line %d: %w", path, n+1, s.Err())
		}
	}
}
