package snapshot

import (
	"bufio"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
)

// A Source knows every certificate.
type Source interface {
	// Certificates walks every certificate of the issuer's key that was issued before the call and has a notAfter from a time on,
	// in any order, once.
	Certificates(ctx context.Context, issuer jpki.IssuerID, from time.Time) iter.Seq2[Certificate, error]
}

// An Issuer is one key whose snapshots are published.
type Issuer struct {
	ID     jpki.IssuerID
	Cert   *x509.Certificate
	Signer crypto.Signer
}

// A PublisherConfig says what a publisher does. Dir, Source, Now and Rand are required.
type PublisherConfig struct {
	Dir    string // which must exist; a folder for each issuer is made in it
	Source Source
	Now    func() time.Time
	Rand   io.Reader // crypto/rand.Reader

	Whole  time.Duration // after which there is a new snapshot; 0 means 24 h
	Delta  time.Duration // after which there is a delta; 0 means 1 h
	Life   time.Duration // from thisUpdate to nextUpdate, at least twice Whole; 0 means 48 h
	Margin time.Duration // how long an issuance may take: certificates younger than that are not covered; 0 means 2 min

	TempDir string       // for what a snapshot is built of; empty: where the system has its temporary files
	Log     *slog.Logger // optional
}

// A Publisher keeps snapshots and deltas in a directory up to date. It is safe for concurrent use; several may share a
// directory if their locks reach each other.
type Publisher struct {
	// Outcomes counts publications: "snapshot", "delta" or "failed".
	Outcomes jpki.Tally

	cfg PublisherConfig
}

// NewPublisher checks the configuration.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	for _, d := range []struct {
		field   *time.Duration
		without time.Duration
	}{{&cfg.Whole, 24 * time.Hour}, {&cfg.Delta, time.Hour}, {&cfg.Life, 48 * time.Hour}, {&cfg.Margin, 2 * time.Minute}} {
		if *d.field == 0 {
			*d.field = d.without
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Dir == "":
		return nil, errors.New("snapshot.PublisherConfig.Dir is missing")
	case cfg.Source == nil:
		return nil, errors.New("snapshot.PublisherConfig.Source is missing")
	case cfg.Now == nil:
		return nil, errors.New("snapshot.PublisherConfig.Now is missing")
	case cfg.Rand == nil:
		return nil, errors.New("snapshot.PublisherConfig.Rand is missing")
	case cfg.Delta < time.Second || cfg.Whole < cfg.Delta || cfg.Whole/cfg.Delta >= maxFiles:
		return nil, errors.New("snapshot.PublisherConfig.Delta is less than a second, more than Whole, or too short for it")
	case cfg.Life < 2*cfg.Whole:
		return nil, errors.New("snapshot.PublisherConfig.Life is less than two Wholes: one missed publication would leave no valid snapshot")
	case cfg.Margin < 0:
		return nil, errors.New("snapshot.PublisherConfig.Margin is negative")
	}
	return &Publisher{cfg: cfg}, nil
}

// Due publishes what is due of an issuer: a snapshot, a delta or nothing.
func (p *Publisher) Due(ctx context.Context, issuer Issuer) error { return p.count(ctx, issuer, due) }

// Publish publishes of an issuer at once: a delta, or with whole, or if there is nothing to make one of, a snapshot. Steps:
//  1. wait until no other publisher works in the issuer's folder
//  2. open what the index names; what cannot be used any more is no obstacle to a snapshot
//  3. build a file beside, and open it as a reader would
//  4. give it its name, then replace the index: at any moment, and after any crash, the index names whole files that fit together
//  5. remove files that no index names and that nobody can use any more
//
// Numbers are milliseconds, or one more than the greatest number of any file that is there.
func (p *Publisher) Publish(ctx context.Context, issuer Issuer, whole bool) error {
	return p.count(ctx, issuer, map[bool]order{false: delta, true: all}[whole])
}

type order int

const (
	due order = iota
	delta
	all
)

func (p *Publisher) count(ctx context.Context, issuer Issuer, o order) error {
	outcome, err := p.publish(ctx, issuer, o)
	if err != nil {
		p.Outcomes.Add("failed")
		return fmt.Errorf("publish status snapshot of %s: %w", issuer.ID, err)
	}
	if outcome != "" {
		p.Outcomes.Add(outcome)
	}
	return nil
}

func (p *Publisher) publish(ctx context.Context, issuer Issuer, o order) (outcome string, err error) {
	// 1.
	dir := filepath.Join(p.cfg.Dir, issuer.ID.String())
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // it is for everybody
		return "", err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("lock folder: %w", err)
	}
	defer unlock()
	// 2.
	now := p.cfg.Now()
	config := Config{IssuerCert: issuer.Cert, Now: p.cfg.Now}
	before, index, err := OpenDir(dir, config)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.cfg.Log.WarnContext(ctx, "published status snapshot left aside", slog.String("issuer", issuer.ID.String()), slog.Any("error", err))
		}
		before, index, o = nil, &Index{Issuer: issuer.ID.String()}, all
	}
	switch {
	case o == due && now.Sub(index.Files[0].ThisUpdate) >= p.cfg.Whole:
		o = all
	case o == due && now.Sub(before.info.ThisUpdate) >= p.cfg.Delta:
		o = delta
	case o == due:
		return "", nil
	}
	var octets int64 // that a reader of all deltas fetches
	for _, f := range index.Files {
		octets += f.Octets
	}
	if o == delta && (len(index.Files) == maxFiles || octets > 2*index.Files[0].Octets && octets > 1<<20) {
		o = all
	}
	last, err := lastSequence(dir)
	if err != nil {
		return "", err
	}
	// 3.
	t := Template{
		Issuer: issuer.ID, IssuerCert: issuer.Cert, Signer: issuer.Signer, Sequence: max(uint64(now.UnixMilli()), last+1), ThisUpdate: now, NextUpdate: now.Add(p.cfg.Life),
		IssuedUntil: now.Add(-p.cfg.Margin), ExpiresFrom: now, Rand: p.cfg.Rand, TempDir: p.cfg.TempDir,
	}
	file, err := p.make(ctx, dir, t, before, o, config)
	if err != nil && o == delta && ctx.Err() == nil { // too many changes, or the margin has grown
		p.cfg.Log.WarnContext(ctx, "no delta of a status snapshot but a new one", slog.String("issuer", issuer.ID.String()), slog.Any("error", err))
		o = all
		file, err = p.make(ctx, dir, t, before, o, config)
	}
	if err != nil {
		return "", err
	}
	// 4.
	if o == all {
		index.Files, outcome = nil, "snapshot"
	} else {
		outcome = "delta"
	}
	index.Files = append(index.Files, file)
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return "", err
	}
	if err := replace(filepath.Join(dir, IndexName), append(text, '\n')); err != nil {
		return "", err
	}
	p.cfg.Log.InfoContext(ctx, "status snapshot published", slog.String("issuer", issuer.ID.String()), slog.String("file", file.Name), slog.Int64("octets", file.Octets))
	// 5.
	return outcome, p.tidy(dir, index, now)
}

// make builds a file and gives it its name.
func (p *Publisher) make(ctx context.Context, dir string, t Template, before *Snapshot, o order, c Config) (out File, err error) {
	f, err := os.OpenFile(filepath.Join(dir, unfinished), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // as above
	if err != nil {
		return out, err
	}
	defer func() {
		_ = f.Close()
		if rm := os.Remove(f.Name()); rm != nil && !errors.Is(rm, fs.ErrNotExist) { // gone already if all went well
			err = errors.Join(err, rm)
		}
	}()
	certificates := p.cfg.Source.Certificates(ctx, t.Issuer, t.ExpiresFrom.Truncate(time.Second))
	w := bufio.NewWriter(f)
	var info Info
	if o == all {
		info, err = Build(w, t, certificates)
	} else {
		info, err = BuildDelta(w, t, before, certificates)
	}
	if err = errors.Join(err, w.Flush(), f.Sync()); err != nil {
		return out, err
	}
	octets, err := readLimited(f.Name(), maxFile)
	if err != nil {
		return out, err
	}
	if o == all {
		_, err = Open(octets, c)
	} else {
		_, err = before.Apply(octets)
	}
	if err != nil {
		return out, fmt.Errorf("what was built cannot be used: %w", err)
	}
	sum := sha256.Sum256(octets)
	out = File{fileName(t.Sequence, o == delta), int64(len(octets)), hex.EncodeToString(sum[:]), info.ThisUpdate, info.NextUpdate}
	return out, os.Rename(f.Name(), filepath.Join(dir, out.Name))
}

const unfinished = ".new"

// replace replaces a file durably, with the names given in its folder before.
func replace(path string, text []byte) error {
	dir, name := filepath.Dir(path), path+unfinished
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // as above
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close(), syncFolder(dir)); err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lastSequence returns the greatest number of a file that is there, named by an index or not.
func lastSequence(dir string) (last uint64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if n, _, ok := parseName(e.Name()); ok {
			last = max(last, n)
		}
	}
	return last, err
}

// tidy removes what nobody can use: files of earlier indexes whose nextUpdate is over. Until then somebody may be fetching them.
func (p *Publisher) tidy(dir string, index *Index, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		_, _, ok := parseName(e.Name())
		if !ok || slices.ContainsFunc(index.Files, func(f File) bool { return f.Name == e.Name() }) {
			continue
		}
		h, err := headOf(filepath.Join(dir, e.Name()))
		if err == nil && now.Before(h.NextUpdate) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// headOf reads what a file says about itself, unverified.
func headOf(path string) (*header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headerOctets)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	return parseHeader(head)
}

// lock waits until the caller alone may publish in a folder. The lock ends with the process, however that ends.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil
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
