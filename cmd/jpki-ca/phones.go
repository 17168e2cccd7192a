package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/openjpki/jpki/ca/acme"
)

// An attestation is a format in which makers attest phones' keys, and how much of it is asked for.
type attestation struct {
	Format string   `yaml:"format"`
	Roots  string   `yaml:"roots"`
	Apps   []string `yaml:"apps"`

	// For android-key.
	StatusList string        `yaml:"status_list"`
	MaxListAge time.Duration `yaml:"max_list_age"`
	StrongBox  bool          `yaml:"strongbox"`
	UserAuth   bool          `yaml:"user_auth"`
}

// policy is what acme.New is told, which refuses what does not fit the format.
func (a attestation) policy(roots []*x509.Certificate) (acme.Attestation, error) {
	out := acme.Attestation{
		Format: a.Format, Roots: roots,
		Android: acme.AndroidPolicy{StatusList: a.StatusList, MaxListAge: a.MaxListAge, StrongBox: a.StrongBox, UserAuth: a.UserAuth},
	}
	if a.Format != "android-key" {
		out.AppAttest.Apps = a.Apps
		return out, nil
	}
	for _, app := range a.Apps {
		name, signer, _ := strings.Cut(app, " ")
		sum, err := hex.DecodeString(strings.TrimSpace(signer))
		if err != nil || len(sum) != sha256.Size || name == "" {
			return out, fmt.Errorf("enrolment: phones %s: %q is not a package and the SHA-256 of its signing certificate", a.Format, app)
		}
		out.Android.Apps = append(out.Android.Apps, acme.AndroidApp{Package: name, Signer: [sha256.Size]byte(sum)})
	}
	return out, nil
}
