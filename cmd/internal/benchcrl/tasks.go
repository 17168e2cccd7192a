package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// issuer is the one key of the bench.
var issuer = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}

// runTask does one measurement and prints its seconds.
func runTask(ctx context.Context, task, dir string) error {
	if task == "lookups" {
		return runLookups(dir)
	}
	key, cert, err := openKey(dir)
	if err != nil {
		return err
	}
	published := filepath.Join(dir, "crl", crl.ID{Issuer: issuer}.Path())
	src := &source{dir: dir, changed: 0}
	publisher := func() (*crl.Publisher, error) {
		return crl.NewPublisher(crl.Config{
			Dir: filepath.Join(dir, "crl"), Source: src, Changes: src, Now: time.Now, Issuers: []crl.Issuer{{ID: issuer, Cert: cert, Signer: key}},
		})
	}
	var work func() error
	switch task {
	case "idle":
		work = func() error { return nil }
	case "stream":
		work = func() error { return stream(dir, cert, key) }
	case "publish":
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, "crl")), os.Mkdir(filepath.Join(dir, "crl"), 0o700)); err != nil {
			return err
		}
		p, err := publisher()
		if err != nil {
			return err
		}
		work = func() error { return p.Publish(ctx, crl.ID{Issuer: issuer}) }
	case "update":
		p, err := publisher()
		if err != nil {
			return err
		}
		if err := p.Update(ctx, crl.ID{Issuer: issuer}); err != nil { // verifies what is published, once
			return err
		}
		src.changed = 100
		work = func() error { return p.Update(ctx, crl.ID{Issuer: issuer}) }
	case "hash":
		work = func() error { return hashFile(published) }
	case "stdlib":
		work = func() error { return stdlib(dir, cert, key) }
	default:
		return errors.New("no such task")
	}
	start, used := time.Now(), cpuSeconds()
	if err := work(); err != nil {
		return err
	}
	took, cpu := time.Since(start).Seconds(), cpuSeconds()-used
	peak, err := peakMemory()
	if err == nil {
		_, err = fmt.Println(took, cpu, peak)
	}
	return err
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

func openKey(dir string) (*rsa.PrivateKey, *x509.Certificate, error) {
	var der [2][]byte
	for i, file := range []string{"key.pem", "cert.pem"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return nil, nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, nil, errors.New("not PEM")
		}
		der[i] = block.Bytes
	}
	key, err := x509.ParsePKCS8PrivateKey(der[0])
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der[1])
	if err != nil {
		return nil, nil, err
	}
	signer, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("not an RSA key")
	}
	return signer, cert, nil
}

// A source shows the records to a publisher, and then changes some.
type source struct {
	dir     string
	changed int
}

var errEnough = errors.New("enough")

func (s *source) Revoked(context.Context, jpki.IssuerID, string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	return func(yield func(crl.Entry, error) bool) {
		err := eachRecord(s.dir, func(r *record) error {
			serial, err := jpki.SerialFromBytes(r.serial())
			if !yield(crl.Entry{Serial: serial, At: r.at(), Reason: jpki.Reason(r.reason())}, err) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(crl.Entry{}, err)
		}
	}, crl.Mark{AsOf: time.Now()}, nil
}

func (s *source) MayVanish(context.Context, jpki.IssuerID, jpki.Serial) (bool, error) {
	return false, nil
}

// Changes are new serials, evenly over the list.
func (s *source) Changes(_ context.Context, _ jpki.IssuerID, _ string, after int64, _ int) (out []crl.Change, mark crl.Mark, err error) {
	mark = crl.Mark{AsOf: time.Now(), Position: int64(s.changed)}
	for i := after; i < mark.Position; i++ {
		serial, err := jpki.SerialFromBytes(append([]byte{byte(0x40 + 0x3f*i/100)}, make([]byte, 15)...))
		if err != nil {
			return nil, mark, err
		}
		out = append(out, crl.Change{Entry: crl.Entry{Serial: serial, At: epoch, Reason: jpki.CertificateHold}})
	}
	return out, mark, nil
}

func hashFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return err
}

// stdlib makes the list as crypto/x509 does: all of it in memory.
func stdlib(dir string, cert *x509.Certificate, key *rsa.PrivateKey) error {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: epoch, NextUpdate: epoch.Add(48 * time.Hour)}
	err := eachRecord(dir, func(r *record) error {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(r.serial()), RevocationTime: r.at(), ReasonCode: int(r.reason())})
		return nil
	})
	if err != nil {
		return err
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, cert, key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "stdlib.crl"), der, 0o600)
}
