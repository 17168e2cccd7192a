package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/softhsm"
)

// The infrastructure's authority certifies servers, stations and witnesses; it is none of those that certify holders.
type infrastructure struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newInfrastructure(dir string) (*infrastructure, error) {
	i := &infrastructure{dir: dir}
	var err error
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	return i, i.sign("ca", &i.key.PublicKey, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
}

// certify makes NAME.crt and NAME.key.
func (i *infrastructure) certify(name string, usage x509.ExtKeyUsage) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	t := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	if usage == x509.ExtKeyUsageServerAuth {
		t.DNSNames, t.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	return i.sign(name, &key.PublicKey, t)
}

func (i *infrastructure) sign(name string, public *ecdsa.PublicKey, t *x509.Certificate) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return err
	}
	t.SerialNumber, t.Subject = serial, pkix.Name{CommonName: name}
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	parent := i.cert
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, i.key)
	if err != nil {
		return err
	}
	if i.cert == nil {
		if i.cert, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(i.dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// Who is certified and as what.
var identities = []struct {
	name  string
	usage x509.ExtKeyUsage
	role  jpki.Role // at the authority; empty for none
}{
	{"ca-server", x509.ExtKeyUsageServerAuth, ""},
	{"verifier-server", x509.ExtKeyUsageServerAuth, ""},
	{"counter-1", x509.ExtKeyUsageClientAuth, jpki.Counter},
	{"counter-2", x509.ExtKeyUsageClientAuth, jpki.Counter},
	{"counter-3", x509.ExtKeyUsageClientAuth, jpki.Counter},
	{"counter-4", x509.ExtKeyUsageClientAuth, jpki.Counter},
	{"register", x509.ExtKeyUsageClientAuth, jpki.Register},
	{"status-1", x509.ExtKeyUsageClientAuth, jpki.Responder},
	{"status-2", x509.ExtKeyUsageClientAuth, jpki.Responder},
	{"status-3", x509.ExtKeyUsageClientAuth, jpki.Responder},
	{"verifier-1", x509.ExtKeyUsageClientAuth, jpki.Verifying},
	{"witness-1", x509.ExtKeyUsageEmailProtection, ""},
	{"witness-2", x509.ExtKeyUsageEmailProtection, ""},
}

// makeSecrets makes what is in a file of its own and nowhere else.
func (c *cluster) makeSecrets() error {
	for _, s := range []struct {
		name   string
		encode func([]byte) string
	}{
		{"audit.key", base64.StdEncoding.EncodeToString},
		{"master.key", hex.EncodeToString},
		{"relay.key", hex.EncodeToString},
		{"shelf.secret", hex.EncodeToString},
	} {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.dir, s.name), []byte(s.encode(secret)+"\n"), 0o600); err != nil {
			return err
		}
		if s.name == "audit.key" {
			if err := publishAuditKey(secret, c.path("audit.pub")); err != nil {
				return err
			}
		}
	}
	return nil
}

const tokenLabel = "jpki-cluster"

// holdCeremonies makes a token and, in a ceremony each, the keys and certificates of both authorities. The first key brings
// jpki-signer to life, the second is added while that serves.
func (c *cluster) holdCeremonies(ctx context.Context) (err error) {
	if c.tokens, err = softhsm.Make(filepath.Join(c.dir, "hsm")); err != nil {
		return err
	}
	if err := c.tokens.Init(ctx, tokenLabel, rand.Text()); err != nil {
		return err
	}
	if err := os.Mkdir(c.path("trust"), 0o700); err != nil {
		return err
	}
	for _, name := range jpki.CAs {
		id := jpki.IssuerID{CA: name, Generation: 1}
		c.generations = append(c.generations, id)
		if err := c.holdCeremony(ctx, id); err != nil {
			return fmt.Errorf("ceremony of %s: %w", id, err)
		}
	}
	return nil
}

// holdCeremony holds one. Steps:
//  1. the input file
//  2. the ceremony, where somebody says yes before each step, and makes the key when it is time
//  3. the witnesses sign, and everything is verified
func (c *cluster) holdCeremony(ctx context.Context, id jpki.IssuerID) error {
	// 1.
	tokyo := time.FixedZone("JST", 9*60*60)
	plan := fmt.Sprintf(`title: First generation of %[1]s, for a cluster on one machine
kind: generation
place: Room 1
generation: %[1]s
profile: sandbox-next
algorithm: p-384
ends: %[2]s
key: %[3]s
tokens:
  - {module: %[4]s, label: %[5]s, object: %[1]s, pin: %[6]s}
witnesses:
  - {name: witness 1, role: auditor, certificate: infrastructure/witness-1.crt}
  - {name: witness 2, role: operator, certificate: infrastructure/witness-2.crt}
quorum: 2
`, id, time.Now().In(tokyo).AddDate(15, 0, -1).Format(time.DateOnly), c.keyURI(id.String(), "certificate"), c.tokens.Module, tokenLabel, c.tokens.PINFile(tokenLabel))
	if err := os.WriteFile(c.path(id.String()+"-ceremony.yaml"), []byte(plan), 0o600); err != nil {
		return err
	}
	// 2.
	out := c.path("ceremony-" + id.String())
	cmd := exec.CommandContext(ctx, c.program("jpki"), "ceremony", "run", id.String()+"-ceremony.yaml", "-out", out) //nolint:gosec // ours
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), c.tokens.Env())
	if err := converse(cmd, func(text string) error {
		if !strings.Contains(text, "make the key") {
			return nil
		}
		return c.makeKey(ctx, id)
	}); err != nil {
		return err
	}
	// 3.
	for i := range 2 {
		witness := fmt.Sprint("witness-", i+1)
		if _, err := command(ctx, c.dir, "", "openssl", "cms", "-sign", "-binary", "-in", out+"/transcript.ndjson", "-signer", "infrastructure/"+witness+".crt",
			"-inkey", "infrastructure/"+witness+".key", "-outform", "DER", "-out", out+"/"+witness+".p7s"); err != nil {
			return err
		}
	}
	if _, err := command(ctx, c.dir, "", c.program("jpki"), "ceremony", "verify", out); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(out, id.String()+".pem"))
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("trust", id.String()+".crt"), text, 0o600)
}

// converse runs a program that asks "go on?" and answers yes, after before has done what it was told to.
func converse(cmd *exec.Cmd, before func(said string) error) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	if err := cmd.Start(); err != nil {
		return err
	}
	var said []byte
	var failed error
	for chunk := make([]byte, 4096); ; {
		n, err := out.Read(chunk)
		said = append(said, chunk[:n]...)
		if bytes.HasSuffix(said, []byte("[yes/no] ")) {
			answer := "yes\n"
			if failed = before(string(said)); failed != nil {
				answer = "no\n"
			}
			said = nil
			if _, err := io.WriteString(in, answer); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil || failed != nil {
		return errors.Join(failed, err, errors.New(strings.TrimSpace(wrong.String())))
	}
	return nil
}

// makeKey makes a key in the token and has jpki-signer serve it.
func (c *cluster) makeKey(ctx context.Context, id jpki.IssuerID) error {
	first := id == c.generations[0]
	if first {
		var err error
		if c.ports.signerAdmin, err = freePort(ctx); err != nil {
			return err
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "listen: s.sock\nstate: state\nadmin: %s\nrecord: 1s\nprobe: 1s\nkeys:\n", at(c.ports.signerAdmin))
	for _, g := range c.generations {
		fmt.Fprintf(&text, "  - name: %s\n    algorithm: p-384\n    at: [%q]\n    allow: [{user: \"%d\", purposes: [certificate, crl, other], rate: 2000, burst: 4000}]\n",
			g, c.tokens.URI(tokenLabel, g.String()), os.Getuid())
	}
	config := c.path("hsm", "signer.yaml")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return err
	}
	if _, err := command(ctx, c.dir, c.tokens.Env(), c.program("jpki-signer"), "-config", config, "-create", id.String()); err != nil {
		return err
	}
	if !first {
		_, err := command(ctx, c.dir, c.tokens.Env(), c.program("jpki-signer"), "-config", config, "-reload")
		return err
	}
	c.signer = &service{
		name: "jpki-signer", program: c.program("jpki-signer"), args: []string{"-config", config},
		env:  []string{c.tokens.Env()},
		well: ready(c.ports.signerAdmin),
	}
	return c.add(ctx, c.signer)
}

func (c *cluster) keyURI(name, purpose string) string {
	return "signer://" + c.path("hsm", "s.sock") + "?key=" + name + "&purpose=" + purpose
}
