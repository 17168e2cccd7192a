package path

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
)

// The purposes in use (RFC 5280 §4.2.1.12), and the one that stands for all.
const (
	ServerAuth      OID = "\x2b\x06\x01\x05\x05\x07\x03\x01"
	ClientAuth      OID = "\x2b\x06\x01\x05\x05\x07\x03\x02"
	CodeSigning     OID = "\x2b\x06\x01\x05\x05\x07\x03\x03"
	EmailProtection OID = "\x2b\x06\x01\x05\x05\x07\x03\x04"
	TimeStamping    OID = "\x2b\x06\x01\x05\x05\x07\x03\x08"
	OCSPSigning     OID = "\x2b\x06\x01\x05\x05\x07\x03\x09"
	AnyPurpose      OID = "\x55\x1d\x25\x00"
)

// A WantedName is a name a certificate must have been issued for. The subject is not looked at: names of hosts and
// mailboxes are alternative names (RFC 9525 §2).
type WantedName struct {
	Kind  NameKind
	Value string
}

// A NameKind is what a WantedName names.
type NameKind string

// The kinds.
const (
	Host    NameKind = "host"    // also found under a certificate's "*" for its first label
	Address NameKind = "address" // IPv4 or IPv6
	Mailbox NameKind = "mailbox"
)

// wanted checks what was asked for beyond RFC 5280 §6.1.
func (s *search) wanted(anchor *Certificate) (index int, p *problem) {
	c := s.path[0]
	if c.HasKeyUsage && c.KeyUsage&s.inputs.KeyUsage != s.inputs.KeyUsage {
		return 0, &problem{KeyUsageWrong, "the key is not for this"}
	}
	for i, c := range s.path {
		if i > 0 && !s.inputs.ChainPurposes {
			break
		}
		if !c.admitsPurpose(s.inputs.Purposes) {
			return i, &problem{PurposeWrong, "extKeyUsage does not admit the purpose"}
		}
	}
	if s.inputs.ChainPurposes && !s.j.v.bare && !anchor.admitsPurpose(s.inputs.Purposes) {
		return len(s.path), &problem{PurposeWrong, "extKeyUsage does not admit the purpose"}
	}
	for _, name := range s.inputs.Names {
		if !c.hasName(name) {
			return 0, &problem{NameMismatch, "not issued for the " + string(name.Kind) + " asked about"}
		}
	}
	if s.inputs.Profile != NoProfile {
		for i, c := range append(slices.Clone(s.path), anchor) {
			if why := checkProfile(c, s.inputs.Profile, i > 0); why != "" {
				return i, &problem{ProfileViolated, why}
			}
		}
	}
	return -1, nil
}

func (c *Certificate) admitsPurpose(wanted []OID) bool {
	if len(wanted) == 0 || c.Purposes == nil {
		return true
	}
	return slices.ContainsFunc(c.Purposes, func(p OID) bool { return p == AnyPurpose || slices.Contains(wanted, p) })
}

// hasName reports whether a name is among the alternative names.
func (c *Certificate) hasName(w WantedName) bool {
	switch w.Kind {
	case Host:
		host := strings.ToLower(strings.TrimSuffix(w.Value, "."))
		if !isHost(host, false) {
			return false
		}
		_, parent, _ := strings.Cut(host, ".")
		return c.anyName(dnsName, func(n *subjectName) bool {
			if n.wild {
				return parent != "" && n.host == parent
			}
			return n.host == host
		})
	case Address:
		address, err := netip.ParseAddr(w.Value)
		return err == nil && c.anyName(ipName, func(n *subjectName) bool { return n.address == address.Unmap() || n.address == address })
	case Mailbox:
		local, host, ok := splitMailbox(w.Value)
		return ok && c.anyName(emailName, func(n *subjectName) bool { return n.local == local && n.host == strings.ToLower(host) })
	}
	return false
}

func (c *Certificate) anyName(kind uint8, is func(*subjectName) bool) bool {
	for _, g := range c.alternative {
		if g.kind != kind {
			continue
		}
		if n := readSubjectName(g); !n.unread && is(&n) {
			return true
		}
	}
	return false
}

// A Profile says which of the rules that are made for issuers, nearly all in RFC 5280 §4, are held against certificates, beyond those that
// validation asks about. Old and foreign certificates break some without anybody being deceived.
type Profile int

// The profiles. Each demands more than the one before.
const (
	NoProfile       Profile = iota
	CriticalProfile         // what restricts an authority is critical, so that no reader passes over it
	FullProfile             // every rule there is in checkProfile
)

// checkProfile returns which rule a certificate breaks, "" if none. issuer says that it stands in the path as an authority.
func checkProfile(c *Certificate, profile Profile, issuer bool) string {
	critical := func(oid string) bool { e := c.extension(oid); return e != nil && e.critical }
	passedOver := func(oid string) bool { e := c.extension(oid); return e != nil && !e.critical }
	selfSigned := c.SelfIssued() && (len(c.AuthorityKeyID) == 0 || string(c.AuthorityKeyID) == string(c.SubjectKeyID))
	rules := []struct {
		profile Profile
		broken  bool
		what    string
	}{
		{CriticalProfile, c.CA && passedOver(extBasic), "basic constraints that are not critical (§4.2.1.9)"},
		{CriticalProfile, passedOver(extConstraints), "name constraints that are not critical (§4.2.1.10)"},
		{CriticalProfile, passedOver(extPolicyLimits), "policy constraints that are not critical (§4.2.1.11)"},
		{CriticalProfile, passedOver(extInhibitAny), "inhibit anyPolicy that is not critical (§4.2.1.14)"},

		{FullProfile, c.Version != 3, "not of version 3 (§4.1.2.1)"},
		{FullProfile, c.Serial[0] >= 0x80 || len(c.Serial) == 1 && c.Serial[0] == 0, "serial number is not positive (§4.1.2.2)"},
		{FullProfile, len(c.Serial) > 20 && (len(c.Serial) > 21 || c.Serial[0] != 0), "serial number of more than 20 octets (§4.1.2.2)"},
		{FullProfile, len(c.AuthorityKeyID) == 0 && !selfSigned, "no authority key identifier (§4.2.1.1)"},
		{FullProfile, critical(extAuthorityKeyID), "critical authority key identifier (§4.2.1.1)"},
		{FullProfile, c.CA && len(c.SubjectKeyID) == 0, "authority without subject key identifier (§4.2.1.2)"},
		{FullProfile, critical(extSubjectKeyID), "critical subject key identifier (§4.2.1.2)"},
		{FullProfile, c.HasKeyUsage && c.KeyUsage == 0, "key usage without any (§4.2.1.3)"},
		{FullProfile, issuer && !c.HasKeyUsage, "authority without key usage (§4.2.1.3)"},
		{FullProfile, c.KeyUsage&CertSign != 0 && !c.CA, "key usage of an authority, but none (§4.2.1.9)"},
		{FullProfile, c.PathLength >= 0 && !c.CA, "path length of what is no authority (§4.2.1.9)"},
		{FullProfile, partialOctet(c), "RSA modulus that is no whole number of octets (CA/Browser Forum's Baseline Requirements §6.1.5)"},
		{FullProfile, critical(extFreshest), "critical freshest CRL (§4.2.1.15)"},
		{FullProfile, critical(extAuthorityAccess), "critical authority information access (§4.2.2.1)"},
	}
	for _, r := range rules {
		if r.broken && r.profile <= profile {
			return r.what
		}
	}
	return ""
}

func partialOctet(c *Certificate) bool {
	key, err := c.Key()
	return err == nil && key.Kind == primitive.RSA && key.Bits%8 != 0
}
