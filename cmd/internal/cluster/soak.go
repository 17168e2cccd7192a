package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A soak breaks one thing after the other and holds what everybody says against the promises.
type soak struct {
	length time.Duration
	seed   uint64
	only   string

	recovery time.Duration // how soon after the last fault everything is as if there had been none

	c     *cluster
	y     *city
	b     *bank
	asked []*responder
	began time.Time
	gate  sync.RWMutex // who gives a command holds it for reading; whoever checks, when nothing is under way, for writing

	commands, answers, verdicts, faults, checks atomic.Int64
	refused                                     [3]atomic.Int64 // by status server
	unverified                                  jpki.Tally      // why there was no verdict
	slowest                                     atomic.Int64    // command, in nanoseconds
	pursuing                                    sync.WaitGroup

	mu         sync.Mutex
	out        io.Writer
	violations []string
	counts     map[string]int
	position   int64           // of the relying party's feed
	told       map[string]int  // changes, by user
	ids        map[string]bool // of changes
}

const round = 15 * time.Second // of faults, after which all is checked

func (s *soak) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, "%7.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// broken records that a promise was.
func (s *soak) broken(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.say("BROKEN %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, text)
}

// play soaks. Steps:
//  1. residents get cards, lose them, give them back; whoever may is asked about them all the time
//  2. in rounds: faults on both tracks, then everything is well again and everything is checked
//  3. the report
func (s *soak) play(ctx context.Context, c *cluster, out io.Writer) (err error) {
	s.c, s.out, s.began, s.asked = c, out, time.Now(), c.asked()
	s.told, s.ids, s.counts = map[string]int{}, map[string]bool{}, map[string]int{}
	if s.y, err = newCity(c); err != nil {
		return err
	}
	if s.b, err = newBank(c); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nSeed %d, for %v.\n", s.seed, s.length)
	// 1.
	working, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for n := range 2 {
		all.Go(func() { s.live(working, n) })
	}
	for n, r := range s.asked {
		all.Go(func() { s.roam(working, n, r) })
	}
	all.Go(func() { s.rely(working) })
	// 2.
	rngs := [2]*rand.Rand{}
	for i := range rngs {
		rngs[i] = source(s.seed, i)
	}
	for end := s.began.Add(s.length); ctx.Err() == nil && time.Now().Before(end); {
		pause := min(round, time.Until(end))
		within, stop := context.WithTimeout(ctx, pause)
		var both sync.WaitGroup
		for i, track := range tracks {
			both.Go(func() { s.breakThings(ctx, within, s.chosen(track), rngs[i]) })
		}
		both.Wait()
		stop()
		if ctx.Err() == nil {
			s.settle(ctx)
		}
	}
	cancel()
	all.Wait()
	s.pursuing.Wait()
	// 3.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.report()
	if n := len(s.violations); n > 0 {
		return fmt.Errorf("%d promises were broken; the seed is %d, the faults are above", n, s.seed)
	}
	return nil
}

// source is of the numbers that decide about a track's faults.
func source(seed uint64, track int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(track))) //nolint:gosec // to be repeated, not to be secret
}

// chosen are the faults that the command line admits.
func (s *soak) chosen(track []fault) []fault {
	if s.only == "" {
		return track
	}
	var out []fault
	for _, f := range track {
		if slices.Contains(strings.Split(s.only, ","), f.name) {
			out = append(out, f)
		}
	}
	return out
}

// breakThings breaks one thing after the other until within ends. The last fault ends, too.
func (s *soak) breakThings(ctx, within context.Context, track []fault, rng *rand.Rand) {
	for len(track) > 0 {
		d := s.drawFault(track, rng)
		if sleep(within, d.pause) != nil {
			return
		}
		if d.targets != nil && d.target == nil {
			continue // nothing here can have it
		}
		n := s.faults.Add(1)
		s.mu.Lock()
		s.counts[d.name]++
		s.mu.Unlock()
		s.say("fault %d: %s", n, d)
		end, err := d.begin(ctx, s, d.target, d.hold)
		if end != nil {
			_ = sleep(ctx, d.hold)
			err = errors.Join(err, end(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.broken("fault %d could not be made or mended: %v", n, err)
			return
		}
	}
}

// settle waits until everything is well and nothing is under way, and checks. Steps:
//  1. every process is well, every command is answered
//  2. the database has every certificate, in its state, and none besides; the status log has no gap
//  3. every status server says the same; the verifier works
//  4. the relying party was told of every change, each once and in order
//  5. the audit record is whole
func (s *soak) settle(ctx context.Context) {
	since := time.Now()
	within := func(what string, f func() error) {
		for {
			err := f()
			if err == nil || ctx.Err() != nil {
				return
			}
			if time.Since(since) > s.recovery {
				s.broken("not well again within %v of the last fault: %s: %v", s.recovery, what, err)
				return
			}
			_ = sleep(ctx, 100*ms)
		}
	}
	// 1.
	within("processes", func() error { return s.c.well(ctx) })
	s.gate.Lock()
	defer s.gate.Unlock()
	well := time.Since(since)
	// 2.
	for _, w := range s.y.checkRecord(ctx) {
		s.broken("%s", w)
	}
	// 3.
	s.y.mu.Lock()
	lately := slices.Clone(s.y.cards[max(0, len(s.y.cards)-30):])
	s.y.mu.Unlock()
	for n, r := range s.asked {
		for _, k := range lately {
			within(r.name, func() error {
				said, err := s.ask(ctx, n, r, k.certificates[0])
				if want := k.certificates[0].expected(); err == nil && said != want {
					err = fmt.Errorf("%s of a certificate that is %s", said, want)
				}
				return err
			})
		}
	}
	if len(lately) > 0 {
		within("the verifier", func() error {
			v, err := s.b.verify(ctx, lately[len(lately)-1])
			if good := lately[len(lately)-1].certificates[0].expected() == sayGood; err == nil && good != (v.Indication == passed) {
				err = fmt.Errorf("%s %s", v.Indication, v.SubIndication)
			}
			return err
		})
	}
	// 4.
	within("the feed of changes", func() error { return s.checkFeed(ctx) })
	// 5.
	f, err := s.c.audit(ctx)
	if err != nil && ctx.Err() == nil {
		s.broken("audit: %v", err)
	}
	s.checks.Add(1)
	s.say("all well after %.1f s: %d certificates, %d audit entries, %d changes told", well.Seconds(), f.Certificates, f.Entries, s.position)
}

// checkFeed reads what the relying party was told, and returns whom it still has to be told about.
func (s *soak) checkFeed(ctx context.Context) error {
	for {
		var page client.ChangePage
		if err := s.y.order(ctx, 0, func(ctx context.Context, a int) (err error) {
			page, err = s.y.operators[a].Changes(ctx, s.position, 0, 0)
			return err
		}); err != nil {
			return err
		}
		for _, c := range page.Changes {
			if c.Position != s.position+1 {
				s.broken("the feed of changes goes on at %d after %d", c.Position, s.position)
			}
			if s.ids[c.ID] {
				s.broken("the feed of changes told %s twice", c.ID)
			}
			s.position, s.ids[c.ID] = c.Position, true
			s.told[c.User]++
		}
		if len(page.Changes) == 0 {
			break
		}
	}
	s.y.mu.Lock()
	defer s.y.mu.Unlock()
	for _, k := range s.y.cards {
		due := 0
		for _, at := range []int64{k.certificates[0].suspended, k.certificates[0].revoked} {
			if at != 0 {
				due++
			}
		}
		if k.user != "" && s.told[k.user] < due {
			return fmt.Errorf("%d changes of one user told, %d made", s.told[k.user], due)
		}
	}
	return nil
}

// numbered lists counts by name.
func numbered[N int | uint64](counts map[string]N) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

func (s *soak) report() {
	s.y.mu.Lock()
	doubt := len(s.y.doubt)
	s.y.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, "\n%d commands answered, the slowest after %.1f s; cut short and still in doubt at the end: %d; given again: ", s.commands.Load(), time.Duration(s.slowest.Load()).Seconds(), doubt)
	_, _ = fmt.Fprintf(s.out, "%s\n%d answers of status servers, refused %d, %d and %d; %d verdicts, refused: %s\n", numbered(s.y.retried.Snapshot()),
		s.answers.Load(), s.refused[0].Load(), s.refused[1].Load(), s.refused[2].Load(), s.verdicts.Load(), numbered(s.unverified.Snapshot()))
	_, _ = fmt.Fprintf(s.out, "%d faults: %s\n%d times everything was checked. Promises broken: %d. Seed %d.\n", s.faults.Load(), numbered(s.counts), s.checks.Load(), len(s.violations), s.seed)
}
