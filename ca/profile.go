package ca

import (
	_ "embed"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

var (
	//go:embed profiles/sandbox.yaml
	sandboxProfile []byte
	//go:embed profiles/sandbox-next.yaml
	sandboxNextProfile []byte
)

// A Profile says what certificates contain: names, identifiers, extensions and their order. It is data; build.go only
// encodes it. Its fields mirror profiles/sandbox.yaml, which explains them.
type Profile struct {
	Name           string                        `yaml:"name"`
	CPS            string                        `yaml:"cps"` // URL of the certification practice statement
	Validity       Validity                      `yaml:"validity"`
	Characters     Characters                    `yaml:"characters"`
	Attributes     []AttributeType               `yaml:"attributes"`
	Authorities    map[jpki.CA]*AuthorityProfile `yaml:"authorities"`
	Kinds          map[jpki.Kind]*KindProfile    `yaml:"kinds"`
	Municipalities []Municipality                `yaml:"municipalities"`
}

// An AttributeType says which otherName carries which of the four attributes.
type AttributeType struct {
	Field string `yaml:"field"` // as in the JSON of jpki.Attributes
	Type  string `yaml:"type"`  // OID
}

// An AuthorityProfile names one CA. A name is a list of TYPE=value, one relative distinguished name each.
type AuthorityProfile struct {
	Subject []string `yaml:"subject"`
	AltName []string `yaml:"alt_name"` // its name in Japanese: subjectAltName of its own certificate, issuerAltName of those it issues
	CRLName []string `yaml:"crl_name"` // of a municipality's CRL distribution point

	// CRLShards spreads new certificates over that many CRLs, by their serial numbers; 0 has a CRL for each municipality.
	// CRLShardName names a shard's distribution point; it is needed as long as there are certificates that fell into one.
	CRLShards    int      `yaml:"crl_shards"`
	CRLShardName []string `yaml:"crl_shard_name"`
}

// A KindProfile says what one kind of certificate contains.
type KindProfile struct {
	Policy     string   `yaml:"policy"` // OID
	Keys       []string `yaml:"keys"`   // what the holder's key may be: rsa-2048, p-384
	Subject    []string `yaml:"subject"`
	KeyUsage   []string `yaml:"key_usage"`
	Extensions []string `yaml:"extensions"` // in order; "!" behind a name makes it critical
}

// A Municipality is a place a counter acts for, and a CRL partition where an authority has no shards.
type Municipality struct {
	Code         string `yaml:"code"` // five digits
	Prefecture   string `yaml:"prefecture"`
	Municipality string `yaml:"municipality"`
	Name         string `yaml:"name"` // in Japanese
}

// Sandbox returns the built-in profile: the rules of today's cards.
func Sandbox() *Profile { return builtIn(sandboxProfile) }

// SandboxNext returns the built-in profile of the next generation of cards: P-384 keys, certificates for ten years, renewal
// in the last year. Names and policies are those of [Sandbox]: both rule sets live under the same authorities.
func SandboxNext() *Profile { return builtIn(sandboxNextProfile) }

func builtIn(text []byte) *Profile {
	p, err := ParseProfile(text)
	if err != nil {
		panic("built-in profile: " + err.Error()) // a test parses it
	}
	return p
}

var municipalityCode = regexp.MustCompile(`^[0-9]{5}$`)

// ParseProfile reads a profile and reports everything that is wrong with it. Unknown keys are errors.
func ParseProfile(text []byte) (*Profile, error) {
	var p Profile
	if err := yaml.UnmarshalWithOptions(text, &p, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	checkName := func(where string, name []string) {
		if len(name) == 0 {
			complain("%s is empty", where)
		}
		for _, rdn := range name {
			typ, value, _ := strings.Cut(rdn, "=")
			if _, known := nameTypes[typ]; !known || value == "" {
				complain("%s: %q is not C=, O=, OU=, L= or CN= and a value", where, rdn)
			}
		}
	}
	checkOID := func(where, oid string) {
		if _, err := parseOID(oid); err != nil {
			complain("%s: %v", where, err)
		}
	}
	if p.Name == "" || p.CPS == "" {
		complain("name and cps are required")
	}
	wrong = append(wrong, p.Validity.check()...)
	wrong = append(wrong, p.Characters.check()...)
	for _, a := range p.Attributes {
		checkOID("attributes."+a.Field, a.Type)
		if _, ok := attributeValue(jpki.Attributes{}, a.Field); !ok {
			complain("attributes: unknown field %q", a.Field)
		}
	}
	for _, ca := range jpki.CAs {
		a := p.Authorities[ca]
		if a == nil {
			complain("authorities.%s is missing", ca)
			continue
		}
		checkName(string(ca)+".subject", a.Subject)
		checkName(string(ca)+".alt_name", a.AltName)
		checkName(string(ca)+".crl_name", a.CRLName)
		if a.CRLShards < 0 || a.CRLShards > crl.MaxShards {
			complain("%s.crl_shards is not 0 to %d", ca, crl.MaxShards)
		}
		if a.CRLShards > 0 || a.CRLShardName != nil {
			checkName(string(ca)+".crl_shard_name", a.CRLShardName)
			if !slices.ContainsFunc(a.CRLShardName, func(rdn string) bool { return strings.Contains(rdn, "{shard}") }) {
				complain("%s.crl_shard_name does not contain {shard}: all shards would have one name", ca)
			}
		}
	}
	for _, kind := range jpki.Kinds {
		k := p.Kinds[kind]
		if k == nil {
			complain("kinds.%s is missing", kind)
			continue
		}
		checkOID(string(kind)+".policy", k.Policy)
		checkName(string(kind)+".subject", k.Subject)
		if len(k.Keys) == 0 {
			complain("kinds.%s admits no keys", kind)
		}
		for _, key := range k.Keys {
			if _, ok := subjectKeys[key]; !ok {
				complain("kinds.%s: unknown kind of key %q", kind, key)
			}
		}
		for _, u := range k.KeyUsage {
			if _, ok := keyUsageBits[u]; !ok {
				complain("kinds.%s: unknown key usage %q", kind, u)
			}
		}
		for _, e := range k.Extensions {
			if _, ok := extensions[strings.TrimSuffix(e, "!")]; !ok {
				complain("kinds.%s: unknown extension %q", kind, e)
			}
		}
		if attributes := slices.ContainsFunc(k.Extensions, isExtension("subjectAltName")); attributes != (kind.CA() == jpki.SignCA) {
			complain("kinds.%s: signature certificates carry the attributes, in subjectAltName, and authentication certificates do not", kind)
		}
	}
	for i, m := range p.Municipalities {
		if !municipalityCode.MatchString(m.Code) || m.Prefecture == "" || m.Municipality == "" || m.Name == "" {
			complain("municipalities[%d] needs a five-digit code, prefecture, municipality and name", i)
		}
		if slices.ContainsFunc(p.Municipalities[:i], func(o Municipality) bool { return o.Code == m.Code }) {
			complain("municipality %s is listed twice", m.Code)
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("profile: %s", strings.Join(wrong, "; "))
	}
	return &p, nil
}

// municipality returns a place by code.
func (p *Profile) municipality(code string) (Municipality, bool) {
	i := slices.IndexFunc(p.Municipalities, func(m Municipality) bool { return m.Code == code })
	if i < 0 {
		return Municipality{}, false
	}
	return p.Municipalities[i], true
}

// attributeValue returns the value of one of the four attributes by its JSON name.
func attributeValue(a jpki.Attributes, field string) (string, bool) {
	switch field {
	case "name":
		return a.Name, true
	case "name_substitutes":
		return a.NameSubstitutes, true
	case "sex":
		return string(a.Sex), true
	case "birth_date":
		return string(a.BirthDate), true
	case "address":
		return a.Address, true
	case "address_substitutes":
		return a.AddressSubstitutes, true
	}
	return "", false
}

func parseOID(s string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not an object identifier", s)
		}
		oid = append(oid, n)
	}
	if len(oid) < 3 || oid[0] > 2 || (oid[0] < 2 && oid[1] > 39) {
		return nil, fmt.Errorf("%q is not an object identifier", s)
	}
	return oid, nil
}
