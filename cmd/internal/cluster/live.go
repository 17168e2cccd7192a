package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/openjpki/jpki"
)

// command gives one and records how long it took. What is refused for good, or never answered, breaks a promise.
func (s *soak) command(ctx context.Context, what string, f func() error) bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	began := now()
	err := f()
	if errors.Is(err, errInDoubt) {
		s.pursue(ctx, what, f)
		return false
	}
	if ctx.Err() != nil {
		return false
	}
	s.commands.Add(1)
	for took := now() - began; ; {
		seen := s.slowest.Load()
		if took <= seen || s.slowest.CompareAndSwap(seen, took) {
			break
		}
	}
	if err != nil {
		s.broken("%s: %v", what, err)
	}
	return err == nil
}

// pursue gives a command again and again that a killed process has left in the middle: the authority says that it is in progress until it
// has made sure that it is not, which takes more than a minute. Meanwhile others go on.
func (s *soak) pursue(ctx context.Context, what string, f func() error) {
	s.y.inDoubt(what, true)
	s.pursuing.Go(func() {
		began, err := time.Now(), errInDoubt
		for errors.Is(err, errInDoubt) && time.Since(began) < clearedAfter && sleep(ctx, time.Second) == nil {
			s.gate.RLock()
			err = f()
			if !errors.Is(err, errInDoubt) {
				s.y.inDoubt(what, false)
			}
			s.gate.RUnlock()
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.broken("%s, which was cut short %.0f s ago: %v", what, time.Since(began).Seconds(), err)
		default:
			s.commands.Add(1)
			s.say("%s, which was cut short, is answered after %.0f s", what, time.Since(began).Seconds())
		}
	})
}

// clearedAfter is how soon the authority has to answer a command that was cut short: its own minute, and what it takes to notice.
const clearedAfter = 2 * time.Minute

// live hands out cards, of which some are lost, some given back, some both; a third of the holders is watched by a bank.
func (s *soak) live(ctx context.Context, worker int) {
	var good, suspended []*card
	for n := worker; ctx.Err() == nil; n += 2 {
		name := fmt.Sprint("resident-", n)
		if s.command(ctx, "register "+name, func() error { return s.y.register(ctx, n, name) }) {
			k, order, err := prepare(n, name)
			if err != nil {
				s.broken("%v", err)
				return
			}
			if s.command(ctx, "issue to "+name, func() error { return s.y.issue(ctx, n, k, order) }) {
				good = append(good, k)
				if n%3 == 0 {
					s.command(ctx, "watch "+name, func() error { return s.y.watch(ctx, n, k) })
				}
			}
		}
		if len(good) > 10 {
			k := good[0]
			good = good[1:]
			if n%2 == 0 {
				s.command(ctx, "suspend "+k.name, func() error { return s.y.change(ctx, n, k, jpki.Suspended) })
				suspended = append(suspended, k)
			} else {
				s.command(ctx, "revoke "+k.name, func() error { return s.y.change(ctx, n, k, jpki.Revoked) })
			}
		}
		if len(suspended) > 5 {
			k := suspended[0]
			suspended = suspended[1:]
			s.command(ctx, "revoke "+k.name, func() error { return s.y.change(ctx, n, k, jpki.Revoked) })
		}
		_ = sleep(ctx, 100*ms)
	}
}

// someone draws a card, one of those that changed lately as often as any other.
func (y *city) someone() *card {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.cards) == 0 {
		return nil
	}
	if lately := 40; rand.IntN(2) == 0 && len(y.cards) > lately { //nolint:gosec // no secret
		return y.cards[len(y.cards)-1-rand.IntN(lately)] //nolint:gosec // likewise
	}
	return y.cards[rand.IntN(len(y.cards))] //nolint:gosec // likewise
}

// roam asks a status server about whatever comes, and about what was never issued.
func (s *soak) roam(ctx context.Context, n int, r *responder) {
	for i := 0; ctx.Err() == nil; i++ {
		_ = sleep(ctx, 10*ms)
		var about *subject
		if k := s.y.someone(); k != nil && i%10 != 0 {
			about = k.certificates[i%2]
		} else {
			var err error
			if about, err = s.y.unissued(); err != nil {
				return
			}
		}
		if _, err := s.ask(ctx, n, r, about); err != nil {
			_ = sleep(ctx, 20*ms)
		}
	}
}

func (s *soak) ask(ctx context.Context, n int, r *responder, about *subject) (string, error) {
	sent := now()
	said, err := r.ask(ctx, s.y, about)
	received := now()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		s.refused[n].Add(1)
		return "", err
	}
	s.answers.Add(1)
	s.y.mu.Lock()
	seen := *about
	s.y.mu.Unlock()
	if wrong := seen.judge(said, sent, received); wrong != "" {
		s.broken("%s said %s of %s: %s; asked %.3f s after it was last changed", r.name, said, about.id, wrong, float64(sent-max(seen.issued, seen.suspended, seen.revoked))/1e9)
	}
	return said, nil
}

// rely asks the verifier about signatures.
func (s *soak) rely(ctx context.Context) {
	for ctx.Err() == nil {
		_ = sleep(ctx, 100*ms)
		k := s.y.someone()
		if k == nil {
			continue
		}
		sent := now()
		v, err := s.b.verify(ctx, k)
		received := now()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if s.unverified.Add(reason(err)); reason(err) == string(jpki.Internal) {
				s.broken("the verifier does not know what is wrong: %v", err)
			}
			continue
		}
		s.verdicts.Add(1)
		s.y.mu.Lock()
		seen := *k.certificates[0]
		s.y.mu.Unlock()
		if wrong := seen.judgeVerdict(v, sent, received); wrong != "" {
			s.broken("the verifier said %s %s of %s: %s", v.Indication, v.SubIndication, seen.id, wrong)
		}
	}
}

// reason is a word for why there was no answer.
func reason(err error) string {
	if _, named := errors.AsType[*jpki.Error](err); named {
		return string(jpki.ProblemOf(err))
	}
	return "unreachable"
}
