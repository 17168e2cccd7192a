package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/lists"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/bucket"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/hsm/signer"
)

// alone is what one process should do of all that work on the database: publish, sign checkpoints, apply what is due. Two
// that did it at the same time would do no harm but work twice: CRLs are compared with the published ones before they are
// signed, and register events and open issuances are locked in the database.
type alone struct {
	c    *config
	db   *store.Store
	ca   *ca.Authority
	log  *slog.Logger
	key  ed25519.PrivateKey
	head audit.Head // of the last checkpoint

	signer *signer.Client // nil when the issuing keys are not in jpki-signer
	usage  string         // hash of the record of use that the audit chain has

	leads                             atomic.Bool
	signed                            atomic.Int64 // when the audit record's head was last found signed, Unix time in nanoseconds
	lists, snapshots, mirrored, works jpki.Tally
}

const (
	leaseName  = "publish"
	leaseEvery = time.Second // how often one asks for the lease, or whether it is still held
)

// run does the work whenever this process has the lease, until ctx ends.
func (a *alone) run(ctx context.Context) error {
	for ctx.Err() == nil {
		lease, err := a.db.Lease(ctx, leaseName)
		if err != nil {
			a.works.Add("lease-failed")
			a.log.ErrorContext(ctx, "the lease cannot be had", slog.Any("error", err))
		}
		if lease != nil {
			if err := a.term(ctx, lease); err != nil && ctx.Err() == nil {
				a.works.Add("term-failed")
				a.log.ErrorContext(ctx, "the work with the lease broke off", slog.Any("error", err))
			}
			_ = lease.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(leaseEvery):
		}
	}
	return ctx.Err()
}

var errNewGeneration = errors.New("a generation was added")

// term works until the lease is lost, something fails or a generation is added: the next term begins with all of them.
func (a *alone) term(ctx context.Context, lease *store.Lease) error {
	a.works.Add("term")
	a.signed.Store(time.Now().UnixNano())
	a.leads.Store(true)
	defer a.leads.Store(false)
	recorded, err := generations(ctx, a.db)
	if err != nil {
		return err
	}
	statuses := lists.Statuses{DB: a.db, Now: time.Now}
	cfg := crl.Config{Dir: a.c.published("crl"), Source: statuses, Changes: statuses, Now: time.Now, Gzip: true, Log: a.log}
	var packed []snapshot.Issuer
	var ids []jpki.IssuerID
	certificates := map[jpki.IssuerID]*x509.Certificate{}
	for _, g := range recorded {
		cert, err := x509.ParseCertificate(g.Certificate)
		if err != nil {
			return fmt.Errorf("read generation %s: %w", g.Issuer, err)
		}
		if err := replaceFile(a.c.published("ca", g.Issuer.String()+".cer"), g.Certificate); err != nil {
			return err
		}
		forLists, err := a.c.keyFor(ctx, a.c.Keys.Lists, g.Issuer)
		if err != nil {
			return fmt.Errorf("generation %s: %w", g.Issuer, err)
		}
		issuer, err := lists.Issuer(ctx, lists.IssuerConfig{
			Profile: a.c.profile, StatusURL: a.c.StatusURL, Reader: &a.db.StatusReader, ID: g.Issuer, Certificate: cert, Key: forLists,
		})
		if err != nil {
			return err
		}
		forSnapshots, err := a.c.keyFor(ctx, a.c.Keys.Snapshots, g.Issuer)
		if err != nil {
			return fmt.Errorf("generation %s: %w", g.Issuer, err)
		}
		cfg.Issuers, ids, certificates[g.Issuer] = append(cfg.Issuers, issuer), append(ids, g.Issuer), cert
		packed = append(packed, snapshot.Issuer{ID: g.Issuer, Cert: cert, Signer: forSnapshots})
	}
	publisher, err := crl.NewPublisher(cfg)
	if err != nil {
		return err
	}
	packer, err := snapshot.NewPublisher(snapshot.PublisherConfig{Dir: a.c.published("snapshot"), Source: statuses, Now: time.Now, Rand: rand.Reader, Log: a.log})
	if err != nil {
		return err
	}
	if a.head, err = lastCheckpoint(a.c.path(a.c.Audit.Checkpoints), a.key); err != nil {
		return fmt.Errorf("mend checkpoints: %w", err)
	}
	dirty := make(chan crl.ID, 256)
	changes := a.db.Changes()
	every := func(name string, interval time.Duration, f func(context.Context) error) func(context.Context) error {
		return boot.Every(a.log, name, interval, f)
	}
	loops := []func(context.Context) error{
		func(ctx context.Context) error { publisher.Run(ctx, dirty); return ctx.Err() },
		func(ctx context.Context) error {
			return lists.Follow(ctx, lists.FollowConfig{Reader: &a.db.StatusReader, Profile: a.c.profile, Issuers: ids, Changes: changes, Log: a.log}, dirty)
		},
		every("end issuances cut short", 15*time.Second, func(ctx context.Context) error { _, err := a.ca.Reconcile(ctx, time.Minute); return err }),
		every("apply due register events", 10*time.Second, func(ctx context.Context) error { _, err := a.ca.ApplyDue(ctx); return err }),
		every("publish status snapshots", time.Minute, func(ctx context.Context) error {
			var failed []error // one generation's failure does not keep the others waiting
			for _, i := range packed {
				failed = append(failed, packer.Due(ctx, i))
			}
			return errors.Join(failed...)
		}),
		a.ca.FollowChanges,
		every("forget changes told long ago", time.Hour, func(ctx context.Context) error { _, err := a.ca.ForgetChanges(ctx, changesKept); return err }),
		every("record the use of keys", 2*time.Second, a.auditKeys),
		every("sign audit checkpoint", time.Second, a.checkpoint),
		func(ctx context.Context) error { return a.watch(ctx, lease, len(recorded)) },
	}
	m, err := a.c.mirror(certificates, a.log)
	if err != nil {
		return err
	}
	if m != nil {
		loops = append(loops, func(ctx context.Context) error { return m.Run(ctx, time.Second) })
	}
	a.log.InfoContext(ctx, "this process publishes", slog.Int("generations", len(recorded)))
	g, within := errgroup.WithContext(ctx)
	for _, loop := range loops {
		g.Go(func() error { return loop(within) })
	}
	g.Go(func() error { return a.count(within, publisher, packer, m) })
	if err := g.Wait(); !errors.Is(err, errNewGeneration) {
		return err
	}
	return nil
}

// watch ends a term.
func (a *alone) watch(ctx context.Context, lease *store.Lease, known int) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leaseEvery):
		}
		if err := lease.Held(ctx); err != nil {
			return fmt.Errorf("the lease is lost: %w", err)
		}
		if recorded, err := generations(ctx, a.db); err == nil && len(recorded) != known {
			return errNewGeneration
		}
	}
}

// count adds a term's tallies to the process's: each term has a publisher of its own.
func (a *alone) count(ctx context.Context, p *crl.Publisher, s *snapshot.Publisher, m *bucket.Mirror) error {
	seen := [3]map[string]uint64{{}, {}, {}}
	add := func(n int, to *jpki.Tally, now map[string]uint64) {
		for outcome, total := range now {
			for ; seen[n][outcome] < total; seen[n][outcome]++ {
				to.Add(outcome)
			}
		}
	}
	for {
		done := false
		select {
		case <-ctx.Done():
			done = true
		case <-time.After(time.Second):
		}
		add(0, &a.lists, p.Outcomes.Snapshot())
		add(1, &a.snapshots, s.Outcomes.Snapshot())
		if m != nil {
			add(2, &a.mirrored, m.Outcomes.Snapshot())
		}
		if done {
			return ctx.Err()
		}
	}
}

// listAge is how old the oldest complete CRL of any generation is that this process published or would publish over.
func (c *config) listAge(now time.Time) float64 {
	var oldest time.Duration
	_ = filepath.WalkDir(c.published("crl"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".crl") {
			return nil //nolint:nilerr // one that cannot be looked at is missing from the answer
		}
		if info, err := d.Info(); err == nil {
			oldest = max(oldest, now.Sub(info.ModTime()))
		}
		return nil
	})
	return oldest.Seconds()
}

// published is a path below the folder of what is published.
func (c *config) published(parts ...string) string {
	return filepath.Join(append([]string{c.path(c.Publish)}, parts...)...)
}

// checkFolder sees that there is a folder to publish into.
func (c *config) checkFolder() error {
	info, err := os.Stat(c.published())
	if err == nil && !info.IsDir() {
		err = errors.New("not a folder")
	}
	return err
}

func (c *config) makeFolders() error {
	if err := c.checkFolder(); err != nil {
		return err
	}
	for _, f := range []string{"ca", "crl", "snapshot"} {
		if err := os.MkdirAll(c.published(f), 0o755); err != nil { // #nosec G301 -- others serve from there
			return err
		}
	}
	return nil
}

// mirror is nil where there is no bucket.
func (c *config) mirror(issuers map[jpki.IssuerID]*x509.Certificate, log *slog.Logger) (*bucket.Mirror, error) {
	if c.Bucket == nil {
		return nil, nil
	}
	text, err := c.read(c.Bucket.Credentials)
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(text))
	if len(lines) != 2 {
		return nil, fmt.Errorf("%s does not have two lines", c.Bucket.Credentials)
	}
	b, err := bucket.New(bucket.Config{Endpoint: c.Bucket.Endpoint, Region: c.Bucket.Region, Name: c.Bucket.Name, AccessKey: lines[0], SecretKey: lines[1], Now: time.Now})
	if err != nil || issuers == nil {
		return nil, err
	}
	return bucket.NewMirror(bucket.MirrorConfig{Bucket: b, Dir: c.published("crl"), Snapshots: c.published("snapshot"), SnapshotPrefix: c.Bucket.Snapshots, Issuers: issuers, Now: time.Now, Prefix: c.Bucket.Prefix, Log: log})
}

// checkpoint signs the audit record's head if it has moved and adds it to a file that is only ever appended to.
func (a *alone) checkpoint(ctx context.Context) (err error) {
	defer func() {
		if err == nil {
			a.signed.Store(time.Now().UnixNano())
		}
	}()
	var head audit.Head
	err = a.db.View(ctx, func(tx *store.Tx) (err error) { head, err = tx.AuditHead(); return err })
	if err != nil || head == a.head {
		return err
	}
	f, err := os.OpenFile(a.c.path(a.c.Audit.Checkpoints), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, audit.Sign(head, time.Now(), a.key))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		a.head = head
	}
	return err
}

// lastCheckpoint returns the head that was signed last with the key, so that it is not signed again. It takes away the unfinished line of a
// process that was killed while it wrote, or the next would continue it.
func lastCheckpoint(path string, key ed25519.PrivateKey) (head audit.Head, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return head, nil
	}
	if err != nil {
		return head, err
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	if end < len(text) {
		err = os.Truncate(path, int64(end))
	}
	last := bytes.TrimSuffix(text[:end], []byte("\n"))
	c, bad := audit.ParseCheckpoint(string(last[bytes.LastIndexByte(last, '\n')+1:]))
	if bad != nil || !c.Valid(key.Public().(ed25519.PublicKey)) { // of another key, or no line yet
		return head, err
	}
	return c.Head, err
}

// replaceFile replaces a file whole and durably, unless it says the same.
func replaceFile(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
