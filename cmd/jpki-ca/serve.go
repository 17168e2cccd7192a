package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/hsm/signer"
)

// serve runs the server until ctx ends. Steps:
//  1. the database, and the authority over it with the keys that issue now
//  2. the handlers: stations, register, holders and status servers; enrolment
//  3. the work that one process does alone
//  4. listeners, metrics, and a loop that follows the generations
func serve(ctx context.Context, c *config, log *slog.Logger) (err error) {
	if c.tracer, err = trace.Start(ctx, "jpki-ca", c.Traces, c.read, log); err != nil {
		return err
	}
	defer c.tracer.Close()
	log = c.tracer.Log(log)
	// 1.
	db, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	authority, err := c.authority(ctx, db, log)
	if err != nil {
		return err
	}
	// 2.
	stations, err := c.api(authority, db, log)
	if err != nil {
		return err
	}
	enrolment, err := c.enrol(ctx, authority, db, log)
	if err != nil {
		return err
	}
	secure, err := c.tlsConfig(ctx)
	if err != nil {
		return err
	}
	// 3.
	key, err := c.auditKey()
	if err != nil {
		return fmt.Errorf("audit.key: %w", err)
	}
	if err := c.makeFolders(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	work := &alone{c: c, db: db, ca: authority, log: log, key: key}
	if socket, err := c.socket(); err != nil {
		return err
	} else if socket != "" {
		work.signer = signer.NewClient(socket)
		defer work.signer.Close()
	}
	if _, err := c.mirror(nil, log); err != nil {
		return fmt.Errorf("bucket: %w", err)
	}
	// 4.
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
	metrics := []boot.Metric{
		boot.Outcomes("jpki_authority_requests_total", "Requests of stations and register, by outcome.", stations.Outcomes),
		boot.Outcomes("jpki_authority_batch_lines_total", "Lines of batches, by outcome.", stations.LineOutcomes),
		boot.Outcomes("jpki_crl_publications_total", "CRL publications, by outcome.", work.lists.Snapshot),
		boot.Outcomes("jpki_snapshot_publications_total", "Publications of status snapshots, by outcome.", work.snapshots.Snapshot),
		boot.Outcomes("jpki_crl_mirror_total", "CRLs put into the bucket, by outcome.", work.mirrored.Snapshot),
		boot.Outcomes("jpki_publisher_total", "Terms begun with the lease, and what broke off.", work.works.Snapshot),
		boot.Gauge("jpki_publisher_leads", "1 if this process has the lease and publishes.", func() float64 {
			if work.leads.Load() {
				return 1
			}
			return 0
		}),
		boot.Gauge("jpki_audit_checkpoint_age_seconds", "How long ago the audit record's head was found signed; 0 without the lease.", func() float64 {
			if !work.leads.Load() {
				return 0
			}
			return time.Since(time.Unix(0, work.signed.Load())).Seconds()
		}),
		boot.Gauge("jpki_crl_age_seconds", "Age of the oldest CRL in this process's folder.", func() float64 { return c.listAge(time.Now()) }),
		boot.Gauge("jpki_server_certificate_seconds", "How long the server's TLS certificate lasts.", func() float64 {
			chain, err := c.certificates(c.Server.Certificate)
			if err != nil {
				return 0
			}
			return time.Until(chain[0].NotAfter).Seconds()
		}),
	}
	var ends atomic.Int64 // when the first of the certificates ends that others hang on, Unix time
	metrics = append(metrics, boot.Gauge("jpki_ca_certificate_seconds", "How long the CA certificate lasts that ends first: of the generations that issue, and of who certifies stations.", func() float64 {
		return time.Until(time.Unix(ends.Load(), 0)).Seconds()
	}))
	services := []boot.Service{{Name: "authority", Listener: public, Handler: c.tracer.Handler(trace.Routes(api.OpenAPI), stations), TLS: secure}}
	if enrolment != nil {
		at, err := listen(c.Enrolment.Listen)
		if err != nil {
			return err
		}
		defer func() { _ = at.Close() }()
		services = append(services, boot.Service{Name: "enrolment", Listener: at, Handler: c.tracer.Handler(nil, enrolment), TLS: secure})
		metrics = append(metrics, boot.Outcomes("jpki_enrolment_requests_total", "Requests for stations' certificates, by outcome.", enrolment.Outcomes))
	}
	var asked atomic.Pointer[error] // what the database said last
	services = append(services, boot.Service{Name: "admin", Listener: admin, Handler: boot.Admin(func() error {
		if last := asked.Load(); last == nil {
			return errors.New("the database has not been asked yet")
		} else if *last != nil {
			return *last
		}
		return nil
	}, metrics...)})
	log.InfoContext(ctx, "serving", slog.String("authority", public.Addr().String()), slog.String("admin", admin.Addr().String()))
	return boot.Run(ctx, log, services, work.run,
		boot.Every(log, "look when CA certificates end", time.Minute, func(ctx context.Context) error {
			first, err := c.firstEnd(ctx, db)
			if err == nil {
				ends.Store(first.Unix())
			}
			return err
		}),
		boot.Every(log, "follow generations", time.Second, func(ctx context.Context) error {
			err := db.View(ctx, func(tx *store.Tx) error { _, err := tx.AuditHead(); return err })
			if err == nil {
				err = authority.Follow(ctx)
			}
			asked.Store(&err)
			return err
		}))
}

// firstEnd is when the first CA certificate ends that is in use: of the generations that issue, and of who certifies stations.
func (c *config) firstEnd(ctx context.Context, db *store.Store) (first time.Time, err error) {
	used, err := c.certificates(c.StationsCA)
	if err != nil {
		return first, err
	}
	recorded, err := generations(ctx, db)
	if err != nil {
		return first, err
	}
	for _, g := range recorded {
		if g.Active {
			cert, err := x509.ParseCertificate(g.Certificate)
			if err != nil {
				return first, fmt.Errorf("read generation %s: %w", g.Issuer, err)
			}
			used = append(used, cert)
		}
	}
	for _, cert := range used {
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	return first, nil
}
