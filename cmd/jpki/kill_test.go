package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// An order is what a station wants and keeps wanting, under one idempotency key, until it has an answer.
type order struct {
	key string
	client.CertificateOrder
	answer *client.Certificates // nil: none yet
}

// A loss is the report that a card is lost.
type loss struct {
	key, token string
	answer     *client.Changes
}

// Promise: no lost certificate, no double serial, no orphan signature, and no status other than the one confirmed,
// whatever is killed and when.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	issueRounds, lossRounds := 4, 2
	if testing.Short() {
		issueRounds, lossRounds = 1, 1
	}
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	chance := mathrand.New(mathrand.NewPCG(seed, 0))
	const perRound = 10
	orders := makeOrders(t, issueRounds*perRound)

	dir := t.TempDir()
	p, env := start(t, dir, 0)
	register(t, env, orders)

	// Issuances, with the process killed among them and everything unanswered asked for again.
	open := []*order{}
	for round := range issueRounds {
		open = append(open, orders[round*perRound:(round+1)*perRound]...)
		station, err := env.Station()
		if err != nil {
			t.Fatal(err)
		}
		killAmong(t, p, chance, open, func(o *order) error {
			got, err := station.Issue(t.Context(), o.key, o.CertificateOrder)
			if err == nil {
				o.answer = &got
			}
			return err
		})
		open = unanswered(open, func(o *order) bool { return o.answer == nil })
		t.Logf("round %d: killed with %d of %d orders unanswered", round+1, len(open), perRound)
		p, env = start(t, dir, p.offset)
		if out, _, code := tool(t, "audit", "verify", "-dir", dir); code != 0 {
			t.Fatalf("after a kill the audit record is broken (%d): %s", code, out)
		}
	}
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range orders {
		repeat, err := station.Issue(t.Context(), o.key, o.CertificateOrder)
		if err != nil {
			t.Fatalf("order %s, repeated: %v", o.key, err)
		}
		if o.answer == nil {
			o.answer = &repeat
		}
		if diff := cmp.Diff(*o.answer, repeat, cmp.AllowUnexported(jpki.Serial{})); diff != "" {
			t.Errorf("order %s was answered otherwise than before:\n%s", o.key, diff)
		}
	}
	checkAnswered(t, env, orders, "good")

	// Suspensions, likewise. After each kill OCSP says what was answered.
	losses := make([]*loss, len(orders))
	for i, o := range orders {
		losses[i] = &loss{key: fmt.Sprintf("loss-%d", i), token: o.Token}
	}
	for round := range lossRounds {
		n := len(losses) / lossRounds
		now := losses[round*n : (round+1)*n]
		hotline, err := env.Hotline()
		if err != nil {
			t.Fatal(err)
		}
		killAmong(t, p, chance, now, func(l *loss) error {
			got, err := hotline.Suspend(t.Context(), l.key, client.Change{Token: l.token, Cause: jpki.Lost})
			if err == nil {
				l.answer = &got
			}
			return err
		})
		p, env = start(t, dir, p.offset)
		if hotline, err = env.Hotline(); err != nil {
			t.Fatal(err)
		}
		for i, l := range now {
			mine := orders[round*n+i : round*n+i+1]
			if l.answer != nil {
				checkAnswered(t, env, mine, "revoked (certificateHold)")
			}
			repeat, err := hotline.Suspend(t.Context(), l.key, client.Change{Token: l.token, Cause: jpki.Lost})
			if err != nil {
				t.Fatalf("%s, repeated: %v", l.key, err)
			}
			if l.answer != nil {
				if diff := cmp.Diff(*l.answer, repeat, cmp.AllowUnexported(jpki.Serial{})); diff != "" {
					t.Errorf("%s was answered otherwise than before:\n%s", l.key, diff)
				}
			}
			checkAnswered(t, env, mine, "revoked (certificateHold)")
		}
	}
	checkAbandoned(t, dir, env)
	p.end(t)
	checkDatabase(t, dir, orders)
	if out, _, code := tool(t, "audit", "verify", "-dir", dir); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// keys makes RSA keys on all processors; they are what takes time in these tests.
func keys(t *testing.T, n int) []*rsa.PrivateKey {
	t.Helper()
	out := make([]*rsa.PrivateKey, n)
	var g errgroup.Group
	g.SetLimit(2)
	for i := range out {
		g.Go(func() (err error) { out[i], err = rsa.GenerateKey(rand.Reader, 2048); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return out
}

// makeOrders prepares orders for one or both certificates of cards that hold different keys, each for somebody else.
func makeOrders(t *testing.T, n int) []*order {
	t.Helper()
	orders := make([]*order, n)
	kinds := [][]jpki.Kind{{jpki.CardSign}, {jpki.CardAuth}, {jpki.CardSign}, {jpki.CardSign, jpki.CardAuth}}
	pool := keys(t, n+n/len(kinds)+1)
	for i := range orders {
		o := &order{key: fmt.Sprintf("order-%d", i)}
		o.Holder, o.Token = fmt.Sprintf("holder-%d", i), fmt.Sprintf("token-%d", i)
		for _, k := range kinds[i%len(kinds)] {
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, pool[0])
			if err != nil {
				t.Fatal(err)
			}
			pool = pool[1:]
			o.Requests = append(o.Requests, client.KeyRequest{Kind: k, Request: client.RequestPEM(der)})
		}
		orders[i] = o
	}
	return orders
}

// register has the orders' holders enter the register.
func register(t *testing.T, env sandbox.Env, orders []*order) {
	t.Helper()
	register, err := env.Register()
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range orders {
		r := sandbox.NewResident(i)
		r.ID = o.Holder
		if err := sandbox.RegisterResident(t.Context(), register, r); err != nil {
			t.Fatal(err)
		}
	}
}

// killAmong has eight workers do the jobs and kills the process after some of them, at a moment drawn by lot. Until
// then every job must succeed; the death shows as a connection that broke.
func killAmong[T any](t *testing.T, p *process, chance *mathrand.Rand, jobs []T, do func(T) error) {
	t.Helper()
	after, wait := int64(1+chance.IntN(max(1, len(jobs)-2))), time.Duration(chance.IntN(10_000))*time.Microsecond
	var done atomic.Int64
	now, all := make(chan struct{}), make(chan struct{})
	queue := make(chan T, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for j := range queue {
				err := do(j)
				var e *jpki.Error
				switch {
				case err == nil:
					if done.Add(1) == after {
						close(now)
					}
				case errors.As(err, &e) && e.Problem == jpki.Unavailable && e.Err != nil:
				default:
					t.Errorf("refused: %v", err)
				}
			}
		})
	}
	go func() { workers.Wait(); close(all) }()
	select {
	case <-now:
		time.Sleep(wait)
	case <-all:
	}
	p.kill()
	<-all
	if done.Load() < after {
		t.Fatalf("only %d jobs were done before the process was killed", done.Load())
	}
}

func unanswered[T any](all []T, is func(T) bool) (out []T) {
	for _, x := range all {
		if is(x) {
			out = append(out, x)
		}
	}
	return out
}

// checkAnswered asks OCSP about every certificate that a station got.
func checkAnswered(t *testing.T, env sandbox.Env, orders []*order, want string) {
	t.Helper()
	seen := map[jpki.CertID]bool{}
	for _, o := range orders {
		if len(o.answer.Certificates) != len(o.Requests) {
			t.Errorf("order %s got %d certificates", o.key, len(o.answer.Certificates))
		}
		for _, c := range o.answer.Certificates {
			if seen[c.ID] {
				t.Errorf("%s was issued twice", c.ID)
			}
			seen[c.ID] = true
			der, err := client.DER(c.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			issuer, err := env.Issuer(cert)
			if err != nil {
				t.Fatal(err)
			}
			expectOCSP(t, env, cert, issuer, want)
		}
	}
}

// expectOCSP asks about a certificate whose status was confirmed already. An answer asked for later than a second after
// that must be right; until then an older one may come, and on a slow machine a tryLater at any time.
func expectOCSP(t *testing.T, env sandbox.Env, cert, issuer *x509.Certificate, want string) {
	t.Helper()
	for first := time.Now(); ; time.Sleep(time.Millisecond) {
		since := time.Since(first)
		a, err := sandbox.AskOCSP(t.Context(), env.OCSPURL, cert, issuer)
		switch {
		case err == nil && sandbox.Describe(a) == want:
			return
		case err != nil && since > patience:
			t.Fatal(err)
		case err == nil && since > time.Second:
			t.Errorf("%X: OCSP says %s %s after %s was confirmed", cert.SerialNumber, sandbox.Describe(a), since, want)
			return
		}
	}
}

// expectStatus is expectOCSP for a number of which there need not be a certificate.
func expectStatus(t *testing.T, env sandbox.Env, id jpki.CertID, want string) {
	t.Helper()
	issuer, err := sandbox.ReadCertificate(map[jpki.CA]string{jpki.SignCA: env.TrustSign, jpki.AuthCA: env.TrustAuth}[id.Issuer.CA])
	if err != nil {
		t.Fatal(err)
	}
	expectOCSP(t, env, &x509.Certificate{SerialNumber: id.Serial.Big()}, issuer, want)
}

// database opens a sandbox's database beside the authority, as only tests and intruders do.
func database(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "authority", "ca.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// ids runs a query for issuers and serial numbers.
func ids(t *testing.T, db *sql.DB, query string, args ...any) []jpki.CertID {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var out []jpki.CertID
	for rows.Next() {
		var issuer string
		var serial []byte
		if err := rows.Scan(&issuer, &serial); err != nil {
			t.Fatal(err)
		}
		id, err := jpki.ParseCertID(fmt.Sprintf("%s/%X", issuer, serial))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkAbandoned sees to it that numbers under which something may have been signed are answered for.
func checkAbandoned(t *testing.T, dir string, env sandbox.Env) {
	t.Helper()
	abandoned := ids(t, database(t, dir), `SELECT issuer, serial FROM intent WHERE outcome = 'abandoned'`)
	t.Logf("%d issuances were cut short", len(abandoned))
	for _, id := range abandoned {
		expectStatus(t, env, id, "revoked (unspecified)")
	}
}

// checkDatabase looks for what a killed process might have left in halves.
func checkDatabase(t *testing.T, dir string, orders []*order) {
	t.Helper()
	db := database(t, dir)
	for what, query := range map[string]string{
		"intents that never ended":                   `SELECT issuer, serial FROM intent WHERE outcome IS NULL`,
		"certificates without a status":              `SELECT issuer, serial FROM certificate c WHERE NOT EXISTS (SELECT 1 FROM certificate_status s WHERE s.issuer = c.issuer AND s.serial = c.serial)`,
		"certificates without an intent that issued": `SELECT issuer, serial FROM certificate c WHERE NOT EXISTS (SELECT 1 FROM intent i WHERE i.issuer = c.issuer AND i.serial = c.serial AND i.outcome = 'issued')`,
		"issued intents without a certificate":       `SELECT issuer, serial FROM intent i WHERE outcome = 'issued' AND NOT EXISTS (SELECT 1 FROM certificate c WHERE c.issuer = i.issuer AND c.serial = i.serial)`,
		"statuses of nothing": `SELECT issuer, serial FROM certificate_status s WHERE NOT EXISTS (SELECT 1 FROM certificate c WHERE c.issuer = s.issuer AND c.serial = s.serial)
			AND NOT (state = 'revoked' AND EXISTS (SELECT 1 FROM intent i WHERE i.issuer = s.issuer AND i.serial = s.serial AND i.outcome = 'abandoned'))`,
		"statuses unlike the log's last": `SELECT issuer, serial FROM certificate_status s WHERE version <> (SELECT max(version) FROM status_log l WHERE l.issuer = s.issuer AND l.serial = s.serial)
			OR NOT EXISTS (SELECT 1 FROM status_log l WHERE l.issuer = s.issuer AND l.serial = s.serial AND l.version = s.version AND l.state = s.state AND l.reason = s.reason AND l.since = s.since)`,
	} {
		if found := ids(t, db, query); len(found) > 0 {
			t.Errorf("%s: %v", what, found)
		}
	}
	var n, last int64
	if err := db.QueryRowContext(t.Context(), `SELECT count(*), max(seq) FROM status_log`).Scan(&n, &last); err != nil || n != last {
		t.Errorf("the status log has %d entries and ends with %d (%v)", n, last, err)
	}

	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(dir, "authority", "ca.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	err = s.View(t.Context(), func(tx *store.Tx) error {
		if open, err := tx.OpenIntents(time.Now().Add(time.Hour), 10); err != nil || len(open) > 0 {
			t.Errorf("open intents: %v, %v", open, err)
		}
		// What a holder has is what the station was told, and it is listed under the card.
		for _, o := range orders {
			var want, had, listed []jpki.CertID
			for _, c := range o.answer.Certificates {
				want = append(want, c.ID)
			}
			of, err := tx.CertificatesOf(o.Holder)
			if err != nil {
				return err
			}
			on, err := tx.CertificatesOn(o.Token)
			if err != nil {
				return err
			}
			for i := range of {
				had = append(had, of[i].ID)
			}
			for i := range on {
				listed = append(listed, on[i].ID)
			}
			same := cmp.Comparer(func(a, b []jpki.CertID) bool {
				set := map[jpki.CertID]bool{}
				for _, id := range a {
					set[id] = true
				}
				for _, id := range b {
					if !set[id] {
						return false
					}
				}
				return len(a) == len(b)
			})
			if !cmp.Equal(want, had, same) || !cmp.Equal(want, listed, same) {
				t.Errorf("order %s was answered with %v; the holder has %v, the card lists %v", o.key, want, had, listed)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
