package ocsp

import "time"

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
