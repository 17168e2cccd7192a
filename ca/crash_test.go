package ca_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A crashOrder is what the helper program ca/crashtest reads.
type crashOrder struct {
	Database string
	Now      time.Time
	Issuers  []crashIssuer
	By       jpki.Actor
	Command  string
	Key      string
	Issue    ca.IssueRequest
	Change   ca.ChangeRequest
	Event    jpki.Event
	Events   []jpki.Event
	Token    string
	Mass     ca.MassRevocation
}

type crashIssuer struct {
	ID               jpki.IssuerID
	Certificate, Key []byte
}

// crashtest builds the helper program.
func crashtest(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "crashtest")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "crashtest", "-o", program, "./crashtest").CombinedOutput(); err != nil {
		t.Fatalf("build the helper program: %v\n%s", err, out)
	}
	return program
}

// A crash scenario is a command in a world that has been prepared for it.
type crashScenario struct {
	prepare func(w *world) crashOrder
	repeat  func(w *world, o crashOrder) error // the same request once more
	want    string                             // what there is in the end, see outline
}

var crashScenarios = map[string]crashScenario{
	"issue a new card": {
		func(w *world) crashOrder {
			return crashOrder{Command: "issue", By: counter, Issue: w.request("h1", "card-2", card...)}
		},
		func(w *world, o crashOrder) error {
			_, err := w.a.Issue(context.Background(), o.By, o.Issue)
			return err
		},
		`card-1 card-auth revoked token-replaced
card-1 card-sign revoked token-replaced
card-2 card-auth good
card-2 card-sign good
phone-1 phone-auth good
phone-1 phone-sign revoked token-replaced`,
	},
	"issue to the phone again": {
		func(w *world) crashOrder {
			sign := w.newest("h1", jpki.PhoneSign).ID
			if _, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Certificate: &sign, Cause: jpki.HolderRequest}); err != nil {
				w.t.Fatal(err)
			}
			r := w.request("h1", "phone-1", jpki.PhoneSign)
			parent := w.newest("h1", jpki.CardSign).ID
			r.Parent = &parent
			return crashOrder{Command: "issue", By: counter, Issue: r}
		},
		func(w *world, o crashOrder) error {
			_, err := w.a.Issue(context.Background(), o.By, o.Issue)
			return err
		},
		`card-1 card-auth good
card-1 card-sign good
phone-1 phone-auth good
phone-1 phone-sign good
phone-1 phone-sign revoked holder-request`,
	},
	"renew": {
		func(w *world) crashOrder {
			w.now = time.Date(2031, 2, 1, 9, 0, 0, 0, jpki.JST)
			return crashOrder{Command: "renew", By: counter, Issue: w.request("h1", "card-1", card...)}
		},
		func(w *world, o crashOrder) error {
			_, err := w.a.Renew(context.Background(), o.By, o.Issue)
			return err
		},
		`card-1 card-auth good
card-1 card-auth revoked renewed
card-1 card-sign good
card-1 card-sign revoked renewed
phone-1 phone-auth good
phone-1 phone-sign revoked renewed`,
	},
	"suspend": {
		func(w *world) crashOrder {
			return crashOrder{Command: "suspend", By: centre, Change: ca.ChangeRequest{IdempotencyKey: w.name(), Token: "card-1", Cause: jpki.Lost}}
		},
		func(w *world, o crashOrder) error {
			got, err := w.a.Suspend(context.Background(), o.By, o.Change)
			return errors.Join(err, count(got, 2))
		},
		`card-1 card-auth suspended lost
card-1 card-sign suspended lost
phone-1 phone-auth good
phone-1 phone-sign good`,
	},
	"revoke all": {
		func(w *world) crashOrder {
			return crashOrder{Command: "revoke-all", By: operator, Mass: ca.MassRevocation{Name: "drill", Criteria: store.Criteria{Actor: counter.String()}, Cause: jpki.RecordError, Expect: 4}}
		},
		func(w *world, o crashOrder) error {
			_, err := w.a.RevokeAll(context.Background(), o.By, o.Mass)
			return err
		},
		`card-1 card-auth revoked record-error
card-1 card-sign revoked record-error
phone-1 phone-auth revoked record-error
phone-1 phone-sign revoked record-error`,
	},
	"resume": {
		func(w *world) crashOrder {
			if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "phone-1", Cause: jpki.Lost}); err != nil {
				w.t.Fatal(err)
			}
			return crashOrder{Command: "resume", By: counter, Change: ca.ChangeRequest{IdempotencyKey: w.name(), Token: "phone-1", Cause: jpki.Found}}
		},
		func(w *world, o crashOrder) error {
			got, err := w.a.Resume(context.Background(), o.By, o.Change)
			return errors.Join(err, count(got, 1))
		},
		`card-1 card-auth good
card-1 card-sign good
phone-1 phone-auth good found
phone-1 phone-sign suspended lost`,
	},
	"deliver": {
		func(w *world) crashOrder {
			return crashOrder{Command: "deliver", By: counter, Token: "card-1", Key: w.name()}
		},
		func(w *world, o crashOrder) error {
			got, err := w.a.Deliver(context.Background(), o.By, o.Key, o.Token)
			if len(got) != 2 {
				err = errors.Join(err, fmt.Errorf("%d certificates were delivered, want 2", len(got)))
			}
			certs, at := must(w.a.Certificates(context.Background(), o.By, o.Token)), 0
			for _, c := range certs {
				if c.DeliveredAt != nil && c.DeliveredAt.Equal(o.Now) {
					at++
				}
			}
			if at != 2 {
				err = errors.Join(err, fmt.Errorf("%d certificates are recorded as delivered, want 2", at))
			}
			return err
		},
		`card-1 card-auth good
card-1 card-sign good
phone-1 phone-auth good
phone-1 phone-sign good`,
	},
	"a group of events": { // one takes effect, one waits, one is refused, one is told twice, one enters somebody
		func(w *world) crashOrder {
			moved := *attributes(jpki.NewBirthDate(1980, 2, 17))
			moved.Address = "砂箱県港市海岸通九丁目1番2号"
			events := []jpki.Event{
				{ID: "move", Holder: "h1", Type: jpki.AddressChanged, Municipality: "99202", Attributes: &moved},
				{ID: "born", Holder: "h9", Type: jpki.Registered, Municipality: "99101", Attributes: attributes(jpki.NewBirthDate(2026, 3, 1))},
				{ID: "ward", Holder: "h1", Type: jpki.GuardianshipBegan, EffectiveAt: w.now.Add(24 * time.Hour)},
				{ID: "stranger", Holder: "h404", Type: jpki.Death},
			}
			for i := range events {
				if events[i].EffectiveAt.IsZero() {
					events[i].EffectiveAt = w.now
				}
			}
			return crashOrder{Command: "events", By: register, Events: append(events, events[0])}
		},
		func(w *world, o crashOrder) error {
			var err error
			for i, r := range w.a.ApplyResidentEvents(context.Background(), o.By, o.Events) {
				want := []struct {
					changed int
					applied bool
					problem jpki.Problem
				}{{2, true, ""}, {0, true, ""}, {0, false, ""}, {0, false, jpki.UnknownHolder}, {2, true, ""}}[i]
				if len(r.Changed) != want.changed || r.Applied != want.applied || problemOf(r.Err) != want.problem {
					err = errors.Join(err, fmt.Errorf("event %d: %+v", i, r))
				}
			}
			return err
		},
		`card-1 card-auth good
card-1 card-sign revoked moved
phone-1 phone-auth good
phone-1 phone-sign revoked moved`,
	},
	"revoke": {
		func(w *world) crashOrder {
			return crashOrder{Command: "revoke", By: counter, Change: ca.ChangeRequest{IdempotencyKey: w.name(), Token: "card-1", Cause: jpki.CardReturned}}
		},
		func(w *world, o crashOrder) error {
			got, err := w.a.Revoke(context.Background(), o.By, o.Change)
			return errors.Join(err, count(got, 3))
		},
		`card-1 card-auth revoked card-returned
card-1 card-sign revoked card-returned
phone-1 phone-auth good
phone-1 phone-sign revoked card-returned`,
	},
	"a move": {
		func(w *world) crashOrder {
			return crashOrder{Command: "event", By: register, Event: jpki.Event{
				ID: "move", Holder: "h1", Type: jpki.AddressChanged, EffectiveAt: w.now, Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17)),
			}}
		},
		func(w *world, o crashOrder) error {
			got, err := w.a.ApplyResidentEvent(context.Background(), o.By, o.Event)
			return errors.Join(err, count(got.Changed, 2))
		},
		`card-1 card-auth good
card-1 card-sign revoked moved
phone-1 phone-auth good
phone-1 phone-sign revoked moved`,
	},
	"a death that waited, and a move behind it": {
		func(w *world) crashOrder {
			for i, e := range []jpki.Event{{ID: "death", Type: jpki.Death}, {ID: "move", Type: jpki.AddressChanged, Municipality: "99202", Attributes: attributes(jpki.NewBirthDate(1980, 2, 17))}} {
				e.Holder, e.EffectiveAt = "h1", w.now.Add(time.Duration(i+1)*time.Hour)
				if out, err := w.event(e); err != nil || out.Applied {
					w.t.Fatal(out, err)
				}
			}
			w.now = w.now.Add(24 * time.Hour)
			return crashOrder{Command: "due"}
		},
		func(w *world, _ crashOrder) error {
			_, err := w.a.ApplyDue(context.Background())
			return err
		},
		`card-1 card-auth revoked died
card-1 card-sign revoked died
phone-1 phone-auth revoked died
phone-1 phone-sign revoked died`,
	},
	"reconcile": {
		func(w *world) crashOrder {
			req := w.request("h1", "card-2", card...)
			err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
				if _, _, err := tx.BeginOnce(counter.String(), req.IdempotencyKey, "hash", w.now); err != nil {
					return err
				}
				for _, i := range w.issuers {
					kind := map[jpki.CA]jpki.Kind{jpki.SignCA: jpki.CardSign, jpki.AuthCA: jpki.CardAuth}[i.ID.CA]
					if err := tx.AddIntent(store.Intent{ID: jpki.CertID{Issuer: i.ID, Serial: must(jpki.NewSerial(rand.Reader))}, Kind: kind, Holder: "h1", Token: "card-1", Partition: "99101", NotAfter: w.now.AddDate(5, 0, 0), Actor: counter.String(), IdemKey: req.IdempotencyKey, CreatedAt: w.now}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				w.t.Fatal(err)
			}
			return crashOrder{Command: "reconcile", By: counter, Issue: req}
		},
		func(w *world, o crashOrder) error {
			_, err := w.a.Issue(context.Background(), o.By, o.Issue)
			return err
		},
		`card-1 card-auth revoked token-replaced
card-1 card-sign revoked token-replaced
card-2 card-auth good
card-2 card-sign good
phone-1 phone-auth good
phone-1 phone-sign revoked token-replaced`,
	},
}

func count(changed []ca.Changed, want int) error {
	if len(changed) != want {
		return fmt.Errorf("%d certificates changed, want %d", len(changed), want)
	}
	return nil
}

// outline says in words what certificates h1 has.
func (w *world) outline() string {
	w.t.Helper()
	var lines []string
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		certs, err := tx.CertificatesOf("h1")
		for _, c := range certs {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.Token, c.Kind, c.Status.State, c.Status.Cause)))
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestCrash kills the authority before and after every write, every commit and every signature of its commands, one after
// the other, each time on a fresh database. The next process must find everything in order, and the same request under the
// same key must bring about what it would have without the crash.
func TestCrash(t *testing.T) {
	t.Parallel()
	program := crashtest(t)
	for _, name := range slices.Sorted(maps.Keys(crashScenarios)) {
		t.Run(name, func(t *testing.T) {
			storetest.EachCopied(t, func(t *testing.T, database string, again func(*testing.T) string) {
				t.Parallel()
				s := crashScenarios[name]
				w := newWorld(t, storetest.Create(t, database))
				p := w.request("h1", "phone-1", phone...)
				p.Parent = &w.issue("h1", "card-1", card...)[0].ID
				if _, err := w.a.Issue(t.Context(), counter, p); err != nil {
					t.Fatal(err)
				}
				o := s.prepare(w)
				o.Now, o.Key = w.now, o.Key+o.Issue.IdempotencyKey+o.Change.IdempotencyKey
				for _, i := range w.issuers {
					o.Issuers = append(o.Issuers, crashIssuer{i.ID, i.Certificate.Raw, must(x509.MarshalPKCS8PrivateKey(i.Signer))})
				}
				if err := w.db.Close(); err != nil {
					t.Fatal(err)
				}
				step := 1
				if soak() == 1 && !strings.HasPrefix(database, "sqlite:") {
					step = 2 // the odd places come before something, and are for the database those behind what came before that
				}
				n, died := step, 0
				for done := false; !done && !t.Failed(); n += step {
					t.Run(fmt.Sprint(n), func(t *testing.T) { done = w.crash(t, program, n, again(t), o, s) })
					died++
				}
				t.Logf("died at %d places", died-1)
				if died*step < 8 {
					t.Error("so few? the crash points are not where they should be")
				}
			})
		})
	}
}

// crash runs the order on a database until its n-th place and checks what is left. It returns whether the program came to
// its end.
func (w *world) crash(t *testing.T, program string, n int, database string, o crashOrder, s crashScenario) (done bool) {
	t.Helper()
	o.Database = database
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), fmt.Sprint("JPKI_CRASH_AT=", n))
	cmd.Stdin = bytes.NewReader(must(json.Marshal(o)))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	died := cmd.Run()
	if exit := new(exec.ExitError); errors.As(died, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("crash %d: %v\n%s", n, died, &stderr)
		}
	} else if died != nil {
		t.Fatal(died)
	}
	place := strings.TrimSpace(stderr.String())
	after := *w
	after.t, after.public = t, nil
	after.fault = func(format string, args ...any) { t.Helper(); t.Errorf(place+": "+format, args...) }
	var err error
	if after.db, err = store.Open(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = after.db.Close() }()
	after.restart(w.issuers)
	after.invariants()
	if _, err := after.a.Reconcile(t.Context(), 0); err != nil {
		t.Fatalf("%s: reconcile: %v", place, err)
	}
	after.invariants()
	for range 2 {
		if err := s.repeat(&after, o); err != nil {
			t.Errorf("%s: the request repeated: %v", place, err)
		}
		if got := after.outline(); got != s.want {
			t.Errorf("%s: in the end there is\n%s\nwant\n%s", place, got, s.want)
		}
	}
	done = died == nil
	if done || n%8 == 0 || soak() > 1 { // publishing takes longer than all the rest
		after.check()
	} else {
		after.invariants()
	}
	return done
}
