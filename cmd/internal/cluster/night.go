package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A night is what came of the night batch.
type night struct {
	lines, customers int
	took             time.Duration // of "jpki check customers", which reads lines and writes results
	cpu              time.Duration
}

// nightBatch has a bank check all its customers against the CRL that a status server hands out, by the tool that banks have for it. The
// day's certificates are its customers, each as often as it takes. Steps:
//  1. a CRL that has the day's last change
//  2. the lines
//  3. the check, each result of which has to be what the authority answered
func (l *load) nightBatch(ctx context.Context) (n night, err error) {
	if l.night == 0 {
		return n, nil
	}
	issuer := l.c.generations[0]
	l.y.mu.Lock()
	customers := l.y.cards
	l.y.mu.Unlock()
	last := int64(0)
	for _, k := range customers {
		s := k.certificates[0]
		last = max(last, s.issued, s.suspended, s.revoked)
	}
	// 1.
	var list string
	if err := until(ctx, "a CRL has the day's last change", func() error {
		if list, err = fetch(ctx, l.asked[0].url+"/crl/"+issuer.String()+"/full.crl"); err != nil {
			return err
		}
		parsed, err := x509.ParseRevocationList([]byte(list))
		if err == nil && parsed.ThisUpdate.UnixNano() < last {
			if err = l.touch(ctx); err == nil {
				err = errors.New("it is older")
			}
		}
		return err
	}); err != nil {
		return n, err
	}
	if err := os.WriteFile(l.c.path("full.crl"), []byte(list), 0o600); err != nil {
		return n, err
	}
	// 2.
	n.lines, n.customers = l.night, len(customers)
	var rows [][]byte
	for _, k := range customers {
		cert, err := x509.ParseCertificate(k.certificates[0].der)
		if err != nil {
			return n, err
		}
		rows = append(rows, fmt.Appendf(nil, "%s,%s,%s,%s\n", issuer, k.certificates[0].id.Serial, cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339)))
	}
	file, err := os.Create(l.c.path("customers.csv"))
	if err != nil {
		return n, err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	w := bufio.NewWriter(file)
	_, _ = w.WriteString("customer,issuer,serial,not_before,not_after\n")
	for i := range l.night {
		_, _ = fmt.Fprintf(w, "C%09d,%s", i, rows[i%len(rows)])
	}
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		return n, err
	}
	// 3.
	results := l.c.path("night.csv")
	defer func() { _ = os.Remove(results) }()
	cmd := exec.CommandContext(ctx, l.c.program("jpki"), "check", "customers", "-crl", issuer.String()+"="+l.c.path("full.crl"), //nolint:gosec // ours
		"-ca", issuer.String()+"="+l.c.path("trust", issuer.String()+".crt"), "-out", results, file.Name())
	var said bytes.Buffer
	cmd.Stderr = &said
	began := time.Now()
	err = cmd.Run()
	n.took = time.Since(began)
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 3) { // 3: not all are unchanged
		return n, fmt.Errorf("%w: %s", err, said.String())
	}
	if use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		n.cpu = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	return n, l.compareNight(results, customers)
}

// touch revokes a card, so that a CRL is due.
func (l *load) touch(ctx context.Context) error {
	l.mu.Lock()
	n := len(l.good)
	if n == 0 {
		l.mu.Unlock()
		return nil
	}
	k := l.good[n-1]
	l.good = l.good[:n-1]
	l.mu.Unlock()
	if err := l.y.change(ctx, 0, k, "revoked"); err != nil {
		return err
	}
	return sleep(ctx, 2*time.Second)
}

// compareNight holds every result against what the authority answered.
func (l *load) compareNight(path string, customers []*card) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	r := csv.NewReader(bufio.NewReaderSize(file, 1<<20))
	r.ReuseRecord = true
	if _, err := r.Read(); err != nil {
		return err
	}
	wrong := 0
	for i := 0; ; i++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			if i != l.night {
				l.mustHold(fmt.Sprintf("the night batch has %d results of %d lines", i, l.night))
			}
			break
		}
		if err != nil {
			return err
		}
		want := map[string]string{sayGood: "unchanged", saySuspended: "suspended", sayRevoked: "ended"}[customers[i%len(customers)].certificates[0].expected()]
		if row[2] != want {
			if wrong++; wrong <= 3 {
				l.mustHold(fmt.Sprintf("night batch: %s is %s, and should be %s", row[1], row[2], want))
			}
		}
	}
	return nil
}
