// Command benchnight measures the check of a whole customer base against a snapshot and a CRL, as jpki check customers does it.
//
// Every measurement is a process of its own, so that its peak memory is known, and reads and writes files. Beside it stands a loop that
// only reads the lines with encoding/csv. A tenth of the certificates is not good. It judges nothing but its targets and exits with 0 when one is missed.
// make bench-night runs it. Start at run.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
	"github.com/openjpki/jpki/verifier/nightcheck"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 5 && os.Args[1] == "task" { // what the bench starts for itself
		err = runTask(ctx, os.Args[2], os.Args[3], os.Args[4])
	} else {
		n := flag.Int("lines", 10_000_000, "how many lines")
		dir := flag.String("dir", "", "a directory on the disk to measure; empty: one in the system's for temporary files")
		flag.Parse() // exits
		err = run(ctx, *dir, *n)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchnight:", err)
		os.Exit(1)
	}
}

var issuer = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}

// serialOf spreads serials as NewSerial draws them.
func serialOf(n int) jpki.Serial {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	sum[0] = 0x40
	binary.BigEndian.PutUint32(sum[1:], uint32(n)) // ascending, as entries of a list must be
	s, err := jpki.SerialFromBytes(sum[:jpki.SerialBytes])
	if err != nil {
		panic(err) // cannot be: it begins with 0x40
	}
	return s
}

func stateOf(n int) jpki.State {
	switch n % 20 {
	case 3:
		return jpki.Revoked
	case 7:
		if n%100 == 7 {
			return jpki.Suspended
		}
		return jpki.Revoked
	}
	return jpki.Good
}

func run(ctx context.Context, in string, n int) (err error) {
	dir, err := os.MkdirTemp(in, "benchnight-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(dir, n); err != nil {
		return err
	}
	for name, lines := range map[string]int{"all": n, "tenth": n / 10} {
		for _, format := range []nightcheck.Format{nightcheck.CSV, nightcheck.NDJSON} {
			if err := writeLines(filepath.Join(dir, name+"."+string(format)), format, lines); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%-34s %10s %9s %9s %10s\n", "what", "lines", "seconds", "CPU s", "peak MiB")
	var worst, most float64
	for _, row := range []struct{ what, task string }{
		{"encoding/csv reads the lines", "read"}, {"snapshot, CSV", "snapshot"}, {"CRL, CSV", "crl"}, {"both, CSV", "both"}, {"both, CSV, with last night's", "since"}, {"both, NDJSON", "ndjson"},
	} {
		var peak [2]float64
		for i, name := range []string{"tenth", "all"} {
			cmd := exec.CommandContext(ctx, os.Args[0], "task", row.task, dir, name) //nolint:gosec // this program
			var out, problem bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &problem
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w: %s", row.task, err, problem.String())
			}
			var seconds, cpu float64
			var kib, lines int64
			if _, err := fmt.Sscan(out.String(), &seconds, &cpu, &kib, &lines); err != nil {
				return err
			}
			peak[i] = float64(kib) / 1024
			fmt.Printf("%-34s %10d %9.2f %9.2f %10.1f\n", row.what, lines, seconds, cpu, peak[i])
			if name == "all" && row.task != "read" {
				worst = max(worst, seconds*1e7/float64(lines))
			}
		}
		if row.task != "read" {
			most = max(most, peak[1]/peak[0])
		}
	}
	verdict := func(what string, got, limit float64) {
		fmt.Printf("%-60s %8.2f  (target <= %g) %s\n", what, got, limit, map[bool]string{true: "met", false: "MISSED"}[got <= limit])
	}
	fmt.Println()
	verdict("10 million lines, the slowest row: seconds", worst, 60)
	verdict("peak memory of ten times the lines / of these, at most", most, 1.1)
	return nil
}

// build makes the issuer, its snapshot of n certificates and its CRL.
func build(dir string, n int) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	pub := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	now := time.Now().Add(-time.Minute).Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: "bench"}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, SubjectKeyId: pub[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.der"), der, 0o600); err != nil {
		return err
	}
	err = writeFile(filepath.Join(dir, "snapshot"), func(w io.Writer) error {
		_, err := snapshot.Build(w, snapshot.Template{
			Issuer: issuer, IssuerCert: cert, Signer: key, Sequence: 1, ThisUpdate: now, NextUpdate: now.Add(48 * time.Hour), IssuedUntil: now, ExpiresFrom: now, Rand: rand.Reader, TempDir: dir,
		}, func(yield func(snapshot.Certificate, error) bool) {
			for i := range n {
				if !yield(snapshot.Certificate{Serial: serialOf(i), State: stateOf(i)}, nil) {
					return
				}
			}
		})
		return err
	})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "crl"), func(w io.Writer) error {
		return crl.Build(w, crl.Template{IssuerCert: cert, Signer: key, Scope: crl.Scope{Issuer: issuer}, Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(48 * time.Hour)}, func(yield func(crl.Entry) bool) {
			for i := range n {
				reason := map[jpki.State]jpki.Reason{jpki.Revoked: jpki.AffiliationChanged, jpki.Suspended: jpki.CertificateHold}[stateOf(i)]
				if reason != 0 && !yield(crl.Entry{Serial: serialOf(i), At: now.Add(-time.Duration(i%1000) * time.Hour), Reason: reason}) {
					return
				}
			}
		})
	})
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(write(w), w.Flush(), f.Close())
}

func writeLines(path string, format nightcheck.Format, n int) error {
	return writeFile(path, func(w io.Writer) error {
		if format == nightcheck.CSV {
			if _, err := io.WriteString(w, "customer,issuer,serial,not_before,not_after\n"); err != nil {
				return err
			}
		}
		line := map[nightcheck.Format]string{
			nightcheck.CSV:    "customer-%09d,sign-1,%s,2026-01-01T00:00:00Z,2036-01-01T00:00:00Z\n",
			nightcheck.NDJSON: `{"customer":"customer-%09d","issuer":"sign-1","serial":"%s","not_before":"2026-01-01T00:00:00Z","not_after":"2036-01-01T00:00:00Z"}` + "\n",
		}[format]
		for i := range n {
			if _, err := fmt.Fprintf(w, line, i, serialOf(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// runTask does one measurement and prints its seconds, processor seconds, peak memory in KiB and lines.
func runTask(ctx context.Context, task, dir, name string) error {
	format := nightcheck.CSV
	if task == "ndjson" {
		format = nightcheck.NDJSON
	}
	in, err := os.Open(filepath.Join(dir, name+"."+string(format)))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	start, used := time.Now(), cpuSeconds()
	lines := int64(0)
	if task == "read" {
		r := csv.NewReader(bufio.NewReaderSize(in, 256<<10))
		r.ReuseRecord = true
		for ; err == nil; lines++ {
			_, err = r.Read()
		}
		if lines -= 2; !errors.Is(err, io.EOF) { // the head, and the end
			return err
		}
	} else if lines, err = check(ctx, task, dir, name, in, format); err != nil {
		return err
	}
	took, cpu := time.Since(start).Seconds(), cpuSeconds()-used
	peak, err := peakMemory()
	if err == nil {
		_, err = fmt.Println(took, cpu, peak, lines)
	}
	return err
}

// check loads the sources, which counts, and checks the lines; what "both" writes is last night's of "since".
func check(ctx context.Context, task, dir, name string, in io.Reader, format nightcheck.Format) (lines int64, err error) {
	der, err := os.ReadFile(filepath.Join(dir, "ca.der"))
	if err != nil {
		return 0, err
	}
	s := nightcheck.Source{ID: issuer}
	if s.Cert, err = x509.ParseCertificate(der); err != nil {
		return 0, err
	}
	if task != "crl" {
		octets, err := os.ReadFile(filepath.Join(dir, "snapshot"))
		if err != nil {
			return 0, err
		}
		if s.Snapshot, err = snapshot.Open(octets, snapshot.Config{IssuerCert: s.Cert, Now: time.Now}); err != nil {
			return 0, err
		}
	}
	if task != "snapshot" {
		if s.List, err = crl.OpenList(filepath.Join(dir, "crl"), s.Cert); err != nil {
			return 0, err
		}
	}
	cfg := nightcheck.Config{Sources: []nightcheck.Source{s}, Now: time.Now, In: format, Out: format}
	if task == "since" {
		previous, err := os.Open(filepath.Join(dir, name+".out.both"))
		if err != nil {
			return 0, err
		}
		defer func() { _ = previous.Close() }()
		cfg.Previous, cfg.Changes = previous, io.Discard
	}
	checker, err := nightcheck.New(cfg)
	if err != nil {
		return 0, err
	}
	out, err := os.Create(filepath.Join(dir, name+".out."+task))
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	summary, err := checker.Check(ctx, in, out)
	if err != nil {
		return 0, err
	}
	if not := summary.Lines - summary.Classes[nightcheck.Unchanged]; not != summary.Lines/10 || summary.Changed != 0 {
		return 0, fmt.Errorf("%d of %d lines are not unchanged, want a tenth; %d changed", not, summary.Lines, summary.Changed)
	}
	if task != "both" { // room on the disk
		err = os.Remove(out.Name())
	}
	return summary.Lines, err
}

// cpuSeconds returns what this process has used of the processors.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// peakMemory returns the most that was resident, in KiB, since the program began: what wait4 tells counts from the fork.
func peakMemory() (kib int64, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, line, _ := bytes.Cut(text, []byte("\nVmHWM:"))
	_, err = fmt.Sscan(string(line), &kib)
	return kib, err
}
