package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/seed"
	"github.com/openjpki/jpki/ocsp"
)

// be is a process that the bench starts for itself.
func be(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "redis-responder":
		return serveFromRedis(ctx, args[1], args[2])
	case len(args) == 3 && args[0] == "bare-responder":
		return serveBare(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "signer":
		return signOnDemand(ctx, args[1])
	case len(args) == 4 && args[0] == "closing-client":
		return driveClosingAndPrint(args[1], args[2], args[3])
	}
	return errors.New("there is nothing of that kind to be")
}

// peerKey is where the plain responder finds an answer.
func peerKey(serial jpki.Serial) string { return "peer:" + hex.EncodeToString(serial.Append(nil)) }

// serveFromRedis is the responder that anybody would write first: net/http, go-redis as its guide has it, parse, GET, write.
func serveFromRedis(ctx context.Context, address, store string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: store})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var der []byte
		var err error
		if r.Method == http.MethodPost {
			der, err = io.ReadAll(io.LimitReader(r.Body, ocsp.MaxRequestBytes))
		} else {
			der, err = ocsp.DecodeGET([]byte(strings.TrimPrefix(r.RequestURI, prefix)), nil)
		}
		if err != nil {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		q, err := ocsp.ParseRequest(der)
		if err != nil {
			http.Error(w, "malformed", http.StatusBadRequest)
			return
		}
		answer, err := client.Get(r.Context(), peerKey(q.CertIDs[0].Serial)).Bytes()
		if err != nil {
			http.Error(w, "not there", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Header().Set("Cache-Control", "max-age=60, public, no-transform, must-revalidate")
		_, _ = w.Write(answer) //nolint:gosec // an OCSP response out of our own Redis
	})}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return server.Serve(l)
}

// Rates are signatures and signed answers per CPU-second: bare ones as we make them, with randomness mixed in, and those that
// nothing but key and message determine (RFC 6979), which a responder that chose so would have to be compared with.
type rates struct{ bare, fixed, answers float64 }

// signOnDemand measures for each line that it reads what a bare signature costs and what an answer does that a responder
// builds and signs, without HTTP, in turns.
func signOnDemand(ctx context.Context, dir string) error {
	load := func(name string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, errors.New(name + " is no PEM")
		}
		return block.Bytes, nil
	}
	a := new(authority)
	for name, take := range map[string]func(der []byte) (err error){
		issuerFile:   func(der []byte) (err error) { a.issuer, err = x509.ParseCertificate(der); return err },
		delegateFile: func(der []byte) (err error) { a.delegate, err = x509.ParseCertificate(der); return err },
		keyFile: func(der []byte) error {
			key, err := x509.ParsePKCS8PrivateKey(der)
			if err == nil {
				a.key, _ = key.(*ecdsa.PrivateKey)
			}
			return err
		},
	} {
		der, err := load(name)
		if err == nil {
			err = take(der)
		}
		if err != nil {
			return err
		}
	}
	responder, err := ocsp.New(ocsp.Config{
		Delegates: []ocsp.Delegate{{Issuer: generation, IssuerCertificate: a.issuer, Certificate: a.delegate, Key: a.key}},
		Statuses:  allGood{}, Now: time.Now, Validity: time.Hour,
	})
	if err != nil {
		return err
	}
	plan := newPlan(asked)
	var queries []*ocsp.Query
	for i := range 1024 {
		der, err := a.request(plan.At(i).ID.Serial)
		if err != nil {
			return err
		}
		queries = append(queries, &ocsp.Query{Request: der})
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		r, err := measureSigning(ctx, a.key, responder, queries)
		if err != nil {
			return err
		}
		fmt.Println(r.bare, r.fixed, r.answers)
	}
	return nil
}

// measureSigning makes blocks, each as long as answers share the check of one signature.
func measureSigning(ctx context.Context, key *ecdsa.PrivateKey, responder *ocsp.Responder, queries []*ocsp.Query) (rates, error) {
	const blocks, block = 20, 256
	var bare, fixed, answers time.Duration
	for i := range blocks {
		t := usedCPU()
		took := func(total *time.Duration) {
			now := usedCPU()
			*total += now - t
			t = now
		}
		for j := range block {
			digest := sha256.Sum256([]byte{byte(i), byte(j)})
			if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
				return rates{}, err
			}
		}
		took(&bare)
		for j := range block {
			digest := sha256.Sum256([]byte{byte(i), byte(j)})
			if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
				return rates{}, err
			}
		}
		took(&fixed)
		for j := range block {
			if r := responder.Exchange(ctx, queries[(i*block+j)%len(queries)]); len(r.Body) < 100 {
				return rates{}, errors.New("an answer was refused")
			}
		}
		took(&answers)
	}
	const n = blocks * block
	return rates{n / bare.Seconds(), n / fixed.Seconds(), n / answers.Seconds()}, nil
}

// usedCPU is the processor time of this process.
func usedCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// allGood knows no certificate that is not good.
type allGood struct{}

func (allGood) Status(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
	return jpki.Status{State: jpki.Good, Version: 1}, time.Now(), nil
}

// newPlan makes up certificates, one in a hundred of them revoked.
func newPlan(count int) *seed.Plan {
	now := time.Now().Truncate(time.Second)
	return &seed.Plan{Number: 1, Count: count, Revoked: 0.01, Issuers: []jpki.IssuerID{generation}, Since: now.AddDate(0, -1, 0), NotAfter: now.AddDate(5, 0, 0)}
}
