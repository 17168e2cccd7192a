package crl

import (
	"bufio"
	"context"
	"crypto"
	"crypto/x509"
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
	"sync"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
)

// A Source knows what is revoked.
type Source interface {
	// Revoked returns every certificate of the issuer's key, in one partition or with an empty partition in all, that was
	// revoked or suspended at the time asOf, in any order; asOf becomes thisUpdate. A certificate that expired revoked must
	// still be among them for two publication periods: it has to be on a CRL made after its expiry (RFC 5280 §3.3).
	Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (entries []Entry, asOf time.Time, err error)
	// MayVanish reports whether a certificate that was published as revoked may be missing from now on: it has expired, or
	// it was suspended and is good again.
	MayVanish(ctx context.Context, issuer jpki.IssuerID, serial jpki.Serial) (bool, error)
}

// An Issuer is one key for which CRLs are published: a full one and one for each partition.
type Issuer struct {
	ID         jpki.IssuerID
	Cert       *x509.Certificate
	Signer     crypto.Signer
	Partitions []Scope // of this issuer, each partition once
}

// A Config says what a publisher does. Dir, Issuers, Source and Now are required.
type Config struct {
	Dir      string // which must exist; a [Server] reads it
	Issuers  []Issuer
	Source   Source
	Now      func() time.Time
	Period   time.Duration // after which a CRL is published again even if nothing happened; 0 means 24 h
	Validity time.Duration // from thisUpdate to nextUpdate, at least twice the period; 0 means 48 h
	Log      *slog.Logger  // optional
}

// A Publisher keeps the CRLs in a directory up to date.
type Publisher struct {
	// Outcomes counts publications: "published", "refused" by the check, "failed" before or after it.
	Outcomes jpki.Tally

	cfg Config

	mu      sync.Mutex // guards targets
	targets map[ID]target
	added   chan struct{} // a target came after the publisher was made
}

type target struct {
	issuer Issuer
	scope  Scope
}

// NewPublisher checks the configuration.
func NewPublisher(cfg Config) (*Publisher, error) {
	if cfg.Period == 0 {
		cfg.Period = 24 * time.Hour
	}
	if cfg.Validity == 0 {
		cfg.Validity = 48 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("crl.Config.Dir is missing")
	case len(cfg.Issuers) == 0:
		return nil, errors.New("crl.Config.Issuers is missing")
	case cfg.Source == nil:
		return nil, errors.New("crl.Config.Source is missing")
	case cfg.Now == nil:
		return nil, errors.New("crl.Config.Now is missing")
	case cfg.Period < time.Second:
		return nil, errors.New("crl.Config.Period is less than a second")
	case cfg.Validity < 2*cfg.Period:
		return nil, errors.New("crl.Config.Validity is less than two periods: one missed publication would leave no valid CRL")
	}
	p := &Publisher{cfg: cfg, targets: map[ID]target{}, added: make(chan struct{}, 1)}
	for _, issuer := range cfg.Issuers {
		if err := p.AddIssuer(issuer); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// AddIssuer has the CRLs of one more key published from now on, by a [Publisher.Run] that is under way as well. An error
// leaves things as they were.
func (p *Publisher) AddIssuer(issuer Issuer) error {
	if _, err := checkIssuer(issuer.Cert, issuer.Signer); err != nil {
		return fmt.Errorf("issuer %s: %w", issuer.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	more := maps.Clone(p.targets)
	for _, scope := range append([]Scope{{Issuer: issuer.ID}}, issuer.Partitions...) {
		if err := scope.Validate(); err != nil {
			return fmt.Errorf("issuer %s: %w", issuer.ID, err)
		}
		if _, twice := more[scope.ID()]; twice || scope.Issuer != issuer.ID {
			return fmt.Errorf("issuer %s: CRL scope %s is there twice or another issuer's", issuer.ID, scope.ID())
		}
		more[scope.ID()] = target{issuer, scope}
	}
	p.targets = more
	select {
	case p.added <- struct{}{}:
	default:
	}
	return nil
}

// all returns the targets, not to be changed.
func (p *Publisher) all() map[ID]target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets
}

// Publish makes one CRL anew and puts it in the place of the published one, if Check lets it. Steps:
//  1. wait until no other publisher works on the directory
//  2. read the published CRL and the entries
//  3. build the new one beside it, with the Unix time in milliseconds for a number, or one more than the published if that is greater
//  4. read it back from the file and check it against the published one
//  5. give it the published one's name, durably
//
// An error leaves the published file as it was. A CRL that is not configured is a [jpki.NotFound].
func (p *Publisher) Publish(ctx context.Context, id ID) error {
	t, ok := p.all()[id]
	if !ok {
		return jpki.Errorf(jpki.NotFound, "CRL %s is not one of ours", id)
	}
	outcome, err := p.publish(ctx, t)
	p.Outcomes.Add(outcome)
	if err != nil {
		return fmt.Errorf("publish CRL %s: %w", id, err)
	}
	return nil
}

func (p *Publisher) publish(ctx context.Context, t target) (outcome string, err error) {
	const published, refused, failed = "published", "refused", "failed"
	held, err := lockDir(ctx, p.cfg.Dir)
	if err != nil {
		return failed, fmt.Errorf("lock directory: %w", err)
	}
	defer held.Close()

	path := filepath.Join(p.cfg.Dir, filepath.FromSlash(t.scope.ID().Path()))
	prev, err := readList(path, t)
	if err != nil {
		return refused, fmt.Errorf("read the published one: %w", err)
	}
	entries, asOf, err := p.cfg.Source.Revoked(ctx, t.scope.Issuer, t.scope.Partition)
	if err != nil {
		return failed, fmt.Errorf("read what is revoked: %w", err)
	}
	if bySerial := func(a, b Entry) int { return compare(a.Serial.Bytes(), b.Serial.Bytes()) }; !slices.IsSortedFunc(entries, bySerial) {
		entries = slices.Clone(entries)
		slices.SortFunc(entries, bySerial)
	}

	now := p.cfg.Now()
	thisUpdate := asOf.Truncate(time.Second)
	template := Template{
		IssuerCert: t.issuer.Cert, Signer: t.issuer.Signer, Scope: t.scope,
		Number: big.NewInt(now.UnixMilli()), ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(p.cfg.Validity),
	}
	if prev != nil && template.Number.Cmp(prev.Number) <= 0 { // the clock went back
		template.Number.Add(prev.Number, big.NewInt(1))
	}
	unfinished, err := makeFile(path, func(w io.Writer) error { return Build(w, template, slices.Values(entries)) })
	if err != nil {
		return failed, err
	}
	defer func() { // gone already if all went well
		if rm := os.Remove(unfinished); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}()

	next, err := readList(unfinished, t)
	if err == nil && next == nil {
		err = errors.New("what was just written is gone")
	}
	if err != nil {
		return refused, err
	}
	var asking error
	err = compareLists(prev, next, now, func(serial jpki.Serial) bool {
		may, err := p.cfg.Source.MayVanish(ctx, t.scope.Issuer, serial)
		if err != nil {
			asking = fmt.Errorf("ask whether entry %s may vanish: %w", serial, err)
		}
		return may
	})
	switch {
	case asking != nil:
		return failed, asking
	case err != nil:
		return refused, err
	}
	now = p.cfg.Now() // the time of modification that a Server tells is that of publication
	err = firstError(
		func() error { return os.Chtimes(unfinished, now, now) },
		func() error { return os.Rename(unfinished, path) },
		func() error { return syncDir(filepath.Dir(path)) })
	if err != nil {
		return failed, err
	}
	p.cfg.Log.InfoContext(ctx, "CRL published", slog.String("issuer", t.scope.Issuer.String()), slog.String("shard", t.scope.Partition),
		slog.String("number", next.Number.String()), slog.Int("entries", len(next.RevokedCertificateEntries)), slog.Int("octets", len(next.Raw)))
	return published, nil
}

// readList reads and checks a CRL file of the target; nil if there is none.
func readList(path string, t target) (*x509.RevocationList, error) {
	der, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(der, t.issuer.Cert, t.scope)
}

// makeFile writes, beside path, a file that can take its place, and returns its name. One left by a crash is started afresh.
func makeFile(path string, write func(io.Writer) error) (name string, err error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // CRLs are public; another user serves them
			return "", err
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return "", err
		}
	}
	name = filepath.Join(dir, "."+filepath.Base(path)+".new")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // as above
	if err != nil {
		return "", err
	}
	b := bufio.NewWriterSize(f, 64<<10)
	err = firstError(func() error { return write(b) }, b.Flush, f.Sync)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(name))
	}
	return name, nil
}

// syncDir makes a change of names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir waits until the caller alone may publish; closing the result ends that. The lock belongs to the open file, so
// goroutines exclude each other as processes do, and it ends with the process however that ends.
func lockDir(ctx context.Context, dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), d.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
