package ceremony

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier/cms"
)

// second has openssl read a certificate and check who signed it, and writes down what it says.
func (h *hold) second(ctx context.Context, name, issuer string) error {
	return h.step("read it with a second implementation", "openssl reads "+name+" and checks its signature", func() (map[string]string, error) {
		return opensslVerify(ctx, filepath.Join(h.Dir, name), filepath.Join(h.Dir, issuer))
	})
}

func opensslVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "openssl", "version").Output()
	if err != nil {
		return "", fmt.Errorf("a ceremony needs openssl, as the second implementation that reads what was made: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// opensslVerify returns openssl's reading of a certificate after it has checked the signature by the issuer, and compares
// that with ours.
func opensslVerify(ctx context.Context, file, issuer string) (map[string]string, error) {
	verdict, err := exec.CommandContext(ctx, "openssl", "verify", "-check_ss_sig", "-no_check_time", "-CAfile", issuer, file).CombinedOutput() //nolint:gosec // our own files
	if err != nil {
		return nil, fmt.Errorf("openssl does not accept it: %s", strings.Join(strings.Fields(string(verdict)), " "))
	}
	out, err := exec.CommandContext(ctx, "openssl", "x509", "-in", file, "-noout", "-serial", "-fingerprint", "-sha256").CombinedOutput() //nolint:gosec // likewise
	if err != nil {
		return nil, fmt.Errorf("openssl cannot read it: %s", strings.Join(strings.Fields(string(out)), " "))
	}
	text, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(decode(text, "CERTIFICATE"))
	if err != nil {
		return nil, err
	}
	reading := map[string]string{}
	for l := range strings.Lines(string(out)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			reading[strings.ToLower(key)] = value
		}
	}
	want := strings.ToUpper(hash(c.Raw))
	if got := strings.ReplaceAll(reading["sha256 fingerprint"], ":", ""); got != want {
		return nil, fmt.Errorf("openssl reads the fingerprint %q, we %q", got, want)
	}
	if serial := fmt.Sprintf("%X", c.SerialNumber); strings.TrimLeft(reading["serial"], "0") != strings.TrimLeft(serial, "0") {
		return nil, fmt.Errorf("openssl reads the serial number %q, we %q", reading["serial"], serial)
	}
	return map[string]string{"openssl verify": "OK", "openssl fingerprint": reading["sha256 fingerprint"]}, nil
}

// A Report is what [Verify] found.
type Report struct {
	Transcript []Entry
	Hash       string   // of the transcript's last line
	Rehearsal  bool     // no key of this ceremony is of any use
	Signed     []string // names of the witnesses who have signed the transcript
	Quorum     int      // how many must have
}

// Complete reports whether enough witnesses have signed.
func (r Report) Complete() bool { return len(r.Signed) >= r.Quorum }

// Verify reads a ceremony's folder again, at any later time: the transcript's chain, each file that it names, the certificates
// with openssl, and the signatures of the witnesses over the transcript, detached CMS in witness-1.p7s and so on. An error says
// what is not as it was; witnesses who have not signed yet are no error. Secrets (a key, shares) need not be there.
func Verify(ctx context.Context, dir string) (Report, error) {
	lines, last, err := ReadTranscript(dir)
	if err != nil {
		return Report{}, err
	}
	r := Report{Transcript: lines, Hash: last, Rehearsal: lines[0].Facts["rehearsal"] == "true"}
	files := lines[len(lines)-1].Files
	for _, e := range lines {
		for name, sum := range e.Files {
			if files[name] != sum {
				return r, fmt.Errorf("the transcript contradicts itself about %s", name)
			}
		}
	}
	for name, sum := range files {
		if name != filepath.Base(name) {
			return r, fmt.Errorf("the transcript names a file elsewhere: %q", name)
		}
		text, err := readSmall(filepath.Join(dir, name))
		if err != nil {
			return r, err
		}
		if hash(text) != sum {
			return r, fmt.Errorf("%s is not the file of the ceremony", name)
		}
	}
	plan, err := reread(dir, files)
	if err != nil {
		return r, err
	}
	r.Quorum = plan.Quorum
	if err := verifyMade(ctx, dir, plan, r.Rehearsal); err != nil {
		return r, err
	}
	text, err := readFile(filepath.Join(dir, transcriptFile), maxTranscript)
	if err != nil {
		return r, err
	}
	for i, w := range plan.Witnesses {
		signature, err := readSmall(filepath.Join(dir, signatureFile(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		if err := checkWitness(w, text, signature); err != nil {
			return r, fmt.Errorf("%s, by %s: %w", signatureFile(i), w.Name, err)
		}
		r.Signed = append(r.Signed, w.Name)
	}
	return r, nil
}

// reread reads the plan as it lies in a ceremony's folder, where the files it names have other names.
func reread(dir string, files map[string]string) (*Plan, error) {
	text, err := readSmall(filepath.Join(dir, planFile))
	if err != nil || files[planFile] == "" {
		return nil, errors.Join(err, errors.New("the plan is not among the ceremony's files"))
	}
	p, err := parsePlan(text)
	if err != nil {
		return nil, err
	}
	p.dir = dir
	for i := range p.Witnesses {
		w := &p.Witnesses[i]
		if files[witnessFile(i)] == "" {
			return nil, fmt.Errorf("the certificate of witness %d is not among the ceremony's files", i+1)
		}
		if w.certificate, err = p.readCertificate(witnessFile(i)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// verifyMade has openssl read again what the ceremony made.
func verifyMade(ctx context.Context, dir string, p *Plan, rehearsal bool) error {
	made := certificateFile(p.Generation)
	if p.Kind == Delegation {
		made = "responder.pem"
	}
	if p.Kind == Delegation && rehearsal {
		return nil
	}
	_, err := opensslVerify(ctx, filepath.Join(dir, made), filepath.Join(dir, certificateFile(p.Generation)))
	return err
}

// checkWitness says whether a detached CMS signature over the transcript is by the witness's key.
func checkWitness(w Witness, transcript, signature []byte) error {
	data, err := cms.Parse(decode(signature, "CMS"))
	if err != nil {
		return err
	}
	if !data.Detached {
		return errors.New("the signature has content of its own: it must be detached")
	}
	signatures, err := data.Verify(cms.Input{Content: bytes.NewReader(transcript), Certificates: [][]byte{w.certificate.Raw}})
	if err != nil {
		return err
	}
	if len(signatures) != 1 {
		return errors.New("there must be one signature")
	}
	switch s := signatures[0]; {
	case s.Integrity != cms.Intact:
		return fmt.Errorf("the signature is not one over this transcript: %s", s.Detail)
	case !bytes.Equal(s.Certificate, w.certificate.Raw):
		return errors.New("it is by another certificate than the witness's")
	}
	return nil
}

// CheckShare says whether a custodian's share is whole and belongs to the ceremony in dir.
func CheckShare(dir string, share Share) error {
	b, err := readBackup(dir)
	if err != nil {
		return err
	}
	return b.checkShare(share)
}

// Restore returns the key, PKCS #8 in PEM, of the ceremony in dir from its backup and enough custodians' shares.
func Restore(dir string, shares []Share) ([]byte, error) {
	b, err := readBackup(dir)
	if err != nil {
		return nil, err
	}
	return b.open(shares)
}

func readBackup(dir string) (backup, error) {
	text, err := readSmall(filepath.Join(dir, backupFile))
	if err != nil {
		return backup{}, err
	}
	return parseBackup(text)
}

// Secrets lists the files in a ceremony's folder that must leave it: the key and the custodians' shares.
func Secrets(dir string) []string {
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".key" || ext == ".share" {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}
