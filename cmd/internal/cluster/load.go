package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A load is a campaign day, played in much less than nine hours: the rates are the day's, the hours are shorter.
type load struct {
	seconds  float64
	scale    float64
	night    int
	failover bool

	c       *cluster
	y       *city
	b       *bank
	asked   []*responder
	began   time.Time
	day     []hours
	working sync.WaitGroup
	ready   chan prepared // cards that wait for their holders

	mu       sync.Mutex
	samples  []sample
	broken   []string
	good     []*card
	loads    []cpuUse
	failed   map[string]int
	failedAt time.Time // when the primary was killed
	mended   time.Duration
}

type prepared struct {
	card  *card
	order client.CertificateOrder
}

// hours are a part of the day. Rates are a second; look-ups come so many at once, as at counters that all open at nine.
type hours struct {
	name                                              string
	share                                             float64 // of the day
	certificates, questions, lookUps, changes, checks float64
	atOnce                                            int
}

// campaign is a day on which ten times as many cards are handed out as usual, and everybody has forgotten their PIN. A look-up is what
// a PIN reset costs the authority: the counter asks what is on the card.
var campaign = []hours{
	{"opening", 0.15, 4, 110, 5, 1, 5, 1},
	{"morning peak", 0.30, 40, 550, 10, 1, 5, 1},
	{"burst", 0.20, 100, 550, 10, 1, 5, 1},
	{"PIN-reset storm", 0.20, 40, 550, 100, 1, 5, 50},
	{"afternoon", 0.15, 4, 110, 5, 1, 5, 1},
}

// What is measured, and what we aim at: no service level of the real system is known.
var kinds = []struct {
	name   string
	target time.Duration // for 99 of a hundred
}{
	{"OCSP answer", 100 * ms},
	{"issue (two certificates)", time.Second},
	{"look-up for a PIN reset", 500 * ms},
	{"suspend, revoke", time.Second},
	{"seen by status servers", time.Second},
	{"verification", 500 * ms},
}

const (
	question = iota
	issuing
	lookingUp
	changing
	seeing
	checking
)

// A sample is something that was asked for.
type sample struct {
	kind   int
	part   int // of the day
	at     time.Duration
	took   time.Duration // since it was due, not since there was time for it
	failed bool
}

func (l *load) flags(f *flag.FlagSet) {
	f.Float64Var(&l.seconds, "seconds", 60, "how long the day lasts, without the night")
	f.Float64Var(&l.scale, "scale", 1, "all rates are multiplied by it")
	f.IntVar(&l.night, "night", 500_000, "lines of the night batch; the campaign's has 10000000")
	f.BoolVar(&l.failover, "failover", false, "kill the database's primary in the middle of the burst")
}

// total is how many there are of something in the whole day.
func (l *load) total(rate func(hours) float64) (n int) {
	for _, h := range l.day {
		n += int(rate(h)*l.scale*h.share*l.seconds) + 1
	}
	return n
}

// play plays the day. Steps:
//  1. residents are registered and cards made, a first stock of them issued
//  2. the day, hour by hour: what is due is asked for when it is due, however long earlier ones take
//  3. everything is compared with what was answered
//  4. the night batch
//  5. the report
func (l *load) play(ctx context.Context, c *cluster, out io.Writer) (err error) {
	if l.seconds <= 0 || l.scale <= 0 || l.night < 0 {
		return errors.New("-seconds and -scale are above zero, -night is not below")
	}
	l.c, l.asked, l.day, l.failed = c, c.asked(), campaign, map[string]int{}
	if l.y, err = newCity(c); err != nil {
		return err
	}
	if l.b, err = newBank(c); err != nil {
		return err
	}
	// 1.
	if err := l.prepare(ctx, out); err != nil {
		return err
	}
	// 2.
	l.began = time.Now()
	var chaos sync.WaitGroup
	defer chaos.Wait()
	for part, h := range l.day {
		length := time.Duration(h.share * l.seconds * float64(time.Second))
		fmt.Fprintf(out, "%6.1f s  %s, for %.0f s\n", time.Since(l.began).Seconds(), h.name, length.Seconds())
		use := c.cpu()
		if l.failover && h.name == "burst" {
			chaos.Go(func() { l.failOver(ctx, length/3, out) })
		}
		if err := l.hours(ctx, part, h, length); err != nil {
			return err
		}
		l.loads = append(l.loads, c.cpu().since(use))
	}
	l.working.Wait()
	chaos.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// 3.
	l.mustHold(l.y.checkRecord(ctx)...)
	f, err := c.audit(ctx)
	if err != nil {
		l.mustHold(err.Error())
	}
	// 4.
	night, err := l.nightBatch(ctx)
	if err != nil {
		return fmt.Errorf("night batch: %w", err)
	}
	// 5.
	if err := l.report(out, f, night); err != nil {
		return err
	}
	if len(l.broken) > 0 {
		return fmt.Errorf("%d promises were broken", len(l.broken))
	}
	return nil
}

func (l *load) mustHold(broken ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, broken...)
}

const stock = 100 // cards that were issued before the day

func (l *load) prepare(ctx context.Context, out io.Writer) error {
	n := stock + l.total(func(h hours) float64 { return h.certificates / 2 })
	began := time.Now()
	l.ready = make(chan prepared, n)
	events := func(yield func(jpki.Event) bool) {
		for i := range n {
			if !yield(resident(fmt.Sprint("resident-", i))) {
				return
			}
		}
	}
	answered := 0
	for r, err := range l.y.registers[0].Feed(ctx, events) {
		if err == nil && r.Problem != nil {
			err = fmt.Errorf("event %s: %s", r.ID, r.Problem.Type)
		}
		if err != nil {
			return fmt.Errorf("register residents: %w", err)
		}
		answered++
	}
	if answered < n {
		return fmt.Errorf("%d of %d residents were registered", answered, n)
	}
	for i := range n {
		k, o, err := prepare(i, fmt.Sprint("resident-", i))
		if err != nil {
			return err
		}
		l.ready <- prepared{k, o}
	}
	for i := range stock {
		p := <-l.ready
		if err := l.y.issue(ctx, i, p.card, p.order); err != nil {
			return err
		}
		l.good = append(l.good, p.card)
	}
	fmt.Fprintf(out, "\n%d residents registered, %d cards made, %d of them issued in %.1f s\n\n", n, n, stock, time.Since(began).Seconds())
	return nil
}

// failOver kills the primary as a power cut does.
func (l *load) failOver(ctx context.Context, after time.Duration, out io.Writer) {
	if sleep(ctx, after) != nil {
		return
	}
	l.failedAt = time.Now()
	fmt.Fprintf(out, "%6.1f s  PostgreSQL's primary is killed, its standby promoted\n", time.Since(l.began).Seconds())
	if err := l.c.failOver(ctx); err != nil && ctx.Err() == nil {
		l.mustHold(fmt.Sprintf("fail over: %v", err))
	}
	l.mended = time.Since(l.failedAt)
}

// hours plays a part of the day.
func (l *load) hours(ctx context.Context, part int, h hours, length time.Duration) error {
	var all sync.WaitGroup
	start := time.Now()
	for _, w := range []struct {
		kind   int
		rate   float64
		atOnce int
		do     func(context.Context, int, *sample) error
	}{
		{question, h.questions, 1, l.ask},
		{issuing, h.certificates / 2, 1, l.issue},
		{lookingUp, h.lookUps, h.atOnce, l.lookUp},
		{changing, h.changes, 1, l.change},
		{checking, h.checks, 1, l.check},
	} {
		rate := w.rate * l.scale
		all.Go(func() {
			for i := 0; ; i++ {
				due := time.Duration(float64(i/w.atOnce*w.atOnce) / rate * float64(time.Second))
				if due >= length || sleep(ctx, time.Until(start.Add(due))) != nil {
					return
				}
				l.working.Go(func() {
					s := sample{kind: w.kind, part: part, at: start.Add(due).Sub(l.began)}
					err := w.do(ctx, i, &s)
					if s.took == 0 {
						s.took = time.Since(start.Add(due))
					}
					s.failed = err != nil
					l.record(s, err)
				})
			}
		})
	}
	all.Wait()
	return sleep(ctx, time.Until(start.Add(length)))
}

func (l *load) record(s sample, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
	if err != nil {
		l.failed[kinds[s.kind].name+": "+err.Error()]++
	}
}

func (l *load) ask(ctx context.Context, i int, _ *sample) error {
	k, r := l.y.someone(), l.asked[i%len(l.asked)]
	about := k.certificates[i%2]
	sent := now()
	said, err := r.ask(ctx, l.y, about)
	if err == nil {
		l.judge(r, about, said, sent)
	}
	return err
}

func (l *load) judge(r *responder, about *subject, said string, sent int64) {
	received := now()
	l.y.mu.Lock()
	seen := *about
	l.y.mu.Unlock()
	if wrong := seen.judge(said, sent, received); wrong != "" {
		l.mustHold(fmt.Sprintf("%s said %s of %s: %s", r.name, said, about.id, wrong))
	}
}

func (l *load) issue(ctx context.Context, i int, _ *sample) error {
	var p prepared
	select {
	case p = <-l.ready:
	default:
		return errors.New("no card is left")
	}
	if err := l.y.issue(ctx, i, p.card, p.order); err != nil {
		if ctx.Err() == nil {
			l.mustHold(err.Error())
		}
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.good = append(l.good, p.card)
	return nil
}

func (l *load) lookUp(ctx context.Context, i int, _ *sample) error {
	k := l.y.someone()
	found, err := l.y.lookUp(ctx, i, k)
	if err == nil && len(found.Certificates) != len(k.certificates) {
		l.mustHold(fmt.Sprintf("card %s has %d certificates", k.name, len(found.Certificates)))
	}
	return err
}

// change suspends a card or revokes it, and then asks all status servers until they know.
func (l *load) change(ctx context.Context, i int, s *sample) error {
	l.mu.Lock()
	if len(l.good) == 0 {
		l.mu.Unlock()
		return errors.New("no card is left")
	}
	n := rand.IntN(len(l.good)) //nolint:gosec // no secret
	k := l.good[n]
	l.good = slices.Delete(l.good, n, n+1)
	l.mu.Unlock()
	to, want := jpki.Suspended, saySuspended
	if i%2 == 0 {
		to, want = jpki.Revoked, sayRevoked
	}
	if err := l.y.change(ctx, i, k, to); err != nil {
		if ctx.Err() == nil {
			l.mustHold(err.Error())
		}
		return err
	}
	committed := time.Now()
	s.took = max(1, committed.Sub(l.began.Add(s.at)))
	for _, r := range l.asked {
		l.working.Go(func() {
			about := k.certificates[0]
			for ctx.Err() == nil {
				sent := now()
				said, err := r.ask(ctx, l.y, about)
				if err == nil {
					l.judge(r, about, said, sent)
				}
				if seen := said == want; seen || time.Since(committed) > patience {
					l.record(sample{kind: seeing, part: s.part, at: committed.Sub(l.began), took: time.Since(committed), failed: !seen}, nil)
					return
				}
				_ = sleep(ctx, 5*ms)
			}
		})
	}
	return nil
}

func (l *load) check(ctx context.Context, _ int, _ *sample) error {
	k := l.y.someone()
	sent := now()
	v, err := l.b.verify(ctx, k)
	if err != nil {
		return err
	}
	received := now()
	l.y.mu.Lock()
	seen := *k.certificates[0]
	l.y.mu.Unlock()
	if wrong := seen.judgeVerdict(v, sent, received); wrong != "" {
		l.mustHold(fmt.Sprintf("the verifier said %s %s of %s: %s", v.Indication, v.SubIndication, seen.id, wrong))
	}
	return nil
}
