package nightcheck

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A Class is what has become of a certificate, in the words that a relying party acts on.
type Class string

// The classes. Whoever needs the holder's present attributes asks for them with the holder's consent; no list has them.
const (
	Unchanged  Class = "unchanged"   // good
	Changed    Class = "changed"     // revoked because what it says is no longer so: a move, a new name (affiliationChanged)
	Renewed    Class = "renewed"     // another certificate took its place (superseded)
	Suspended  Class = "suspended"   // perhaps for a time (certificateHold)
	Ended      Class = "ended"       // revoked for any other reason
	Revoked    Class = "revoked"     // revoked, and the source does not say why, as snapshots do not
	NotCovered Class = "not-covered" // the source cannot know: expired, younger than it, or the source is out of date
	Unknown    Class = "unknown"     // there is no source for the issuer
	Unreadable Class = "unreadable"  // the line cannot be read, or the certificate is not the issuer's
)

// Classes are all of them, in the order in which tables show them.
var Classes = []Class{Unchanged, Changed, Renewed, Suspended, Ended, Revoked, NotCovered, Unknown, Unreadable}

// classOf says what a reason means to a relying party.
func classOf(r jpki.Reason) Class {
	switch r {
	case jpki.AffiliationChanged:
		return Changed
	case jpki.Superseded:
		return Renewed
	case jpki.CertificateHold:
		return Suspended
	}
	return Ended
}

// final reports whether a certificate of the class never becomes good again.
func (c Class) final() bool { return c == Changed || c == Renewed || c == Ended || c == Revoked }

// SourceKind is what a result was taken from.
type SourceKind string

// The kinds of sources.
const (
	FromList     SourceKind = "crl"
	FromSnapshot SourceKind = "snapshot"
)

// A Result is what there is to say about one line.
type Result struct {
	Customer    string // the relying party's reference, as in the line
	Certificate string // issuer and serial, sign-1/52A0…; of an issuer that is not ours its name as in the line. Empty if the line cannot be read
	Class       Class
	Reason      string     // RFC 5280's word, if the source has one
	Since       time.Time  // when the state began; zero if the source does not say
	After       time.Time  // without Since: the state began after this time, that of the source of the earlier night; zero if there was none
	Source      SourceKind // empty if none was asked
	SourceTime  time.Time  // what the source's statuses are true of (thisUpdate)
	Was         Class      // in the earlier night; empty if there was none or it had no such line
	Detail      string     // why a line cannot be read, with its number; nothing of the line is quoted
}

// columns are those of a result, in the order of the CSV and as members of the NDJSON.
var columns = [...]string{"customer", "certificate", "result", "reason", "since", "after", "source", "source_time", "was", "detail"}

func (r *Result) fields() [len(columns)]string {
	return [...]string{r.Customer, r.Certificate, string(r.Class), r.Reason, text(r.Since), text(r.After), string(r.Source), text(r.SourceTime), string(r.Was), r.Detail}
}

func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// append appends a result as a line.
func (f Format) append(b []byte, r *Result) []byte {
	fields := r.fields()
	if f == CSV {
		for i, field := range fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendField(b, field)
		}
		return append(b, '\n')
	}
	b = append(b, '{')
	for i, field := range fields {
		if field == "" && i != 0 {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), columns[i]...), `":`...)
		b = appendString(b, field)
	}
	return append(b, "}\n"...)
}

// appendField appends a field of a CSV, in quotes if it needs them (RFC 4180 §2).
func appendField(b []byte, field string) []byte {
	if !strings.ContainsAny(field, `", `) {
		return append(b, field...)
	}
	b = append(b, '"')
	for i := range len(field) {
		if field[i] == '"' {
			b = append(b, '"')
		}
		b = append(b, field[i])
	}
	return append(b, '"')
}

// appendString appends a JSON string; fields are UTF-8 without control characters.
func appendString(b []byte, s string) []byte {
	if strings.ContainsAny(s, `"\`) {
		quoted, _ := json.Marshal(s) // a string can always be written
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), s...), '"')
}
