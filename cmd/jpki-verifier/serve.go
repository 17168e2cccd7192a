package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/sources"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/store"
)

// A zone is everything that serves.
type zone struct {
	store   *store.Store
	chain   *sources.Chain
	api     *api.API
	loops   []func(context.Context) error
	metrics []boot.Metric
}

// serve runs the server until ctx ends. Steps:
//  1. the zone
//  2. listeners
//  3. loops: sources kept up to date, what has been kept long enough deleted, the database asked
func serve(ctx context.Context, c *config, log *slog.Logger) (err error) {
	if c.tracer, err = trace.Start(ctx, "jpki-verifier", c.Traces, c.dir.Read, log); err != nil {
		return err
	}
	defer c.tracer.Close()
	log = c.tracer.Log(log)
	// 1.
	z, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.store.Close()) }()
	secure, err := c.tls(ctx)
	if err != nil {
		return err
	}
	// 2.
	listen := func(address string) (net.Listener, error) { return (&net.ListenConfig{}).Listen(ctx, "tcp", address) }
	public, err := listen(c.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = public.Close() }()
	admin, err := listen(c.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	// 3.
	var asked atomic.Pointer[error] // what the database said last
	loops := append(z.loops,
		boot.Every(log, "delete what was kept long enough", c.Sweep, func(ctx context.Context) error {
			n, err := z.store.Sweep(ctx, time.Now())
			if n > 0 {
				log.InfoContext(ctx, "evidence deleted, its time being over", slog.Int64("count", n))
			}
			return err
		}),
		boot.Every(log, "ask the database", time.Second, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err := z.store.AuthorityPosition(ctx)
			asked.Store(&err)
			return err
		}))
	if c.Server != nil {
		z.metrics = append(z.metrics, c.lasts("jpki_server_certificate_seconds", "How long the server's TLS certificate lasts.", c.Server.Certificate))
	}
	if c.Authority != nil {
		z.metrics = append(z.metrics, c.lasts("jpki_client_certificate_seconds", "How long this server's certificate for the authority lasts.", c.Authority.Certificate))
	}
	ready := func() error {
		if last := asked.Load(); last == nil {
			return errors.New("the database has not been asked yet")
		} else if *last != nil {
			return *last
		}
		return nil
	}
	log.InfoContext(ctx, "serving", slog.String("verifier", public.Addr().String()), slog.String("admin", admin.Addr().String()), slog.Bool("tls", secure != nil))
	return boot.Run(ctx, log, []boot.Service{
		{Name: "verifier", Listener: public, Handler: c.tracer.Handler(trace.Routes(api.OpenAPI()), z.api), TLS: secure},
		{Name: "admin", Listener: admin, Handler: boot.Admin(ready, z.metrics...)},
	}, loops...)
}

// open makes the zone. Steps:
//  1. trust anchors and policies
//  2. sources of statuses, in their order, and what keeps them up to date
//  3. the verifier
//  4. the database
//  5. the authority's relying-party API, if there is one, and what stands upon it
//  6. the API over all of that
func (c *config) open(ctx context.Context, log *slog.Logger) (_ *zone, err error) {
	z := &zone{}
	// 1.
	issuers, err := c.anchors()
	if err != nil {
		return nil, err
	}
	policies, err := c.policies(issuers)
	if err != nil {
		return nil, err
	}
	// 2.
	chain := sources.ChainConfig{Now: time.Now, MaxAge: maxAge(policies)}
	var forDocuments []verifier.RevocationSource
	for i, s := range c.Sources {
		one, source, err := c.source(z, s, issuers, chain.MaxAge, log)
		if err != nil {
			return nil, fmt.Errorf("sources[%d]: %w", i, err)
		}
		chain.Sources = append(chain.Sources, one)
		if source != nil {
			forDocuments = append(forDocuments, *source)
		}
	}
	if z.chain, err = sources.NewChain(chain); err != nil {
		return nil, err
	}
	// 3.
	challenges, err := verifier.NewChallenges(verifier.ChallengesConfig{Now: time.Now, Rand: rand.Reader, TTL: c.Limits.ChallengeFor, Max: c.Limits.Challenges})
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	cfg := verifier.Config{
		Anchors: certificatesOf(issuers), Policies: policies, Revocation: z.chain, Challenges: challenges, Now: time.Now, Rand: rand.Reader,
	}
	if cfg.Documents, err = c.documents(issuers, forDocuments); err != nil {
		return nil, err
	}
	v, err := verifier.New(cfg)
	if err != nil {
		return nil, err
	}
	// 4.
	key, err := c.masterKey()
	if err != nil {
		return nil, err
	}
	if z.store, err = store.Open(ctx, store.Config{Database: c.Database, MasterKey: key}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, z.store.Close())
		}
	}()
	// 5.
	serving := api.Config{
		Verifier: v, Challenges: challenges, Store: z.store, Now: time.Now, Log: log,
		Deadline: c.Limits.Deadline, Rate: c.Limits.Rate, MaxDocument: c.Limits.Document << 20, Documents: c.Limits.Documents,
	}
	if err := c.join(ctx, z, &serving, issuers, log); err != nil {
		return nil, err
	}
	// 6.
	if z.api, err = api.New(serving); err != nil {
		return nil, err
	}
	z.metrics = append(z.metrics,
		boot.Outcomes("jpki_verifier_requests_total", "Requests of relying parties, by outcome.", z.api.Outcomes),
		boot.Outcomes("jpki_verifier_sources_total", "What each source of statuses answered.", z.chain.Outcomes))
	return z, nil
}

// maxAge is the least of what policies admit.
func maxAge(all []verifier.Policy) time.Duration {
	out := 7 * 24 * time.Hour
	for _, p := range all {
		out = min(out, time.Duration(p.MaxRevocationAge)*time.Second)
	}
	return out
}

// source makes one source of statuses, of which what is older than age is not relied upon. Snapshots say nothing that a document could keep as evidence.
func (c *config) source(z *zone, s source, issuers []sources.Issuer, age time.Duration, log *slog.Logger) (one sources.Source, forDocuments *verifier.RevocationSource, err error) {
	of := func(f *folder) sources.FolderConfig {
		return sources.FolderConfig{Dir: c.dir.Path(f.Folder), URL: f.URL, Issuers: issuers, Now: time.Now}
	}
	switch {
	case s.Snapshots != nil:
		snapshots, err := sources.NewSnapshots(of(s.Snapshots))
		if err != nil {
			return one, nil, err
		}
		z.loops = append(z.loops, boot.Every(log, "look for status snapshots", c.Refresh, snapshots.Refresh))
		z.metrics = append(z.metrics, boot.Gauge("jpki_verifier_snapshot_age_seconds", "Age of the oldest status snapshot in use.", snapshots.Age))
		return sources.Source{Name: "snapshot", Checker: snapshots}, nil, nil
	case s.CRLs != nil:
		lists, err := sources.NewLists(of(s.CRLs))
		if err != nil {
			return one, nil, err
		}
		z.loops = append(z.loops, boot.Every(log, "look for CRLs", c.Refresh, lists.Refresh))
		z.metrics = append(z.metrics, boot.Gauge("jpki_verifier_crl_age_seconds", "Age of the oldest CRL in use.", lists.Age))
		source := lists.Documents()
		return sources.Source{Name: "crl", Checker: lists}, &source, nil
	}
	o := s.OCSP
	checker, err := verifier.NewOCSP(verifier.OCSPConfig{Client: c.ocspClient(), URL: o.URL, Allowed: o.Allowed, Timeout: o.Timeout, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return one, nil, err
	}
	source := verifier.CheckerSource("ocsp", checker)
	one = sources.Source{Name: "ocsp", Checker: checker}
	if o.RememberFor != 0 {
		remembering, err := verifier.NewVerdictCache(verifier.VerdictCacheConfig{Checker: checker, Now: time.Now, GoodFor: o.RememberFor, BadFor: o.BadFor, Entries: o.Entries})
		if err != nil {
			return one, nil, err
		}
		z.metrics = append(z.metrics, boot.Outcomes("jpki_verifier_ocsp_cache_total", "Questions to the OCSP cache, by how they were answered.", remembering.Counts))
		one.Checker = sources.Fresh{Remembering: remembering, Behind: checker, MaxAge: age}
	}
	return one, &source, nil
}

// ocspClient passes traces on; nil, which is the library's own, where there are none.
func (c *config) ocspClient() *http.Client {
	if c.tracer == nil {
		return nil
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, ForceAttemptHTTP2: true}
	return &http.Client{Transport: c.tracer.Transport("ocsp", t)}
}

// documents says how documents are verified; nil where none are.
func (c *config) documents(issuers []sources.Issuer, from []verifier.RevocationSource) (*verifier.DocumentConfig, error) {
	d := c.Documents
	if d == nil {
		return nil, nil
	}
	policy, err := verifier.FindDocumentPolicy(d.Policy)
	if err != nil {
		text, unread := c.dir.Read(d.Policy)
		if unread != nil {
			return nil, fmt.Errorf("documents.policy is neither a name nor a file: %w", errors.Join(err, unread))
		}
		if policy, err = verifier.ParseDocumentPolicy(text); err != nil {
			return nil, fmt.Errorf("documents.policy: %w", err)
		}
	}
	out := &verifier.DocumentConfig{Policy: policy, Anchors: certificatesOf(issuers), Sources: from}
	if d.TimeStamps != "" {
		if out.TimeStampAnchors, err = c.dir.Certificates(d.TimeStamps); err != nil {
			return nil, fmt.Errorf("documents.time_stamps: %w", err)
		}
	}
	if d.Certificates != "" {
		if out.Certificates, err = c.dir.Certificates(d.Certificates); err != nil {
			return nil, fmt.Errorf("documents.certificates: %w", err)
		}
	}
	return out, nil
}

// lasts is a metric of how long a certificate lasts; 0 of one that cannot be read.
func (c *config) lasts(name, help, path string) boot.Metric {
	return boot.Gauge(name, help, func() float64 {
		chain, err := c.dir.Certificates(path)
		if err != nil {
			return 0
		}
		return time.Until(chain[0].NotAfter).Seconds()
	})
}

// checkAll makes everything that serving needs, the connection to the database included, and throws it away. It changes
// nothing and asks nobody else.
func (c *config) checkAll(ctx context.Context, log *slog.Logger) error {
	_, err := c.tls(ctx)
	z, err2 := c.open(ctx, log)
	if err2 == nil {
		err2 = z.store.Close()
	}
	return errors.Join(err, err2)
}
