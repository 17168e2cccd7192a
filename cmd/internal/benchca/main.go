// Command benchca measures issuance against the limit of the bare signature in the same run.
//
// It issues pairs of certificates through package ca on a real database, many at a time, and prints certificates a second,
// certificates per CPU-second of this process, and the ratio of the latter to bare signatures per CPU-second measured
// before and after. Requests and keys are prepared before the clock starts. make bench-ca runs it on PostgreSQL with fsync.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func main() {
	pairs := flag.Int("pairs", 400, "pairs of certificates in each round")
	database := flag.String("db", os.Getenv("JPKI_TEST_POSTGRES"), "an empty database: postgres:// URL or sqlite:PATH")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the rounds here")
	flag.Parse()
	if err := run(*pairs, *database, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "benchca:", err)
		os.Exit(1)
	}
}

func run(pairs int, database, profile string) error {
	ctx := context.Background()
	db, err := store.Create(ctx, database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	fmt.Printf("%d processors, %s\n\n%-10s %8s %10s %14s %14s %8s\n", runtime.GOMAXPROCS(0), runtime.Version(), "CA key", "clients", "certs/s", "per CPU-s", "bare per CPU-s", "ratio")
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for g, key := range []struct {
		name   string
		signer crypto.Signer
	}{{"RSA-2048", rsaKey}, {"P-256", p256}, {"P-384", p384}} {
		b, err := newBench(ctx, db, key.signer, g+1)
		if err != nil {
			return err
		}
		for _, clients := range []int{8, 32} {
			requests, err := b.prepare(ctx, pairs)
			if err != nil {
				return err
			}
			before := bare(key.signer)
			cpu, start := cpuTime(), time.Now()
			if err := b.issue(ctx, requests, clients); err != nil {
				return err
			}
			wall, used := time.Since(start).Seconds(), cpuTime()-cpu
			limit := (before + bare(key.signer)) / 2
			certs := float64(2 * pairs)
			fmt.Printf("%-10s %8d %10.0f %14.0f %14.0f %8.2f\n", key.name, clients, certs/wall, certs/used.Seconds(), limit, certs/used.Seconds()/limit)
		}
	}
	return nil
}

type bench struct {
	a      *ca.Authority
	round  int
	prefix string
}

var register, counter = jpki.Actor{Role: jpki.Register, ID: "register"}, jpki.Actor{Role: jpki.Counter, ID: "counter", Municipality: "99101"}

func newBench(ctx context.Context, db *store.Store, key crypto.Signer, generation int) (*bench, error) {
	var issuers []ca.Issuer
	for _, name := range jpki.CAs {
		serial, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			return nil, err
		}
		cert, err := ca.SelfSigned(ca.Sandbox(), name, key, serial, time.Now())
		if err != nil {
			return nil, err
		}
		id := jpki.IssuerID{CA: name, Generation: generation}
		issuers = append(issuers, ca.Issuer{ID: id, Certificate: cert, Signer: key})
		if err := db.Update(ctx, func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: id, Certificate: cert.Raw, Active: false}, time.Now())
		}); err != nil {
			return nil, err
		}
	}
	a, err := ca.New(ca.Config{Store: db, Profile: ca.Sandbox(), Issuers: issuers, StatusURL: "http://status.example", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	return &bench{a: a, prefix: fmt.Sprint("g", generation)}, err
}

// prepare registers holders and makes their requests.
func (b *bench) prepare(ctx context.Context, pairs int) ([]ca.IssueRequest, error) {
	b.round++
	keys, err := sandbox.TrialKeys(ctx, 2*pairs, func(float64) {})
	if err != nil {
		return nil, err
	}
	out := make([]ca.IssueRequest, pairs)
	for i := range out {
		name := fmt.Sprintf("%s-%d-%d", b.prefix, b.round, i)
		if _, err := b.a.ApplyResidentEvent(ctx, register, jpki.Event{
			ID: name, Holder: name, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Second), Municipality: "99101",
			Attributes: &jpki.Attributes{Name: "測定　用", Sex: jpki.SexUnknown, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目２番３号"},
		}); err != nil {
			return nil, err
		}
		out[i] = ca.IssueRequest{IdempotencyKey: name, Holder: name, Token: name}
		for j, k := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, keys[2*i+j])
			if err != nil {
				return nil, err
			}
			out[i].Requests = append(out[i].Requests, ca.KeyRequest{Kind: k, Request: der})
		}
	}
	return out, nil
}

func (b *bench) issue(ctx context.Context, requests []ca.IssueRequest, clients int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return
				}
				if _, err := b.a.Issue(ctx, counter, requests[i]); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// bare returns how many signatures a CPU-second makes, on one processor.
func bare(key crypto.Signer) float64 {
	digest := sha256.Sum256([]byte("bare"))
	n, cpu := 0, cpuTime()
	for start := time.Now(); time.Since(start) < 500*time.Millisecond; n++ {
		if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			return 0
		}
	}
	return float64(n) / (cpuTime() - cpu).Seconds()
}

// cpuTime is the processor time this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
