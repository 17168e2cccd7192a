package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
)

// A generation makes the input of a batch: cards of new residents.
type generation struct {
	cards int
	keys  string // file to take keys from and to put new ones into
	trial bool
}

// generate registers residents and writes a file with one line for each, whole or not at all.
func (g generation) generate(ctx context.Context, env sandbox.Env, path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s is there already: without -generate the batch goes on", path))
	}
	keys, err := g.makeKeys(ctx, env.Keys())
	if err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	people := make([]sandbox.Resident, g.cards)
	for i := range people {
		people[i] = sandbox.NewResident(i)
	}
	register, err := env.Register()
	if err != nil {
		return err
	}
	events := func(yield func(jpki.Event) bool) {
		for _, p := range people {
			if !yield(p.Registration()) {
				return
			}
		}
	}
	registered := 0
	for r, err := range register.Feed(ctx, events) {
		if err := errors.Join(err, r.Err()); err != nil {
			return fmt.Errorf("register residents: %w", err)
		}
		registered++
	}
	if registered != g.cards {
		return fmt.Errorf("%d of %d residents were registered", registered, g.cards)
	}
	lines := make([][]byte, g.cards)
	bars, bar := progress(ctx, "requests", g.cards, 0)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i := range lines {
		work.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			lines[i], err = cardLine(people[i].ID, keys[2*i], keys[2*i+1])
			bar.Increment()
			return err
		})
	}
	err = work.Wait()
	if err != nil {
		bar.Abort(false)
	}
	bars.Wait()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for _, l := range lines {
		_, _ = out.Write(l) // Flush reports it
	}
	if err := errors.Join(out.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// cardLine orders both certificates for a new card.
func cardLine(holder string, sign, auth crypto.Signer) ([]byte, error) {
	name := rand.Text()[:16]
	l := client.BatchLine{Key: "batch-" + name, Holder: holder, Token: "T" + name}
	for i, kind := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, []crypto.Signer{sign, auth}[i])
		if err != nil {
			return nil, err
		}
		l.Requests = append(l.Requests, client.KeyRequest{Kind: kind, Request: base64.StdEncoding.EncodeToString(der)})
	}
	text, err := json.Marshal(l)
	return append(text, '\n'), err
}

// makeKeys returns two keys a card: trial keys, or those of the key file and as many new ones as it lacks, which are put
// into it one by one.
func (g generation) makeKeys(ctx context.Context, of card.KeyType) ([]crypto.Signer, error) {
	n := 2 * g.cards
	if g.trial && of == card.RSA2048 { // others cost next to nothing
		bars, bar := progress(ctx, "trial keys", 100, 0)
		keys, err := sandbox.TrialKeys(ctx, n, func(done float64) { bar.SetCurrent(int64(done * 100)) })
		bar.Abort(false)
		bars.Wait()
		out := make([]crypto.Signer, len(keys))
		for i, k := range keys {
			out[i] = k
		}
		return out, err
	}
	var file *os.File
	var keys []crypto.Signer
	if g.keys != "" {
		var err error
		if keys, err = readKeys(g.keys, of); err != nil {
			return nil, err
		}
		if file, err = os.OpenFile(g.keys, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
	}
	if len(keys) >= n {
		return keys[:n], nil
	}
	bars, bar := progress(ctx, "keys", n, len(keys))
	made := make(chan crypto.Signer)
	work, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() error {
			for {
				k, err := newCardKey(of)
				if err != nil {
					return err
				}
				select {
				case made <- k:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	enough := errors.New("enough")
	work.Go(func() error {
		for len(keys) < n {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case k := <-made:
				if file != nil {
					der, err := x509.MarshalPKCS8PrivateKey(k)
					if err == nil {
						_, err = file.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
					}
					if err != nil {
						return err
					}
				}
				keys = append(keys, k)
				bar.Increment()
			}
		}
		return enough
	})
	err := work.Wait()
	if errors.Is(err, enough) {
		err = nil
	} else {
		bar.Abort(false)
	}
	bars.Wait()
	return keys, err
}

func newCardKey(of card.KeyType) (crypto.Signer, error) {
	if of == card.P384 {
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

// readKeys reads what a key file holds; one that was cut off ends before the torn key.
func readKeys(path string, of card.KeyType) ([]crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []crypto.Signer
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return keys, nil
		}
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s, key %d: %w", path, len(keys)+1, err)
		}
		var fits bool
		switch k := k.(type) {
		case *rsa.PrivateKey:
			fits = of == card.RSA2048
			keys = append(keys, k)
		case *ecdsa.PrivateKey:
			fits = of == card.P384 && k.Curve == elliptic.P384()
			keys = append(keys, k)
		}
		if !fits {
			return nil, fmt.Errorf("%s, key %d: not %s, which the sandbox's cards have", path, len(keys)+1, of)
		}
	}
}
