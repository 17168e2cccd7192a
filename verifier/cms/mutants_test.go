package cms_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/cms"
)

// A piece is an element of DER, taken apart as far as its tags say that it is made of elements.
type piece struct {
	at      string // where it stands: the numbers of its ancestors and its own among their siblings
	tag     byte
	content []byte // of one that is not constructed
	parts   []*piece
}

func takeApart(t testing.TB, der []byte, at string) (p *piece, rest []byte) {
	t.Helper()
	header, length := 2, int(der[1])
	if length > 0x80 {
		n := length & 0x7f
		header, length = 2+n, 0
		for _, b := range der[2:header] {
			length = length<<8 | int(b)
		}
	}
	p, rest = &piece{at: at, tag: der[0], content: der[header : header+length]}, der[header+length:]
	if p.tag&0x20 != 0 {
		for inner := p.content; len(inner) > 0; {
			var part *piece
			part, inner = takeApart(t, inner, strings.TrimPrefix(fmt.Sprintf("%s.%d", at, len(p.parts)), "."))
			p.parts = append(p.parts, part)
		}
	}
	return p, rest
}

func (p *piece) der() []byte {
	if p.tag&0x20 == 0 {
		return tlv(p.tag, p.content)
	}
	var parts [][]byte
	for _, part := range p.parts {
		parts = append(parts, part.der())
	}
	return tlv(p.tag, parts...)
}

// all returns an element and all that are in it.
func (p *piece) all() []*piece {
	out := []*piece{p}
	for _, part := range p.parts {
		out = append(out, part.all()...)
	}
	return out
}

// mutant changes one thing in a message and says what and where: a bit, or an element that is taken out, put in twice,
// exchanged with its neighbour, emptied, made longer, tagged otherwise, or put into another's place. Lengths are right.
func mutant(t testing.TB, der []byte, rng *mathrand.Rand) (out []byte, what, at string) {
	t.Helper()
	root, _ := takeApart(t, der, "")
	all := root.all()
	victim := all[1+rng.IntN(len(all)-1)]
	var parent *piece
	var index int
	for _, p := range all {
		if i := slices.Index(p.parts, victim); i >= 0 {
			parent, index = p, i
		}
	}
	switch rng.IntN(8) {
	case 0:
		what, parent.parts = "taken out", slices.Delete(parent.parts, index, index+1)
	case 1:
		what, parent.parts = "twice", slices.Insert(parent.parts, index, victim)
	case 2:
		what = "exchanged"
		other := (index + 1) % len(parent.parts)
		parent.parts[index], parent.parts[other] = parent.parts[other], parent.parts[index]
	case 3:
		what, victim.content, victim.parts = "emptied", nil, nil
	case 4:
		if what = "longer"; victim.tag&0x20 != 0 {
			victim.parts = append(victim.parts, &piece{tag: 5})
		} else {
			victim.content = append(bytes.Clone(victim.content), byte(rng.IntN(256)))
		}
	case 5:
		what = "tagged otherwise"
		victim.tag ^= 1 << rng.IntN(5)
	case 6:
		other := all[1+rng.IntN(len(all)-1)]
		if slices.Contains(other.all(), parent) { // would never end
			other = &piece{tag: 5}
		}
		what, parent.parts[index] = "replaced", other
	default:
		if what = "a bit"; len(victim.content) > 0 && victim.tag&0x20 == 0 {
			victim.content = bytes.Clone(victim.content)
			victim.content[rng.IntN(len(victim.content))] ^= 1 << rng.IntN(8)
		} else {
			victim.tag ^= 0x80
		}
	}
	return root.der(), what, victim.at
}

// looser are the changes that are no reason for us to refuse and one for openssl: where, by a prefix of the place, what, and why.
var looser = []struct{ at, what, why string }{
	{"1.0.0", "", "version of SignedData: says nothing that the fields do not say"},
	{"1.0.1", "", "digestAlgorithms: a hint for those who hash while they read (RFC 5652 §5.1)"},
	{"1.0.3", "", "certificates: which is the signer's is settled by its signed digest; others are read by who needs them"},
	{"1.0.4.0.3", "exchanged", "order of signed attributes: signed in the order of DER, whatever order they stand in (RFC 5652 §5.4)"},
}

// TestMutantsAgainstOpenSSL changes one thing after the other in valid messages: nothing that openssl refuses is intact here,
// but for what is named in looser, and what both accept has the same content.
func TestMutantsAgainstOpenSSL(t *testing.T) {
	file := needOpenSSL(t)
	const mutants = 2000
	for name, id := range map[string]*identity{"RSA": rsaID, "P-256": ecID} {
		for _, attached := range []bool{true, false} {
			rng := mathrand.New(mathrand.NewPCG(4, 8)) // the same changes each time
			der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{
				Certificate: id.der, Signer: id.key, Rand: rand.Reader, SigningTime: noon, Attached: attached, MIMEType: "text/plain",
			})
			if err != nil {
				t.Fatal(err)
			}
			writeIdentity(t, id, file("key"), file("cert"))
			write(t, file("content"), text)
			accepts := func(der []byte, level cms.Level) bool {
				write(t, file("message"), der)
				args := []string{"cms", "-verify", "-binary", "-inform", "DER", "-in", file("message"), "-CAfile", file("cert"), "-attime", fmt.Sprint(noon.Unix()), "-purpose", "any", "-out", file("out")}
				if level != cms.LevelCMS {
					args = append(args, "-cades")
				}
				if !attached {
					args = append(args, "-content", file("content"))
				}
				return exec.CommandContext(t.Context(), "openssl", args...).Run() == nil && (!attached || bytes.Equal(read(t, file("out")), contentOf(der)))
			}
			if !accepts(der, cms.LevelB) {
				t.Fatalf("%s: openssl does not accept the message", name)
			}
			seen := map[string]bool{string(der): true}
			intact, refused := map[string]int{}, 0
			for range mutants {
				changed, what, at := mutant(t, der, rng)
				if seen[string(changed)] {
					continue
				}
				seen[string(changed)] = true
				level, ok := intactLevel(changed, attached)
				if !ok {
					refused++
					continue
				}
				why := "openssl accepts it, too"
				if !accepts(changed, level) {
					if why = excuse(at, what); why == "" {
						t.Errorf("%s, attached %v: element %s %s: intact here (%s), refused by openssl: %s", name, attached, at, what, level, hex.EncodeToString(changed))
					}
				}
				intact[why]++
			}
			if refused < mutants/3 {
				t.Errorf("%s: only %d refused", name, refused)
			}
			t.Logf("%s, attached %v: %d of %d changed messages refused; intact: %v", name, attached, refused, len(seen)-1, intact)
		}
	}
}

func excuse(at, what string) string {
	for _, l := range looser {
		if (at == l.at || strings.HasPrefix(at, l.at+".")) && (l.what == "" || l.what == what) {
			return l.why
		}
	}
	return ""
}

// intactLevel reports whether all signatures of a message are intact, and the level of the first.
func intactLevel(der []byte, attached bool) (cms.Level, bool) {
	d, err := cms.Parse(der)
	if err != nil || d.Detached == attached {
		return "", false
	}
	in := cms.Input{}
	if !attached {
		in.Content = bytes.NewReader(text)
	}
	signatures, err := d.Verify(in)
	if err != nil || len(signatures) == 0 {
		return "", false
	}
	for _, s := range signatures {
		if s.Integrity != cms.Intact {
			return "", false
		}
	}
	return signatures[0].Level, true
}

func contentOf(der []byte) []byte {
	d, err := cms.Parse(der)
	if err != nil {
		return nil
	}
	return d.Content
}
