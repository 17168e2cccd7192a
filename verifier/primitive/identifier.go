package primitive

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	oidPSS  = "1.2.840.113549.1.1.10"
	oidMGF1 = "1.2.840.113549.1.1.8"
)

var (
	rawPSS      = RawOID(oidPSS)
	rawMGF1     = RawOID(oidMGF1)
	rawRSA      = RawOID("1.2.840.113549.1.1.1")
	rawECKey    = RawOID("1.2.840.10045.2.1")
	rawEd25519  = RawOID("1.3.101.112")
	hashesByOID = func() map[string]crypto.Hash {
		out := map[string]crypto.Hash{}
		for _, h := range hashes {
			out[RawOID(h.oid)] = h.hash
		}
		return out
	}()
)

// ParseAlgorithm reads the AlgorithmIdentifier of a signature (RFC 5280 §4.1.1.2), strictly in DER. Parameters are
// absent or NULL for PKCS#1 v1.5 (RFC 4055 §5), present and checked for PSS (§3.1), and otherwise absent (RFC 5758 §3.2,
// RFC 8410 §3).
func ParseAlgorithm(der []byte) (Algorithm, error) {
	oid, params, err := readIdentifier(der)
	if err != nil {
		return Algorithm{}, fmt.Errorf("signature algorithm: %w", err)
	}
	n, ok := signatureOIDs[string(oid)]
	switch {
	case !ok:
		return Algorithm{}, fmt.Errorf("signature algorithm: %w: %s", ErrUnsupported, dotted(string(oid)))
	case n.never != "":
		return Algorithm{}, fmt.Errorf("signature algorithm: %w: %s", ErrUnsupported, n.never)
	case n.alg.Scheme == PSS:
		if len(params) == 0 {
			return Algorithm{}, fmt.Errorf("signature algorithm: %w: RSA-PSS without parameters", ErrMalformed)
		}
		return parsePSS(params)
	case len(params) != 0 && (n.alg.Scheme != PKCS1v15 || !isNull(params)):
		return Algorithm{}, fmt.Errorf("signature algorithm: %w: unexpected parameters", ErrMalformed)
	}
	return n.alg, nil
}

// ParseHash reads the AlgorithmIdentifier of a hash function, strictly in DER. Parameters are absent or NULL (RFC 5754 §2).
func ParseHash(der []byte) (crypto.Hash, error) {
	oid, params, err := readIdentifier(der)
	if err != nil {
		return 0, fmt.Errorf("digest algorithm: %w", err)
	}
	h, ok := hashesByOID[string(oid)]
	switch {
	case !ok && digestOIDs[string(oid)].never != "":
		return 0, fmt.Errorf("digest algorithm: %w: %s", ErrUnsupported, digestOIDs[string(oid)].never)
	case !ok:
		return 0, fmt.Errorf("digest algorithm: %w: %s", ErrUnsupported, dotted(string(oid)))
	case len(params) != 0 && !isNull(params):
		return 0, fmt.Errorf("digest algorithm: %w: unexpected parameters", ErrMalformed)
	}
	return h, nil
}

// readIdentifier takes an AlgorithmIdentifier apart: the content octets of the OID, and the parameters, one element or none.
func readIdentifier(der []byte) (oid []byte, params cryptobyte.String, err error) {
	in := cryptobyte.String(der)
	var seq, id cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || len(id) == 0 {
		return nil, nil, fmt.Errorf("%w: no AlgorithmIdentifier", ErrMalformed)
	}
	var element cryptobyte.String
	if params = seq; !seq.Empty() && (!seq.ReadAnyASN1(&element, new(cbasn1.Tag)) || !seq.Empty()) {
		return nil, nil, fmt.Errorf("%w: no AlgorithmIdentifier", ErrMalformed)
	}
	return id, params, nil
}

func isNull(params []byte) bool { return len(params) == 2 && params[0] == 5 && params[1] == 0 }

// parsePSS reads RSASSA-PSS-params (RFC 4055 §3.1). A default that is written out is accepted: many signers do.
func parsePSS(params cryptobyte.String) (Algorithm, error) {
	a := Algorithm{Scheme: PSS, Hash: crypto.SHA1, MGF: crypto.SHA1, Salt: 20}
	bad := fmt.Errorf("RSA-PSS parameters: %w", ErrMalformed)
	var seq, field cryptobyte.String
	var there bool
	var err error
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	if !params.ReadASN1(&seq, cbasn1.SEQUENCE) || !params.Empty() || !seq.ReadOptionalASN1(&field, &there, context(0)) {
		return a, bad
	}
	if there {
		if a.Hash, err = ParseHash(field); err != nil {
			return a, fmt.Errorf("RSA-PSS parameters: %w", err)
		}
	}
	if !seq.ReadOptionalASN1(&field, &there, context(1)) {
		return a, bad
	}
	if there {
		oid, inner, err := readIdentifier(field)
		if err != nil || string(oid) != rawMGF1 {
			return a, fmt.Errorf("RSA-PSS parameters: %w: mask generation function other than MGF1", ErrUnsupported)
		}
		if a.MGF, err = ParseHash(inner); err != nil {
			return a, fmt.Errorf("RSA-PSS parameters: %w", err)
		}
	}
	trailer := 1
	if !readOptionalInt(&seq, context(2), &a.Salt) || !readOptionalInt(&seq, context(3), &trailer) || !seq.Empty() ||
		a.Salt < 0 || a.Salt > MaxRSABits/8 || trailer != 1 {
		return a, bad
	}
	return a, nil
}

// readOptionalInt is ReadOptionalASN1Integer without its acceptance of what follows the INTEGER inside the tag.
func readOptionalInt(in *cryptobyte.String, tag cbasn1.Tag, out *int) bool {
	var field cryptobyte.String
	var there bool
	if !in.ReadOptionalASN1(&field, &there, tag) {
		return false
	}
	return !there || field.ReadASN1Integer(out) && field.Empty()
}

// Identifier returns the algorithm's AlgorithmIdentifier in DER, as RFC 4055, 5758, 8410 and 9688 want it written.
func (a Algorithm) Identifier() ([]byte, error) {
	if a.Scheme == PSS {
		return a.pssIdentifier()
	}
	a.Curve, a.Raw = "", false // of how a value is written, which an identifier in ASN.1 leaves no choice in
	for _, oid := range slices.Sorted(maps.Keys(signatureOIDs)) {
		if n := signatureOIDs[oid]; n.never == "" && n.alg == a {
			return marshal(func(b *cryptobyte.Builder) {
				addOID(b, oid)
				if a.Scheme == PKCS1v15 {
					b.AddASN1NULL()
				}
			})
		}
	}
	return nil, fmt.Errorf("%w: %s has no identifier", ErrUnsupported, a)
}

func (a Algorithm) pssIdentifier() ([]byte, error) {
	hash, err := HashIdentifier(a.Hash)
	if err != nil {
		return nil, err
	}
	mgf, err := HashIdentifier(a.MGF)
	if err != nil {
		return nil, err
	}
	explicit := func(b *cryptobyte.Builder, n uint8, add cryptobyte.BuilderContinuation) {
		b.AddASN1(cbasn1.Tag(n).ContextSpecific().Constructed(), add)
	}
	return marshal(func(b *cryptobyte.Builder) {
		addOID(b, rawPSS)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if a.Hash != crypto.SHA1 {
				explicit(b, 0, func(b *cryptobyte.Builder) { b.AddBytes(hash) })
			}
			if a.MGF != crypto.SHA1 {
				explicit(b, 1, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						addOID(b, rawMGF1)
						b.AddBytes(mgf)
					})
				})
			}
			if a.Salt != 20 {
				explicit(b, 2, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(a.Salt)) })
			}
		})
	})
}

// HashIdentifier returns the AlgorithmIdentifier of a hash function in DER, without parameters (RFC 5754 §2).
func HashIdentifier(h crypto.Hash) ([]byte, error) {
	for i := range hashes {
		if hashes[i].hash == h {
			return marshal(func(b *cryptobyte.Builder) { addOID(b, RawOID(hashes[i].oid)) })
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrUnsupported, HashName(h))
}

func marshal(add cryptobyte.BuilderContinuation) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, add)
	return b.Bytes()
}

func addOID(b *cryptobyte.Builder, raw string) {
	b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(raw)) })
}

// byOID turns the dotted OIDs of a table into their content octets, which are compared without being decoded.
func byOID[T any](table map[string]T) map[string]T {
	out := make(map[string]T, len(table))
	for oid, v := range table {
		out[RawOID(oid)] = v
	}
	return out
}

// RawOID returns the content octets of a dotted OID of a program's own tables: at most 127 octets, and no mistakes in it.
func RawOID(dotted string) string {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(dotted, ".") {
		n, _ := strconv.Atoi(arc)
		oid = append(oid, n)
	}
	der, _ := asn1.Marshal(oid)
	return string(der[2:]) // none of ours is longer than 127 octets
}

// DottedOID returns the dotted form of an OID's content octets; "" if they are none, or more than 64.
func DottedOID(raw string) string {
	var oid asn1.ObjectIdentifier
	if len(raw) > 64 {
		return ""
	}
	if _, err := asn1.Unmarshal(append([]byte{6, byte(len(raw))}, raw...), &oid); err != nil {
		return ""
	}
	return oid.String()
}

// dotted writes an OID for people, if it is of a sensible length.
func dotted(raw string) string {
	if len(raw) > 32 {
		return "a long OID"
	}
	if oid := DottedOID(raw); oid != "" {
		return oid
	}
	return "a broken OID"
}
