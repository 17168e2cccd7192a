package crl_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// grow is a world in which one more certificate is revoked by every look at the clock, and every third is a suspension that ends.
func grow(w *world, n int) error {
	s, err := jpki.SerialFromBig(big.NewInt(int64(n/2 + 1)))
	if err != nil {
		return err
	}
	c := crl.Change{Entry: crl.Entry{Serial: s, At: t0, Reason: jpki.CertificateHold}, Released: n%2 == 1}
	if n%6 == 1 {
		c.Released, c.Reason = false, jpki.KeyCompromise
	}
	w.change("99101", c)
	return nil
}

// publishForEver is a child process: changes, updates and full publications, until it is killed.
func publishForEver(dir string) error {
	keyDER, err1 := os.ReadFile(filepath.Join(dir, "key"))
	certDER, err2 := os.ReadFile(filepath.Join(dir, "cert"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	key, err1 := x509.ParsePKCS8PrivateKey(keyDER)
	cert, err2 := x509.ParseCertificate(certDER)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w := &world{now: t0.Add(time.Hour), revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
	p, err := crl.NewPublisher(killConfig(filepath.Join(dir, "crl"), w, cert, key.(crypto.Signer)))
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if err := grow(w, n); err != nil {
			return err
		}
		publish := p.Update
		if n%7 == 0 {
			publish = p.Publish
		}
		if err := publish(context.Background(), keyFull); err != nil {
			return err
		}
		if _, err := fmt.Println(n + 1); err != nil {
			return err
		}
	}
}

func killConfig(dir string, w *world, cert *x509.Certificate, key crypto.Signer) crl.Config {
	return crl.Config{Dir: dir, Source: w, Changes: w, Now: w.Now, Issuers: []crl.Issuer{{ID: sign1, Cert: cert, Signer: key, DeltaURL: host + "/crl/sign-1/full-delta.crl"}}}
}

// A publisher killed at any moment leaves two CRLs that are whole and may be put together, and the next one goes on.
func TestKilledBetweenDeltas(t *testing.T) {
	a := newAuthority(t, "p-256")
	keyDER, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		top := t.TempDir()
		dir := filepath.Join(top, "crl")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, top, "key", "", keyDER)
		write(t, top, "cert", "", a.cert.Raw)
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "CRL_TEST_DELTA_DIR="+top)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, done := bufio.NewScanner(out), 0
		var timer *time.Timer
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &done); err != nil {
				t.Fatalf("the child said %q", lines.Text())
			}
			if timer == nil {
				timer = time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		if timer == nil {
			t.Fatal("the child published nothing")
		}

		// What the child's world was like after each step.
		worlds, w := []map[string]string{{}}, &world{now: t0, revoked: map[string][]crl.Entry{}, released: map[jpki.Serial]bool{}}
		for n := range done + 1 {
			if err := grow(w, n); err != nil {
				t.Fatal(err)
			}
			state := map[string]string{}
			for _, e := range w.revoked["99101"] {
				state[e.Serial.Big().String()] = fmt.Sprint(int(e.Reason), e.At)
			}
			worlds = append(worlds, state)
		}
		full, delta := parsed(t, dir, keyFull), parsed(t, dir, deltaOf(keyFull))
		for what, got := range map[string]map[string]string{"the CRL": said(full), "the CRL with its delta": composed(full, delta)} {
			base := extensionNumber(t, delta, deltaIndicator)
			if what != "the CRL" && (full.Number.Cmp(base) < 0 || delta.Number.Cmp(full.Number) < 0) {
				continue // a reader does not put them together (RFC 5280 §5.2.4)
			}
			if !cmp.Equal(got, worlds[done]) && !cmp.Equal(got, worlds[done+1]) {
				t.Errorf("%s says neither what was so after step %d nor after the next", what, done)
			}
		}
		w.set(func() { w.now = t0.Add(2 * time.Hour) })
		p := newPublisher(t, killConfig(dir, w, a.cert, a.key))
		if err := p.Update(context.Background(), keyFull); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if diff := cmp.Diff(worlds[done+1], said(parsed(t, dir, keyFull))); diff != "" {
			t.Error(diff)
		}
	}
}
