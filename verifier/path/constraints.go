package path

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// nameConstraints is the extension of that name (RFC 5280 §4.2.1.10).
type nameConstraints struct {
	permitted, excluded []subtree
	kinds               uint16 // bit n: there is a subtree of kind n
}

// A subtree is a GeneralSubtree.
type subtree struct {
	generalName
	text string // of a dNSName, rfc822Name or URI: lower case, except a mailbox's local part
	// unread says that the subtree cannot be evaluated: it is of a kind nobody defined the meaning for, or has a minimum or
	// maximum. A certificate that has a name of its kind is refused (§6.1.4, §4.2.1.10).
	unread bool
	prefix netip.Prefix
}

func readConstraints(value der) (*nameConstraints, error) {
	var body, permitted, excluded der
	var hasPermitted, hasExcluded bool
	if !value.ReadASN1(&body, tagSequence) || !value.Empty() || !body.ReadOptionalASN1(&permitted, &hasPermitted, tagged(0, true)) ||
		!body.ReadOptionalASN1(&excluded, &hasExcluded, tagged(1, true)) || !body.Empty() {
		return nil, errDER
	}
	if !hasPermitted && !hasExcluded {
		return nil, errors.New("nameConstraints without any")
	}
	n := &nameConstraints{}
	var err error
	if hasPermitted {
		if n.permitted, err = n.readSubtrees(permitted); err != nil {
			return nil, err
		}
	}
	if hasExcluded {
		n.excluded, err = n.readSubtrees(excluded)
	}
	return n, err
}

func (n *nameConstraints) readSubtrees(list der) ([]subtree, error) {
	var all []subtree
	for !list.Empty() {
		var one der
		if len(all) == maxNames {
			return nil, errors.New("more constraints than admitted")
		}
		if !list.ReadASN1(&one, tagSequence) {
			return nil, errDER
		}
		g, err := readGeneralName(&one)
		if err != nil {
			return nil, err
		}
		t := subtree{generalName: g}
		var minimum, maximum der
		var hasMinimum, hasMaximum bool
		if !one.ReadOptionalASN1(&minimum, &hasMinimum, tagged(0, false)) || !one.ReadOptionalASN1(&maximum, &hasMaximum, tagged(1, false)) || !one.Empty() {
			return nil, errDER
		}
		t.unread = hasMinimum && (len(minimum) != 1 || minimum[0] != 0) || hasMaximum
		if err := t.read(); err != nil {
			return nil, err
		}
		n.kinds |= 1 << g.kind
		all = append(all, t)
	}
	if all == nil {
		return nil, errors.New("a list of constraints without one")
	}
	return all, nil
}

// read checks that the base has the form a constraint of its kind must have.
func (t *subtree) read() error {
	bad := errors.New("a constraint that is no " + kindNames[t.kind])
	text := string(t.value)
	switch t.kind {
	case dnsName:
		if text != "" && !isHost(text, false) {
			return bad
		}
		t.text = strings.ToLower(text)
	case emailName:
		switch local, host, isMailbox := splitMailbox(text); {
		case isMailbox:
			t.text = local + "@" + strings.ToLower(host)
		case !isHost(strings.TrimPrefix(text, "."), false):
			return bad
		default:
			t.text = strings.ToLower(text)
		}
	case uriName:
		if !isHost(strings.TrimPrefix(text, "."), false) {
			return bad
		}
		t.text = strings.ToLower(text)
	case ipName:
		half := len(t.value) / 2
		if half != 4 && half != 16 || len(t.value) != 2*half {
			return bad
		}
		bits, ok := maskBits(t.value[half:])
		if !ok {
			return bad
		}
		address, _ := netip.AddrFromSlice(t.value[:half])
		t.prefix = netip.PrefixFrom(address, bits).Masked()
	case directoryName:
	default:
		t.unread = true
	}
	return nil
}

// maskBits returns how many ones an address mask begins with, and whether only zeros follow.
func maskBits(mask []byte) (int, bool) {
	bits := 0
	for bits < 8*len(mask) && mask[bits/8]&(0x80>>(bits%8)) != 0 {
		bits++
	}
	for i := bits; i < 8*len(mask); i++ {
		if mask[i/8]&(0x80>>(i%8)) != 0 {
			return 0, false
		}
	}
	return bits, true
}

// isHost reports whether a text is a DNS name in preferred syntax (RFC 1034 §3.5), with the underscore that is in use; with
// wildcard also "*" as its first label.
func isHost(text string, wildcard bool) bool {
	if wildcard {
		text = strings.TrimPrefix(text, "*.")
	}
	if text == "" || len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return true
}

// splitMailbox takes a mailbox apart (RFC 5321 §4.1.2). What a quoted local part stands for is what it is compared as.
func splitMailbox(text string) (local, host string, ok bool) {
	if strings.HasPrefix(text, `"`) {
		var b strings.Builder
		i := 1
		for ; i < len(text) && text[i] != '"'; i++ {
			if text[i] == '\\' {
				i++
			}
			if i == len(text) || text[i] < ' ' || text[i] > '~' {
				return "", "", false
			}
			b.WriteByte(text[i])
		}
		if i >= len(text) {
			return "", "", false
		}
		rest, found := strings.CutPrefix(text[i+1:], "@")
		return b.String(), rest, found && isHost(rest, false)
	}
	local, host, ok = strings.Cut(text, "@")
	if !ok || !isHost(host, false) {
		return "", "", false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune(`()<>[]:;@\,"`, r)
		}) {
			return "", "", false
		}
	}
	return local, host, true
}

// A subjectName is one name of a certificate in the form constraints are held against.
type subjectName struct {
	generalName
	local, host string // of a mailbox, a dNSName or a URI; lower case, except local
	address     netip.Addr
	wild        bool // a dNSName that began with "*."
	unread      bool // a name of its kind that cannot be evaluated
}

// smtpUTF8Mailbox is how an otherName with a mailbox beyond ASCII begins (RFC 9598 §3).
const smtpUTF8Mailbox = "\x06\x08\x2b\x06\x01\x05\x05\x07\x08\x09"

// subjectNames returns the names of a certificate that constraints apply to: the subject, unless empty, the alternative
// names, and the addresses in the subject. RFC 5280 §4.2.1.10 asks for these last where there are no alternative names only;
// they are bound always, since readers show them.
func (c *Certificate) subjectNames() []subjectName {
	names := make([]subjectName, 0, 1+len(c.alternative)+len(c.Subject.emails))
	if !c.Subject.Empty() {
		names = append(names, subjectName{generalName: generalName{kind: directoryName, dn: c.Subject}})
	}
	for _, g := range c.alternative {
		names = append(names, readSubjectName(g))
		if g.kind == otherName && strings.HasPrefix(string(g.value), smtpUTF8Mailbox) { // RFC 9598 §6: bound by what binds mailboxes
			names = append(names, subjectName{generalName: generalName{kind: emailName}, unread: true})
		}
	}
	for _, address := range c.Subject.emails {
		names = append(names, readSubjectName(generalName{kind: emailName, value: []byte(address)}))
	}
	return names
}

func readSubjectName(g generalName) subjectName {
	n := subjectName{generalName: g}
	text := string(g.value)
	switch g.kind {
	case dnsName:
		n.unread = !isHost(text, true)
		n.host = strings.ToLower(text)
		n.host, n.wild = strings.CutPrefix(n.host, "*.")
	case emailName:
		var ok bool
		n.local, n.host, ok = splitMailbox(text)
		n.host = strings.ToLower(n.host)
		n.unread = !ok
	case uriName:
		u, err := url.Parse(text)
		if err != nil {
			n.unread = true
			break
		}
		n.host = strings.ToLower(u.Hostname())
		_, notIP := netip.ParseAddr(n.host)
		n.unread = u.Opaque != "" || notIP == nil || !isHost(n.host, false) || isDottedNumber(n.host)
	case ipName:
		n.address, _ = netip.AddrFromSlice(g.value)
		n.unread = !n.address.IsValid()
	}
	return n
}

// isDottedNumber reports whether the last label is a number, so that some would read the host as an address.
func isDottedNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return strings.Trim(last, "0123456789") == ""
}

// below reports whether host is base or a name under it.
func below(host, base string) bool {
	return base == "" || host == base || strings.HasSuffix(host, base) && host[len(host)-len(base)-1] == '.'
}

// contains reports whether a name lies in the subtree. Both are of one kind and can be evaluated.
func (t *subtree) contains(n *subjectName) bool {
	switch t.kind {
	case directoryName:
		return n.dn.under(t.dn)
	case dnsName:
		return below(n.host, t.text)
	case uriName:
		if strings.HasPrefix(t.text, ".") {
			return strings.HasSuffix(n.host, t.text) && len(n.host) > len(t.text)
		}
		return n.host == t.text
	case emailName:
		switch at := strings.LastIndexByte(t.text, '@'); {
		case at >= 0:
			return n.local == t.text[:at] && n.host == t.text[at+1:]
		case strings.HasPrefix(t.text, "."):
			return strings.HasSuffix(n.host, t.text) && len(n.host) > len(t.text)
		}
		return n.host == t.text
	case ipName:
		return t.prefix.Contains(n.address)
	}
	return false
}

// touches reports whether the subtree contains any name that n stands for: a wildcard stands for names of one label more.
func (t *subtree) touches(n *subjectName) bool {
	if t.contains(n) {
		return true
	}
	if t.kind != dnsName || !n.wild {
		return false
	}
	label, rest, _ := strings.Cut(t.text, ".")
	return label != "" && rest == n.host
}

// admit reports why the constraints do not admit a name; "" if they do.
func (nc *nameConstraints) admit(n *subjectName) string {
	if nc.kinds&(1<<n.kind) == 0 {
		return ""
	}
	if n.unread {
		return kindNames[n.kind] + " that cannot be held against the constraints"
	}
	for i := range nc.excluded {
		t := &nc.excluded[i]
		switch {
		case t.kind != n.kind:
		case t.unread:
			return "constraints for " + kindNames[n.kind] + " cannot be evaluated"
		case t.touches(n):
			return kindNames[n.kind] + " excluded"
		}
	}
	limited, inside := false, false
	for i := range nc.permitted {
		t := &nc.permitted[i]
		if t.kind != n.kind {
			continue
		}
		if t.unread {
			return "constraints for " + kindNames[n.kind] + " cannot be evaluated"
		}
		limited = true
		inside = inside || t.contains(n)
	}
	if limited && !inside {
		return kindNames[n.kind] + " outside what is permitted"
	}
	return ""
}
