package ceremony

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/hsm"
)

// A Config is how a ceremony is held.
type Config struct {
	Plan *Plan  // required
	Dir  string // required: the folder of its results, which must be empty or not there
	// Rehearsal makes everything with keys that are destroyed at the end, in the folder, whatever keys the plan names.
	Rehearsal bool
	// Agree is called before each step with what is about to be done; an error ends the ceremony there. Required.
	Agree func(step, text string) error
	// Program says which program this is and which build, for the transcript. Required.
	Program string
	Now     func() time.Time // required
	Rand    io.Reader        // for serial numbers, shares and nonces; nil means crypto/rand
}

// A hold is a ceremony under way.
type hold struct {
	Config
	log   *transcript
	files map[string]string // that witnesses answer for: name and hash
	key   crypto.Signer     // of a new generation
}

// Hold holds a ceremony and returns the hash of its transcript, which the witnesses then sign: see [Verify]. One that was
// broken off leaves its folder as it is and is begun anew in another. Steps:
//  1. write down the plan, what it rests on and who is there
//  2. do what the kind of ceremony is for
//  3. have a second implementation, openssl, read what came of it
//  4. close the transcript
func Hold(ctx context.Context, cfg Config) (string, error) {
	switch {
	case cfg.Plan == nil, cfg.Dir == "", cfg.Agree == nil, cfg.Now == nil, cfg.Program == "":
		return "", errors.New("ceremony: Plan, Dir, Agree, Program and Now are required")
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	h := &hold{Config: cfg, files: map[string]string{}}
	var err error
	if h.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return "", err
	}
	if there, err := os.ReadDir(h.Dir); err != nil || len(there) > 0 {
		return "", errors.Join(err, fmt.Errorf("%s is not empty: each ceremony has a folder of its own", cfg.Dir))
	}
	version, err := opensslVersion(ctx)
	if err != nil {
		return "", err
	}
	if h.log, err = openTranscript(h.Dir, cfg.Now); err != nil {
		return "", err
	}
	defer h.log.file.Close()
	// 1.
	if err := h.begin(version); err != nil {
		return "", err
	}
	// 2. and 3.
	act := map[Kind]func(context.Context) error{NewGeneration: h.newGeneration, Delegation: h.delegation, Destruction: h.destruction}[cfg.Plan.Kind]
	if err := act(ctx); err != nil {
		fail := h.log.add("broken off", map[string]string{"reason": err.Error()}, nil)
		return "", errors.Join(err, fail)
	}
	// 4.
	if err := h.log.add(stepEnd, map[string]string{"signatures wanted": strconv.Itoa(cfg.Plan.Quorum)}, h.files); err != nil {
		return "", err
	}
	return h.log.previous, nil
}

// begin writes down what the ceremony rests on.
func (h *hold) begin(openssl string) error {
	p := h.Plan
	var names []string
	for _, w := range p.Witnesses {
		names = append(names, fmt.Sprintf("%s (%s)", w.Name, w.Role))
	}
	if err := h.Agree(stepBegin, fmt.Sprintf("%s: %s for %s, at %s; witnesses: %s", p.Title, p.Kind, p.Generation, p.Place, strings.Join(names, ", "))); err != nil {
		return err
	}
	if err := h.publish(planFile, p.text); err != nil {
		return err
	}
	for i, w := range p.Witnesses {
		if err := h.publish(witnessFile(i), encodeCertificate(w.certificate)); err != nil {
			return err
		}
	}
	if p.Profile != "" && p.Profile != "sandbox" && p.Profile != "sandbox-next" {
		text, err := readSmall(p.path(p.Profile))
		if err != nil {
			return err
		}
		if err := h.publish(profileFile, text); err != nil {
			return err
		}
	}
	facts := map[string]string{
		"title": p.Title, "kind": string(p.Kind), "generation": p.Generation.String(), "place": p.Place, "rehearsal": strconv.FormatBool(h.Rehearsal),
		"program": h.Program, "second implementation": openssl, "witnesses": strings.Join(names, "; "), "quorum": strconv.Itoa(p.Quorum),
	}
	if p.profile != nil {
		facts["profile"] = p.Profile
	}
	return h.log.add(stepBegin, facts, h.files)
}

func witnessFile(i int) string   { return fmt.Sprintf("witness-%d.pem", i+1) }
func signatureFile(i int) string { return fmt.Sprintf("witness-%d.p7s", i+1) }

// publish writes a file that witnesses answer for.
func (h *hold) publish(name string, text []byte) error {
	if err := writeNew(filepath.Join(h.Dir, name), text, 0o644); err != nil {
		return err
	}
	h.files[name] = hash(text)
	return nil
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// step asks whether to go on, does it and writes down what came of it.
func (h *hold) step(name, text string, do func() (facts map[string]string, err error)) error {
	if err := h.Agree(name, text); err != nil {
		return err
	}
	before := len(h.files)
	facts, err := do()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var files map[string]string
	if len(h.files) > before {
		files = h.files
	}
	return h.log.add(name, facts, files)
}

// newGeneration makes an authority's key, its backup and its certificate.
func (h *hold) newGeneration(ctx context.Context) error {
	p := h.Plan
	uri := p.Key
	if uri == "" || h.Rehearsal {
		uri = hsm.FileURI(filepath.Join(h.Dir, p.Generation.String()+".key"))
	}
	if p.inToken() && !h.Rehearsal {
		if err := h.makeInToken(ctx); err != nil {
			return err
		}
	} else if err := h.step("make the key", fmt.Sprintf("a key %s is made at %s", p.Algorithm, uri), func() (_ map[string]string, err error) {
		if h.key, err = hsm.Create(ctx, uri, p.Algorithm); err != nil {
			return nil, err
		}
		public, err := publicHash(h.key.Public())
		return map[string]string{"algorithm": string(p.Algorithm), "kept at": uri, "public key": public}, err
	}); err != nil {
		return err
	}
	key := h.key
	if p.Custody != nil {
		if err := h.step("share out the backup", fmt.Sprintf("the key's backup is encrypted; any %d of %d custodians can restore it", p.Custody.Threshold, len(p.Custody.Custodians)),
			func() (map[string]string, error) { return h.shareOut(uri, key.Public()) }); err != nil {
			return err
		}
	}
	var cert *x509.Certificate
	if err := h.step("make the certificate", "the authority's certificate is signed by its own key", func() (map[string]string, error) {
		serial, err := jpki.NewSerial(h.Rand)
		if err != nil {
			return nil, err
		}
		if cert, err = ca.SelfSigned(p.profile, p.Generation.CA, key, serial, h.Now()); err != nil {
			return nil, err
		}
		if ends := cert.NotAfter.In(japan).Format(time.DateOnly); ends != p.Ends {
			return nil, fmt.Errorf("by the profile it ends on %s, the plan says %s", ends, p.Ends)
		}
		return h.certificateFacts(cert), h.publish(certificateFile(p.Generation), encodeCertificate(cert))
	}); err != nil {
		return err
	}
	if err := h.second(ctx, certificateFile(p.Generation), certificateFile(p.Generation)); err != nil {
		return err
	}
	if h.Rehearsal {
		return h.step("destroy the rehearsal's key", "the key of this rehearsal is destroyed", func() (map[string]string, error) { return destroyFile(uri) })
	}
	return nil
}

// japan is where days begin and end.
var japan = time.FixedZone("JST", 9*60*60)

func certificateFile(id jpki.IssuerID) string { return id.String() + ".pem" }

func (h *hold) certificateFacts(c *x509.Certificate) map[string]string {
	return map[string]string{
		"subject": c.Subject.String(), "serial": fmt.Sprintf("%X", c.SerialNumber), "fingerprint": hash(c.Raw),
		"not before": c.NotBefore.UTC().Format(time.RFC3339), "not after": c.NotAfter.UTC().Format(time.RFC3339), "signature": c.SignatureAlgorithm.String(),
	}
}

// shareOut encrypts a key file and writes a share for each custodian. The backup is opened once with as few shares as will do.
func (h *hold) shareOut(uri string, public crypto.PublicKey) (map[string]string, error) {
	path, err := pathOf(uri)
	if err != nil {
		return nil, err
	}
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	b, shares, err := splitKey(text, *h.Plan.Custody, h.Rand)
	if err != nil {
		return nil, err
	}
	again, err := b.open(shares[len(shares)-b.Threshold:])
	if err != nil {
		return nil, fmt.Errorf("open the backup again: %w", err)
	}
	defer clear(again)
	block, _ := pem.Decode(again)
	if block == nil {
		return nil, errors.New("the backup holds no key")
	}
	restored, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if s, ok := restored.(crypto.Signer); err != nil || !ok || !samePublic(s.Public(), public) {
		return nil, errors.New("the backup does not hold the key")
	}
	sealed, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := h.publish(backupFile, append(sealed, '\n')); err != nil {
		return nil, err
	}
	facts := map[string]string{"threshold": strconv.Itoa(b.Threshold), "secret": b.id()}
	for i, s := range shares {
		name := shareFile(i)
		facts[name] = s.Custodian
		if err := writeNew(filepath.Join(h.Dir, name), []byte(s.Text()), 0o600); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

func shareFile(i int) string { return fmt.Sprintf("custodian-%d.share", i+1) }

// delegation certifies a responder's key under a generation's.
func (h *hold) delegation(ctx context.Context) error {
	p := h.Plan
	var key crypto.Signer
	issuer := p.issuer
	if err := h.step("open the key", "the key of "+p.Generation.String()+" is opened at "+p.Key, func() (_ map[string]string, err error) {
		if h.Rehearsal {
			// A key of the same kind stands in for the authority's, which a rehearsal never touches.
			if key, err = likeKey(issuer.PublicKey); err != nil {
				return nil, err
			}
			stand := *issuer
			stand.PublicKey = key.Public()
			issuer = &stand
			return map[string]string{"key": "of the rehearsal"}, nil
		}
		if key, err = hsm.Open(ctx, p.Key); err != nil {
			return nil, err
		}
		if !samePublic(key.Public(), issuer.PublicKey) {
			return nil, errors.New("it is not the key of the certificate")
		}
		public, err := publicHash(key.Public())
		return map[string]string{"public key": public, "issuer": hash(issuer.Raw)}, err
	}); err != nil {
		return err
	}
	if err := h.step("certify the responder", "a certificate for answering OCSP is made, for 30 days", func() (map[string]string, error) {
		signer, err := NewSigner(issuer, key, h.Now)
		if err != nil {
			return nil, err
		}
		serial, err := jpki.NewSerial(h.Rand)
		if err != nil {
			return nil, err
		}
		c, err := signer.CertifyResponder(p.request, p.Generation, serial)
		if err != nil {
			return nil, err
		}
		if err := h.publish(certificateFile(p.Generation), encodeCertificate(p.issuer)); err != nil {
			return nil, err
		}
		return h.certificateFacts(c), h.publish("responder.pem", encodeCertificate(c))
	}); err != nil {
		return err
	}
	if h.Rehearsal {
		return nil // nobody can check a signature of a key that stood in
	}
	return h.second(ctx, "responder.pem", certificateFile(p.Generation))
}

// destruction ends a key.
func (h *hold) destruction(ctx context.Context) error {
	p := h.Plan
	var ids []string // of the key, in each token
	if err := h.step("open the key", "the key of "+p.Generation.String()+" is opened at "+p.Key+", to see that it is the one", func() (map[string]string, error) {
		key, err := hsm.Open(ctx, p.Key)
		if err != nil {
			return nil, err
		}
		if !samePublic(key.Public(), p.issuer.PublicKey) {
			return nil, errors.New("it is not the key of the certificate")
		}
		if err := trySign(key); err != nil {
			return nil, err
		}
		facts, found, err := h.kept(ctx)
		if err != nil {
			return nil, err
		}
		ids = found
		facts["public key"], err = publicHash(key.Public())
		return facts, errors.Join(err, h.publish(certificateFile(p.Generation), encodeCertificate(p.issuer)))
	}); err != nil {
		return err
	}
	if h.Rehearsal {
		return nil
	}
	file := strings.HasPrefix(p.Key, "file:")
	text := "the key is overwritten and removed, for good"
	if !file {
		text = "now destroy the key by the token's own means; then go on"
	}
	return h.step("destroy the key", text, func() (map[string]string, error) {
		if file {
			return destroyFile(p.Key)
		}
		return h.destroyInToken(ctx, ids)
	})
}

// trySign has a key sign a test message, and verifies the signature.
func trySign(key crypto.Signer) error {
	digest := sha256.Sum256([]byte("a test message; a signature of it means nothing"))
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign a test message: %w", err)
	}
	ok := false
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, digest[:], sig)
	}
	if !ok {
		return errors.New("the key's signature of a test message does not verify")
	}
	return nil
}

// destroyFile overwrites a key file and removes it. What a file system or a disk keeps of former contents is beyond us.
func destroyFile(uri string) (map[string]string, error) {
	path, err := pathOf(uri)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPlan {
		return nil, errors.New("it is not a key file")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(make([]byte, info.Size()))
	if err := errors.Join(err, f.Sync(), f.Close(), os.Remove(path)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the key file is still there")
	}
	return map[string]string{"destroyed": "overwritten once and removed; copies in backups, snapshots and the disk's own reserves are not reached", "was kept at": uri}, nil
}

func pathOf(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.Path == "" {
		return "", errors.New("the key is not in a file")
	}
	return u.Path, nil
}

func publicHash(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return fmt.Sprintf("%x", sum), nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
