package crl_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// A world is what a publisher of a test publishes, and its clock.
type world struct {
	mu           sync.Mutex
	now          time.Time
	asOf         time.Time // zero: now
	revoked      map[string][]crl.Entry
	log          []logged
	changesAsked int
	released     map[jpki.Serial]bool
	err          error // of Revoked
	mayErr       error // of MayVanish
	asked        []crl.ID
}

func (w *world) Now() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) set(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func (w *world) Revoked(_ context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, crl.ID{Issuer: issuer, Partition: partition})
	asOf := w.asOf
	if asOf.IsZero() {
		asOf = w.now
	}
	all := slices.Clone(w.revoked[partition])
	if partition == "" {
		for p, entries := range w.revoked {
			if p == "" {
				continue
			}
			all = append(all, entries...)
		}
	}
	slices.SortFunc(all, func(a, b crl.Entry) int { return a.Serial.Big().Cmp(b.Serial.Big()) })
	return sequence(all), crl.Mark{AsOf: asOf, Position: int64(len(w.log))}, w.err
}

func sequence(entries []crl.Entry) iter.Seq2[crl.Entry, error] {
	return func(yield func(crl.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) MayVanish(_ context.Context, _ jpki.IssuerID, serial jpki.Serial) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.released[serial], w.mayErr
}

func config(t *testing.T, w *world, dir string) crl.Config {
	t.Helper()
	a := newAuthority(t, "p-256")
	return crl.Config{Dir: dir, Source: w, Now: w.Now, Issuers: []crl.Issuer{{
		ID: a.id, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{partition(t, a.id, "99101"), partition(t, a.id, "99102")},
	}}}
}

func newPublisher(t *testing.T, cfg crl.Config) *crl.Publisher {
	t.Helper()
	p, err := crl.NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	sign1   = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	key101  = crl.ID{Issuer: sign1, Partition: "99101"}
	key102  = crl.ID{Issuer: sign1, Partition: "99102"}
	keyFull = crl.ID{Issuer: sign1}
)

func published(t *testing.T, dir string, key crl.ID) []byte {
	t.Helper()
	der, err := os.ReadFile(filepath.Join(dir, key.Path()))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parsed(t *testing.T, dir string, key crl.ID) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(published(t, dir, key))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPublish(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	entries := numbered(t, 5)
	w := &world{now: t0.Add(123 * time.Millisecond), revoked: map[string][]crl.Entry{"99101": entries[:3], "99102": entries[3:]}}
	p := newPublisher(t, config(t, w, dir))
	for _, key := range []crl.ID{key101, key102, keyFull} {
		if err := p.Publish(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[crl.ID]int{key101: 3, key102: 2, keyFull: 5} {
		list := parsed(t, dir, key)
		if len(list.RevokedCertificateEntries) != want {
			t.Errorf("%s has %d entries, want %d", key, len(list.RevokedCertificateEntries), want)
		}
		if list.Number.Int64() != w.now.UnixMilli() || !list.ThisUpdate.Equal(t0) || !list.NextUpdate.Equal(t0.Add(48*time.Hour)) {
			t.Errorf("%s: number %v, thisUpdate %v, nextUpdate %v", key, list.Number, list.ThisUpdate, list.NextUpdate)
		}
		if hasIDP := slices.ContainsFunc(parsedExtensions(list), asn1.ObjectIdentifier{2, 5, 29, 28}.Equal); hasIDP != (key.Partition != "") {
			t.Errorf("%s: issuingDistributionPoint: %v", key, hasIDP)
		}
	}
	// The same moment, and then an earlier one, still give greater numbers; the data's time must not go back.
	for i, now := range []time.Time{w.now, w.now.Add(-100 * time.Millisecond)} {
		w.set(func() { w.now = now })
		if err := p.Publish(ctx, key101); err != nil {
			t.Fatal(err)
		}
		if got, want := parsed(t, dir, key101).Number.Int64(), t0.UnixMilli()+123+int64(i)+1; got != want {
			t.Errorf("number %d, want %d", got, want)
		}
	}
	if err := p.Publish(ctx, crl.ID{Issuer: sign1, Partition: "99999"}); !errors.Is(err, jpki.NotFound) {
		t.Errorf("a partition of nobody: %v", err)
	}
	var left []string
	if err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			left = append(left, rel)
			if info.Mode().Perm()&0o044 == 0 {
				t.Errorf("%s has mode %v; the status zone cannot read it", rel, info.Mode())
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sign-1/99101.crl", "sign-1/99102.crl", "sign-1/full.crl"}, left); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]uint64{"published": 5}, p.Outcomes.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func parsedExtensions(list *x509.RevocationList) (ids []asn1.ObjectIdentifier) {
	for _, e := range list.Extensions {
		ids = append(ids, e.Id)
	}
	return ids
}

// Whatever goes wrong, the published file stays as it was, and what is wrong is said; then publication goes on.
func TestPublishKeepsTheOld(t *testing.T) {
	ctx := context.Background()
	other := generate(t, "p-256")
	entries := numbered(t, 3)
	for _, c := range []struct {
		name    string
		wrong   func(t *testing.T, w *world, cfg *crl.Config)
		outcome string
		want    string
	}{
		{"source down", func(_ *testing.T, w *world, _ *crl.Config) { w.err = errors.New("database gone") }, "failed", "database gone"},
		{"source behind", func(_ *testing.T, w *world, _ *crl.Config) { w.asOf = t0.Add(-time.Second) }, "refused", "is before the published"},
		{"source ahead", func(_ *testing.T, w *world, _ *crl.Config) { w.asOf = t0.Add(2 * time.Hour) }, "refused", "thisUpdate is in the future"},
		{"source without time", func(_ *testing.T, w *world, _ *crl.Config) { w.asOf = time.Unix(-1e10, 0) }, "failed", "before 1950"},
		{"entries lost", func(_ *testing.T, w *world, _ *crl.Config) { w.revoked["99101"] = entries[:1] }, "refused", "has vanished"},
		{"all entries lost", func(_ *testing.T, w *world, _ *crl.Config) { w.revoked = nil }, "refused", "has vanished"},
		{"not known whether lost", func(_ *testing.T, w *world, _ *crl.Config) {
			w.revoked, w.mayErr, w.released = nil, errors.New("database gone"), map[jpki.Serial]bool{entries[0].Serial: true}
		}, "failed", "may vanish: database gone"},
		{"duplicate", func(_ *testing.T, w *world, _ *crl.Config) { w.revoked["99101"] = append(entries, entries[0]) }, "failed", "or twice"},
		{"future revocation", func(_ *testing.T, w *world, _ *crl.Config) {
			w.revoked["99101"] = append(slices.Clone(entries), crl.Entry{Serial: serial(t, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"), At: t0.Add(2 * time.Hour), Reason: 4})
		}, "refused", "not yet revoked"},
		{"signer down", func(_ *testing.T, _ *world, cfg *crl.Config) {
			cfg.Issuers[0].Signer = strange{cfg.Issuers[0].Signer, func([]byte) ([]byte, error) { return nil, errors.New("token removed") }}
		}, "failed", "token removed"},
		{"signer wrong", func(_ *testing.T, _ *world, cfg *crl.Config) {
			cfg.Issuers[0].Signer = strange{cfg.Issuers[0].Signer, func(digest []byte) ([]byte, error) { return other.Sign(nil, digest, crypto.SHA256) }}
		}, "refused", "signature"},
		{"another scope", func(t *testing.T, _ *world, cfg *crl.Config) { cfg.Issuers[0].Partitions[0].URL = "" }, "refused", "issuingDistributionPoint"},
		{"another generation under this name", func(t *testing.T, _ *world, cfg *crl.Config) {
			cfg.Issuers[0].Signer, cfg.Issuers[0].Cert = other, selfSigned(t, other, nil)
		}, "refused", "authorityKeyIdentifier is of another key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": entries}}
			if err := newPublisher(t, config(t, w, dir)).Publish(ctx, key101); err != nil {
				t.Fatal(err)
			}
			before := published(t, dir, key101)

			bad := &world{now: t0.Add(time.Hour), revoked: map[string][]crl.Entry{"99101": entries}}
			cfg := config(t, bad, dir)
			c.wrong(t, bad, &cfg)
			p := newPublisher(t, cfg)
			checkError(t, "Publish", p.Publish(ctx, key101), c.want)
			if diff := cmp.Diff(map[string]uint64{c.outcome: 1}, p.Outcomes.Snapshot()); diff != "" {
				t.Error(diff)
			}
			if !bytes.Equal(before, published(t, dir, key101)) {
				t.Error("the published file changed")
			}
			if names, err := os.ReadDir(filepath.Join(dir, "sign-1")); err != nil || len(names) != 1 {
				t.Errorf("files left: %v, %v", names, err)
			}

			w.set(func() { w.now = t0.Add(2 * time.Hour) })
			if err := newPublisher(t, config(t, w, dir)).Publish(ctx, key101); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestPublishOverDamage(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 3)}}
	p := newPublisher(t, config(t, w, dir))
	if err := p.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, key101.Path())
	if err := os.WriteFile(path, published(t, dir, key101)[:100], 0o644); err != nil {
		t.Fatal(err)
	}
	checkError(t, "over a damaged file, of which nobody knows what it listed", p.Publish(ctx, key101), "read the published one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(ctx, key101); err != nil {
		t.Errorf("after somebody has decided: %v", err)
	}
}

func TestRelease(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	entries := numbered(t, 3)
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": entries}}
	p := newPublisher(t, config(t, w, dir))
	if err := p.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	w.set(func() {
		w.revoked["99101"], w.released = entries[1:], map[jpki.Serial]bool{entries[0].Serial: true}
	})
	if err := p.Publish(ctx, key101); err != nil {
		t.Fatal(err)
	}
	if n := len(parsed(t, dir, key101).RevokedCertificateEntries); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

// Publishers on one directory take turns: each builds on what the one before published.
func TestPublishersTakeTurns(t *testing.T) {
	dir := t.TempDir()
	w := &world{now: t0, revoked: map[string][]crl.Entry{"99101": numbered(t, 3)}}
	const publishers, times = 4, 5
	var wg sync.WaitGroup
	for range publishers {
		p := newPublisher(t, config(t, w, dir))
		wg.Go(func() {
			for range times {
				if err := p.Publish(context.Background(), key101); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := parsed(t, dir, key101).Number.Int64(), t0.UnixMilli()+publishers*times-1; got != want {
		t.Errorf("number %d, want %d: the clock stood still, so each publication adds one", got, want)
	}
}

func TestNewPublisherRefuses(t *testing.T) {
	ec, rsa := newAuthority(t, "p-256"), newAuthority(t, "rsa")
	for _, c := range []struct {
		name string
		edit func(*crl.Config)
		want string
	}{
		{"good", func(*crl.Config) {}, ""},
		{"no directory", func(c *crl.Config) { c.Dir = "" }, "Config.Dir"},
		{"no issuers", func(c *crl.Config) { c.Issuers = nil }, "Config.Issuers"},
		{"no source", func(c *crl.Config) { c.Source = nil }, "Config.Source"},
		{"no clock", func(c *crl.Config) { c.Now = nil }, "Config.Now"},
		{"short period", func(c *crl.Config) { c.Period = time.Millisecond }, "Config.Period"},
		{"short validity", func(c *crl.Config) { c.Validity = 47 * time.Hour }, "two periods"},
		{"another key", func(c *crl.Config) { c.Issuers[0].Signer = rsa.key }, "another key"},
		{"partition twice", func(c *crl.Config) {
			c.Issuers[0].Partitions = append(c.Issuers[0].Partitions, c.Issuers[0].Partitions[0])
		}, "twice"},
		{"full twice", func(c *crl.Config) { c.Issuers[0].Partitions = []crl.Scope{{Issuer: ec.id}} }, "twice"},
		{"issuer twice", func(c *crl.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) }, "twice"},
		{"another issuer's partition", func(c *crl.Config) {
			c.Issuers[0].Partitions[0] = partition(t, jpki.IssuerID{CA: jpki.AuthCA, Generation: 1}, "99101")
		}, "another issuer's"},
		{"bad issuer", func(c *crl.Config) { c.Issuers[0].ID = jpki.IssuerID{} }, "issuer"},
		{"bad URL", func(c *crl.Config) { c.Issuers[0].Partitions[0].URL = host + "/crl/sign-1/99102.crl" }, "URL"},
	} {
		cfg := config(t, &world{now: t0}, t.TempDir())
		c.edit(&cfg)
		_, err := crl.NewPublisher(cfg)
		checkError(t, c.name, err, c.want)
	}
}

// TestMain is, in a child process that a test starts, a publisher whose token hangs while it signs.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CRL_TEST_DELTA_DIR"); dir != "" {
		if err := publishForEver(dir); err != nil {
			fmt.Println(err)
		}
		os.Exit(1)
	}
	dir := os.Getenv("CRL_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := hang(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func hang(dir string) error {
	keyDER, err1 := os.ReadFile(filepath.Join(dir, "key"))
	certDER, err2 := os.ReadFile(filepath.Join(dir, "cert"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	key, err1 := x509.ParsePKCS8PrivateKey(keyDER)
	cert, err2 := x509.ParseCertificate(certDER)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	hanging := strange{key.(crypto.Signer), func([]byte) ([]byte, error) {
		fmt.Println("signing")
		select {}
	}}
	w := &world{now: t0.Add(time.Hour)}
	for i := range 20_000 { // more than any buffer between Build and the file holds
		s, err := jpki.SerialFromBig(big.NewInt(int64(i + 1)))
		if err != nil {
			return err
		}
		w.revoked = map[string][]crl.Entry{"": append(w.revoked[""], crl.Entry{Serial: s, At: t0, Reason: 4})}
	}
	p, err := crl.NewPublisher(crl.Config{Dir: filepath.Join(dir, "crl"), Source: w, Now: w.Now, Issuers: []crl.Issuer{{ID: sign1, Cert: cert, Signer: hanging}}})
	if err != nil {
		return err
	}
	return p.Publish(context.Background(), keyFull)
}

// A publisher killed in the middle leaves the old CRL, no lock, and nothing that the next one minds.
func TestKilledPublisher(t *testing.T) {
	a, top := newAuthority(t, "rsa"), t.TempDir()
	dir := filepath.Join(top, "crl")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, top, "key", "", keyDER)
	write(t, top, "cert", "", a.cert.Raw)
	w := &world{now: t0}
	p := newPublisher(t, crl.Config{Dir: dir, Source: w, Now: w.Now, Issuers: []crl.Issuer{{ID: sign1, Cert: a.cert, Signer: a.key}}})
	if err := p.Publish(context.Background(), keyFull); err != nil {
		t.Fatal(err)
	}
	before := published(t, dir, keyFull)

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "CRL_TEST_DIR="+top)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	waiting, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Publish(waiting, keyFull); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish while another process publishes: %v, want to wait", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if line != "signing\n" {
		t.Fatalf("the child said %q", line)
	}
	unfinished, err := os.Stat(filepath.Join(dir, "sign-1", ".full.crl.new"))
	if err != nil || unfinished.Size() == 0 {
		t.Fatalf("the child was not in the middle: %v", err)
	}
	if !bytes.Equal(before, published(t, dir, keyFull)) {
		t.Error("the published file changed")
	}
	if err := p.Publish(context.Background(), keyFull); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "sign-1")); err != nil || len(names) != 1 {
		t.Errorf("files left: %v, %v", names, err)
	}
}

// bubble runs f, inside a synctest bubble, with a publisher that runs on the bubble's clock.
func bubble(t *testing.T, period time.Duration, f func(w *world, p *crl.Publisher, dir string, dirty chan crl.ID)) {
	t.Helper()
	dir := t.TempDir()
	cfg := config(t, &world{}, dir) // keys are made outside
	synctest.Test(t, func(t *testing.T) {
		w := &world{now: time.Now(), revoked: map[string][]crl.Entry{}}
		cfg.Source, cfg.Now, cfg.Period, cfg.Validity = follow{w}, time.Now, period, 2*period
		p := newPublisher(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		dirty, done := make(chan crl.ID), make(chan struct{})
		go func() { p.Run(ctx, dirty); close(done) }()
		synctest.Wait()
		f(w, p, dir, dirty)
		cancel()
		<-done
	})
}

// follow is a world whose clock is the bubble's.
type follow struct{ *world }

func (f follow) Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	f.set(func() { f.now = time.Now() })
	return f.world.Revoked(ctx, issuer, partition)
}

// asked returns and forgets for which CRLs the source was asked.
func (w *world) takeAsked() (keys []string) {
	w.set(func() {
		for _, k := range w.asked {
			keys = append(keys, k.String())
		}
		w.asked = nil
	})
	return keys
}

func TestRun(t *testing.T) {
	bubble(t, time.Hour, func(w *world, p *crl.Publisher, dir string, dirty chan crl.ID) {
		start := time.Now()
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, w.takeAsked()); diff != "" {
				t.Errorf("%s: published (-want +got)\n%s", when, diff)
			}
		}
		time.Sleep(time.Millisecond)
		check("at the start", "sign-1/99101", "sign-1/99102", "sign-1/full")

		entry := crl.Entry{Serial: serial(t, "42"), At: time.Now(), Reason: jpki.CertificateHold}
		w.set(func() { w.revoked["99102"] = []crl.Entry{entry} })
		for range 3 { // one command, three certificates
			dirty <- key102
		}
		time.Sleep(199 * time.Millisecond)
		check("before the changes are gathered")
		time.Sleep(2 * time.Millisecond)
		check("after a change", "sign-1/99102", "sign-1/full")
		for _, key := range []crl.ID{key102, keyFull} {
			if n := len(parsed(t, dir, key).RevokedCertificateEntries); n != 1 {
				t.Errorf("%s has %d entries, want 1", key, n)
			}
		}
		if n := len(parsed(t, dir, key101).RevokedCertificateEntries); n != 0 {
			t.Errorf("%s has %d entries, want 0", key101, n)
		}

		for range 10 { // changes without a pause must not put publication off
			dirty <- key101
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(w.takeAsked()); n < 6 {
			t.Errorf("%d publications within a second of changes, want one of each CRL every 200 ms", n)
		}
		time.Sleep(time.Second)
		w.takeAsked()

		dirty <- crl.ID{Issuer: sign1, Partition: "99999"}
		dirty <- crl.ID{Issuer: jpki.IssuerID{CA: jpki.AuthCA, Generation: 9}}
		time.Sleep(time.Second)
		check("after changes elsewhere", "sign-1/full")

		time.Sleep(time.Until(start.Add(time.Hour + 5*time.Second)))
		check("after the period", "sign-1/99102", "sign-1/99101", "sign-1/full")
	})
}

// A failure is tried again, less and less often, and leaves the published file.
func TestRunRetries(t *testing.T) {
	bubble(t, time.Hour, func(w *world, p *crl.Publisher, dir string, dirty chan crl.ID) {
		time.Sleep(time.Millisecond)
		w.takeAsked()
		w.set(func() { w.err = errors.New("database gone") })
		dirty <- key101
		time.Sleep(10 * time.Minute)
		n := len(w.takeAsked()) / 2 // two CRLs
		if n < 10 || n > 17 {       // 1+2+4+…+32 s, then each minute
			t.Errorf("%d tries within ten minutes, want 6 and then one a minute", n)
		}
		for range 100 {
			dirty <- key101 // more changes make no more tries
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(w.takeAsked()); n > 2 {
			t.Errorf("%d tries within ten seconds, want at most one of each CRL", n)
		}
		old := parsed(t, dir, key101)
		w.set(func() {
			w.err, w.revoked["99101"] = nil, []crl.Entry{{Serial: serial(t, "42"), At: time.Now(), Reason: jpki.Superseded}}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if now := parsed(t, dir, key101); len(now.RevokedCertificateEntries) != 1 || now.Number.Cmp(old.Number) <= 0 {
			t.Error("not published again once it could be")
		}
		if p.Outcomes.Snapshot()["failed"] == 0 {
			t.Error("failures are not counted")
		}
	})
}

// A start does not publish what is fresh, and does what another process let grow old or damaged.
func TestRunStart(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, &world{}, dir)
	a := newAuthority(t, "p-256")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		put := func(key crl.ID, der []byte) {
			if err := os.MkdirAll(filepath.Join(dir, "sign-1"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, key.Path()), der, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		at := func(s crl.Scope, thisUpdate time.Time) []byte {
			tm := template(a, s)
			tm.Number, tm.ThisUpdate, tm.NextUpdate = big.NewInt(1), thisUpdate, start.Add(time.Hour)
			return build(t, tm, nil)
		}
		put(key101, at(cfg.Issuers[0].Partitions[0], start.Add(-time.Hour+time.Minute))) // fresh for another minute
		put(key102, at(cfg.Issuers[0].Partitions[1], start.Add(-time.Hour)))             // just old
		var log bytes.Buffer
		w := &world{revoked: map[string][]crl.Entry{}}
		cfg.Source, cfg.Now, cfg.Period, cfg.Validity = follow{w}, time.Now, time.Hour, 2*time.Hour
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		p := newPublisher(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		closed := make(chan crl.ID)
		close(closed) // nobody reports changes
		go func() { p.Run(ctx, closed); close(done) }()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if diff := cmp.Diff([]string{"sign-1/full", "sign-1/99102"}, w.takeAsked()); diff != "" {
			t.Errorf("at the start (-want +got)\n%s", diff)
		}
		time.Sleep(30 * time.Second)
		put(key101, at(cfg.Issuers[0].Partitions[0], start.Add(30*time.Second))) // another process was faster
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string(nil), w.takeAsked()); diff != "" {
			t.Errorf("what another has published (-want +got)\n%s", diff)
		}
		put(key101, []byte("damaged"))
		time.Sleep(time.Hour)
		cancel()
		<-done
		if text := log.String(); !strings.Contains(text, "CRL not published") || !strings.Contains(text, "shard=99101") || !strings.Contains(text, "CRL published") {
			t.Errorf("log:\n%s", text)
		}
	})
}
