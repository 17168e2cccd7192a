package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/cache"
	"github.com/openjpki/jpki/ocsp/front"
	"github.com/openjpki/jpki/ocsp/status"
)

// serve runs the server until ctx ends. Steps:
//  1. the status log: through Redis if there is one, else and otherwise from the database
//  2. the index that follows it
//  3. shelves for signed answers: in the process, in Redis
//  4. the responder over all that, and the listener in front of it
//  5. loops, among them one that takes up replaced certificates
func serve(ctx context.Context, c *config, log *slog.Logger) error {
	var loops []func(context.Context) error
	var metrics []boot.Metric
	count := func(name, help string, outcomes func() map[string]uint64) {
		metrics = append(metrics, boot.Outcomes(name, help, outcomes))
	}
	// 1.
	var server cache.Server
	var secret, relayKey []byte
	if c.Redis != nil {
		password, err := c.secret(c.Redis.PasswordFile)
		if err != nil {
			return err
		}
		if secret, err = c.secret(c.Redis.SecretFile); err != nil {
			return err
		}
		if relayKey, err = c.secret(c.Redis.RelayKeyFile); err != nil {
			return err
		}
		server = cache.Server{Addrs: c.Redis.Addresses, Master: c.Redis.Master, Cluster: c.Redis.Cluster, Username: c.Redis.Username, Password: string(password)}
	}
	indexed := status.Config{Now: time.Now, Bound: c.Bound, Snapshot: c.path(c.Snapshot), AcceptTrial: c.AcceptTrial, Log: noLog{}}
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
		logs, err := relay.NewLogs(relay.LogsConfig{Tiers: tiers, Now: time.Now})
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
	delegates, err := c.delegates(ctx)
	if err != nil {
		return err
	}
	answers := ocsp.Config{
		Delegates: delegates, Statuses: index, Now: time.Now, Prefix: c.Prefix, Validity: c.Validity, MaxAge: c.MaxAge,
		Late: c.Bound, Secret: secret, Handover: 10 * time.Minute,
	}
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
	responder, err := ocsp.New(answers)
	if err != nil {
		return err
	}
	proxies, err := c.proxies()
	if err != nil {
		return err
	}
	listener, err := front.New(front.Config{
		Exchanger: responder, Now: time.Now, Log: log, Prefix: c.Prefix, Connections: c.Connections, PerAddress: c.PerAddress, Proxies: proxies,
	})
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
	loops = append(loops, serveFront(listener, public), boot.Every(log, "look for replaced certificates", 10*time.Second, c.replace(responder)))
	count("jpki_ocsp_responses_total", "OCSP responses, by outcome.", responder.Outcomes)
	count("jpki_ocsp_sources_total", "Where OCSP answers came from.", responder.Sources)
	count("jpki_ocsp_listener_total", "What came to the listener, by outcome.", listener.Outcomes)
	metrics = append(metrics,
		boot.Gauge("jpki_status_view_age_seconds", "How far the view of statuses lags behind the log.", func() float64 { return time.Since(index.Watermark()).Seconds() }),
		boot.Gauge("jpki_status_certificates", "Certificates in the view of statuses.", func() float64 { return float64(index.Len()) }),
		boot.Gauge("jpki_ocsp_connections", "Open connections.", func() float64 { return float64(listener.Open()) }),
	)
	ready := func() error {
		if age := time.Since(index.Watermark()); age > time.Minute {
			return errors.Join(fmt.Errorf("the view of statuses is %s old", age.Round(time.Second)), index.Err())
		}
		return nil
	}
	log.InfoContext(ctx, "serving", slog.String("ocsp", public.Addr().String()), slog.String("admin", admin.Addr().String()), slog.Int("certificates", index.Len()))
	err = boot.Run(ctx, log, []boot.Service{{Name: "admin", Listener: admin, Handler: boot.Admin(ready, metrics...)}}, loops...)
	return errors.Join(err, index.Save())
}

// serveFront is a loop that serves until its context ends, and then until what was begun is answered.
func serveFront(s *front.Server, l net.Listener) func(context.Context) error {
	return func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		select {
		case err := <-ended:
			return fmt.Errorf("serve OCSP: %w", err)
		case <-ctx.Done():
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if s.Shutdown(drain) != nil {
			_ = s.Close()
		}
		return nil
	}
}

// replace takes up delegates whose files were replaced. Ones that do not fit together leave the old ones in office.
func (c *config) replace(r *ocsp.Responder) func(context.Context) error {
	last := c.written()
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
		return nil
	}
}

// written says when the delegates' certificates were written, as a text to compare. The key's file comes first where both
// are replaced, so that it need not be looked at.
func (c *config) written() (out string) {
	for _, d := range c.Delegates {
		info, err := os.Stat(c.path(d.Certificate))
		if err != nil {
			continue
		}
		out += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
	}
	return out
}

// noLog is the log of an authority that has never done anything: of a load test that has only a snapshot.
type noLog struct{}

func (noLog) StatusChanges(context.Context, int64, int) ([]jpki.StatusChange, error) { return nil, nil }
