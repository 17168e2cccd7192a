// Command benchcrl measures the publication of long CRLs against its limits and against others, in one run on one machine.
//
// Every measurement is a process of its own, so that its peak memory is known, and ends with a durable file. The limit is a
// loop written for nothing else (stream.go); crypto/x509 and openssl ca make the same list. What crl.Publisher does includes
// reading the list back with a second parser. It judges nothing but its targets and exits with 0 when one is missed.
// make bench-crl runs it. Start at run.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 4 && os.Args[1] == "task" { // what the bench starts for itself
		err = runTask(ctx, os.Args[2], os.Args[3])
	} else {
		b := bench{}
		short := flag.Bool("short", false, "one round of 100,000 entries")
		flag.IntVar(&b.rounds, "rounds", 3, "how often everything is measured; the table shows medians")
		flag.BoolVar(&b.peers, "peers", false, "measure openssl ca -gencrl, too")
		flag.StringVar(&b.dir, "dir", "", "a directory on the disk to measure; empty: one in the system's for temporary files")
		entries := flag.Int("entries", 0, "measure lists of so many entries; 0: of 1 and of 5 million")
		flag.Parse() // exits
		b.sizes = []int{1_000_000, 5_000_000}
		if *entries > 0 {
			b.sizes = []int{*entries}
		}
		if *short {
			b.rounds, b.sizes = 1, []int{100_000}
		}
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchcrl:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds int
	sizes  []int
	peers  bool
	dir    string
	table  map[cell][]sample
}

// A cell is one line of the table.
type cell struct {
	size int
	task string
}

type sample struct {
	seconds, cpu float64
	peak         int64 // KiB resident
}

// stdlibLimit is the longest list for which crypto/x509 and openssl are asked: they need gigabytes for more.
const stdlibLimit = 1_000_000

// tasks in the order in which a round measures them; publish leaves the list that update and hash work on.
var tasks = []string{"idle", "stream", "publish", "hash", "update", "stdlib", "openssl"}

func (b *bench) run(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "benchcrl-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b.table = map[cell][]sample{}
	if err := makeKey(dir); err != nil {
		return err
	}
	for _, size := range b.sizes {
		if err := writeRecords(filepath.Join(dir, "records"), size); err != nil {
			return err
		}
		for range b.rounds {
			for _, task := range tasks {
				if (task == "stdlib" || task == "openssl") && size > stdlibLimit || task == "openssl" && !b.peers {
					continue
				}
				if task == "openssl" && len(b.table[cell{size, task}]) > 0 {
					continue // once: it takes a quarter of a minute
				}
				s, err := measure(ctx, task, dir)
				if err != nil {
					return fmt.Errorf("%s of %d entries: %w", task, size, err)
				}
				b.table[cell{size, task}] = append(b.table[cell{size, task}], s)
			}
		}
	}
	b.report(os.Stdout)
	return nil
}

// measure runs a task in a process of its own, which prints how long it took.
func measure(ctx context.Context, task, dir string) (sample, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "task", task, dir) //nolint:gosec // this program
	if task == "openssl" {
		if err := writeIndex(dir); err != nil {
			return sample{}, err
		}
		cmd = exec.CommandContext(ctx, "openssl", "ca", "-gencrl", "-config", filepath.Join(dir, "openssl.cnf"), "-out", filepath.Join(dir, "openssl.crl")) //nolint:gosec // of our own making
	}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, problem.String())
	}
	if task == "openssl" {
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return sample{}, errors.New("this system does not tell how much memory a process used")
		}
		return sample{time.Since(start).Seconds(), float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9, usage.Maxrss}, nil
	}
	var s sample
	_, err := fmt.Sscan(out.String(), &s.seconds, &s.cpu, &s.peak)
	return s, err
}

func (b *bench) median(c cell) (s sample) {
	samples := b.table[c]
	if len(samples) == 0 {
		return sample{}
	}
	var seconds, cpu []float64
	for _, one := range samples {
		seconds, cpu, s.peak = append(seconds, one.seconds), append(cpu, one.cpu), max(s.peak, one.peak)
	}
	slices.Sort(seconds)
	slices.Sort(cpu)
	s.seconds, s.cpu = seconds[len(seconds)/2], cpu[len(cpu)/2]
	return s
}

func (b *bench) report(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%-10s %-9s %9s %9s %10s\n", "entries", "what", "seconds", "CPU s", "peak MiB")
	for _, size := range b.sizes {
		for _, task := range tasks {
			if s := b.median(cell{size, task}); len(b.table[cell{size, task}]) > 0 {
				_, _ = fmt.Fprintf(w, "%-10d %-9s %9.3f %9.3f %10.1f\n", size, task, s.seconds, s.cpu, float64(s.peak)/1024)
			}
		}
	}
	_, _ = fmt.Fprintln(w)
	target := func(size int, what string, ratio, limit float64, atLeast bool) {
		verdict := "met"
		if ratio > limit && !atLeast || ratio < limit && atLeast {
			verdict = "MISSED"
		}
		_, _ = fmt.Fprintf(w, "%-10d %-56s %8.2f  (target %s %g) %s\n", size, what, ratio, map[bool]string{false: "<=", true: ">="}[atLeast], limit, verdict)
	}
	for _, size := range b.sizes {
		at := func(task string) sample { return b.median(cell{size, task}) }
		target(size, "publish, with the gate / stream: CPU", at("publish").cpu/at("stream").cpu, 1.3, false)
		target(size, "publish, with the gate / stream: seconds", at("publish").seconds/at("stream").seconds, 1.3, false)
		target(size, "update after 100 changes, with the gate / hash: CPU", at("update").cpu/at("hash").cpu, 3, false)
		target(size, "update after 100 changes, with the gate / hash: seconds", at("update").seconds/at("hash").seconds, 3, false)
		for _, task := range []string{"publish", "update"} {
			target(size, task+": peak MiB above idle", float64(at(task).peak-at("idle").peak)/1024, 32, false)
		}
		for _, task := range []string{"stdlib", "openssl"} {
			if len(b.table[cell{size, task}]) > 0 {
				target(size, task+" / publish", at(task).seconds/at("publish").seconds, map[string]float64{"stdlib": 15, "openssl": 30}[task], true)
			}
		}
	}
}

// makeKey writes an RSA-2048 key and its certificate.
func makeKey(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	pub := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: "bench"},
		NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(30, 0, 0), KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, SubjectKeyId: pub[:20],
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}, "cert.pem": {Type: "CERTIFICATE", Bytes: cert}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
