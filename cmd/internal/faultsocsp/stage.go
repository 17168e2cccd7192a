package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/openjpki/jpki"
)

// A stage is everything that runs.
type stage struct {
	nursery
	self, status string // programs
	faulty       string // jpki-status with faults built in
	rate         float64
	ctx          context.Context //nolint:containedctx // the run's: children talk to us until it ends
	working      sync.WaitGroup

	primary, standby *cluster
	redis            *redisServer
	network          *proxy // between the second responder and Redis
	responders       []*responder
	authority        *process
	checker          *checker
	names            int
	cluster          []*redisServer // while there is one
}

// build starts everything. Steps:
//  1. PostgreSQL with a synchronous standby
//  2. the authority's keys and schema
//  3. Redis, and the network before it
//  4. an authority that works and relays, and three responders
func (s *stage) build(seed uint64) (err error) {
	ctx := s.ctx
	// 1.
	if s.primary, err = s.newCluster(ctx, "postgres-1"); err != nil {
		return err
	}
	if err := s.primary.prepare(ctx, "initdb", "-D", s.primary.dir+"/data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	if err := s.primary.start(ctx); err != nil {
		return err
	}
	if err := s.sql(s.primary, "CREATE DATABASE jpki"); err != nil {
		return err
	}
	if err := s.addStandby("postgres-2"); err != nil {
		return err
	}
	// 2.
	if err := found(ctx, s.dir, s.database()); err != nil {
		return err
	}
	for _, name := range []string{"relay-key", "shelf-secret"} {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(hex.EncodeToString(secret)), 0o600); err != nil {
			return err
		}
	}
	issuers := map[jpki.CA]*x509.Certificate{}
	for _, name := range jpki.CAs {
		id := jpki.IssuerID{CA: name, Generation: 1}
		if issuers[name], err = readCertificate(filepath.Join(s.dir, id.String()+".cer")); err != nil {
			return err
		}
	}
	s.checker = newChecker(issuers, seed)
	// 3.
	if s.redis, err = s.newRedis(ctx, "redis"); err != nil {
		return err
	}
	if s.network, err = newProxy(ctx, at(s.redis.port)); err != nil {
		return err
	}
	// 4.
	direct := []string{at(s.redis.port)}
	if s.authority, err = s.startAuthority(direct, false, true); err != nil {
		return err
	}
	for i := range 3 {
		to := direct
		if i == 1 {
			to = []string{s.network.address()}
		}
		r, err := s.startResponder(fmt.Sprint("responder-", i+1), s.database(), to, false)
		if err != nil {
			return err
		}
		s.responders = append(s.responders, r)
	}
	s.checker.at = s.responders
	return nil
}

// database is the authority's, wherever it is at present.
func (s *stage) database() string { return databaseURL("jpki", s.primary, s.standby) }

// addStandby makes and starts a server that follows the primary, and makes that wait for it with every commit.
func (s *stage) addStandby(name string) (err error) {
	if s.standby, err = s.newCluster(s.ctx, name); err != nil {
		return err
	}
	if err := s.standby.prepare(s.ctx, "pg_basebackup", "-D", s.standby.dir+"/data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", databaseURL("postgres", s.primary)); err != nil {
		return err
	}
	if err := s.standby.start(s.ctx); err != nil {
		return err
	}
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if err := s.sql(s.primary, statement); err != nil {
			return err
		}
	}
	return until(s.ctx, "the standby follows", func() error {
		return s.sql(s.primary, `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync') THEN RAISE EXCEPTION 'not yet'; END IF; END $$`)
	})
}

// sql runs a statement by psql.
func (s *stage) sql(c *cluster, statement string) error {
	return c.prepare(s.ctx, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", databaseURL("postgres", c), "-c", statement)
}

// startAuthority starts a process of this same program that issues and revokes.
func (s *stage) startAuthority(redis []string, cluster, relay bool) (*process, error) {
	s.names++
	name := fmt.Sprint("authority-", s.names)
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p, err := s.start(name, func(c *exec.Cmd) { c.Stdout = write }, s.self, "authority", "-db", s.database(), "-dir", s.dir, "-name", name,
		"-redis", strings.Join(redis, ","), fmt.Sprint("-cluster=", cluster), fmt.Sprint("-relay=", relay), fmt.Sprint("-rate=", s.rate))
	_ = write.Close()
	if err != nil {
		_ = read.Close()
		return nil, err
	}
	ready := make(chan struct{})
	s.working.Go(func() {
		defer func() { _ = read.Close() }()
		readEvents(read, func(e event) {
			if e.Do == "ready" {
				close(ready)
				return
			}
			s.checker.hear(e, &s.working)
		})
	})
	return p, p.await(s.ctx, "the authority works", func() error {
		select {
		case <-ready:
			return nil
		default:
			return errors.New("not yet")
		}
	})
}

// startResponder starts a jpki-status. Without redis it follows the database alone.
func (s *stage) startResponder(name, database string, redis []string, cluster bool) (*responder, error) {
	return s.startProgram(name, s.status, nil, "", database, redis, cluster)
}

// startProgram starts a jpki-status, perhaps another build of it. Its keys are in files whose names begin as keys says.
func (s *stage) startProgram(name, program string, set func(*exec.Cmd), keys, database string, redis []string, cluster bool) (*responder, error) {
	port, err := freePort(s.ctx)
	if err != nil {
		return nil, err
	}
	admin, err := freePort(s.ctx)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin: %s\nprefix: /ocsp\ndatabase: %s\nbound: 1s\nmemory: 16\nconnections: 15000\ndelegates:\n", at(port), at(admin), database)
	for _, ca := range jpki.CAs {
		id := jpki.IssuerID{CA: ca, Generation: 1}
		fmt.Fprintf(&b, "  - issuer: %[1]s\n    issuer_certificate: %[1]s.cer\n    certificate: %[2]s%[1]s-ocsp.cer\n    key: file:%[2]s%[1]s-ocsp.key\n", id, keys)
	}
	if len(redis) > 0 {
		fmt.Fprintf(&b, "redis:\n  addresses: ['%s']\n  cluster: %v\n  secret_file: shelf-secret\n  relay_key_file: relay-key\n", strings.Join(redis, "', '"), cluster)
	}
	config := filepath.Join(s.dir, name+".yaml")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	r := newResponder(name, at(port))
	r.config = config
	if r.process, err = s.start(name, set, program, "-config", config); err != nil {
		return nil, err
	}
	return r, r.process.await(s.ctx, name+" answers", func() error {
		if err := dialable(s.ctx, at(port)); err != nil {
			return err
		}
		if len(redis) == 0 { // it may have no view, and shall say so
			return nil
		}
		req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+at(admin)+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}
