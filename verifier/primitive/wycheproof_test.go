package primitive_test

import (
	"crypto"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/primitive"
)

// acceptable says what becomes of the vectors whose result is "acceptable", by their flag: strictness is ours to choose.
var acceptable = map[string]bool{
	"MissingNull":      false, // a DigestInfo without the NULL of RFC 8017 §9.2: crypto/rsa compares whole encoded messages
	"WeakHash":         true,  // strength is the caller's policy
	"SmallModulus":     true,
	"SmallPublicKey":   true, // an exponent of 3
	"SmallExponent":    true,
	"ModifiedPrime":    false,
	"UnsignedModulus":  false,
	"InvalidAsnInSpki": false,
}

// refusedGroups are keys and hash functions that are refused by name, whatever the signature.
var refusedGroups = []string{
	"secp160", "secp192", "secp224k1", "secp256k1", "brainpool", "ripemd", "shake", "RIPEMD", "SHAKE", "SM3", "sect", "sm2", "ed448",
}

type vectorGroup struct {
	Type         string `json:"type"`
	SHA          string `json:"sha"`
	MGFSHA       string `json:"mgfSha"`
	SaltLen      int    `json:"sLen"`
	PublicKeyDER string `json:"publicKeyDer"`
	Tests        []struct {
		ID      int      `json:"tcId"`
		Comment string   `json:"comment"`
		Flags   []string `json:"flags"`
		Msg     string   `json:"msg"`
		Sig     string   `json:"sig"`
		Result  string   `json:"result"`
	} `json:"tests"`
}

func (g vectorGroup) algorithm() (a primitive.Algorithm, known bool) {
	names := map[string]crypto.Hash{
		"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512,
		"SHA-512/224": crypto.SHA512_224, "SHA-512/256": crypto.SHA512_256,
		"SHA3-224": crypto.SHA3_224, "SHA3-256": crypto.SHA3_256, "SHA3-384": crypto.SHA3_384, "SHA3-512": crypto.SHA3_512,
	}
	a.Hash = names[g.SHA]
	switch g.Type {
	case "RsassaPkcs1Verify":
		a.Scheme = primitive.PKCS1v15
	case "RsassaPssVerify", "RsassaPssWithParametersVerify":
		a.Scheme, a.MGF, a.Salt = primitive.PSS, names[g.MGFSHA], g.SaltLen
	case "EcdsaVerify":
		a.Scheme = primitive.ECDSA
	case "EcdsaP1363Verify":
		a.Scheme, a.Raw = primitive.ECDSA, true
	case "EddsaVerify":
		return primitive.Algorithm{Scheme: primitive.Ed25519}, true
	default:
		return a, false
	}
	return a, a.Hash != 0
}

// TestWycheproof checks every signature vector in the wycheproof folder, whatever files somebody puts there.
func TestWycheproof(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(vectors(t), "wycheproof", "*.json"))
	checked := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), "_test.json")
		var doc struct {
			Groups []vectorGroup `json:"testGroups"`
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &doc)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range doc.Groups {
			if g.PublicKeyDER == "" {
				continue
			}
			alg, known := g.algorithm()
			key, err := primitive.ParseKey(unhex(t, g.PublicKeyDER))
			if err != nil || !known {
				if !known && refused(g.SHA+" "+g.Type+" "+name) || errors.Is(err, primitive.ErrUnsupported) && refused(name) {
					continue
				}
				t.Errorf("%s: a group is not understood: %v (%s, %s)", name, err, g.Type, g.SHA)
				continue
			}
			for _, tc := range g.Tests {
				checked++
				err := primitive.VerifyMessage(key, alg, unhex(t, tc.Msg), unhex(t, tc.Sig))
				want := tc.Result == "valid"
				if tc.Result == "acceptable" {
					want = true
					for _, flag := range tc.Flags {
						accept, listed := acceptable[flag]
						if !listed {
							t.Errorf("%s %d: acceptable for %s, which is not in the table", name, tc.ID, flag)
						}
						want = want && accept
					}
				}
				if (err == nil) != want {
					t.Errorf("%s %d (%s %v): verify says %v, want %s", name, tc.ID, tc.Comment, tc.Flags, err, tc.Result)
				}
				if own, applies := byOwnCode(key, alg, unhex(t, tc.Msg), unhex(t, tc.Sig)); applies && own != want {
					t.Errorf("%s %d (%s %v): our own code says %t, want %s", name, tc.ID, tc.Comment, tc.Flags, own, tc.Result)
				}
				if err != nil && !errors.Is(err, primitive.ErrWrong) {
					t.Errorf("%s %d: refused for another reason: %v", name, tc.ID, err)
				}
			}
		}
	}
	if checked < 1765 { // as many as SOURCE.txt counts
		t.Errorf("only %d vectors were checked", checked)
	}
	t.Logf("%d vectors", checked)
}

// byOwnCode checks RSA as is otherwise done only where crypto/rsa cannot.
func byOwnCode(key *primitive.Key, alg primitive.Algorithm, message, sig []byte) (ok, applies bool) {
	p, isRSA := key.Public().(*rsa.PublicKey)
	if !isRSA {
		return false, false
	}
	digest := primitive.Digest(alg.Hash, message)
	if alg.Scheme == primitive.PSS {
		return primitive.VerifyPSS(p, alg, digest, sig), true
	}
	return primitive.VerifyPKCS1v15(p, alg.Hash, digest, sig), true
}

func refused(name string) bool {
	for _, part := range refusedGroups {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// vectors returns the folder of test vectors.
func vectors(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS is not set")
	}
	return dir
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
