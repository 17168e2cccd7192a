package acme

import (
	"encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidKeyDescription marks the extension in which an Android phone describes a key.
var oidKeyDescription = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 17}

// A keyDescription is what Android's key attestation says of a key (Android Open Source Project, "Key and ID attestation",
// schema). Of its two lists, the phone's secure hardware vouches for the second only.
type keyDescription struct {
	Version      int64
	Level        int64 // of what has signed it
	KeyMintLevel int64 // of where the key is
	Challenge    []byte
	Software     authorizations
	Hardware     authorizations
}

// Where something is: securityLevel.
const (
	levelTrustedEnvironment = 1
	levelStrongBox          = 2
)

// authorizations are what a key may be used for, and where it came from. Fields that no rule of ours is about are left out.
type authorizations struct {
	Numbers         map[uint32][]int64 // INTEGER and SET OF INTEGER, by tag
	NoAuthRequired  bool
	AllApplications bool
	Root            *rootOfTrust
	Application     []byte // AttestationApplicationId, DER
}

// Tags of an AuthorizationList.
const (
	tagPurpose         = 1
	tagAlgorithm       = 2
	tagKeySize         = 3
	tagDigest          = 5
	tagPadding         = 6
	tagCurve           = 10
	tagExponent        = 200
	tagNoAuthRequired  = 503
	tagAllApplications = 600
	tagOrigin          = 702
	tagRootOfTrust     = 704
	tagApplication     = 709
)

// is reports whether a field has exactly one value, this one.
func (a authorizations) is(tag uint32, value int64) bool {
	return slices.Equal(a.Numbers[tag], []int64{value})
}

// has reports whether a field has a value, among others.
func (a authorizations) has(tag uint32, value int64) bool {
	return slices.Contains(a.Numbers[tag], value)
}

// A rootOfTrust is what the boot loader has told the secure hardware.
type rootOfTrust struct {
	Locked bool
	State  BootState
}

const (
	maxDescription = 8 << 10 // octets
	maxFields      = 96      // of a list; all tags that are defined, and as many again
	maxNumbers     = 16      // of a SET OF INTEGER
)

var errDescription = errors.New("the key's description cannot be read")

// parseKeyDescription reads a key's description, DER with nothing behind it. Every field comes once at most; fields that it
// does not know have to be well formed. It wants attestation version 3 (Keymaster 4) or later, of which the schema was only
// added to.
func parseKeyDescription(der []byte) (d keyDescription, err error) {
	in, body, software, hardware := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil), cryptobyte.String(nil)
	var challenge, unique cryptobyte.String
	var mint int64
	if len(der) > maxDescription || !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() ||
		!readNumber(&body, cbasn1.INTEGER, &d.Version) || !readNumber(&body, cbasn1.ENUM, &d.Level) ||
		!readNumber(&body, cbasn1.INTEGER, &mint) || !readNumber(&body, cbasn1.ENUM, &d.KeyMintLevel) ||
		!body.ReadASN1(&challenge, cbasn1.OCTET_STRING) || !body.ReadASN1(&unique, cbasn1.OCTET_STRING) ||
		!body.ReadASN1(&software, cbasn1.SEQUENCE) || !body.ReadASN1(&hardware, cbasn1.SEQUENCE) || !body.Empty() {
		return d, errDescription
	}
	if d.Version < 3 {
		return d, errors.New("the attestation is of a version before 3")
	}
	d.Challenge = challenge
	if d.Software, err = parseAuthorizations(software); err != nil {
		return d, err
	}
	d.Hardware, err = parseAuthorizations(hardware)
	return d, err
}

func parseAuthorizations(in cryptobyte.String) (a authorizations, err error) {
	a.Numbers = map[uint32][]int64{}
	seen := map[uint32]bool{}
	for !in.Empty() {
		tag, value, ok := readField(&in)
		if !ok || seen[tag] || len(seen) == maxFields {
			return a, errDescription
		}
		seen[tag] = true
		switch tag {
		case tagPurpose, tagDigest, tagPadding:
			a.Numbers[tag], ok = readSet(&value)
		case tagAlgorithm, tagKeySize, tagCurve, tagExponent, tagOrigin:
			var n int64
			ok = readNumber(&value, cbasn1.INTEGER, &n)
			a.Numbers[tag] = []int64{n}
		case tagNoAuthRequired:
			a.NoAuthRequired, ok = true, readNull(&value)
		case tagAllApplications:
			a.AllApplications, ok = true, readNull(&value)
		case tagRootOfTrust:
			a.Root, ok = readRoot(&value)
		case tagApplication:
			var octets cryptobyte.String
			ok = value.ReadASN1(&octets, cbasn1.OCTET_STRING)
			a.Application = octets
		default:
			var inside cryptobyte.String
			var any cbasn1.Tag
			ok = value.ReadAnyASN1(&inside, &any)
		}
		if !ok || !value.Empty() {
			return a, errDescription
		}
	}
	return a, nil
}

// readField reads an element with an explicit context tag of any number, which cryptobyte reads up to 30 only
// (X.690 §8.1.2.4 and §10.1).
func readField(in *cryptobyte.String) (tag uint32, value cryptobyte.String, ok bool) {
	const contextConstructed, high, more = 0xa0, 0x1f, 0x80
	var b uint8
	if !in.ReadUint8(&b) || b&^high != contextConstructed {
		return 0, nil, false
	}
	tag = uint32(b & high)
	if tag == high {
		tag = 0
		for n := 0; ; n++ {
			if n == 3 || !in.ReadUint8(&b) || n == 0 && b == more {
				return 0, nil, false
			}
			tag = tag<<7 | uint32(b&^more)
			if b&more == 0 {
				break
			}
		}
		if tag < high {
			return 0, nil, false
		}
	}
	var length uint8
	var inside []byte
	if !in.ReadUint8(&length) {
		return 0, nil, false
	}
	n := int(length)
	switch length {
	case 0x81:
		if !in.ReadUint8(&length) || length < 0x80 {
			return 0, nil, false
		}
		n = int(length)
	case 0x82:
		var long uint16
		if !in.ReadUint16(&long) || long < 0x100 {
			return 0, nil, false
		}
		n = int(long)
	default:
		if length >= 0x80 {
			return 0, nil, false
		}
	}
	if !in.ReadBytes(&inside, n) {
		return 0, nil, false
	}
	return tag, inside, true
}

// readNumber reads an INTEGER or ENUMERATED that is not negative.
func readNumber(in *cryptobyte.String, tag cbasn1.Tag, n *int64) bool {
	return in.ReadASN1Int64WithTag(n, tag) && *n >= 0
}

func readSet(in *cryptobyte.String) (out []int64, ok bool) {
	var set cryptobyte.String
	if !in.ReadASN1(&set, cbasn1.SET) {
		return nil, false
	}
	for !set.Empty() {
		var n int64
		if len(out) == maxNumbers || !readNumber(&set, cbasn1.INTEGER, &n) {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}

func readNull(in *cryptobyte.String) bool {
	var nothing cryptobyte.String
	return in.ReadASN1(&nothing, cbasn1.NULL) && nothing.Empty()
}

func readRoot(in *cryptobyte.String) (*rootOfTrust, bool) {
	var body, key, hash cryptobyte.String
	var state int64
	out := new(rootOfTrust)
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&key, cbasn1.OCTET_STRING) || !body.ReadASN1Boolean(&out.Locked) ||
		!readNumber(&body, cbasn1.ENUM, &state) || !body.ReadASN1(&hash, cbasn1.OCTET_STRING) || !body.Empty() {
		return nil, false
	}
	out.State = BootState(state)
	return out, true
}

// An application is what Android says of who has asked for a key.
type application struct {
	Packages []string
	Signers  [][]byte // SHA-256 of their signing certificates
}

// parseApplication reads an AttestationApplicationId.
func parseApplication(der []byte) (a application, err error) {
	in, body, packages, signers := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil), cryptobyte.String(nil)
	unreadable := errors.New("the application's identity cannot be read")
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.ReadASN1(&packages, cbasn1.SET) || !body.ReadASN1(&signers, cbasn1.SET) || !body.Empty() {
		return a, unreadable
	}
	for !packages.Empty() {
		var info, name cryptobyte.String
		var version int64
		if len(a.Packages) == maxNumbers || !packages.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&name, cbasn1.OCTET_STRING) || !info.ReadASN1Integer(&version) || !info.Empty() {
			return a, unreadable
		}
		a.Packages = append(a.Packages, string(name))
	}
	for !signers.Empty() {
		var digest cryptobyte.String
		if len(a.Signers) == maxNumbers || !signers.ReadASN1(&digest, cbasn1.OCTET_STRING) {
			return a, unreadable
		}
		a.Signers = append(a.Signers, digest)
	}
	return a, nil
}
