//go:build cgo

// Command benchhsm measures signing through jpki-signer against the token's own C_Sign, in the same run.
//
// It sets up a SoftHSM token and a jpki-signer of its own, has both sign by turns at the same concurrency, and then takes
// the token away under load. It prints ratios; numbers of other machines mean nothing here. Start at run.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/openjpki/jpki/cmd/internal/softhsm"
	"github.com/openjpki/jpki/hsm/signer"
)

func main() {
	program := flag.String("signer", "bin/jpki-signer", "the program to measure")
	rounds := flag.Int("rounds", 3, "rounds; the median counts")
	length := flag.Duration("length", time.Second, "how long each measurement of a round takes")
	at := flag.Int("at", 16, "how many goroutines ask at once")
	only := flag.String("only", "", "measure this algorithm alone, and no recovery")
	sessions := flag.Int("sessions", 16, "sessions of jpki-signer; the raw rate has one for each goroutine")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := bench{program: *program, rounds: *rounds, length: *length, at: *at, sessions: *sessions}
	if *only != "" {
		algorithms, b.alone = []string{*only}, true
	}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "benchhsm:", err)
		os.Exit(1)
	}
}

var algorithms = []string{"rsa-2048", "p-256", "p-384"}

const pin = "1234"

type bench struct {
	program  string
	rounds   int
	length   time.Duration
	at       int
	sessions int
	alone    bool

	dir    string
	store  softhsm.Store
	signer int // process
}

// run measures. Steps:
//  1. a token with three keys, and a signer for it
//  2. for each key by turns: C_Sign, through the signer with every signature verified, with one of a thousand verified
//  3. take the token away under load, and bring it back
func (b *bench) run(ctx context.Context) (err error) {
	// 1.
	if b.dir, err = os.MkdirTemp("", "benchhsm"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.store, err = softhsm.Make(b.dir); err != nil {
		return err
	}
	name, value, _ := strings.Cut(b.store.Env(), "=")
	if err := os.Setenv(name, value); err != nil {
		return err
	}
	if err := b.store.Init(ctx, "bench", pin); err != nil {
		return err
	}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	raw, err := b.open()
	if err != nil {
		return err
	}
	client := signer.NewClient(b.socket())
	defer client.Close()
	// 2.
	fmt.Printf("Signatures a second at %d goroutines, median of %d rounds of %v; jpki-signer has %d sessions.\n\n", b.at, b.rounds, b.length, b.sessions)
	fmt.Printf("Under each rate: processor time for one signature, which a busy machine changes little: of the client, of jpki-signer, of the token's\nprocess; and C_Sign's as a part of it.\n\n")
	fmt.Printf("%-10s %10s %26s %26s\n", "", "C_Sign", "through, all verified", "through, 1 of 1000 verified")
	for _, alg := range algorithms {
		keys := map[string]*signer.Key{}
		for _, kind := range []string{"all", "few"} {
			if keys[kind], err = client.Open(ctx, signer.Ref{Socket: b.socket(), Key: alg + "-" + kind, Purpose: signer.ForCertificate, Wait: 10 * time.Second}); err != nil {
				return err
			}
		}
		rates, costs := map[string][]float64{}, map[string]cost{}
		for range b.rounds {
			for kind, sign := range map[string]func(int, []byte) error{
				"raw": func(i int, digest []byte) error { return raw.sign(i, alg, digest) },
				"all": func(_ int, digest []byte) error {
					_, err := keys["all"].Sign(rand.Reader, digest, crypto.SHA256)
					return err
				},
				"few": func(_ int, digest []byte) error {
					_, err := keys["few"].Sign(rand.Reader, digest, crypto.SHA256)
					return err
				},
			} {
				before := b.used()
				rate, made, err := b.measure(ctx, sign)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", alg, kind, err)
				}
				rates[kind] = append(rates[kind], rate)
				costs[kind] = costs[kind].plus(b.used().minus(before), made)
			}
		}
		median := func(kind string) float64 { slices.Sort(rates[kind]); return rates[kind][len(rates[kind])/2] }
		fmt.Printf("%-10s %10.0f %18.0f (%.2f) %18.0f (%.2f)\n", alg, median("raw"), median("all"), median("all")/median("raw"), median("few"), median("few")/median("raw"))
		for _, kind := range []string{"raw", "all", "few"} {
			fmt.Printf("%14s  %s\n", kind, costs[kind].each(costs["raw"]))
		}
	}
	// 3.
	if b.alone {
		return nil
	}
	return b.recovery(ctx, client)
}

func (b *bench) socket() string { return filepath.Join(b.dir, "s.sock") }

// start makes the keys and starts a signer, which stop ends.
func (b *bench) start(ctx context.Context) (stop func(), err error) {
	var text strings.Builder
	fmt.Fprintf(&text, "listen: s.sock\nstate: state\nadmin: 127.0.0.1:0\nsessions: %d\nkeys:\n", b.sessions)
	for _, alg := range algorithms {
		for kind, verify := range map[string]int{"all": 1, "few": 1000} {
			fmt.Fprintf(&text, "  - {name: %s-%s, algorithm: %s, at: [%q], verify: %d, allow: [{user: %q, purposes: [certificate]}]}\n",
				alg, kind, alg, b.store.URI("bench", alg), verify, fmt.Sprint(os.Getuid()))
		}
	}
	path := filepath.Join(b.dir, "signer.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	for _, alg := range algorithms {
		if out, err := exec.CommandContext(ctx, b.program, "-config", path, "-create", alg+"-all").CombinedOutput(); err != nil { //nolint:gosec // ours
			return nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), b.program, "-config", path) //nolint:gosec // ours
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.signer = cmd.Process.Pid
	return func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }, nil
}

// A raw is the token without anything between.
type raw struct {
	ctx      *pkcs11.Ctx
	sessions []pkcs11.SessionHandle
	keys     map[string]pkcs11.ObjectHandle
}

func (b *bench) open() (*raw, error) {
	r := &raw{ctx: pkcs11.New(b.store.Module), keys: map[string]pkcs11.ObjectHandle{}}
	if r.ctx == nil {
		return nil, softhsm.ErrMissing
	}
	if err := r.ctx.Initialize(); err != nil {
		return nil, err
	}
	slots, err := r.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for range b.at {
		s, err := r.ctx.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return nil, err
		}
		r.sessions = append(r.sessions, s)
	}
	if err := r.ctx.Login(r.sessions[0], pkcs11.CKU_USER, pin); err != nil {
		return nil, err
	}
	for _, alg := range algorithms {
		if err := r.ctx.FindObjectsInit(r.sessions[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, alg)}); err != nil {
			return nil, err
		}
		found, _, err := r.ctx.FindObjects(r.sessions[0], 1)
		if err = errors.Join(err, r.ctx.FindObjectsFinal(r.sessions[0])); err != nil || len(found) != 1 {
			return nil, fmt.Errorf("find %s: %d, %w", alg, len(found), err)
		}
		r.keys[alg] = found[0]
	}
	return r, nil
}

var sha256Prefix = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

func (r *raw) sign(i int, alg string, digest []byte) error {
	mechanism := uint(pkcs11.CKM_ECDSA)
	if alg == "rsa-2048" {
		mechanism, digest = pkcs11.CKM_RSA_PKCS, slices.Concat(sha256Prefix, digest)
	}
	if err := r.ctx.SignInit(r.sessions[i], []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, r.keys[alg]); err != nil {
		return err
	}
	_, err := r.ctx.Sign(r.sessions[i], digest)
	return err
}

// A cost is processor time, and for how many signatures.
type cost struct {
	client, signer, token time.Duration
	made                  int64
}

func (c cost) minus(d cost) cost {
	return cost{c.client - d.client, c.signer - d.signer, c.token - d.token, 0}
}

func (c cost) plus(d cost, made int64) cost {
	return cost{c.client + d.client, c.signer + d.signer, c.token + d.token, c.made + made}
}

// each says what one signature cost, beside what it costs without anything between.
func (c cost) each(raw cost) string {
	us := func(c cost, d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(c.made, 1)) }
	all := func(c cost) float64 { return us(c, c.client+c.signer+c.token) }
	return fmt.Sprintf("%7.1f µs = client %6.1f + signer %6.1f + token %6.1f   (%.2f)", all(c), us(c, c.client), us(c, c.signer), us(c, c.token), all(raw)/all(c))
}

// used returns what has been used so far: by this process, by jpki-signer, and by its child, the token's process.
func (b *bench) used() (c cost) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest) // from the third field on, proc_pid_stat(5)
		if len(f) < 13 {
			continue
		}
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		spent := time.Duration(user+system) * (time.Second / 100) // USER_HZ
		switch pid := filepath.Base(filepath.Dir(path)); {
		case pid == strconv.Itoa(os.Getpid()):
			c.client = spent
		case pid == strconv.Itoa(b.signer):
			c.signer = spent
		case f[1] == strconv.Itoa(b.signer):
			c.token = spent
		}
	}
	return c
}

// measure returns how many signatures a second all goroutines make together, and how many they made.
func (b *bench) measure(ctx context.Context, sign func(i int, digest []byte) error) (float64, int64, error) {
	var made atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	started := time.Now()
	for i := range b.at {
		all.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			for time.Since(started) < b.length && ctx.Err() == nil {
				if err := sign(i, digest[:]); err != nil {
					failed.Store(&err)
					return
				}
				made.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(started)
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	return float64(made.Load()) / took.Seconds(), made.Load(), ctx.Err()
}

// recovery takes the token's folder away for a while under load and measures how long after its return the first signature
// came, and what was lost of the requests that may wait 10 s.
func (b *bench) recovery(ctx context.Context, client *signer.Client) error {
	key, err := client.Open(ctx, signer.Ref{Socket: b.socket(), Key: "p-256-all", Purpose: signer.ForCertificate, Wait: 10 * time.Second})
	if err != nil {
		return err
	}
	var worst time.Duration
	var made, lost atomic.Int64
	for _, away := range []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond, 3100 * time.Millisecond} {
		var last atomic.Int64 // when the first signature after the return came
		load, end := context.WithCancel(ctx)
		var all sync.WaitGroup
		var returned atomic.Int64
		for i := range b.at {
			all.Go(func() {
				digest := sha256.Sum256([]byte{byte(i)})
				for load.Err() == nil {
					if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
						lost.Add(1)
						continue
					}
					made.Add(1)
					if returned.Load() != 0 {
						last.CompareAndSwap(0, time.Now().UnixNano())
					}
				}
			})
		}
		time.Sleep(300 * time.Millisecond)
		if err := os.Rename(b.store.Tokens(), b.store.Tokens()+".away"); err != nil {
			end()
			return err
		}
		time.Sleep(away)
		if err := os.Rename(b.store.Tokens()+".away", b.store.Tokens()); err != nil {
			end()
			return err
		}
		back := time.Now()
		returned.Store(back.UnixNano())
		for last.Load() == 0 && time.Since(back) < 10*time.Second {
			time.Sleep(time.Millisecond)
		}
		worst = max(worst, time.Unix(0, last.Load()).Sub(back))
		end()
		all.Wait()
	}
	fmt.Printf("\nThe token was taken away four times, for 0.2 to 3.1 s: the first signature came at most %.2f s after its return;\n%d signatures were made, %d requests lost.\n",
		worst.Seconds(), made.Load(), lost.Load())
	return nil
}
