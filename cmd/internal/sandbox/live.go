package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/hsm/card"
	verifierclient "github.com/openjpki/jpki/verifier/client"
)

// LiveEvery is how long the living residents wait between two things that happen, unless another time is chosen.
const LiveEvery = 2 * time.Second

const (
	liveResidents = 12     // live at once; who dies makes place
	livePurpose   = "live" // under which the bank watches them
	liveStay      = 60     // days that a foreign resident may still stay: within the time in which certificates are renewed
)

// A life is a handful of fictitious residents to whom something happens every few seconds. Everything goes through the
// zones' own doors, in real time: what would take years to come is reached by who the residents are. Newborn children are
// children for as long as the sandbox runs, and foreign residents' certificates, which end with their stay, can be renewed
// at once. The order of what happens follows from the seed; numbers, keys and times do not.
type life struct {
	s        *System
	rng      *mathrand.Rand
	every    time.Duration
	counters map[string]*client.Client // by municipality
	hotline  *client.Client
	roll     *client.Client // the resident register
	bank     *client.Client // the operator of its verifier
	people   []*person
	born     int

	mu sync.Mutex // of the terminal
}

// A class is what a person is, as far as it matters to what can happen.
type class struct{ en, ja string }

var (
	adult   = class{"adult", "成人"}
	child   = class{"child", "子ども"}
	foreign = class{"foreign resident", "外国人住民"}
)

// A person is somebody fictitious with a card.
type person struct {
	Resident
	class  class
	user   string // whom the bank knows: a pseudonym
	card   *card.Card
	unsign bool // the signature certificate has ended
	lost   bool // the card is suspended
}

// A happening is one thing that can happen.
type happening struct {
	weight int
	en, ja string
	to     func(*life, *person) bool // whether it can
	do     func(*life, context.Context, *person) ([]client.Changed, error)
}

var happenings = []happening{
	{4, "moves", "転居", func(_ *life, p *person) bool { return !p.lost }, (*life).move},
	{3, "marries: a new name", "婚姻による改氏", func(_ *life, p *person) bool { return p.class != child && !p.lost }, (*life).marry},
	{3, "loses the card", "カード紛失", func(_ *life, p *person) bool { return !p.lost }, (*life).lose},
	{8, "gets a new card", "カード再発行", func(_ *life, p *person) bool { return p.lost }, (*life).replace},
	{6, "gets a new signature certificate", "署名用電子証明書の再発行", func(_ *life, p *person) bool { return p.unsign && !p.lost }, (*life).resign},
	{3, "renews before the stay ends", "在留期間更新に伴う更新", func(_ *life, p *person) bool { return p.class == foreign && !p.unsign && !p.lost }, (*life).renew},
	{1, "dies", "死亡", func(l *life, _ *person) bool { return len(l.people) > liveResidents/2 }, (*life).die},
}

// liveOn has things happen until ctx ends, and tells of each, and of what the bank's feed says, in a line.
func (s *System) liveOn(ctx context.Context) error {
	l := &life{s: s, every: s.opt.Live, rng: mathrand.New(mathrand.NewPCG(s.opt.LiveSeed, 0)), counters: map[string]*client.Client{}} //nolint:gosec // chance that can be repeated
	var err error
	for _, a := range []jpki.Actor{counterActor, minatoActor} {
		if l.counters[a.Municipality], err = s.env.client(s.dir.path("infrastructure", a.ID+".crt"), s.dir.path("infrastructure", a.ID+".key")); err != nil {
			return err
		}
	}
	if l.hotline, err = s.env.Hotline(); err != nil {
		return err
	}
	if l.roll, err = s.env.Register(); err != nil {
		return err
	}
	if l.bank, err = s.env.RelyingParty(); err != nil {
		return err
	}
	fmt.Fprintf(s.opt.Out, "%s\n\n", fmt.Sprintf(l.say("Every %s something happens to a resident; the bank's feed tells it who, never what. Repeat it with -seed %d.",
		"%sごとに住民に何かが起こり、銀行には対象者だけが通知されます（内容は通知されません）。-seed %d で再現できます。"), l.every, s.opt.LiveSeed))
	ctx, cancel := context.WithCancel(ctx)
	var feed sync.WaitGroup
	feed.Go(func() { l.follow(ctx) })
	defer feed.Wait()
	defer cancel()
	for tick := time.NewTicker(l.every); ; {
		if err := l.step(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "an event of the living residents did not hold", slog.Any("error", err))
			l.tell("%s", l.say("This did not hold: ", "成り立ちませんでした: ")+err.Error())
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
	}
}

func (l *life) say(en, ja string) string { return Text{en, ja}.In(l.s.opt.Lang) }

// tell writes a line, with the time in Japan.
func (l *life) tell(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.s.opt.Out, "%s  %s\n", time.Now().In(jpki.JST).Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// step has one thing happen: somebody new comes as long as there are few, or fate strikes one of those there are.
func (l *life) step(ctx context.Context) error {
	if n := len(l.people); n < 2 || n < liveResidents && l.rng.IntN(3) == 0 {
		return l.arrive(ctx)
	}
	var lot []func() (happening, *person)
	for _, h := range happenings {
		var who []*person
		for _, p := range l.people {
			if h.to(l, p) {
				who = append(who, p)
			}
		}
		for range h.weight {
			if len(who) > 0 {
				lot = append(lot, func() (happening, *person) { return h, who[l.rng.IntN(len(who))] })
			}
		}
	}
	h, p := lot[l.rng.IntN(len(lot))]() // there is always somebody to move or to get a new card
	changed, err := h.do(l, ctx, p)
	if err != nil {
		return fmt.Errorf("%s: %w", h.en, err)
	}
	l.report(p, l.say(h.en, h.ja), changed)
	return nil
}

// report tells what happened, to whom and what became of which certificates.
func (l *life) report(p *person, what string, changed []client.Changed) {
	slices.SortFunc(changed, func(a, b client.Changed) int { return cmp.Compare(b.Kind, a.Kind) })
	var text strings.Builder
	for _, c := range changed {
		state := string(c.State)
		if c.Reason != "" {
			state += " (" + c.Reason + ")"
		}
		text.WriteString("  " + string(c.Kind) + " " + state)
	}
	l.tell("%s %s  %s%s", pad(l.say(p.class.en, p.class.ja), 17), p.user, pad(what, 34), text.String())
}

// arrive brings somebody new, whom the bank watches from the beginning.
func (l *life) arrive(ctx context.Context) error {
	p := &person{Resident: residents[l.born%len(residents)], class: []class{adult, foreign, adult, child}[l.born%4]}
	l.born++
	p.ID = "L" + rand.Text()[:16]
	what := l.say("comes to town", "転入")
	kinds := []jpki.Kind{jpki.CardSign, jpki.CardAuth}
	today := time.Now().In(jpki.JST)
	switch p.class {
	case child:
		what, kinds = l.say("is born", "出生"), kinds[1:] // no signature certificate below fifteen
		p.Attributes.BirthDate = jpki.NewBirthDate(today.Year(), today.Month(), today.Day())
	case foreign:
		p.Attributes.Name = "ＳＡＮＤＢＯＸ　ＡＬＥＸ"
	}
	e := p.Registration()
	if p.class == foreign {
		e.StayUntil = stay(today)
	}
	if _, err := l.roll.ReportEvent(ctx, e); err != nil {
		return err
	}
	certs, err := l.personalise(ctx, p, kinds...)
	if err != nil {
		return err
	}
	if err := l.meet(ctx, p, certs); err != nil {
		return err
	}
	if _, err := l.bank.CreateWatches(ctx, client.WatchOrder{Tenant: bankNumber, Watches: []client.Watch{{User: p.user, Purpose: livePurpose}}}); err != nil {
		return err
	}
	l.people = append(l.people, p)
	l.report(p, what, issued(certs))
	return nil
}

// meet shows the bank a person's certificates. Of a signature certificate it is told only if it has met one.
func (l *life) meet(ctx context.Context, p *person, certs []client.Certificate) error {
	for _, c := range certs {
		known, err := l.bank.Identify(ctx, client.IdentityRequest{Tenant: bankNumber, Purpose: livePurpose, Certificate: c.Certificate})
		if err != nil {
			return err
		}
		p.user = known.User
	}
	return nil
}

// stay is until when a foreign resident may stay who came, or was allowed to stay on, today.
func stay(today time.Time) *time.Time {
	end := time.Date(today.Year(), today.Month(), today.Day()+liveStay, 23, 59, 59, 0, jpki.JST)
	return &end
}

// personalise makes a new card for a person.
func (l *life) personalise(ctx context.Context, p *person, kinds ...jpki.Kind) ([]client.Certificate, error) {
	c, err := card.New(card.Config{Dir: l.s.env.CardDir, ID: "L" + rand.Text()[:12], SignPIN: SignPIN, AuthPIN: AuthPIN, Keys: l.s.profile.cards, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	certs, err := Personalise(ctx, l.counters[p.Municipality], c, p.ID, SignPIN, AuthPIN, kinds...)
	if err != nil {
		return nil, err
	}
	p.card = c
	return certs, nil
}

// issued says of new certificates what is said of changed ones.
func issued(certs []client.Certificate) (out []client.Changed) {
	for _, c := range certs {
		out = append(out, client.Changed{Certificate: c.ID, Kind: c.Kind, State: jpki.Good})
	}
	return out
}

// event has the register report something about a person.
func (l *life) event(ctx context.Context, p *person, e jpki.Event) ([]client.Changed, error) {
	e.ID, e.Holder, e.EffectiveAt = "live."+rand.Text(), p.ID, time.Now().UTC().Truncate(time.Second)
	out, err := l.roll.ReportEvent(ctx, e)
	if err == nil && !out.Applied {
		err = errors.New("the event waits")
	}
	return out.Changed, err
}

// move draws a new address, which is not the old one, and its municipality.
func move(p *person, rng *mathrand.Rand) (jpki.Attributes, string) {
	places := []struct{ municipality, street string }{{"99101", "砂箱県青葉市東町"}, {"99101", "砂箱県青葉市西町"}, {"99202", "砂箱県港市海岸通"}, {"99202", "砂箱県港市山手町"}}
	next := p.Attributes
	for {
		at := places[rng.IntN(len(places))]
		next.Address = fmt.Sprintf("%s%c丁目%c番", at.street, []rune("一二三四五六七八九")[rng.IntN(9)], []rune("１２３４５６７８９")[rng.IntN(9)])
		if next.Address != p.Attributes.Address {
			return next, at.municipality
		}
	}
}

func (l *life) move(ctx context.Context, p *person) ([]client.Changed, error) {
	next, municipality := move(p, l.rng)
	changed, err := l.event(ctx, p, jpki.Event{Type: jpki.AddressChanged, Municipality: municipality, Attributes: &next})
	if err == nil {
		p.Attributes, p.Municipality, p.unsign = next, municipality, p.class != child
	}
	return changed, err
}

func (l *life) marry(ctx context.Context, p *person) ([]client.Changed, error) {
	next := p.Attributes
	for next.Name == p.Attributes.Name {
		next.Name = []string{"架空", "砂山", "箱根木", "仮名川"}[l.rng.IntN(4)] + "　" + []string{"花子", "太郎", "名子"}[l.rng.IntN(3)]
	}
	changed, err := l.event(ctx, p, jpki.Event{Type: jpki.NameChanged, Attributes: &next})
	if err == nil {
		p.Attributes, p.unsign = next, true
	}
	return changed, err
}

func (l *life) lose(ctx context.Context, p *person) ([]client.Changed, error) {
	out, err := l.hotline.Suspend(ctx, rand.Text(), client.Change{Token: p.card.ID(), Cause: jpki.Lost})
	p.lost = p.lost || err == nil
	return out.Changed, err
}

func (l *life) replace(ctx context.Context, p *person) ([]client.Changed, error) {
	kinds := []jpki.Kind{jpki.CardSign, jpki.CardAuth}
	if p.class == child {
		kinds = kinds[1:]
	}
	certs, err := l.personalise(ctx, p, kinds...)
	if err == nil {
		p.lost, p.unsign = false, false
	}
	return issued(certs), err
}

func (l *life) resign(ctx context.Context, p *person) ([]client.Changed, error) {
	if err := p.card.RegenerateKey(jpki.CardSign, SignPIN); err != nil {
		return nil, err
	}
	certs, err := Personalise(ctx, l.counters[p.Municipality], p.card, p.ID, SignPIN, AuthPIN, jpki.CardSign)
	if err == nil {
		p.unsign = false
	}
	return issued(certs), err
}

// renew lets a foreign resident stay on and renews both certificates, with new keys on the same card.
func (l *life) renew(ctx context.Context, p *person) ([]client.Changed, error) {
	if _, err := l.event(ctx, p, jpki.Event{Type: jpki.StayExtended, StayUntil: stay(time.Now().In(jpki.JST))}); err != nil {
		return nil, err
	}
	for k, pin := range map[jpki.Kind]string{jpki.CardSign: SignPIN, jpki.CardAuth: AuthPIN} {
		if err := p.card.RegenerateKey(k, pin); err != nil {
			return nil, err
		}
	}
	certs, err := personaliseWith(ctx, l.counters[p.Municipality], (*client.Client).Renew, p.card, p.ID, SignPIN, AuthPIN, jpki.CardSign, jpki.CardAuth)
	return issued(certs), err
}

func (l *life) die(ctx context.Context, p *person) ([]client.Changed, error) {
	changed, err := l.event(ctx, p, jpki.Event{Type: jpki.Death})
	if err == nil {
		l.people = slices.DeleteFunc(l.people, func(q *person) bool { return q == p })
	}
	return changed, err
}

// follow tells what the bank's feed at the verifier says, from now on.
func (l *life) follow(ctx context.Context) {
	bank, err := verifierclient.New(verifierclient.Config{URL: l.s.env.VerifierURL, Token: l.s.env.VerifierToken})
	var after int64
	if err == nil {
		after, err = bank.FeedEnd(ctx) // of what was before nothing is told
	}
	if err != nil {
		l.s.log.ErrorContext(ctx, "the feed of changes cannot be read", slog.Any("error", err))
		return
	}
	for ctx.Err() == nil {
		page, err := bank.Changes(ctx, after, 0, 8*time.Second)
		if err != nil {
			if ctx.Err() == nil {
				l.s.log.ErrorContext(ctx, "the feed of changes cannot be read", slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(l.every):
			}
			continue
		}
		after = page.Next
		for _, c := range page.Changes {
			if c.Purpose == livePurpose {
				l.tell("%s %s  %s  %s", pad(fmt.Sprintf(l.say("  feed %d", "  通知 %d"), c.Sequence), 17), c.User, pad(string(c.Class), 34), c.Kind)
			}
		}
	}
}
