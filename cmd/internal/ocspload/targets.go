package ocspload

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/openjpki/jpki"
)

// A State is the answer expected for a certificate.
type State string

// The states. A suspended certificate is one whose answer is revoked with reason certificateHold.
const (
	Good      State = "good"
	Suspended State = "suspended"
	Revoked   State = "revoked"
	Unknown   State = "unknown" // never issued: unknown, or the OCSP status unauthorized
	Any       State = "any"     // whatever the responder says, if it is signed well
)

// States lists the states in the order in which tables show them.
var States = []State{Good, Suspended, Revoked, Unknown, Any}

// A Target is a certificate to ask about and the answer expected for it.
type Target struct {
	Issuer *x509.Certificate
	Serial jpki.Serial
	State  State
}

// maxTargets bounds what is read of a list.
const maxTargets = 50_000_000

// ReadTargets reads lines of the form serial,state[,issuer]: hexadecimal, one of the states, and the name of one of the
// issuers, which may be left out where there is only one. Empty lines and those that begin with # are skipped, and so is a
// heading.
func ReadTargets(in io.Reader, issuers map[string]*x509.Certificate) ([]Target, error) {
	var only *x509.Certificate
	if len(issuers) == 1 {
		for _, c := range issuers {
			only = c
		}
	}
	var out []Target
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || n == 1 && strings.HasPrefix(strings.ToLower(line), "serial") {
			continue
		}
		if len(out) == maxTargets {
			return nil, fmt.Errorf("more than %d serial numbers", maxTargets)
		}
		t, err := readTarget(strings.Split(line, ","), issuers, only)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, t)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("there is no serial number")
	}
	return out, nil
}

func readTarget(fields []string, issuers map[string]*x509.Certificate, only *x509.Certificate) (Target, error) {
	t := Target{Issuer: only, State: Any}
	text := strings.ToUpper(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(fields[0])), "0x"))
	if len(text)%2 == 1 {
		text = "0" + text
	}
	for strings.HasPrefix(text, "00") {
		text = text[2:]
	}
	var err error
	if t.Serial, err = jpki.ParseSerial(text); err != nil {
		return t, err
	}
	if len(fields) > 1 {
		switch s := State(strings.ToLower(strings.TrimSpace(fields[1]))); s {
		case Good, Suspended, Revoked, Unknown, Any:
			t.State = s
		default:
			return t, fmt.Errorf("state is none of good, suspended, revoked, unknown and any")
		}
	}
	if len(fields) > 2 {
		t.Issuer = issuers[strings.TrimSpace(fields[2])]
	}
	if t.Issuer == nil {
		return t, errors.New("issuer is missing or not one of those given")
	}
	return t, nil
}

// WriteTargets writes what [ReadTargets] reads. name gives each issuer its name.
func WriteTargets(out io.Writer, targets []Target, name func(*x509.Certificate) string) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "serial,state,issuer")
	for _, t := range targets {
		fmt.Fprintf(w, "%s,%s,%s\n", t.Serial, t.State, name(t.Issuer))
	}
	return w.Flush()
}
