package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/trace"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/cache"
	"github.com/openjpki/jpki/ocsp/status"
)

// serve runs the server until ctx ends. Steps:
//  1. the status log: through Redis if there is one, else and otherwise from the database
//  2. the index that follows it
//  3. shelves for signed answers: in the process, in Redis
//  4. the responder over all that, and the listener in front of it and of published files
//  5. loops, among them one that takes up replaced certificates
func serve(ctx context.Context, c *config, log *slog.Logger) (err error) {
	if c.tracer, err = trace.Start(ctx, "jpki-status", c.Traces, func(p string) ([]byte, error) { return os.ReadFile(c.path(p)) }, log); err != nil {
		return err
	}
	defer c.tracer.Close()
	log = c.tracer.Log(log)
	var loops []func(context.Context) error
	var metrics []boot.Metric
	count := func(name, help string, outcomes func() map[string]uint64) {
		metrics = append(metrics, boot.Outcomes(name, help, outcomes))
	}
	// 1.
	server, secret, relayKey, err := c.secrets()
	if err != nil {
		return err
	}
	indexed := status.Config{Now: c.now, Bound: c.Bound, Snapshot: c.path(c.Snapshot), AcceptTrial: c.AcceptTrial, Log: noLog{}}
	var tiers []relay.Tier
	if relayKey != nil {
		follower, err := relay.NewFollower(relay.FollowerConfig{Server: relay.Server(server), Key: relayKey, Rand: rand.Reader})
		if err != nil {
			return err
		}
		loops = append(loops, follower.Run)
		count("jpki_status_follower_total", "Reads of the status log through Redis, by outcome.", follower.Outcomes)
		tiers = append(tiers, relay.Tier{Name: "redis", Log: follower, Within: 200 * time.Millisecond})
		indexed.Wake = follower.Wake()
	}
	if c.Database != "" {
		reader, err := store.OpenStatusReader(c.Database)
		if err != nil {
			return err
		}
		defer func() { _ = reader.Close() }()
		tiers = append(tiers, relay.Tier{Name: "database", Log: reader})
	}
	if len(tiers) > 0 {
		logs, err := relay.NewLogs(relay.LogsConfig{Tiers: tiers, Now: c.now})
		if err != nil {
			return err
		}
		count("jpki_status_log_total", "Reads of the status log, by source and outcome.", logs.Outcomes)
		indexed.Log = logs
	}
	// 2.
	index, err := status.New(indexed)
	if err != nil {
		return err
	}
	loops = append(loops, index.Run)
	if err := index.SnapshotErr(); err != nil {
		log.WarnContext(ctx, "the snapshot of statuses is not used; the whole log is read", slog.Any("error", err))
	}
	// 3.
	written := c.written() // before they are read: what is replaced meanwhile is read again
	var delegates []ocsp.Delegate
	var keeper *ocsp.Keeper
	var responder *ocsp.Responder
	if c.Authority == nil {
		delegates, err = c.delegates(ctx)
	} else {
		if keeper, err = c.keeper(ctx, func(all []ocsp.Delegate) error {
			if responder == nil {
				return nil
			}
			return responder.SetDelegates(all)
		}); err != nil {
			return err
		}
		if err = keeper.Look(ctx); err != nil && len(keeper.Delegates()) == len(c.Delegates) {
			log.WarnContext(ctx, "delegates are not renewed; those that there are go on", slog.Any("error", err))
			err = nil
		}
		delegates = keeper.Delegates()
	}
	if err != nil {
		return err
	}
	answers := c.answers(delegates, index, secret)
	if c.Memory > 0 {
		memory, err := cache.NewMemory(cache.MemoryConfig{Bytes: c.Memory << 20})
		if err != nil {
			return err
		}
		defer func() { _ = memory.Close() }()
		count("jpki_ocsp_memory_total", "Look-ups of signed answers in this process, by outcome.", memory.Outcomes)
		answers.Near = memory
	}
	if c.Redis != nil {
		shelf, err := cache.NewRedis(cache.RedisConfig{Server: server})
		if err != nil {
			return err
		}
		defer func() { _ = shelf.Close() }()
		count("jpki_ocsp_redis_total", "Look-ups of signed answers in Redis and writes to it, by outcome.", shelf.Outcomes)
		answers.Far = []ocsp.Shelf{shelf}
	}
	// 4.
	if responder, err = ocsp.New(answers); err != nil {
		return err
	}
	files, err := c.files()
	if err != nil {
		return err
	}
	listener, err := c.front(responder, files, log)
	if err != nil {
		return err
	}
	public, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	admin, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Admin)
	if err != nil {
		_ = public.Close()
		return err
	}
	// 5.
	loops = append(loops, boot.Serve("OCSP", listener, public))
	if keeper != nil {
		loops = append(loops, boot.Every(log, "renew delegates", 30*time.Second, keeper.Look))
		count("jpki_ocsp_delegates_total", "Delegates renewed, and failures to.", keeper.Outcomes)
	} else {
		loops = append(loops, boot.Every(log, "look for replaced certificates", 10*time.Second, c.replace(responder, written, log)))
	}
	count("jpki_ocsp_responses_total", "OCSP responses, by outcome.", responder.Outcomes)
	count("jpki_ocsp_sources_total", "Where OCSP answers came from.", responder.Sources)
	count("jpki_ocsp_listener_total", "What came to the listener, by outcome.", listener.Outcomes)
	if files != nil {
		count("jpki_crl_requests_total", "CRL downloads, by outcome.", files.lists.Outcomes.Snapshot)
		count("jpki_snapshot_requests_total", "Downloads of status snapshots, by outcome.", files.snapshots.Outcomes.Snapshot)
	}
	metrics = append(metrics,
		boot.Gauge("jpki_ocsp_delegate_seconds", "How long the delegate lasts that ends first; it is renewed when a third of its life is left.", func() float64 {
			return responder.Lasts().Sub(c.now()).Seconds()
		}),
		boot.Gauge("jpki_status_view_age_seconds", "How old the view of statuses is: nothing committed earlier is missing from it.", func() float64 { return c.now().Sub(index.Watermark()).Seconds() }),
		boot.Gauge("jpki_status_certificates", "Certificates in the view of statuses.", func() float64 { return float64(index.Len()) }),
		boot.Gauge("jpki_ocsp_connections", "Open connections.", func() float64 { return float64(listener.Open()) }),
		boot.Gauge("jpki_status_snapshot_failed", "1 if the snapshot could not be read or written the last time.", func() float64 {
			if index.SnapshotErr() != nil {
				return 1
			}
			return 0
		}),
	)
	log.InfoContext(ctx, "serving", slog.String("ocsp", public.Addr().String()), slog.String("admin", admin.Addr().String()), slog.Int("certificates", index.Len()))
	err = boot.Run(ctx, log, []boot.Service{{Name: "admin", Listener: admin, Handler: boot.Admin(func() error { return ready(index, c.now()) }, metrics...)}}, loops...)
	return errors.Join(err, index.Save())
}

// patience is how old the view may become before nothing more should be sent here. It is longer than the bound within
// which answers are given: what is short is not worth turning clients away from one server, and the cause is often one
// that all servers share.
const patience = 5 * time.Second

// ready says why this server cannot answer now, or what else is the matter with it.
func ready(index *status.Index, now time.Time) error {
	at := index.Watermark()
	switch age := now.Sub(at); {
	case at.IsZero():
		return errors.Join(errors.New("the status log has not been read yet"), index.Err())
	case age > patience:
		return errors.Join(fmt.Errorf("the view of statuses is %s old", age.Round(time.Second)), index.Err())
	}
	if err := index.SnapshotErr(); err != nil {
		return boot.Note("the snapshot of statuses is not up to date: " + err.Error())
	}
	return nil
}

// replace takes up delegates whose files were replaced since they were written as last says. Ones that do not fit together
// leave the old ones in office: a certificate may be there before its key is.
func (c *config) replace(r *ocsp.Responder, last string, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		now := c.written()
		if now == last {
			return nil
		}
		delegates, err := c.delegates(ctx)
		if err != nil {
			return err
		}
		if err := r.SetDelegates(delegates); err != nil {
			return err
		}
		last = now
		log.InfoContext(ctx, "replaced delegates are taken up")
		return nil
	}
}

// written says when the delegates' files were written, as a text to compare.
func (c *config) written() (out string) {
	for _, d := range c.Delegates {
		files := []string{d.IssuerCertificate, d.Certificate}
		if p, ok := strings.CutPrefix(d.Key, "file:"); ok {
			files = append(files, p)
		}
		for _, f := range files {
			info, err := os.Stat(c.path(f))
			if err != nil {
				out += err.Error() + "\n"
				continue
			}
			out += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
		}
	}
	return out
}

// noLog is the log of an authority that has never done anything: of a load test that has only a snapshot.
type noLog struct{}

func (noLog) StatusChanges(context.Context, int64, int) ([]jpki.StatusChange, error) { return nil, nil }
