package ca_test

import (
	"context"
	"crypto"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// A hookedSigner calls a function once, before it signs for the first time: between the two transactions of an issuance.
type hookedSigner struct {
	crypto.Signer
	hook *func()
}

func (s hookedSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if f := *s.hook; f != nil {
		*s.hook = nil
		f()
	}
	return s.Signer.Sign(r, digest, o)
}

// during makes f happen before every signature.
func (w *world) during(f func()) {
	issuers := slices.Clone(w.issuers)
	for i := range issuers {
		issuers[i].Signer = tellingSigner{issuers[i].Signer, f}
	}
	w.restart(issuers)
}

type tellingSigner struct {
	crypto.Signer
	tell func()
}

func (s tellingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.tell()
	return s.Signer.Sign(r, digest, o)
}

// between makes f happen between the transactions of the next issuance.
func (w *world) between(f func()) {
	issuers := slices.Clone(w.issuers)
	for i := range issuers {
		issuers[i].Signer = hookedSigner{issuers[i].Signer, &f}
	}
	w.restart(issuers)
}

// What can happen while the keys sign, and what becomes of the issuance then.
func TestBetweenTheTransactions(t *testing.T) {
	for name, c := range map[string]struct {
		ask  func(w *world) ([]ca.Issued, error) // after card-1 was issued with both certificates
		turn func(w *world, card []ca.Issued)
		want jpki.Problem // "" if it is granted all the same
	}{
		"a move": {
			func(w *world) ([]ca.Issued, error) {
				return w.a.Issue(w.t.Context(), counter, w.request("h1", "card-2", jpki.CardSign))
			},
			func(w *world, _ []ca.Issued) {
				if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.AddressChanged, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = "砂箱県青葉市南町四丁目5番6号" })}); err != nil {
					w.t.Error(err)
				}
			},
			jpki.Conflict,
		},
		"another card": {
			func(w *world) ([]ca.Issued, error) {
				return w.a.Issue(w.t.Context(), counter, w.request("h1", "card-2", jpki.CardSign, jpki.CardAuth))
			},
			func(w *world, _ []ca.Issued) { w.issue("h1", "card-3", jpki.CardSign, jpki.CardAuth) },
			"",
		},
		"a suspension before a renewal": {
			func(w *world) ([]ca.Issued, error) {
				w.now = time.Date(2031, 2, 1, 9, 0, 0, 0, jpki.JST)
				return w.a.Renew(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth))
			},
			func(w *world, _ []ca.Issued) {
				if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
					w.t.Error(err)
				}
			},
			jpki.NotRenewable,
		},
		"the end of the certificate to be renewed": {
			func(w *world) ([]ca.Issued, error) {
				w.now = time.Date(2031, 2, 17, 23, 59, 59, 0, jpki.JST)
				return w.a.Renew(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth))
			},
			func(w *world, _ []ca.Issued) { w.now = w.now.Add(2 * time.Second) },
			jpki.NotRenewable,
		},
		"the end of the certificate a phone hangs on": {
			func(w *world) ([]ca.Issued, error) {
				r := w.request("h1", "phone-1", jpki.PhoneSign, jpki.PhoneAuth)
				parent := w.newest("h1", jpki.CardSign).ID
				r.Parent = &parent
				return w.a.Issue(w.t.Context(), counter, r)
			},
			func(w *world, card []ca.Issued) {
				if _, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Certificate: &card[0].ID, Cause: jpki.KeyCompromised}); err != nil {
					w.t.Error(err)
				}
			},
			jpki.Forbidden,
		},
		"an impatient reconciliation": {
			func(w *world) ([]ca.Issued, error) {
				return w.a.Issue(w.t.Context(), counter, w.request("h1", "card-2", jpki.CardSign, jpki.CardAuth))
			},
			func(w *world, _ []ca.Issued) {
				if n, err := w.a.Reconcile(w.t.Context(), 0); n != 2 || err != nil {
					w.t.Errorf("reconcile: %d %v", n, err)
				}
			},
			jpki.Conflict,
		},
		"the clock going back": {
			func(w *world) ([]ca.Issued, error) {
				return w.a.Issue(w.t.Context(), counter, w.request("h1", "card-2", jpki.CardSign, jpki.CardAuth))
			},
			func(w *world, _ []ca.Issued) { w.now = w.now.Add(-time.Hour) },
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(w *world) {
				card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
				w.check()
				w.between(func() { c.turn(w, card) })
				got, err := c.ask(w)
				if c.want == "" && err != nil || c.want != "" && jpki.ProblemOf(err) != c.want {
					w.t.Errorf("got %v, %v, want %q", got, err, c.want)
				}
			})
		})
	}
}

// newest returns a holder's certificate of a kind that no other has replaced.
func (w *world) newest(holder string, kind jpki.Kind) (last store.Certificate) {
	w.t.Helper()
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		certs, err := tx.CertificatesOf(holder)
		for _, c := range certs {
			if c.Kind == kind && !slices.ContainsFunc(certs, func(o store.Certificate) bool { return o.Replaces != nil && *o.Replaces == c.ID }) {
				last = c
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return last
}

// While a reconciliation is half through, nobody may begin anew under the key it frees, and have that ended as well.
func TestReconcileEndsAnIssuanceAsAWhole(t *testing.T) {
	onBoth(t, func(w *world) {
		req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		started := w.now
		var again []ca.Issued
		w.between(func() { // the first process hangs here for longer than anybody waits
			w.now = w.now.Add(2 * time.Minute)
			if n, err := w.a.Reconcile(w.t.Context(), time.Minute); n != 2 || err != nil {
				w.t.Errorf("reconcile: %d %v", n, err)
			}
			var err error
			if again, err = w.a.Issue(w.t.Context(), counter, req); err != nil {
				w.t.Errorf("repeated: %v", err)
			}
		})
		if got, err := w.a.Issue(w.t.Context(), counter, req); !errors.Is(err, jpki.AlreadyCertified) && !errors.Is(err, jpki.KeyReused) && !errors.Is(err, jpki.Conflict) {
			w.t.Errorf("the process that came back to itself: %v %v", got, err)
		}
		third, err := w.a.Issue(w.t.Context(), counter, req)
		if err != nil || len(third) != 2 || third[0].ID != again[0].ID {
			w.t.Errorf("repeated once more: %v %v, want the same as before", third, err)
		}
		if !third[0].NotAfter.After(started) {
			w.t.Error("no validity")
		}
	})
}

// After a crash the clock of the new process may be behind the dead one's.
func TestReconcileOfAllKnowsNoTime(t *testing.T) {
	onBoth(t, func(w *world) {
		w.between(func() {
			w.now = w.now.Add(-time.Hour)
			if n, err := w.a.Reconcile(w.t.Context(), 0); n != 1 || err != nil {
				w.t.Errorf("reconcile: %d %v", n, err)
			}
		})
		if _, err := w.a.Issue(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardAuth)); !errors.Is(err, jpki.Conflict) {
			w.t.Error(err)
		}
	})
}

// A signer that does not come back holds nobody up for longer than is configured, and what it signs in the end is nothing.
func TestASignerThatHangs(t *testing.T) {
	onBoth(t, func(w *world) {
		hang, back := make(chan struct{}), make(chan struct{})
		issuers := slices.Clone(w.issuers)
		stop := func() { <-hang; close(back) }
		issuers[1].Signer = hookedSigner{issuers[1].Signer, &stop}
		w.restartWith(issuers, func(c *ca.Config) { c.SigningTime = 100 * time.Millisecond })
		req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		if got, err := w.a.Issue(w.t.Context(), counter, req); !errors.Is(err, jpki.Unavailable) {
			w.t.Fatalf("got %v %v", got, err)
		}
		log := w.invariants()
		if len(log) != 2 {
			w.t.Errorf("%d numbers burnt, want 2", len(log))
		}
		close(hang)
		<-back
		w.restart(w.issuers)
		if got, err := w.a.Issue(w.t.Context(), counter, req); err != nil || len(got) != 2 || log[got[0].ID].Status.State != "" {
			w.t.Errorf("repeated: %v %v", got, err)
		}
	})
}

// A caller that hangs up while the keys sign changes nothing: the issuance is finished, and the repeated request has it.
func TestACallerThatHangsUp(t *testing.T) {
	onBoth(t, func(w *world) {
		ctx, hangUp := context.WithCancel(w.t.Context())
		w.between(hangUp)
		req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		first, err := w.a.Issue(ctx, counter, req)
		if err != nil {
			w.t.Fatal(err)
		}
		second, err := w.a.Issue(w.t.Context(), counter, req)
		if err != nil || second[1].ID != first[1].ID {
			w.t.Errorf("repeated: %v %v", second, err)
		}
	})
}

func TestPhonesAreAskedForWithTheCardEveryTime(t *testing.T) {
	onBoth(t, func(w *world) {
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		ask := func(do func(context.Context, jpki.Actor, ca.IssueRequest) ([]ca.Issued, error), parent *jpki.CertID, kinds ...jpki.Kind) ([]ca.Issued, error) {
			r := w.request("h1", "phone-1", kinds...)
			r.Parent = parent
			return do(w.t.Context(), counter, r)
		}
		if _, err := ask(w.a.Issue, &card[0].ID, jpki.PhoneSign, jpki.PhoneAuth); err != nil {
			w.t.Fatal(err)
		}
		move := func(to string) {
			w.t.Helper()
			if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.AddressChanged, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = to })}); err != nil {
				w.t.Fatal(err)
			}
		}
		move("砂箱県青葉市南町四丁目5番6号")
		if got, err := ask(w.a.Issue, nil, jpki.PhoneSign); !errors.Is(err, jpki.Malformed) {
			w.t.Errorf("without a card: %v %v", got, err)
		}
		if got, err := ask(w.a.Issue, &card[0].ID, jpki.PhoneSign); !errors.Is(err, jpki.Forbidden) {
			w.t.Errorf("with the certificate that the move ended: %v %v", got, err)
		}
		w.now = w.now.AddDate(1, 0, 0)
		next := w.issue("h1", "card-1", jpki.CardSign)
		phone, err := ask(w.a.Issue, &next[0].ID, jpki.PhoneSign)
		if err != nil {
			w.t.Fatal(err)
		}
		if !phone[0].NotAfter.Equal(next[0].NotAfter) {
			w.t.Errorf("the phone's certificate ends %v, the card's %v", phone[0].NotAfter, next[0].NotAfter)
		}
		move("砂箱県青葉市北町七丁目8番9号") // hangs on the new one now
		w.expect(map[jpki.CertID]string{next[0].ID: "revoked affiliationChanged", phone[0].ID: "revoked affiliationChanged"})
		last := w.issue("h1", "card-1", jpki.CardSign)
		w.now = time.Date(2031, 2, 1, 9, 0, 0, 0, jpki.JST)
		renewed, err := w.a.Renew(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth))
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := ask(w.a.Renew, &last[0].ID, jpki.PhoneAuth); !errors.Is(err, jpki.Forbidden) {
			w.t.Errorf("renewed with a superseded certificate: %v", err)
		}
		longer, err := ask(w.a.Renew, &renewed[0].ID, jpki.PhoneAuth)
		if err != nil || !longer[0].NotAfter.Equal(renewed[0].NotAfter) {
			w.t.Errorf("renewed on the phone: %v %v, want an end at %v", longer, err, renewed[0].NotAfter)
		}
	})
}

func TestARepeatedRequestNamesItsOwnGeneration(t *testing.T) {
	onBoth(t, func(w *world) {
		first := w.generations[0].Certificate.Raw
		req := w.request("h1", "card-1", jpki.CardSign)
		if _, err := w.a.Issue(w.t.Context(), counter, req); err != nil {
			w.t.Fatal(err)
		}
		w.generation(2, w.now)
		again, err := w.a.Issue(w.t.Context(), counter, req)
		if err != nil || !slices.Equal(again[0].Issuer, first) {
			w.t.Errorf("handed out with another generation's certificate (%v)", err)
		}
	})
}

func TestChangesAreForWhatIsInForce(t *testing.T) {
	onBoth(t, func(w *world) {
		first := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		if _, err := w.a.Deliver(w.t.Context(), counter, w.name(), "card-1"); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Certificate: &first[0].ID, Cause: jpki.Discarded}); !errors.Is(err, jpki.ForbiddenChange) {
			w.t.Errorf("discarded after delivery: %v", err)
		}
		if _, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Token: "card-1", Cause: jpki.HolderRequest}); err != nil {
			w.t.Fatal(err)
		}
		second := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		changed, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Token: "card-1", Cause: jpki.Discarded})
		if err != nil || len(changed) != 2 || changed[0].ID != second[0].ID && changed[0].ID != second[1].ID {
			w.t.Errorf("discarded before delivery, on a card that had others delivered: %v %v", changed, err)
		}
		third := w.issue("h1", "card-1", jpki.CardAuth)
		w.now = third[0].NotAfter.Add(time.Second)
		for _, r := range []ca.ChangeRequest{{Certificate: &third[0].ID, Cause: jpki.Lost}, {Token: "card-1", Cause: jpki.Lost}} {
			if _, err := w.change(w.a.Suspend, counter, r); !errors.Is(err, jpki.ForbiddenChange) && !errors.Is(err, jpki.UnknownCertificate) {
				w.t.Errorf("suspended after its end: %v", err)
			}
		}
	})
}

// Times on a certificate's statuses never go back, whatever the clock does; CRLs and OCSP tell them.
func TestTheClockGoesBack(t *testing.T) {
	onBoth(t, func(w *world) {
		id := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		w.now = w.now.Add(time.Hour)
		held, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost})
		if err != nil {
			w.t.Fatal(err)
		}
		w.check()
		w.now = w.now.Add(-2 * time.Hour) // before it was issued
		ended, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Certificate: &id, Cause: jpki.KeyCompromised})
		if err != nil || !ended[0].Status.Since.Equal(held[0].Status.Since) {
			w.t.Errorf("revoked since %v (%v), suspended since %v", ended, err, held[0].Status.Since)
		}
		w.check()
		w.now = w.now.Add(3 * time.Hour)
	})
}
