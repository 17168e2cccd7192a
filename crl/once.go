package crl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// Publish makes one CRL anew from the source and puts it in the place of the published one, if the check lets it; of a
// delta, from what changed. Steps:
//  1. wait until no other publisher works on the directory
//  2. read and verify the published CRL
//  3. write the new one to a file beside it, all but the signature: the entries, one by one, and what stands around them, with
//     the Unix time in milliseconds for a number, or one more than the published if that is greater
//  4. read it back from the file and check it against the published one
//  5. sign what was read, and check the signature
//  6. see that the published one is still the same, and give the new one its name, durably
//     (and with [Config].Gzip put its gzip form beside it)
//  7. the same with the delta, if the scope has one, under the same number (RFC 5280 §5.2.4)
//
// An error leaves the published file as it was. A CRL that is not configured is a [jpki.NotFound]; that somebody who does not
// know of the lock replaced the file meanwhile is a [jpki.Conflict].
func (p *Publisher) Publish(ctx context.Context, id ID) error { return p.count(ctx, id, false) }

// Update is Publish, but takes what has not changed from the published CRL, where it is known up to which position of the
// log that one speaks; and of a long CRL that has deltas it publishes only the delta. Once a period it is Publish.
func (p *Publisher) Update(ctx context.Context, id ID) error { return p.count(ctx, id, true) }

// PublishAll publishes every CRL anew from the source, whatever its age: after a disaster. It goes on after an error.
func (p *Publisher) PublishAll(ctx context.Context) error {
	var failed []error
	for _, id := range slices.SortedFunc(maps.Keys(p.all()), func(a, b ID) int { return cmp.Compare(a.String(), b.String()) }) {
		if id.Delta { // comes with its CRL
			continue
		}
		if err := p.Publish(ctx, id); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

const published, refused, failed = "published", "refused", "failed"

func (p *Publisher) count(ctx context.Context, id ID, update bool) error {
	t, ok := p.all()[id]
	if !ok {
		return jpki.Errorf(jpki.NotFound, "CRL %s is not one of ours", id)
	}
	outcome, err := p.publish(ctx, t, id.Delta, update)
	p.Outcomes.Add(outcome)
	if err != nil {
		return fmt.Errorf("publish CRL %s: %w", id, err)
	}
	return nil
}

// known is what was learnt of a published file, which only ever is replaced.
type known struct {
	info               os.FileInfo
	number             *big.Int
	this               time.Time
	bodyStart, bodyEnd int64
	marks              []mark
}

// maxChanges is how many changes are held in memory; for more the source is read.
const maxChanges = 50_000

// A publication is one list on its way.
type publication struct {
	p     *Publisher
	t     target
	delta bool // the list is a delta
	path  string
	prev  *os.File // nil if nothing is published
	known known    // of prev
}

func (p *Publisher) publish(ctx context.Context, t target, delta, update bool) (outcome string, err error) {
	held, err := lockDir(ctx, p.cfg.Dir)
	if err != nil {
		return failed, fmt.Errorf("lock directory: %w", err)
	}
	defer func() { _ = held.Close() }()
	if err := makeDir(filepath.Join(p.cfg.Dir, t.scope.Issuer.String())); err != nil {
		return failed, err
	}
	list, err := p.open(t, false)
	if err != nil {
		return refused, fmt.Errorf("read the published one: %w", err)
	}
	defer list.close()
	now := p.cfg.Now()
	number := big.NewInt(now.UnixMilli())
	after := func(l *publication) { // the clock went back, or stands still
		if l.prev != nil && number.Cmp(l.known.number) <= 0 {
			number.Add(l.known.number, big.NewInt(1))
		}
	}
	after(list)
	var deltas *publication
	if t.scope.DeltaURL != "" {
		if deltas, err = p.open(t, true); err != nil { // a delta can be made anew; nothing is lost with it
			p.cfg.Log.WarnContext(ctx, "published delta CRL left aside", slog.String("crl", t.scope.ID().String()), slog.Any("error", err))
			deltas = &publication{p: p, t: t, delta: true, path: p.path(t.scope.ID(), true)}
		}
		defer deltas.close()
		after(deltas)
	}
	st := list.readState()
	whole := st == nil || now.Sub(st.baseTime) >= p.cfg.Period
	switch {
	case delta && whole || !update && !delta: // a delta that has no base yet comes with it
		return list.whole(ctx, deltas, number)
	case !delta && update && (whole || p.cfg.Changes == nil):
		return list.whole(ctx, deltas, number)
	case delta || deltas != nil && list.known.bodyEnd >= p.cfg.DeltaAlone:
		return deltas.sinceBase(ctx, st, nil, number)
	}
	return list.incremental(ctx, deltas, st, number)
}

func (p *Publisher) path(id ID, delta bool) string {
	id.Delta = delta
	return filepath.Join(p.cfg.Dir, filepath.FromSlash(id.Path()))
}

// open reads and verifies what is published, all of it unless that is what it was the last time.
func (p *Publisher) open(t target, delta bool) (*publication, error) {
	id := t.scope.ID()
	id.Delta = delta
	l := &publication{p: p, t: t, delta: delta, path: p.path(id, delta)}
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.prev = f
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.mu.Lock()
	k, ok := p.known[id]
	p.mu.Unlock()
	if ok && unchanged(k.info, info) {
		l.known = k
		return l, nil
	}
	g, err := l.gate(f, info.Size(), true, false)
	for more := err == nil; more && err == nil; {
		more, err = g.nextEntry()
	}
	if err == nil {
		err = firstError(g.finishSigned, g.finish)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.learn(info, g)
	return l, nil
}

func (l *publication) close() {
	if l.prev != nil {
		_ = l.prev.Close()
	}
}

func (l *publication) gate(f io.ReaderAt, size int64, old, trusted bool) (*gateList, error) {
	g, err := openGateList(f, size, l.t.issuer.Cert, l.t.scope, l.delta, trusted)
	if err == nil {
		g.old = old
	}
	return g, err
}

func (l *publication) learn(info os.FileInfo, g *gateList) {
	l.known = known{info, g.number, g.this, g.bodyStart, g.bodyEnd, g.marks}
	id := l.t.scope.ID()
	id.Delta = l.delta
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.known[id] = l.known
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// whole makes a list from the source; it becomes the base of deltas.
func (l *publication) whole(ctx context.Context, deltas *publication, number *big.Int) (string, error) {
	entries, mark, err := l.p.cfg.Source.Revoked(ctx, l.t.scope.Issuer, l.t.scope.Partition)
	if err != nil {
		return failed, fmt.Errorf("read what is revoked: %w", err)
	}
	st := &state{number: number, position: mark.Position, base: number, basePosition: mark.Position, baseTime: mark.AsOf}
	template := l.template(number, mark.AsOf, l.p.cfg.Validity)
	encoded := streamed(entries, l.known.bodyEnd-l.known.bodyStart)
	if outcome, err := l.replace(ctx, template, encoded, gate{}, st); err != nil || deltas == nil {
		return outcome, err
	}
	return deltas.make(ctx, st, nil, mark, number)
}

// incremental makes a list of the published one and what has changed since.
func (l *publication) incremental(ctx context.Context, deltas *publication, st *state, number *big.Int) (string, error) {
	changes, mark, err := l.p.cfg.Changes.Changes(ctx, l.t.scope.Issuer, l.t.scope.Partition, st.position, maxChanges)
	switch {
	case err != nil:
		return failed, fmt.Errorf("read what has changed: %w", err)
	case len(changes) > maxChanges:
		return l.whole(ctx, deltas, number)
	}
	changes = latest(changes)
	encoded, err := edited(l.prev, l.known, changes)
	if err != nil {
		return failed, err
	}
	next := *st
	next.number, next.position = number, mark.Position
	if outcome, err := l.replace(ctx, l.template(number, mark.AsOf, l.p.cfg.Validity), encoded, gate{changes: changes}, &next); err != nil || deltas == nil {
		return outcome, err
	}
	return deltas.sinceBase(ctx, &next, &mark, number)
}

// sinceBase makes a delta of what has changed since its base; with a mark, of no more than the complete CRL of the same number knows.
func (l *publication) sinceBase(ctx context.Context, st *state, upTo *Mark, number *big.Int) (string, error) {
	changes, mark, err := l.p.cfg.Changes.Changes(ctx, l.t.scope.Issuer, l.t.scope.Partition, st.basePosition, maxChanges)
	if err != nil {
		return failed, fmt.Errorf("read what has changed: %w", err)
	}
	if upTo != nil && mark.Position != upTo.Position { // more has changed meanwhile; what is made of it comes with the next number
		number, mark.AsOf = new(big.Int).Add(number, big.NewInt(1)), laterOf(mark.AsOf, upTo.AsOf)
	}
	if len(changes) > maxChanges { // the delta would be no small one: a new base
		list, err := l.p.open(l.t, false)
		if err != nil {
			return refused, fmt.Errorf("read the published one: %w", err)
		}
		defer list.close()
		if list.prev != nil && number.Cmp(list.known.number) <= 0 {
			number = new(big.Int).Add(list.known.number, big.NewInt(1))
		}
		return list.whole(ctx, l, number)
	}
	return l.make(ctx, st, latest(changes), mark, number)
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// make makes a delta of changes.
func (l *publication) make(ctx context.Context, st *state, changes []Change, mark Mark, number *big.Int) (string, error) {
	entries := func(yield func(Entry) bool) {
		for _, c := range changes {
			if !yield(Entry{c.Serial, c.At, c.reason()}) {
				return
			}
		}
	}
	encoded := body{write: func(w io.Writer) (int64, error) {
		return writeEntries(w, entries, true)
	}}
	template := l.template(number, mark.AsOf, 2*l.p.cfg.DeltaPeriod)
	template.Base = st.base
	return l.replace(ctx, template, encoded, gate{changes: changes, exactly: true}, nil)
}

func (l *publication) template(number *big.Int, asOf time.Time, validity time.Duration) Template {
	thisUpdate := asOf.Truncate(time.Second)
	return Template{
		IssuerCert: l.t.issuer.Cert, Signer: l.t.issuer.Signer, Scope: l.t.scope,
		Number: number, ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(validity),
	}
}

// replace builds a list, has it pass the gate and gives it the published one's name.
func (l *publication) replace(ctx context.Context, template Template, entries body, g gate, st *state) (outcome string, err error) {
	g.now = l.p.cfg.Now() // later than the source's look, whose time the list has
	d, err := newDraft(l.path, template, entries)
	if err != nil {
		return failed, fmt.Errorf("build CRL %s: %w", l.t.scope.ID(), err)
	}
	defer func() { // the name is gone already if all went well
		err = errors.Join(err, d.close())
	}()
	g.mayVanish = func(s jpki.Serial) (bool, error) { return l.p.cfg.Source.MayVanish(ctx, l.t.scope.Issuer, s) }
	if l.delta { // what a delta says goes into a complete CRL and may vanish with the base; that it is right is what exactly means
		g.mayVanish = func(jpki.Serial) (bool, error) { return true, nil }
	}
	var signature []byte
	size := d.size()
	for moved := true; moved; {
		if outcome, err := l.letPass(&g, d.f, size); err != nil {
			return outcome, err
		}
		if signature == nil {
			if signature, err = d.sign(template.Signer, g.next.hash.Sum(nil)); err != nil {
				return failed, err
			}
		}
		if size, moved, err = d.seal(signature); err != nil { // moved: to be read once more
			return failed, err
		}
	}
	if err := firstError(func() error { return g.next.sealed(size) }, func() error { return l.bySecondParser(d.f, size) }); err != nil {
		return refused, err
	}
	if l.delta && (g.next.base.Cmp(template.Base) != 0) {
		return refused, errors.New("the delta is for another base")
	}
	now, unfinished := l.p.cfg.Now(), d.f.Name() // the time of modification that a Server tells is that of publication
	err = firstError(
		d.sync,
		func() error { return l.writeState(st) },
		func() error { return os.Chtimes(unfinished, now, now) },
		l.unchanged,
		func() error { return os.Rename(unfinished, l.path) },
		func() error { return syncDir(filepath.Dir(l.path)) })
	if err != nil {
		return failed, err
	}
	info, err := d.f.Stat()
	if err != nil {
		return failed, err
	}
	l.learn(info, g.next)
	if l.p.cfg.Gzip { // without it the list is only longer
		if err := pack(l.path, d.f, info.Size()); err != nil {
			l.p.Outcomes.Add("unpacked")
			l.p.cfg.Log.WarnContext(ctx, "CRL not packed", slog.String("issuer", l.t.scope.Issuer.String()), slog.String("shard", l.t.scope.Partition), slog.Any("error", err))
		}
	}
	l.p.cfg.Log.InfoContext(ctx, "CRL published", slog.String("issuer", l.t.scope.Issuer.String()), slog.String("shard", l.t.scope.Partition), slog.Bool("delta", l.delta),
		slog.String("number", g.next.number.String()), slog.Int64("entries", g.next.entries), slog.Int64("octets", info.Size()))
	return published, nil
}

// letPass reads back the signed part of a draft and holds it against what is published.
func (l *publication) letPass(g *gate, f io.ReaderAt, size int64) (outcome string, err error) {
	if g.next, err = l.gate(f, size, false, false); err != nil {
		return refused, err
	}
	if l.prev != nil {
		if g.prev, err = l.gate(l.prev, l.known.info.Size(), true, true); err != nil {
			return refused, err
		}
	}
	if err := g.pass(); errors.Is(err, errNotAsked) {
		return failed, err
	} else if err != nil {
		return refused, err
	}
	return "", nil
}

// unchanged sees that nobody put another file into the place of the one that was built upon: a directory may be shared by
// machines whose locks do not reach each other.
func (l *publication) unchanged() error {
	info, err := os.Stat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && l.prev == nil:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil || l.prev == nil || !unchanged(l.known.info, info):
		return jpki.Errorf(jpki.Conflict, "another publisher, which this one's lock does not reach, has replaced the CRL meanwhile")
	}
	return nil
}

// smallList is up to how many octets a list is read by crypto/x509 as well, which needs fifteen times the memory.
const smallList = 256 << 10

func (l *publication) bySecondParser(f io.ReaderAt, size int64) error {
	if size > smallList {
		return nil
	}
	der := make([]byte, size)
	if _, err := f.ReadAt(der, 0); err != nil {
		return err
	}
	_, err := parse(der, l.t.issuer.Cert, l.t.scope, l.delta, false)
	return err
}

// state is what is known of a published list besides what it says: the position in the log up to which it speaks, and the
// base of its deltas. It lies beside the list and is believed only if it is of that list's number.
type state struct {
	number, base           *big.Int
	position, basePosition int64
	baseTime               time.Time
}

func (l *publication) statePath() string {
	return filepath.Join(filepath.Dir(l.path), "."+filepath.Base(l.path)+".state")
}

// readState returns nil if nothing is known for certain.
func (l *publication) readState() *state {
	if l.prev == nil || l.p.cfg.Changes == nil {
		return nil
	}
	text, err := os.ReadFile(l.statePath())
	if err != nil {
		return nil
	}
	st := state{number: new(big.Int), base: new(big.Int)}
	var seconds int64
	if n, err := fmt.Sscanf(string(text), stateFormat, st.number, &st.position, st.base, &st.basePosition, &seconds); n != 5 || err != nil || st.number.Cmp(l.known.number) != 0 {
		return nil
	}
	st.baseTime = time.Unix(seconds, 0)
	return &st
}

const stateFormat = "number %d position %d base %d position %d of %d\n"

// Positions returns the highest position of the log up to which any list published in a directory speaks, as far as the
// notes beside the lists tell; 0 without any.
func Positions(dir string) (highest int64, err error) {
	notes, err := filepath.Glob(filepath.Join(dir, "*", ".*.state"))
	if err != nil {
		return 0, err
	}
	for _, path := range notes {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		var number, base big.Int
		var position, basePosition, seconds int64
		if n, err := fmt.Sscanf(string(text), stateFormat, &number, &position, &base, &basePosition, &seconds); n != 5 || err != nil {
			return 0, fmt.Errorf("%s is not a publisher's", filepath.Base(path))
		}
		highest = max(highest, position)
	}
	return highest, nil
}

func (l *publication) writeState(st *state) error {
	if st == nil || l.p.cfg.Changes == nil {
		return nil
	}
	name, err := makeFile(l.statePath(), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, stateFormat, st.number, st.position, st.base, st.basePosition, st.baseTime.Unix())
		return err
	})
	if err != nil {
		return err
	}
	return os.Rename(name, l.statePath())
}
