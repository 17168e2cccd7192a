package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// What stands in holders' records of what is done here. What verifiers report stands under its own name.
const (
	recordIdentity   = "identity"
	recordWatch      = "watch"
	recordWatchEnded = "watch-ended"
	recordConsent    = "consent"
	recordWithdrawal = "consent-withdrawn"
	recordAttributes = "attributes"
)

// A reportable says for which use of certificates a verifier reports an action.
type reportable struct {
	action string
	use    jpki.Use // "" for either
}

// reportables are the actions that verifiers report.
var reportables = []reportable{{"verification", jpki.ForSignature}, {"log-in", jpki.ForAuthentication}, {"status-check", ""}}

// drawnRef keeps names that were drawn here apart from operators' own, which cannot begin so.
func drawnRef(s string) string { return "~" + s }

// A CertificateUse is a use of somebody's certificate at a verifier.
type CertificateUse struct {
	ID          string // the operator's own
	User        string // or the certificate
	Certificate *jpki.CertID
	Action      string
	Purpose     string
	At          time.Time
}

// Bounds of reports.
const (
	MaxUses   = 1000
	maxUseAge = 7 * 24 * time.Hour
)

// A UseOutcome says what became of a report.
type UseOutcome struct {
	Recorded int      // those that were reported before are not counted
	Unknown  []string // uses that concern nobody whom the tenant may know
}

// ReportUses puts what a verifier did with people's certificates into their records. A use that was reported before, by its
// name, is not put there twice. Steps:
//  1. check the list
//  2. check that the operator acts for the tenant, which must be entitled to what it did
//  3. find out whom each concerns, and record it
func (a *Authority) ReportUses(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, list []CertificateUse) (out UseOutcome, err error) {
	// 1.
	if len(list) == 0 || len(list) > MaxUses {
		return out, jpki.Errorf(jpki.Malformed, "a report has 1 to %d uses", MaxUses)
	}
	now := a.now()
	var names []string
	for _, u := range list {
		if err := errors.Join(checkIdentifier("id", u.ID), checkPurpose(u.Purpose)); err != nil {
			return out, err
		}
		if !slices.ContainsFunc(reportables, func(r reportable) bool { return r.action == u.Action }) {
			return out, jpki.Errorf(jpki.Malformed, "action is none of verification, log-in and status-check")
		}
		if u.At.After(now.Add(time.Minute)) || now.Sub(u.At) > maxUseAge {
			return out, jpki.Errorf(jpki.Malformed, "at is within the last %d days", maxUseAge/(24*time.Hour))
		}
		if (u.User == "") == (u.Certificate == nil) {
			return out, jpki.Errorf(jpki.Malformed, "name either a user or a certificate")
		}
		if u.User != "" {
			if err := checkUser(u.User); err != nil {
				return out, err
			}
			names = append(names, u.User)
		}
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		out = UseOutcome{}
		// 2.
		t, err := tenantFor(tx, by, tenant, "")
		if err != nil {
			return err
		}
		for _, r := range reportables {
			if r.use != "" && !slices.Contains(t.Uses, r.use) && slices.ContainsFunc(list, func(u CertificateUse) bool { return u.Action == r.action }) {
				return jpki.Errorf(jpki.Forbidden, "the relying party is not entitled to certificates for %s", r.use)
			}
		}
		// 3.
		users, err := tx.Users(tenant, slices.Compact(slices.Sorted(slices.Values(names))))
		if err != nil {
			return fmt.Errorf("find users: %w", err)
		}
		var records []store.Recorded
		for _, u := range list {
			holder := users[u.User].Holder
			if u.Certificate != nil {
				c, err := tx.Certificate(*u.Certificate)
				if err != nil && !errors.Is(err, jpki.UnknownCertificate) {
					return err
				}
				if err == nil && slices.Contains(t.Uses, c.Kind.Use()) {
					holder = c.Holder
				}
			}
			if holder == "" {
				out.Unknown = append(out.Unknown, u.ID)
				continue
			}
			records = append(records, store.Recorded{Operator: by.ID, Ref: u.ID, Holder: holder, Tenant: tenant, Action: u.Action, Purpose: u.Purpose, At: u.At.UTC()})
		}
		n, err := tx.AddRecords(records...)
		out.Recorded = int(n)
		return err
	})
	return out, err
}

// MaxRecord is how many entries a page of a holder's record has.
const MaxRecord = 200

// OwnRecord returns a page of what relying parties did about a holder, newest first, older than an entry; the zero entry begins.
func (a *Authority) OwnRecord(ctx context.Context, by jpki.Actor, before store.Recorded) (list []store.Recorded, more bool, err error) {
	if by.Role != jpki.Holder {
		return nil, false, jpki.Errorf(jpki.Forbidden, "a %s has no record", by.Role)
	}
	err = a.store.View(ctx, func(tx *store.Tx) error {
		list, err = tx.RecordOf(by.ID, before, MaxRecord+1)
		return err
	})
	if more = len(list) > MaxRecord; more {
		list = list[:MaxRecord]
	}
	return list, more, err
}
