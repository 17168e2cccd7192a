package nightcheck

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openjpki/jpki"
)

// A Format is how lines are written.
type Format string

// The formats.
const (
	CSV    Format = "csv"    // the first line names the columns
	NDJSON Format = "ndjson" // a JSON object a line
)

const (
	maxLine      = 64 << 10 // octets
	maxReference = 256      // octets of a customer's reference
	maxFile      = 64 << 10 // octets of a certificate's file
	maxColumns   = 256
)

// A line is what a line says: a reference and a certificate, in one of three ways.
type line struct {
	Customer string `json:"customer"`

	Issuer    string `json:"issuer"` // sign-1, or the key identifier in hexadecimal
	Serial    string `json:"serial"` // hexadecimal
	NotBefore string `json:"not_before"`
	NotAfter  string `json:"not_after"`

	Certificate string `json:"certificate"`      // DER in base64
	File        string `json:"certificate_file"` // in the folder of certificates; PEM or DER
}

// places are where in a CSV the members of a line stand; -1 for what is not there.
type places [7]int

func (l *line) members() [7]*string {
	return [...]*string{&l.Customer, &l.Issuer, &l.Serial, &l.NotBefore, &l.NotAfter, &l.Certificate, &l.File}
}

// readHead reads the line that names the columns.
func readHead(text []byte) (places, error) {
	var p places
	fields, err := splitFields(nil, bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) // spreadsheets write a byte order mark
	if err != nil {
		return p, err
	}
	for i, name := range [...]string{"customer", "issuer", "serial", "not_before", "not_after", "certificate", "certificate_file"} {
		p[i] = -1
		for at, field := range fields {
			if string(field) != name {
				continue
			}
			if p[i] >= 0 {
				return p, errors.New("the column " + name + " is there twice")
			}
			p[i] = at
		}
	}
	if p[0] < 0 || min(p[1], p[2], p[3], p[4]) < 0 && p[5] < 0 && p[6] < 0 {
		return p, errors.New(`the first line names no column "customer", or none of "certificate", "certificate_file" and the four "issuer", "serial", "not_before" and "not_after"`)
	}
	return p, nil
}

// splitFields appends the fields of a line of a CSV to fields. They share memory with the line, but for those in quotes that have quotes in them.
func splitFields(fields [][]byte, text []byte) ([][]byte, error) {
	for n := 0; ; n++ {
		if n == maxColumns {
			return nil, errors.New("too many columns")
		}
		if len(text) > 0 && text[0] == '"' {
			field, rest, err := quoted(text[1:])
			if err != nil {
				return nil, err
			}
			fields = append(fields, field)
			if len(rest) == 0 {
				return fields, nil
			}
			text = rest[1:]
			continue
		}
		end := bytes.IndexByte(text, ',')
		field := text
		if end >= 0 {
			field = text[:end]
		}
		if bytes.IndexByte(field, '"') >= 0 {
			return nil, errors.New("a quotation mark inside a field without them")
		}
		fields = append(fields, field)
		if end < 0 {
			return fields, nil
		}
		text = text[end+1:]
	}
}

// quoted reads a field behind its first quotation mark; rest begins with a comma or is empty.
func quoted(text []byte) (field, rest []byte, err error) {
	for at := 0; ; {
		end := bytes.IndexByte(text[at:], '"')
		if end < 0 {
			return nil, nil, errors.New("a quotation mark is missing: a line is a record")
		}
		end += at
		if end+1 < len(text) && text[end+1] == '"' {
			at = end + 2
			continue
		}
		field, rest = text[:end], text[end+1:]
		if len(rest) > 0 && rest[0] != ',' {
			return nil, nil, errors.New("something follows a quotation mark")
		}
		if at > 0 {
			field = bytes.ReplaceAll(field, []byte(`""`), []byte(`"`))
		}
		return field, rest, nil
	}
}

// read reads a line, less its end; fields is room to work in. Of a line that cannot be read there may be the reference.
func (l *line) read(f Format, p *places, text []byte, fields [][]byte) ([][]byte, error) {
	*l = line{}
	var err error
	switch {
	case len(text) > maxLine:
		return fields, errors.New("the line is too long")
	case !utf8.Valid(text):
		return fields, errors.New("the line is not UTF-8")
	case f == NDJSON:
		err = l.readObject(text)
	default:
		fields, err = l.readFields(p, text, fields)
	}
	if wrong := checkReference(l.Customer); wrong != nil {
		l.Customer = ""
		err = cmp.Or(err, wrong)
	}
	return fields, err
}

func (l *line) readObject(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(l); err != nil {
		*l = line{}
		return errors.New("the line is not a JSON object of strings")
	}
	if _, err := d.Token(); err != io.EOF {
		*l = line{}
		return errors.New("something follows the JSON object")
	}
	return nil
}

func (l *line) readFields(p *places, text []byte, fields [][]byte) ([][]byte, error) {
	split, err := splitFields(fields[:0], text)
	if err != nil {
		return fields, err
	}
	for i, to := range l.members() {
		switch at := p[i]; {
		case at < 0:
		case at >= len(split):
			return split, errors.New("the line has too few columns")
		default:
			*to = string(split[at])
		}
	}
	return split, nil
}

func checkReference(s string) error {
	switch {
	case s == "":
		return errors.New("the customer's reference is missing")
	case len(s) > maxReference:
		return errors.New("the customer's reference is too long")
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }):
		return errors.New("the customer's reference has a control character")
	}
	return nil
}

// A question is what a line asks.
type question struct {
	serial              jpki.Serial
	notBefore, notAfter time.Time
	source              int    // -1 if there is none for the issuer
	issuer              string // its name then
}

func (c *Checker) name(q *question) string {
	if q.source >= 0 {
		return c.cfg.Sources[q.source].ID.String() + "/" + q.serial.String()
	}
	return q.issuer + "/" + q.serial.String()
}

// question finds out which certificate a line is about. Errors are short and quote nothing of the line.
func (c *Checker) question(l *line) (q question, err error) {
	q.source = -1
	switch {
	case l.Certificate != "":
		der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(l.Certificate))
		if err != nil {
			return q, errors.New("the certificate is not base64")
		}
		return c.ofCertificate(der)
	case l.File != "":
		der, err := c.file(l.File)
		if err != nil {
			return q, err
		}
		return c.ofCertificate(der)
	}
	if err := setSerial(&q.serial, l.Serial); err != nil {
		return q, err
	}
	var ok1, ok2 bool
	if q.notBefore, ok1 = readTime(l.NotBefore); !ok1 {
		return q, errors.New("not_before is not a time")
	}
	if q.notAfter, ok2 = readTime(l.NotAfter); !ok2 || q.notAfter.Before(q.notBefore) {
		return q, errors.New("not_after is not a time, or before not_before")
	}
	n, ok := c.byName[l.Issuer]
	if !ok {
		if n, ok = c.byName[strings.ToLower(l.Issuer)]; !ok {
			if _, err := jpki.ParseIssuerID(l.Issuer); err != nil && !isKeyID(l.Issuer) {
				return q, errors.New("issuer is neither like sign-1 nor a key identifier")
			}
			q.issuer = l.Issuer
			return q, nil
		}
	}
	q.source = n
	return q, nil
}

func isKeyID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) > 0 && len(b) <= 32
}

// setSerial reads hexadecimal digits, upper or lower case.
func setSerial(s *jpki.Serial, digits string) error {
	var octets [21]byte
	if len(digits) == 0 || len(digits) > 2*len(octets) {
		return errors.New("serial is not a serial number")
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	n, err := hex.Decode(octets[:], []byte(digits))
	if err != nil || s.SetBytes(octets[:n]) != nil {
		*s = jpki.Serial{}
		return errors.New("serial is not a serial number")
	}
	return nil
}

func readTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}

func (c *Checker) file(name string) ([]byte, error) {
	if c.cfg.Files == nil {
		return nil, errors.New("there is no folder of certificates")
	}
	if !fs.ValidPath(name) {
		return nil, errors.New("certificate_file is not a name in the folder of certificates")
	}
	f, err := c.cfg.Files.Open(name)
	if err != nil {
		return nil, errors.New("the certificate's file cannot be opened")
	}
	defer func() { _ = f.Close() }()
	octets, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil || len(octets) > maxFile {
		return nil, errors.New("the certificate's file cannot be read, or is too long")
	}
	if block, _ := pem.Decode(octets); block != nil {
		octets = block.Bytes
	}
	return octets, nil
}

// ofCertificate reads a certificate and verifies that the issuer has signed it.
func (c *Checker) ofCertificate(der []byte) (q question, err error) {
	q.source = -1
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return q, errors.New("not a certificate")
	}
	if q.serial, err = jpki.SerialFromBig(cert.SerialNumber); err != nil {
		return q, errors.New("the certificate's serial number is none")
	}
	q.notBefore, q.notAfter = cert.NotBefore, cert.NotAfter
	n, ok := c.byName[hex.EncodeToString(cert.AuthorityKeyId)]
	if !ok {
		q.issuer = hex.EncodeToString(cert.AuthorityKeyId[:min(32, len(cert.AuthorityKeyId))])
		return q, nil
	}
	if cert.CheckSignatureFrom(c.cfg.Sources[n].Cert) != nil {
		return q, errors.New("the issuer has not signed the certificate")
	}
	q.source = n
	return q, nil
}
