package api

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/store"
)

// reportedAs says how what we do with certificates is called in holders' records, and for what purpose it is done.
var reportedAs = map[string]struct {
	action  client.UseAction
	purpose string
}{
	"verification":           {client.UseVerification, "signature-verification"},
	"reevaluation":           {client.UseVerification, "evaluation-of-evidence"},
	"authentication":         {client.UseLogin, "log-in"},
	"liveness_check":         {client.UseStatusCheck, "liveness-check"},
	"signature_verification": {client.UseStatusCheck, "signature-verification"},
}

// useOf says what the authority is to be told of a result: nothing unless one of its generations did issue the certificate. So
// nobody gets into another's record with a certificate that was made up.
func (a *API) useOf(res *verifier.Result, action string) *store.UseReport {
	if !slices.ContainsFunc(res.Checks, func(c verifier.Check) bool { return c.ID == verifier.CheckIssuer && c.OK }) {
		return nil
	}
	return a.report(res.Signer.IssuerKeyID, res.Signer.Serial, action)
}

// useIn does the same for a signature in a document.
func (a *API) useIn(res *verifier.DocumentResult, s *verifier.DocumentSigner, action string) *store.UseReport {
	if len(a.Issuers) == 0 || s.AnchorSHA256 == "" {
		return nil
	}
	for _, f := range res.Evidence.Signatures {
		if hexSHA256(f.Certificate) != s.SHA256 {
			continue
		}
		cert, err := x509.ParseCertificate(f.Certificate)
		if err != nil {
			return nil
		}
		serial, err := jpki.SerialFromBig(cert.SerialNumber)
		if err != nil {
			return nil
		}
		return a.report(hex.EncodeToString(cert.AuthorityKeyId), serial, action)
	}
	return nil
}

func (a *API) report(keyID string, serial jpki.Serial, action string) *store.UseReport {
	issuer, ours := a.Issuers[keyID]
	as, known := reportedAs[action]
	if !ours || !known {
		return nil
	}
	return &store.UseReport{Certificate: jpki.CertID{Issuer: issuer, Serial: serial}, Action: string(as.action), Purpose: as.purpose}
}

// A UseRecorder is the authority as far as it takes reports of uses. A client of package ca/client is one.
type UseRecorder interface {
	ReportUses(ctx context.Context, r client.UseReport) (client.UseOutcome, error)
}

// ReporterConfig is what [NewReporter] wants. Store, Authority and Now are required.
type ReporterConfig struct {
	Store     *store.Store
	Authority UseRecorder
	Now       func() time.Time
	Log       *slog.Logger // nil means none
}

// A Reporter tells the authority what was put aside of uses. A report is deleted once the authority has it, so it is
// told at least once, whatever breaks off; by the report's identifier the authority counts it once. Several may work on one
// store, which costs reports sent twice and nothing else.
type Reporter struct {
	ReporterConfig
	outcomes jpki.Tally
	after    map[jpki.CorporateNumber]pause
}

// A pause is how long a tenant's reports are left alone.
type pause struct {
	until time.Time
	long  time.Duration
}

// Bounds of reporting.
const (
	reportEvery = time.Second
	longestWait = time.Minute
)

// NewReporter checks the configuration.
func NewReporter(c ReporterConfig) (*Reporter, error) {
	if c.Store == nil || c.Authority == nil || c.Now == nil {
		return nil, errors.New("reporter of uses: Store, Authority and Now are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Reporter{ReporterConfig: c, after: map[jpki.CorporateNumber]pause{}}, nil
}

// Outcomes returns how many reports were told, concern nobody known ("unknown"), were refused for good, or were put off.
func (r *Reporter) Outcomes() map[string]uint64 { return r.outcomes.Snapshot() }

// Run reports every second, and to an authority that does not answer up to a minute later, until ctx ends. Call it once.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		if err := r.Report(ctx); err != nil && ctx.Err() == nil {
			r.Log.ErrorContext(ctx, "uses cannot be reported", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reportEvery):
		}
	}
}

// Report tells what waits now, but for tenants whose turn is later. An error is the database's; what the authority does not take
// waits on.
func (r *Reporter) Report(ctx context.Context) error {
	tenants, err := r.Store.UseReportTenants(ctx)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		if r.Now().Before(r.after[tenant].until) {
			continue
		}
		for {
			list, err := r.Store.UseReports(ctx, tenant, client.MaxUses)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				break
			}
			put, err := r.tell(ctx, tenant, list)
			if err != nil {
				return err
			}
			if put != nil {
				p := pause{long: min(max(2*r.after[tenant].long, reportEvery), longestWait)}
				p.until = r.Now().Add(p.long)
				r.after[tenant] = p
				r.outcomes.Add("put-off")
				r.Log.WarnContext(ctx, "reports of uses are put off", slog.String("problem", string(jpki.ProblemOf(put))), slog.Duration("for", p.long))
				break
			}
			delete(r.after, tenant)
		}
	}
	return nil
}

// final are the problems that a report has for good.
var final = []jpki.Problem{jpki.Malformed, jpki.MyNumberPresent, jpki.Forbidden, jpki.TooLarge}

// tell reports a list. put is why the authority does not take it now. What it refuses for good is told by halves until it is alone, so
// that nothing else is refused with it.
func (r *Reporter) tell(ctx context.Context, tenant jpki.CorporateNumber, list []store.UseReport) (put, err error) {
	report := client.UseReport{Tenant: tenant}
	ids := make([]string, len(list))
	for i, u := range list {
		ids[i] = u.ID
		report.Uses = append(report.Uses, client.CertificateUse{ID: u.ID, Certificate: &u.Certificate, Action: client.UseAction(u.Action), Purpose: u.Purpose, At: u.At})
	}
	out, err := r.Authority.ReportUses(ctx, report)
	switch {
	case err == nil:
		for range len(list) - len(out.Unknown) {
			r.outcomes.Add("reported")
		}
		for range out.Unknown {
			r.outcomes.Add("unknown")
		}
		return nil, r.Store.EndUseReports(ctx, ids)
	case !slices.Contains(final, jpki.ProblemOf(err)):
		return err, nil
	case len(list) > 1:
		half := len(list) / 2
		if put, err = r.tell(ctx, tenant, list[:half]); put != nil || err != nil {
			return put, err
		}
		return r.tell(ctx, tenant, list[half:])
	}
	r.outcomes.Add("refused")
	r.Log.ErrorContext(ctx, "the authority refuses a report of a use", slog.String("report", list[0].ID), slog.String("problem", string(jpki.ProblemOf(err))))
	return nil, r.Store.RefuseUseReport(ctx, list[0].ID, jpki.ProblemOf(err))
}

var _ UseRecorder = (*client.Client)(nil)
