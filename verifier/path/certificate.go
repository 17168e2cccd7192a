package path

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// KeyUsage holds the bits of the keyUsage extension: bit 0 is digitalSignature (RFC 5280 §4.2.1.3).
type KeyUsage uint16

// The usages.
const (
	DigitalSignature KeyUsage = 1 << iota
	ContentCommitment
	KeyEncipherment
	DataEncipherment
	KeyAgreement
	CertSign
	CRLSign
	EncipherOnly
	DecipherOnly
)

// A Certificate is what path validation needs to know of a certificate. It aliases Raw; nothing in it is changed after
// [ParseCertificate]. It holds what crypto/x509 does not show or refuses to read: numbers of any sign, all kinds of
// names, all policy extensions.
type Certificate struct {
	Raw                 []byte
	SHA256              [32]byte // of Raw
	Version             int      // 1, 2 or 3
	Serial              []byte   // contents octets of the INTEGER, which may be negative
	Issuer, Subject     Name
	NotBefore, NotAfter time.Time
	SPKI                []byte   // SubjectPublicKeyInfo
	SPKISHA256          [32]byte // of SPKI
	SignatureAlgorithm  []byte   // AlgorithmIdentifier
	Signature           []byte

	CA              bool // basicConstraints says so
	PathLength      int  // -1 if not limited
	HasKeyUsage     bool
	KeyUsage        KeyUsage
	SubjectKeyID    []byte
	AuthorityKeyID  []byte
	Purposes        []OID    // contents octets of extKeyUsage's identifiers; nil if the extension is absent
	OCSPNoCheck     bool     // RFC 6960 §4.2.2.2.1
	Points          []Point  // cRLDistributionPoints
	Freshest        []Point  // freshestCRL
	IssuerURLs      []string // authorityInfoAccess: caIssuers
	OCSPURLs        []string // authorityInfoAccess: ocsp
	HasPolicies     bool
	policies        []policyInformation
	policiesRead    bool // no unknown qualifier
	mappings        []policyMapping
	requireExplicit int // -1 if absent, like the next two
	inhibitMapping  int
	inhibitAny      int
	alternative     []generalName // subjectAltName
	constraints     *nameConstraints

	tbs        []byte // with header
	keyBits    []byte // contents of subjectPublicKey
	extensions []extension
	unknown    string // the first critical extension that is not known
	fault      string // what is wrong in an extension that is known; nobody may rely on such a certificate

	keyOnce sync.Once
	key     *primitive.Key
	keyErr  error
	algOnce sync.Once
	alg     primitive.Algorithm
	algErr  error
}

// A Point is a distribution point (RFC 5280 §4.2.1.13).
type Point struct {
	URLs    []string // among its names
	names   []generalName
	reasons reasonMask // allReasons if not limited
	issuers []generalName
}

// The contents octets of extensions' identifiers.
const (
	extSubjectKeyID    = "\x55\x1d\x0e"
	extKeyUsage        = "\x55\x1d\x0f"
	extAlternative     = "\x55\x1d\x11"
	extIssuerAltName   = "\x55\x1d\x12"
	extBasic           = "\x55\x1d\x13"
	extCRLNumber       = "\x55\x1d\x14"
	extReasonCode      = "\x55\x1d\x15"
	extInvalidityDate  = "\x55\x1d\x18"
	extDeltaIndicator  = "\x55\x1d\x1b"
	extIssuingPoint    = "\x55\x1d\x1c"
	extCertIssuer      = "\x55\x1d\x1d"
	extConstraints     = "\x55\x1d\x1e"
	extPoints          = "\x55\x1d\x1f"
	extPolicies        = "\x55\x1d\x20"
	extMappings        = "\x55\x1d\x21"
	extAuthorityKeyID  = "\x55\x1d\x23"
	extPolicyLimits    = "\x55\x1d\x24"
	extPurposes        = "\x55\x1d\x25"
	extFreshest        = "\x55\x1d\x2e"
	extInhibitAny      = "\x55\x1d\x36"
	extExpiredOnCRL    = "\x55\x1d\x3c"
	extAuthorityAccess = "\x2b\x06\x01\x05\x05\x07\x01\x01"
	extNoCheck         = "\x2b\x06\x01\x05\x05\x07\x30\x01\x05"
	accessOCSP         = "\x2b\x06\x01\x05\x05\x07\x30\x01"
	accessIssuers      = "\x2b\x06\x01\x05\x05\x07\x30\x02"
)

// MaxCertificateBytes bounds a certificate. Those with a hundred names have 5,000 octets.
const MaxCertificateBytes = 256 << 10

// ParseCertificate reads a certificate in DER. It refuses what is not a certificate. A certificate with a known extension
// whose value is not what the standard says is read, so that it can be looked at, but no path with it is valid.
func ParseCertificate(raw []byte) (*Certificate, error) {
	if len(raw) > MaxCertificateBytes {
		return nil, fmt.Errorf("parse certificate: longer than %d octets", MaxCertificateBytes)
	}
	c := &Certificate{Raw: raw, PathLength: -1, requireExplicit: -1, inhibitMapping: -1, inhibitAny: -1}
	if err := c.parse(); err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	c.SHA256 = sha256.Sum256(raw)
	return c, nil
}

func (c *Certificate) parse() error {
	var tbs, alg der
	body, ok := sequence(c.Raw)
	if !ok || !body.ReadASN1Element(&tbs, tagSequence) || !body.ReadASN1Element(&alg, tagSequence) ||
		!readSignature(&body, &c.Signature) || !body.Empty() {
		return errDER
	}
	c.tbs, c.SignatureAlgorithm = tbs, alg
	return c.parseTBS()
}

func (c *Certificate) parseTBS() (err error) {
	in, _ := sequence(c.tbs)
	var wrapped, inner, validity, spki der
	var present, ok bool
	c.Version = 1
	if !in.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) {
		return errDER
	}
	if present {
		version, ok := readCount(&wrapped, tagInteger)
		if !ok || !wrapped.Empty() {
			return errDER
		}
		if c.Version = version + 1; c.Version > 3 {
			return fmt.Errorf("version %d", c.Version)
		}
	}
	if c.Serial, ok = readInteger(&in); !ok {
		return errDER
	}
	if !in.ReadASN1Element(&inner, tagSequence) {
		return errDER
	}
	if string(inner) != string(c.SignatureAlgorithm) { // RFC 5280 §4.1.1.2
		return errors.New("the two signature algorithms differ")
	}
	if c.Issuer, err = readName(&in); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if !in.ReadASN1(&validity, tagSequence) || !readTime(&validity, &c.NotBefore) || !readTime(&validity, &c.NotAfter) || !validity.Empty() {
		return errors.New("validity is not as RFC 5280 §4.1.2.5 says")
	}
	if c.Subject, err = readName(&in); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	if !in.ReadASN1Element(&spki, tagSequence) {
		return errDER
	}
	c.SPKI, c.SPKISHA256 = spki, sha256.Sum256(spki)
	key, _ := sequence(spki)
	var bits der
	if !key.SkipASN1(tagSequence) || !key.ReadASN1(&bits, tagBitString) || !key.Empty() || len(bits) < 2 || bits[0] != 0 {
		return errors.New("no public key")
	}
	c.keyBits = bits[1:]
	for n := range uint8(2) { // issuerUniqueID, subjectUniqueID: nothing follows from them
		var id der
		if !in.ReadOptionalASN1(&id, &present, tagged(n+1, false)) || present && (c.Version < 2 || len(id) == 0 || id[0] > 7) {
			return errDER
		}
	}
	if !in.ReadOptionalASN1(&wrapped, &present, tagged(3, true)) || !in.Empty() {
		return errDER
	}
	if !present {
		return nil
	}
	if c.Version < 3 {
		return fmt.Errorf("version %d with extensions", c.Version)
	}
	if c.extensions, err = readExtensions(wrapped); err != nil {
		return err
	}
	for i := range c.extensions {
		e := &c.extensions[i]
		known, err := c.readExtension(e)
		switch {
		case err != nil && c.fault == "":
			c.fault = fmt.Sprintf("extension %s: %s", dotted(e.oid), err)
		case !known && e.critical && c.unknown == "":
			c.unknown = e.oid
		}
	}
	return nil
}

// readExtension reads an extension's value into the certificate.
func (c *Certificate) readExtension(e *extension) (known bool, err error) {
	ok := true
	value := der(e.value)
	switch e.oid {
	case extBasic:
		var basic der
		ok = value.ReadASN1(&basic, tagSequence) && value.Empty() && readFlag(&basic, tagBoolean, &c.CA)
		if ok && !basic.Empty() {
			c.PathLength, ok = readCount(&basic, tagInteger)
			ok = ok && basic.Empty()
		}
	case extKeyUsage:
		var bits uint16
		bits, ok = readBits(&value, tagBitString)
		ok = ok && value.Empty()
		c.KeyUsage, c.HasKeyUsage = KeyUsage(bits), true
	case extSubjectKeyID:
		var id der
		ok = value.ReadASN1(&id, tagOctets) && value.Empty()
		c.SubjectKeyID = id
	case extAuthorityKeyID:
		c.AuthorityKeyID, ok = readAuthorityKeyID(value)
	case extAlternative:
		c.alternative, err = readAlternative(value)
	case extIssuerAltName: // says nothing about the subject
	case extConstraints:
		c.constraints, err = readConstraints(value)
	case extPolicies:
		c.HasPolicies = true
		c.policies, c.policiesRead, err = readPolicies(value)
		if err == nil && e.critical && !c.policiesRead { // §4.2.1.4
			c.unknown = e.oid
		}
	case extMappings:
		c.mappings, err = readMappings(value)
	case extPolicyLimits:
		ok = c.readPolicyLimits(value)
	case extInhibitAny:
		c.inhibitAny, ok = readCount(&value, tagInteger)
		ok = ok && value.Empty()
	case extPurposes:
		c.Purposes, ok = readOIDs(value)
	case extPoints:
		c.Points, err = readPoints(value, c.Issuer)
	case extFreshest:
		c.Freshest, err = readPoints(value, c.Issuer)
	case extAuthorityAccess:
		ok = c.readAccess(value)
	case extNoCheck:
		var null der
		c.OCSPNoCheck = value.ReadASN1(&null, 5) && null.Empty() && value.Empty()
		ok = c.OCSPNoCheck
	default:
		return false, nil
	}
	if !ok {
		err = errDER
	}
	return true, err
}

// readAuthorityKeyID returns the keyIdentifier; issuer and serial, the other way to name a key, are not used to find one.
func readAuthorityKeyID(value der) (id []byte, ok bool) {
	var body, key, rest der
	var present, hasIssuer, hasSerial bool
	if !value.ReadASN1(&body, tagSequence) || !value.Empty() || !body.ReadOptionalASN1(&key, &present, tagged(0, false)) ||
		!body.ReadOptionalASN1(&rest, &hasIssuer, tagged(1, true)) || !body.ReadOptionalASN1(&rest, &hasSerial, tagged(2, false)) || !body.Empty() {
		return nil, false
	}
	if !present {
		return nil, true
	}
	return key, true
}

func readAlternative(value der) ([]generalName, error) {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() {
		return nil, errDER
	}
	names, err := readGeneralNames(list)
	if err != nil {
		return nil, err
	}
	for _, g := range names {
		switch {
		case g.kind == ipName && len(g.value) != 4 && len(g.value) != 16:
			return nil, errors.New("an iPAddress that is none")
		case (g.kind == dnsName || g.kind == emailName || g.kind == uriName) && (len(g.value) == 0 || string(g.value) == " "):
			return nil, errors.New("an empty " + kindNames[g.kind])
		}
	}
	return names, nil
}

// maxPurposes bounds the identifiers of extKeyUsage.
const maxPurposes = 64

func readOIDs(value der) (oids []OID, ok bool) {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() {
		return nil, false
	}
	for !list.Empty() {
		oid, ok := readOID(&list)
		if !ok || len(oids) == maxPurposes {
			return nil, false
		}
		oids = append(oids, OID(oid))
	}
	return oids, oids != nil
}

func (c *Certificate) readAccess(value der) bool {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() || list.Empty() {
		return false
	}
	for n := 0; !list.Empty(); n++ {
		var one der
		if n == maxPoints || !list.ReadASN1(&one, tagSequence) {
			return false
		}
		method, ok := readOID(&one)
		if !ok {
			return false
		}
		g, err := readGeneralName(&one)
		if err != nil || !one.Empty() {
			return false
		}
		if g.kind != uriName {
			continue
		}
		switch method {
		case accessOCSP:
			c.OCSPURLs = append(c.OCSPURLs, string(g.value))
		case accessIssuers:
			c.IssuerURLs = append(c.IssuerURLs, string(g.value))
		}
	}
	return true
}

// maxPoints bounds the distribution points of a certificate.
const maxPoints = 64

func readPoints(value der, issuer Name) ([]Point, error) {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() || list.Empty() {
		return nil, errDER
	}
	var points []Point
	for !list.Empty() {
		var one, name, reasons, issuers der
		var hasName, hasReasons, hasIssuers bool
		if !list.ReadASN1(&one, tagSequence) || !one.ReadOptionalASN1(&name, &hasName, tagged(0, true)) || !one.ReadOptionalASN1(&reasons, &hasReasons, tagged(1, false)) ||
			!one.ReadOptionalASN1(&issuers, &hasIssuers, tagged(2, true)) || !one.Empty() {
			return nil, errDER
		}
		if len(points) == maxPoints {
			return nil, errors.New("more distribution points than admitted")
		}
		if !hasName && !hasIssuers { // a point must be more than reasons (§4.2.1.13)
			return nil, errors.New("a distribution point without name")
		}
		p := Point{reasons: allReasons}
		var err error
		if hasIssuers {
			if p.issuers, err = readGeneralNames(issuers); err != nil {
				return nil, err
			}
		}
		if hasName {
			base := issuer
			for _, g := range p.issuers { // a relative name is below the CRL issuer's, of which there is then one
				if g.kind == directoryName {
					base = g.dn
					break
				}
			}
			if p.names, err = readPointName(name, base); err != nil {
				return nil, err
			}
		}
		if hasReasons {
			if p.reasons, err = readReasons(reasons); err != nil {
				return nil, err
			}
		}
		for _, g := range p.names {
			if g.kind == uriName {
				p.URLs = append(p.URLs, string(g.value))
			}
		}
		points = append(points, p)
	}
	return points, nil
}

// readPointName reads a DistributionPointName, of which a relative one is completed by base.
func readPointName(s der, base Name) ([]generalName, error) {
	var full, relative der
	var isFull, isRelative bool
	if !s.ReadOptionalASN1(&full, &isFull, tagged(0, true)) || !s.ReadOptionalASN1(&relative, &isRelative, tagged(1, true)) ||
		!s.Empty() || isFull == isRelative {
		return nil, errDER
	}
	if isFull {
		return readGeneralNames(full)
	}
	n := Name{key: base.key}
	key, err := n.readRDN([]byte(base.key), relative)
	if err != nil || relative.Empty() {
		return nil, errDER
	}
	n.key = string(key)
	return []generalName{{kind: directoryName, dn: n}}, nil
}

// Key returns the public key.
func (c *Certificate) Key() (*primitive.Key, error) {
	c.keyOnce.Do(func() { c.key, c.keyErr = primitive.ParseKey(c.SPKI) })
	return c.key, c.keyErr
}

// Algorithm returns the algorithm of the signature on the certificate.
func (c *Certificate) Algorithm() (primitive.Algorithm, error) {
	c.algOnce.Do(func() { c.alg, c.algErr = primitive.ParseAlgorithm(c.SignatureAlgorithm) })
	return c.alg, c.algErr
}

// SerialNumber returns the serial number, whatever its sign.
func (c *Certificate) SerialNumber() *big.Int {
	n := new(big.Int).SetBytes(c.Serial)
	if c.Serial[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(c.Serial))))
	}
	return n
}

// SelfIssued reports whether issuer and subject are the same name (RFC 5280 §6.1).
func (c *Certificate) SelfIssued() bool { return c.Issuer.Equal(c.Subject) }

// Fault returns what is wrong with the value of an extension, "" if nothing is.
func (c *Certificate) Fault() string { return c.fault }

// extension returns an extension, nil if it is absent.
func (c *Certificate) extension(oid string) *extension {
	i := slices.IndexFunc(c.extensions, func(e extension) bool { return e.oid == oid })
	if i < 0 {
		return nil
	}
	return &c.extensions[i]
}

// sameEntity reports whether two certificates are about one name and key, in which case a path needs only one of them.
func (c *Certificate) sameEntity(other *Certificate) bool {
	return string(c.SPKI) == string(other.SPKI) && c.Subject.Equal(other.Subject)
}
