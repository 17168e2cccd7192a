package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/lists"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/cache"
	"github.com/openjpki/jpki/ocsp/front"
	ocspstatus "github.com/openjpki/jpki/ocsp/status"
	"github.com/openjpki/jpki/verifier"
	verifierapi "github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/push"
	verifierstore "github.com/openjpki/jpki/verifier/store"
)

// authority is the zone with the CA keys and the database.
type authority struct {
	ca        *ca.Authority
	station   *api.API
	enrolment *acme.Enrolment
	publisher *crl.Publisher
	packer    *snapshot.Publisher
	head      audit.Head // of the last checkpoint
}

// status is the public zone: delegated keys, a database handle that reads statuses only, and published files.
type status struct {
	reader    *store.StatusReader
	index     *ocspstatus.Index
	answers   *cache.Memory // signed
	responder *ocsp.Responder
	keeper    *ocsp.Keeper
	front     *front.Server
	lists     *crl.Server
	snapshots *snapshot.Server
}

// answerBytes is how much memory signed answers may take: some fifty thousand of them.
const answerBytes = 64 << 20

// connections may be open to the status zone at once, all of them from this machine.
const connections = 20_000

// relyingParty is a bank's zone: trust anchors and addresses.
type relyingParty struct {
	banks      atomic.Pointer[[]*verifierapi.API] // the last has all trust anchors; the others only their tallies
	challenges *verifier.Challenges
	tenants    *verifierstore.Store
	watching   *verifierapi.Watching
	follower   *push.Follower
	pusher     *push.Pusher
	consents   *verifierapi.Consents
	reporter   *verifierapi.Reporter
}

// openZones makes every zone's parts and returns the loops that keep them going.
func (s *System) openZones(ctx context.Context) (loops []func(context.Context) error, err error) {
	s.env = s.newEnv()
	if loops, err = s.openAuthority(ctx); err != nil {
		return nil, fmt.Errorf("open the authority: %w", err)
	}
	more, err := s.openStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the status zone: %w", err)
	}
	if err := s.openBank(ctx, s.keys.all()); err != nil {
		return nil, fmt.Errorf("open the verifier: %w", err)
	}
	return append(append(loops, more...), boot.Every(s.log, "delete old evidence", time.Hour, s.sweepEvidence),
		s.reporter.Run, s.follower.Run, s.pusher.Run, boot.Every(s.log, "forget changes told long ago", time.Hour, s.forgetChanges)), nil
}

func (s *System) openAuthority(ctx context.Context) ([]func(context.Context) error, error) {
	var err error
	s.ca, err = ca.New(ca.Config{
		Store: s.db, Profile: s.profile.Profile, Issuers: s.keys.active, StatusURL: s.env.StatusURL(), Now: time.Now, Rand: rand.Reader, Log: s.log, StationCAs: poolOf(s.keys.infra),
		OpenKey: s.dir.openGeneration, ConsentsAtOnce: true,
	})
	if err != nil {
		return nil, err
	}
	// This process holds the directory's lock: whatever is open was begun by one that is dead.
	if n, err := s.ca.Reconcile(ctx, 0); err != nil {
		return nil, err
	} else if n > 0 {
		s.log.InfoContext(ctx, "ended issuances that were cut short", slog.Int("count", n))
	}
	for _, actor := range stationActors {
		cert := s.keys.stations[actor.ID]
		if known, err := s.ca.Authenticate(ctx, []*x509.Certificate{cert}); err == nil && known == actor {
			continue
		}
		if err := s.ca.Enrol(ctx, system, actor, cert); err != nil {
			return nil, err
		}
	}
	if err := s.registerBank(ctx); err != nil {
		return nil, err
	}
	relying, err := s.relying()
	if err != nil {
		return nil, err
	}
	if s.station, err = api.New(api.Config{
		Authority: s.ca, NewID: rand.Text, Now: time.Now, Log: s.log, Phones: s.phones(), Relying: relying, Delegate: certifyDelegate(s.keys.all),
	}); err != nil {
		return nil, err
	}
	if err := s.openEnrolment(ctx); err != nil {
		return nil, err
	}
	// CRLs are signed by the CA keys, so they are made here and only served by the status zone.
	cfg := listsConfig(s.dir, s.db)
	cfg.Log = s.log
	for _, i := range s.keys.all() {
		issuer, err := s.listed(ctx, i)
		if err != nil {
			return nil, err
		}
		cfg.Issuers = append(cfg.Issuers, issuer)
	}
	if s.publisher, err = crl.NewPublisher(cfg); err != nil {
		return nil, err
	}
	if s.packer, err = snapshot.NewPublisher(snapshotsConfig(s.dir, s.db)); err != nil {
		return nil, err
	}
	if err := s.cutCheckpoints(); err != nil {
		return nil, fmt.Errorf("mend checkpoints: %w", err)
	}
	var ids []jpki.IssuerID
	for _, i := range s.keys.all() {
		ids = append(ids, i.ID)
	}
	dirty := make(chan crl.ID, 256)
	changes := s.db.Changes()
	return []func(context.Context) error{
		func(ctx context.Context) error { s.publisher.Run(ctx, dirty); return ctx.Err() },
		func(ctx context.Context) error {
			return lists.Follow(ctx, lists.FollowConfig{Reader: &s.db.StatusReader, Profile: s.profile.Profile, Issuers: ids, Changes: changes, Log: s.log}, dirty)
		},
		boot.Every(s.log, "end issuances cut short", time.Minute, func(ctx context.Context) error { _, err := s.ca.Reconcile(ctx, 2*time.Minute); return err }),
		boot.Every(s.log, "apply due register events", 10*time.Second, func(ctx context.Context) error { _, err := s.ca.ApplyDue(ctx); return err }),
		s.ca.FollowChanges,
		boot.Every(s.log, "forget changes told long ago", time.Hour, func(ctx context.Context) error { _, err := s.ca.ForgetChanges(ctx, changesKept); return err }),
		boot.Every(s.log, "publish status snapshots", time.Minute, s.publishSnapshots),
		boot.Every(s.log, "record the use of keys", 2*time.Second, s.auditKeys),
		boot.Every(s.log, "sign audit checkpoint", time.Second, s.checkpoint),
	}, nil
}

// cutCheckpoints takes away the unfinished line of a process that was killed while it wrote, or the next would continue it.
func (s *System) cutCheckpoints() error {
	path := s.dir.path("authority", "checkpoints")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if end := bytes.LastIndexByte(text, '\n') + 1; err == nil && end < len(text) {
		return os.Truncate(path, int64(end))
	}
	return err
}

// checkpoint signs the audit record's head if it has moved and adds it to a file that is only ever appended to.
func (s *System) checkpoint(ctx context.Context) error {
	var head audit.Head
	err := s.db.View(ctx, func(tx *store.Tx) (err error) { head, err = tx.AuditHead(); return err })
	if err != nil || head == s.head {
		return err
	}
	f, err := os.OpenFile(s.dir.path("authority", "checkpoints"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, audit.Sign(head, time.Now(), s.keys.audit))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		s.head = head
	}
	return err
}

func (s *System) openStatus(ctx context.Context) ([]func(context.Context) error, error) {
	var err error
	if s.reader, err = store.OpenStatusReader("sqlite:" + s.dir.path("authority", "ca.db")); err != nil {
		return nil, err
	}
	s.index, err = ocspstatus.New(ocspstatus.Config{Log: s.reader, Now: time.Now, Wake: s.db.Changes(), Snapshot: s.dir.snapshot(), AcceptTrial: true})
	if err != nil {
		return nil, err
	}
	if err := s.index.SnapshotErr(); err != nil {
		s.log.ErrorContext(ctx, "status snapshot left aside, the whole status log is read", slog.Any("error", err))
	}
	if s.keeper, err = s.newKeeper(ctx); err != nil {
		return nil, err
	}
	if s.answers, err = cache.NewMemory(cache.MemoryConfig{Bytes: answerBytes}); err != nil {
		return nil, err
	}
	if s.responder, err = ocsp.New(ocsp.Config{Delegates: s.keeper.Delegates(), Statuses: s.index, Now: time.Now, Prefix: "/ocsp", Near: s.answers, Handover: 10 * time.Minute}); err != nil {
		return nil, err
	}
	if s.front, err = front.New(front.Config{
		Exchanger: s.responder, Now: time.Now, Log: s.log, Prefix: "/ocsp", Other: http.HandlerFunc(s.serveFiles), Connections: connections, PerAddress: connections,
	}); err != nil {
		return nil, err
	}
	if s.lists, err = crl.NewServer(crl.ServerConfig{Dir: s.dir.path("public", "crl"), Now: time.Now}); err != nil {
		return nil, err
	}
	if s.snapshots, err = snapshot.NewServer(snapshot.ServerConfig{Dir: s.dir.path("public", "snapshot"), Now: time.Now}); err != nil {
		return nil, err
	}
	return []func(context.Context) error{
		s.index.Run,
		boot.Every(s.log, "renew responder certificates", time.Minute, s.keeper.Look),
		boot.Every(s.log, "follow generations", time.Second, s.follow),
	}, nil
}

// serveFiles answers what is not OCSP.
func (s *System) serveFiles(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/crl/"):
		s.lists.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/snapshot/"):
		s.snapshots.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/ca/"):
		s.serveCA(w, r)
	case r.URL.Path == unavailablePath+"/ocsp", r.URL.Path == slowPath+"/ocsp":
		s.serveTroubled(w, r)
	default:
		jpki.WriteProblem(w, r, jpki.Errorf(jpki.NotFound, ""))
	}
}

// serveCA hands out an authority's certificate, DER: /ca/sign-1.cer.
func (s *System) serveCA(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		jpki.WriteProblem(w, r, jpki.Errorf(jpki.MethodNotAllowed, ""))
		return
	}
	for _, i := range s.keys.all() {
		if r.URL.Path == "/ca/"+i.ID.String()+".cer" {
			w.Header().Set("Content-Type", "application/pkix-cert")
			_, _ = w.Write(i.Certificate.Raw)
			return
		}
	}
	jpki.WriteProblem(w, r, jpki.Errorf(jpki.NotFound, ""))
}

func (s *System) openBank(ctx context.Context, issuers []ca.Issuer) error {
	err := errors.Join(s.openTenants(ctx), s.openConsents(ctx))
	if err != nil {
		return err
	}
	if err := s.openWatching(); err != nil {
		return err
	}
	if s.challenges == nil {
		if s.challenges, err = verifier.NewChallenges(verifier.ChallengesConfig{Now: time.Now, Rand: rand.Reader}); err != nil {
			return err
		}
	}
	bank, err := s.newBank(issuers)
	if err != nil {
		return err
	}
	s.banks.Store(&[]*verifierapi.API{bank})
	return nil
}

func (s *System) newBank(issuers []ca.Issuer) (*verifierapi.API, error) {
	checker, err := s.newChecker()
	if err != nil {
		return nil, err
	}
	var anchors []*x509.Certificate
	for _, i := range issuers {
		anchors = append(anchors, i.Certificate)
	}
	policy, err := verifier.FindDocumentPolicy("sandbox-signature-2026")
	if err != nil {
		return nil, err
	}
	documents := &verifier.DocumentConfig{Policy: policy, Anchors: anchors, Sources: []verifier.RevocationSource{verifier.CheckerSource(s.env.OCSPURL, checker)}}
	v, err := verifier.New(verifier.Config{Anchors: anchors, Policies: policies(anchors), Revocation: checker, Challenges: s.challenges, Documents: documents, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	return verifierapi.New(verifierapi.Config{Verifier: v, Challenges: s.challenges, Store: s.tenants, Now: time.Now, Log: s.log, Rate: sandboxRate, Watching: s.watching, Consents: s.consents, Issuers: issuersByKey(issuers)})
}

// serveBank has the bank with all trust anchors answer.
func (s *System) serveBank(w http.ResponseWriter, r *http.Request) {
	banks := *s.banks.Load()
	banks[len(banks)-1].ServeHTTP(w, r)
}

// bankOutcomes counts what all banks answered.
func (s *System) bankOutcomes() map[string]uint64 {
	sum := map[string]uint64{}
	for _, b := range *s.banks.Load() {
		for outcome, n := range b.Outcomes() {
			sum[outcome] += n
		}
	}
	return sum
}

// policies are the sandbox's, each bound to all generations of the authority for its purpose.
func policies(anchors []*x509.Certificate) []verifier.Policy {
	out := verifier.SandboxPolicies()
	for i, p := range out {
		var own []*x509.Certificate
		for _, anchor := range anchors {
			// The two authorities' names differ, the generations' do not.
			if forLogin := strings.Contains(anchor.Subject.String(), "for user authentication"); forLogin == (p.Purpose == verifier.ForAuthentication) {
				own = append(own, anchor)
			}
		}
		out[i] = p.WithIssuers(own...)
	}
	return out
}

// openToken reads the bank's access token, or draws it.
func openToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		token := rand.Text()
		return token, writeFile(path, []byte(token+"\n"), 0o600)
	}
	return strings.TrimSpace(string(text)), err
}

// ready says why the sandbox cannot serve yet.
func (s *System) ready() error {
	if err := s.index.Err(); err != nil {
		return fmt.Errorf("status index: %w", err)
	}
	if age := time.Since(s.index.Watermark()); age > 5*time.Second {
		return errors.New("the status index does not follow the status log")
	}
	for _, i := range s.keys.all() {
		for _, k := range []crl.ID{{Issuer: i.ID}, {Issuer: i.ID, Partition: s.profile.Municipalities[0].Code}} {
			if _, err := os.Stat(s.dir.path("public", "crl", k.Path())); err != nil {
				return fmt.Errorf("CRL %s is not published", k)
			}
		}
	}
	return nil
}

func (s *System) metrics() []boot.Metric {
	return []boot.Metric{
		boot.Outcomes("jpki_authority_requests_total", "Requests of stations and register, by outcome.", s.station.Outcomes),
		boot.Outcomes("jpki_enrolment_requests_total", "Requests for stations' certificates, by outcome.", s.enrolment.Outcomes),
		boot.Outcomes("jpki_authority_batch_lines_total", "Lines of batches, by outcome.", s.station.LineOutcomes),
		boot.Outcomes("jpki_ocsp_responses_total", "OCSP answers, by outcome.", s.responder.Outcomes),
		boot.Outcomes("jpki_ocsp_sources_total", "Where OCSP answers came from.", s.responder.Sources),
		boot.Outcomes("jpki_ocsp_delegates_total", "Delegates renewed, and failures to.", s.keeper.Outcomes),
		boot.Outcomes("jpki_ocsp_listener_total", "What came to the status zone's listener, by outcome.", s.front.Outcomes),
		boot.Outcomes("jpki_crl_requests_total", "CRL downloads, by outcome.", s.lists.Outcomes.Snapshot),
		boot.Outcomes("jpki_crl_publications_total", "CRL publications, by outcome.", s.publisher.Outcomes.Snapshot),
		boot.Outcomes("jpki_snapshot_requests_total", "Downloads of status snapshots, by outcome.", s.snapshots.Outcomes.Snapshot),
		boot.Outcomes("jpki_snapshot_publications_total", "Publications of status snapshots, by outcome.", s.packer.Outcomes.Snapshot),
		boot.Outcomes("jpki_verifier_requests_total", "Requests of relying parties, by outcome.", s.bankOutcomes),
		boot.Outcomes("jpki_verifier_feed_total", "How often changes of the authority's may have been missed, and tenants were told so.", s.follower.Outcomes),
		boot.Outcomes("jpki_verifier_deliveries_total", "Deliveries to tenants' endpoints, by outcome.", s.pusher.Outcomes),
		boot.Outcomes("jpki_verifier_reports_total", "Uses of certificates reported to the authority, by outcome.", s.reporter.Outcomes),
		boot.Gauge("jpki_verifier_reports_waiting", "Uses of certificates that the authority has not been told yet.", s.reportsWaiting),
		boot.Gauge("jpki_status_watermark_age_seconds", "How old the status index's view is.", func() float64 { return time.Since(s.index.Watermark()).Seconds() }),
		boot.Gauge("jpki_status_certificates", "Certificates in the status index.", func() float64 { return float64(s.index.Len()) }),
	}
}
