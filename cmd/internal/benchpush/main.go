// Command benchpush measures how tenants are told of changes.
//
// It starts a sandbox in a process of its own with as many watches as asked for, has register events happen at a rate, and takes the time
// from the moment at which the register sends one to the arrival of the bank's webhook, so the commit is in it. Then a night's burst goes
// through follower, store and pusher to one receiver, beside a loop that does nothing but post the same bodies to it. It judges nothing but
// its targets and exits with 0 when one is missed. make bench-push runs it. Start at run.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	verifierclient "github.com/openjpki/jpki/verifier/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := bench{}
	flag.IntVar(&b.rate, "rate", 100, "register events a second")
	flag.DurationVar(&b.slice, "slice", 10*time.Second, "how long events happen")
	flag.IntVar(&b.watches, "watches", 1_000_000, "watches in the authority's database")
	flag.IntVar(&b.burst, "burst", 100_000, "changes of a night")
	flag.StringVar(&b.jpki, "jpki", "bin/jpki", "the program that is measured")
	flag.Parse() // exits
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchpush:", err)
		os.Exit(1)
	}
}

type bench struct {
	rate, watches, burst int
	slice                time.Duration
	jpki, dir            string
}

const (
	offset                      = 700 // of the sandbox's ports
	bank   jpki.CorporateNumber = "9999999999999"
	memory                      = 1 << 30 // octets, of 10⁶ watches
)

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

// run measures everything. Steps:
//  1. a sandbox's databases, with watches
//  2. the sandbox, and its memory
//  3. events at a rate
//  4. a burst
func (b *bench) run(ctx context.Context) (err error) {
	fmt.Printf("%d processors, %s\n\n", runtime.NumCPU(), runtime.Version())
	if b.dir, err = os.MkdirTemp("", "benchpush"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if b.rate > 0 {
		if err := b.events(ctx); err != nil {
			return err
		}
	}
	if b.burst > 0 {
		return b.night(ctx)
	}
	return nil
}

// start runs a sandbox until the context ends.
func (b *bench) start(ctx context.Context, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, b.jpki, append([]string{"sandbox", "-dir", b.dir, "-offset", strconv.Itoa(offset), "-profile", "next"}, args...)...) //nolint:gosec // as the caller says
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}

func (b *bench) events(ctx context.Context) error {
	// 1.
	first, err := b.start(ctx, "-once")
	if err != nil {
		return err
	}
	if err := first.Wait(); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return fmt.Errorf("make watches: %w", err)
	}
	// 2.
	ctx, stop := context.WithCancel(ctx)
	server, err := b.start(ctx)
	if err != nil {
		stop()
		return err
	}
	defer func() { stop(); _ = server.Wait() }()
	var env sandbox.Env
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if env, err = sandbox.Load(b.dir); err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	// 3.
	if err := b.pushes(ctx, env); err != nil {
		return err
	}
	peak, err := peakOf(server.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("%-54s %7.0f MiB, %.2f of the limit: target %s\n", fmt.Sprintf("memory of the whole sandbox at its peak, %d watches", b.watches), peak/(1<<20), peak/memory, verdict(peak <= memory))
	return nil
}

// fill puts holders, users and watches into the authority's database, to whom nothing happens.
func (b *bench) fill(ctx context.Context) (err error) {
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(b.dir, "authority", "ca.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const step = 10_000
	a := sandbox.NewResident(0).Attributes
	now := time.Now()
	for at := 0; at < b.watches; at += step {
		err := db.Update(ctx, func(tx *store.Tx) error {
			var holders []store.Holder
			var watches []store.Watch
			for i := at; i < min(at+step, b.watches); i++ {
				holders = append(holders, store.Holder{ID: fmt.Sprintf("W%09d", i), Municipality: "99101", Attributes: a})
				watches = append(watches, store.Watch{User: fmt.Sprintf("%032d", i), Purpose: "account"})
			}
			if err := tx.PutHolders(holders, now); err != nil {
				return err
			}
			for i, h := range holders {
				if _, err := tx.AddUser(store.User{Tenant: bank, ID: watches[i].User, Holder: h.ID}, now); err != nil {
					return err
				}
			}
			_, err := tx.AddWatches(bank, watches, 0, now)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pushes has residents move at a rate, and waits for the news of each.
func (b *bench) pushes(ctx context.Context, env sandbox.Env) error {
	n := b.rate * int(b.slice/time.Second)
	users, err := b.customers(ctx, env, n)
	if err != nil {
		return fmt.Errorf("make customers: %w", err)
	}
	var mu sync.Mutex
	arrived, all := map[string]time.Time{}, make(chan struct{})
	var secret string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		now := time.Now()
		_, c, err := verifierclient.ReadWebhook(secret, r.Header, body, now)
		if err != nil || c == nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if _, twice := arrived[c.User]; !twice {
			if arrived[c.User] = now; len(arrived) == n {
				close(all)
			}
		}
	}))
	defer receiver.Close()
	api, err := verifierclient.New(verifierclient.Config{URL: env.VerifierURL, Token: env.VerifierToken})
	if err != nil {
		return err
	}
	e, err := api.CreateEndpoint(ctx, receiver.URL, -1)
	if err != nil {
		return err
	}
	secret = e.Secret
	var watches []verifierclient.Watch
	for _, u := range users {
		watches = append(watches, verifierclient.Watch{User: u, Purpose: "account"})
	}
	for part := range slices.Chunk(watches, verifierclient.MaxWatches) {
		if _, err := api.CreateWatches(ctx, part...); err != nil {
			return err
		}
	}
	register, err := env.Register()
	if err != nil {
		return err
	}
	sent := make([]time.Time, n)
	var g errgroup.Group
	begin := time.Now()
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(b.rate))))
		g.Go(func() error {
			a := sandbox.NewResident(i).Attributes
			a.Address = "砂箱県港市海岸通九丁目１番" // another than before
			sent[i] = time.Now()
			_, err := register.ReportEvent(ctx, jpki.Event{ID: fmt.Sprintf("bench-%d", i), Holder: holderOf(i), Type: jpki.AddressChanged, EffectiveAt: sent[i].UTC().Truncate(time.Second), Municipality: "99202", Attributes: &a})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took := time.Since(begin)
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		mu.Lock()
		defer mu.Unlock()
		return fmt.Errorf("%d of %d changes arrived", len(arrived), n)
	}
	var late []float64
	for i, u := range users {
		late = append(late, arrived[u].Sub(sent[i]).Seconds()*1000)
	}
	slices.Sort(late)
	p := func(q float64) float64 { return late[min(n-1, int(q*float64(n)))] }
	fmt.Printf("%-54s p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, most %.0f ms\n", fmt.Sprintf("register event to webhook, %.0f events/s for %v", float64(n)/took.Seconds(), b.slice), p(.5), p(.95), p(.99), late[n-1])
	fmt.Printf("%-54s p95 %.3f of 1 s: %s; p99 %.3f of 5 s: %s\n", "targets", p(.95)/1000, verdict(p(.95) <= 1000), p(.99)/5000, verdict(p(.99) <= 5000))
	return nil
}

func holderOf(i int) string { return fmt.Sprintf("bench-%d", i) }

// customers makes residents with a signature certificate each, whom the bank knows, and returns their users.
func (b *bench) customers(ctx context.Context, env sandbox.Env, n int) ([]string, error) {
	register, err := env.Register()
	if err != nil {
		return nil, err
	}
	station, err := env.Station()
	if err != nil {
		return nil, err
	}
	operator, err := env.RelyingParty()
	if err != nil {
		return nil, err
	}
	users := make([]string, n)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			r := sandbox.NewResident(i)
			r.ID = holderOf(i)
			if err := sandbox.RegisterResident(ctx, register, r); err != nil {
				return err
			}
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				return err
			}
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			if err != nil {
				return err
			}
			got, err := station.Issue(ctx, holderOf(i), client.CertificateOrder{Holder: r.ID, Token: "T" + strconv.Itoa(i), Requests: []client.KeyRequest{{Kind: jpki.CardSign, Request: client.RequestPEM(der)}}})
			if err != nil {
				return err
			}
			known, err := operator.Identify(ctx, client.IdentityRequest{Tenant: bank, Purpose: "account", Certificate: got.Certificates[0].Certificate})
			users[i] = known.User
			return err
		})
	}
	return users, g.Wait()
}

// peakOf returns how many octets of memory a process has had at most.
func peakOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("no VmHWM")
}

func digestOf(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }
