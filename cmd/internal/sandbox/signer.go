package sandbox

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/softhsm"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

// A sandbox that was begun with Options.HSM has the keys of its CAs in a SoftHSM token, and a jpki-signer of its own that
// uses them: DIR/hsm holds both.

const sandboxToken = "jpki-sandbox"

func (d dir) signerConfig() string { return d.path("hsm", "signer.yaml") }
func (d dir) signerSocket() string { return d.path("hsm", "s.sock") }

// usesHSM reports whether the CAs' keys are in a token.
func (d dir) usesHSM() bool {
	_, err := os.Stat(d.signerConfig())
	return err == nil
}

// GenerationKey opens the key of a generation of the sandbox in path, for snapshots and the like. With the key in a token,
// the sandbox must be running.
func GenerationKey(ctx context.Context, path string, id jpki.IssuerID) (crypto.Signer, error) {
	key, err := dir(path).openGeneration(ctx, id)
	return forPurpose(key, signer.ForOther), err
}

// forPurpose tells a key behind jpki-signer what it is used for; any other is returned as it is.
func forPurpose(key crypto.Signer, p signer.Purpose) crypto.Signer {
	if k, ok := key.(*signer.Key); ok {
		return k.For(p)
	}
	return key
}

// openGeneration opens a generation's key, to sign certificates.
func (d dir) openGeneration(ctx context.Context, id jpki.IssuerID) (crypto.Signer, error) {
	if d.usesHSM() {
		abs, err := filepath.Abs(d.signerSocket())
		if err != nil {
			return nil, err
		}
		return hsm.Open(ctx, signer.Ref{Socket: abs, Key: id.String(), Purpose: signer.ForCertificate, Wait: 10 * time.Second}.String())
	}
	return hsm.Open(ctx, hsm.FileURI(d.path("authority", id.String()+".key")))
}

// startSigner starts jpki-signer if this sandbox has its keys in a token, and makes the token on first start; stop ends it.
func (s *System) startSigner(ctx context.Context) (stop func(), err error) {
	if !s.opt.HSM && !s.dir.usesHSM() {
		return func() {}, nil
	}
	if len(s.dir.signerSocket()) > 100 {
		return nil, errors.New("-hsm: the directory's path is too long for a socket in it")
	}
	administration, err := s.dir.signerAdministration()
	if err != nil {
		return nil, err
	}
	if !s.dir.usesHSM() {
		if err := s.makeToken(ctx, administration); err != nil {
			return nil, err
		}
	}
	end, err := administration.serve(ctx, s.log)
	if err != nil {
		return nil, err
	}
	s.signer = signer.NewClient(s.dir.signerSocket())
	return func() { s.signer.Close(); end() }, nil
}

// An administration is what it takes to run jpki-signer for a sandbox.
type administration struct {
	dir     dir
	program string
	tokens  softhsm.Store
}

func (d dir) signerAdministration() (administration, error) {
	a := administration{dir: d}
	var err error
	if a.program, err = signerProgram(); err == nil {
		a.tokens, err = softhsm.Make(d.path("hsm"))
	}
	return a, err
}

func (a administration) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, a.program, args...) //nolint:gosec // ours
	cmd.Env = append(os.Environ(), a.tokens.Env())
	return cmd
}

// serve starts jpki-signer; stop ends it.
func (a administration) serve(ctx context.Context, log *slog.Logger) (stop func(), err error) {
	file, err := os.OpenFile(a.dir.path("hsm", "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for range 100 { // one that a killed sandbox left is about to end
		conn, err := new(net.Dialer).DialContext(ctx, "unix", a.dir.signerSocket())
		if err != nil {
			break
		}
		_ = conn.Close()
		time.Sleep(50 * time.Millisecond)
	}
	cmd := a.command(context.WithoutCancel(ctx), "-config", a.dir.signerConfig())
	cmd.Stderr, cmd.SysProcAttr = file, apart()
	if err := cmd.Start(); err != nil {
		_ = file.Close()
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := cmd.Wait(); err != nil {
			log.ErrorContext(ctx, "jpki-signer ended", slog.Any("error", err), slog.String("log", file.Name()))
		}
	}()
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = file.Close()
	}, nil
}

// create makes a key that a configuration names in the token. One that is there already stays.
func (a administration) create(ctx context.Context, config string, id jpki.IssuerID) error {
	out, err := a.command(ctx, "-config", config, "-create", id.String()).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == keyExists {
		return nil
	}
	if err != nil {
		return fmt.Errorf("jpki-signer -create: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

const keyExists = 3 // exit code of jpki-signer -create

// entry is a generation's key in the signer's configuration: who may use it, and how often.
func (a administration) entry(id jpki.IssuerID, alg hsm.Algorithm) string {
	return fmt.Sprintf("  - name: %s\n    algorithm: %s\n    at: [%q]\n    allow: [{user: \"%d\", purposes: [certificate, crl, other], rate: 2000, burst: 4000}]\n",
		id, alg, a.tokens.URI(sandboxToken, id.String()), os.Getuid())
}

// addKey makes a generation's key in the token, and has the signer that serves use it. What a call that was cut short has
// left is completed. Steps:
//  1. the configuration with the new key beside the one in force
//  2. the key
//  3. the configuration takes the former's place, and the signer reads it
func (a administration) addKey(ctx context.Context, id jpki.IssuerID, alg hsm.Algorithm) error {
	// 1.
	text, err := os.ReadFile(a.dir.signerConfig())
	if err != nil {
		return err
	}
	draft := a.dir.signerConfig() + ".new"
	if !bytes.Contains(text, []byte("- name: "+id.String()+"\n")) {
		if err := writeFile(draft, append(text, a.entry(id, alg)...), 0o600); err != nil {
			return err
		}
		// 2.
		if err := a.create(ctx, draft, id); err != nil {
			return err
		}
		// 3.
		if err := os.Rename(draft, a.dir.signerConfig()); err != nil {
			return err
		}
	}
	if out, err := a.command(ctx, "-config", a.dir.signerConfig(), "-reload").CombinedOutput(); err != nil {
		return fmt.Errorf("jpki-signer -reload: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// makeToken makes a token with the keys of first generations. The configuration gets its name last: under that name there
// is all of it or nothing.
func (s *System) makeToken(ctx context.Context, a administration) error {
	if _, err := os.Stat(s.dir.path("authority", "ca.db")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the keys of the sandbox in %s are files and stay files: -hsm is for a new -dir", s.dir)
	}
	if err := os.RemoveAll(a.tokens.Tokens()); err != nil { // of a start that was cut short
		return err
	}
	if err := os.MkdirAll(a.tokens.Tokens(), 0o700); err != nil {
		return err
	}
	if err := a.tokens.Init(ctx, sandboxToken, rand.Text()); err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString("# Made by jpki sandbox -hsm; jpki-signer -example explains it.\nlisten: s.sock\nstate: state\nadmin: 127.0.0.1:0\nrecord: 1s\nkeys:\n")
	for _, name := range jpki.CAs {
		text.WriteString(a.entry(jpki.IssuerID{CA: name, Generation: 1}, s.profile.authority))
	}
	draft := s.dir.signerConfig() + ".new"
	if err := os.WriteFile(draft, []byte(text.String()), 0o600); err != nil {
		return err
	}
	for _, name := range jpki.CAs {
		if err := a.create(ctx, draft, jpki.IssuerID{CA: name, Generation: 1}); err != nil {
			return err
		}
	}
	return os.Rename(draft, s.dir.signerConfig())
}

// signerProgram finds jpki-signer beside this program, or on the path.
func signerProgram() (string, error) {
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), "jpki-signer")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("jpki-signer")
	if err != nil {
		return "", errors.New("-hsm needs jpki-signer beside this program or on the path: make build, with a C compiler")
	}
	return path, nil
}

// auditKeys puts the hash of jpki-signer's record of use into the audit chain, when it has changed: what was signed with the
// CAs' keys can be compared with what the chain says was issued.
func (s *System) auditKeys(ctx context.Context) error {
	if s.signer == nil {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := s.signer.Usage(ask)
	if err != nil {
		return err
	}
	var record signer.Record
	if err := json.Unmarshal(text, &record); err != nil || record.Hash == s.usage || record.Seq == 0 {
		return err
	}
	detail := map[string]any{"seq": record.Seq, "hash": record.Hash}
	for name, u := range record.Keys {
		detail[strings.ReplaceAll(name, "-", "_")] = u.Ceiling
	}
	if err := s.db.Update(ctx, func(tx *store.Tx) error { return tx.Audit(time.Now(), system, "keys.used", "jpki-signer", detail) }); err != nil {
		return err
	}
	s.usage = record.Hash
	return nil
}
