package ocsp

import (
	"net/http"
	"time"
)

// DecodePath is [DecodeGET] for a path that is a string.
func DecodePath(path string) ([]byte, error) { return decodePath(path, nil) }

// Respond returns what makes a response that says good, from answer to checked octets.
func Respond(given Delegate, id CertID, at time.Time) func() ([]byte, error) {
	cfg := &Config{Validity: time.Minute}
	d, err := newDelegate(given, cfg)
	if err != nil {
		return func() ([]byte, error) { return nil, err }
	}
	return func() ([]byte, error) {
		x := &answers{producedAt: at, list: []Answer{{CertID: CertID{Raw: id.Raw}, ThisUpdate: at, NextUpdate: at.Add(time.Minute)}}}
		return d.respond(x)
	}
}

// ReadSimple takes a request apart that the quick reader takes.
func ReadSimple(der []byte) (certID, issuer, serial []byte, ok bool) {
	q, ok := readSimple(der)
	return q.certID, q.issuer, q.serial, ok
}

// Gatherer returns what answers just signed go through.
func Gatherer() (pass func()) { return new(gathering).pass }

// Gathered is how many go together.
const Gathered = gathered

// HTTPDate is a time as a head has it, and as net/http has it.
func HTTPDate(t time.Time) (ours, theirs string) {
	return string(appendDate([]byte("x"), t)[1:]), t.UTC().Format(http.TimeFormat)
}
