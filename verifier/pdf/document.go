package pdf

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// What can be wrong with a document or a signature. Errors of Read and of a Verdict wrap one of these.
var (
	ErrMalformed   = errors.New("PDF is malformed")
	ErrEncrypted   = errors.New("PDF is encrypted") // nothing encrypted is read
	ErrUnsupported = errors.New("signature is of a kind that is not checked")
	ErrCoverage    = errors.New("signature does not cover its revision entirely")
	ErrDigest      = errors.New("signed revision has been changed")
	ErrSignature   = errors.New("signature is not intact")
	ErrModified    = errors.New("document was changed after signing in a way that is not allowed")
)

// A SubFilter is the encoding of a signature (ISO 32000-2 table 260, EN 319 142-1 §5).
type SubFilter string

// The encodings that are checked. Others are listed and refused by name.
const (
	PKCS7    SubFilter = "adbe.pkcs7.detached"
	CAdES    SubFilter = "ETSI.CAdES.detached"
	DocStamp SubFilter = "ETSI.RFC3161" // a document time-stamp
)

// A Document is a PDF file and its signatures.
type Document struct {
	// Signatures stand in the order in which they were made: the revision they cover, then that of the form.
	Signatures []*Signature
	// Revisions are the positions at which saves end, oldest first.
	Revisions []int64
	// Certified is the signature that the catalog names as the author's (Perms, DocMDP); nil if there is none.
	Certified *Signature
	// Hashes may be set before Verify: hash functions by which [cms.Signature.Covered] will be asked.
	Hashes []crypto.Hash

	file   *file
	steps  []func() step   // what each revision changed; computed once, when asked for
	stores []func() *Store // likewise
}

// Claims are what the signature dictionary says. It is signed, and unproven.
type Claims struct {
	Name, Reason, Location, Contact string
	Time                            time.Time // M; zero if not stated
}

// Permissions are what the signer allows afterwards (DocMDP, ISO 32000-2 §12.8.2.2).
type Permissions int

// The permissions. Validation data and document time-stamps are always allowed (table 257).
const (
	Unrestricted   Permissions = 0 // no DocMDP: as AllowForms, since a change of content is never what was signed
	AllowNone      Permissions = 1
	AllowForms     Permissions = 2 // filling in and signing
	AllowAnnotated Permissions = 3 // and annotations
)

// A Lock says which form fields may not change afterwards (FieldMDP, ISO 32000-2 §12.8.2.4).
type Lock struct {
	Action string // All, Include, Exclude
	Fields []string
}

// covers reports whether a field is locked. A field is locked with the one above it.
func (l Lock) covers(field string) bool {
	named := slices.ContainsFunc(l.Fields, func(f string) bool {
		return field == f || len(field) > len(f) && field[:len(f)] == f && field[len(f)] == '.'
	})
	switch l.Action {
	case "Include":
		return named
	case "Exclude":
		return !named
	}
	return true
}

// A Signature is a signed signature field.
type Signature struct {
	Field     string // full name
	SubFilter SubFilter
	Claims    Claims
	ByteRange []int64
	Contents  []byte // padding included
	// Revision is the index of the revision the signature covers; −1 if it covers none entirely, which makes it invalid.
	Revision int
	// WholeFile says that nothing was added after signing.
	WholeFile   bool
	Permissions Permissions
	Locks       []Lock
	Visible     bool // the field has a place on a page

	document  *Document
	malformed error
}

// Read finds the signatures of a document. One that cannot be read is among them and fails Verify. An error means that
// this is no PDF file that can be read: it wraps ErrMalformed, ErrEncrypted or what r returned.
func Read(r io.ReaderAt, size int64) (*Document, error) {
	from := &source{r: r}
	var d *Document
	f, err := open(from, size)
	if err == nil {
		d, err = f.document()
	}
	if failed := from.failure(); failed != nil { // then nothing of this is known
		return nil, failed
	}
	return d, err
}

// document finds the signatures of the form, in the newest revision.
func (f *file) document() (*Document, error) {
	d := &Document{file: f}
	for _, rev := range f.revisions {
		d.Revisions = append(d.Revisions, rev.end)
	}
	for i := range f.revisions {
		d.stores = append(d.stores, sync.OnceValue(func() *Store { return d.readStore(i) }))
	}
	d.prepareSteps()
	last := len(f.revisions) - 1
	catalog := f.dict(last, f.revisions[last].trailer["Root"])
	if catalog == nil {
		return nil, fmt.Errorf("%w: no catalog", ErrMalformed)
	}
	certified, _ := f.dict(last, catalog["Perms"])["DocMDP"].(ref)
	seen := map[ref]bool{}
	fields := 0
	var walk func(v any, parent dict, prefix string, depth int) error
	walk = func(v any, parent dict, prefix string, depth int) error {
		if r, ok := v.(ref); ok {
			if seen[r] {
				return fmt.Errorf("%w: a form field stands twice", ErrMalformed)
			}
			seen[r] = true
		}
		if fields++; depth > maxNesting || fields > MaxObjects {
			return fmt.Errorf("%w: too many form fields", ErrMalformed)
		}
		field := f.dict(last, v)
		if field == nil {
			return nil
		}
		merged := inherit(field, parent)
		title := f.fieldName(last, prefix, field)
		for _, kid := range f.array(last, field["Kids"]) {
			if err := walk(kid, merged, title, depth+1); err != nil {
				return err
			}
		}
		if f.resolve(last, merged["FT"]) != name("Sig") || field["Kids"] != nil && field["V"] == nil {
			return nil
		}
		value := f.dict(last, merged["V"])
		if value == nil || parent["V"] != nil {
			return nil
		}
		if len(d.Signatures) == MaxSignatures {
			return fmt.Errorf("%w: more than %d signatures", ErrMalformed, MaxSignatures)
		}
		s := &Signature{Field: title, Revision: -1, document: d, Visible: !f.invisible(last, field)}
		for _, kid := range f.array(last, field["Kids"]) {
			s.Visible = s.Visible || !f.invisible(last, f.dict(last, kid))
		}
		s.malformed = s.read(last, value)
		d.Signatures = append(d.Signatures, s)
		if id, ok := merged["V"].(ref); ok && id == certified {
			d.Certified = s
		}
		return nil
	}
	for _, v := range f.array(last, f.dict(last, catalog["AcroForm"])["Fields"]) {
		if err := walk(v, dict{}, "", 0); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(d.Signatures, func(a, b *Signature) int { return a.Revision - b.Revision })
	return d, nil
}

// inherit returns a field with what it has from those above it (ISO 32000-2 §12.7.4.1).
func inherit(field, parent dict) dict {
	out := dict{}
	for _, key := range []name{"FT", "V", "Ff"} {
		if v, ok := field[key]; ok {
			out[key] = v
		} else if v, ok := parent[key]; ok {
			out[key] = v
		}
	}
	return out
}

// fieldName returns the full name of a field (§12.7.4.2).
func (f *file) fieldName(view int, prefix string, field dict) string {
	t, ok := f.resolve(view, field["T"]).(text)
	switch {
	case !ok:
		return prefix
	case prefix == "":
		return decodeText(t.octets)
	}
	out := prefix + "." + decodeText(t.octets)
	return out[:min(len(out), maxClaim)]
}

// invisible reports whether a widget has no place on the page, or is hidden.
func (f *file) invisible(view int, widget dict) bool {
	const hidden, noView = 1 << 1, 1 << 5
	if flags, ok := asInt(f.resolve(view, widget["F"])); ok && flags&(hidden|noView) != 0 {
		return true
	}
	rect := f.array(view, widget["Rect"])
	if len(rect) != 4 {
		return len(rect) == 0
	}
	var at [4]float64
	for i, v := range rect {
		at[i] = asFloat(f.resolve(view, v))
	}
	return at[0] == at[2] || at[1] == at[3]
}

// read takes a signature dictionary apart (ISO 32000-2 §12.8.1). What has to be right:
//  1. Contents is a hexadecimal string, ByteRange four integers, both once and in the dictionary itself
//  2. the range begins at 0, has one gap, and this gap is exactly the string, delimiters included
//  3. it ends where a revision ends, and the dictionary is that revision's
func (s *Signature) read(view int, d dict) error {
	f := s.document.file
	sub, _ := f.resolve(view, d["SubFilter"]).(name)
	s.SubFilter = SubFilter(sub)
	s.Claims = f.claims(view, d)
	s.readReferences(view, d)
	contents, ok := d["Contents"].(text)
	if !ok || len(contents.octets) == 0 {
		return fmt.Errorf("%w: signature without Contents", ErrMalformed)
	}
	s.Contents = contents.octets
	list, ok := d["ByteRange"].(array)
	if !ok {
		return fmt.Errorf("%w: signature without ByteRange", ErrMalformed)
	}
	for _, v := range list[:min(len(list), 8)] {
		n, ok := asInt(v)
		if !ok || n < 0 {
			return fmt.Errorf("%w: ByteRange of something else than positions", ErrMalformed)
		}
		s.ByteRange = append(s.ByteRange, n)
	}
	if len(list) != 4 {
		return fmt.Errorf("%w: ByteRange of %d numbers", ErrMalformed, len(list))
	}
	for key := range d {
		if _, twice := d[key].(ambiguous); twice {
			return fmt.Errorf("%w: signature dictionary with an entry twice", ErrMalformed)
		}
	}
	if !contents.hex || contents.from < 0 {
		return fmt.Errorf("%w: Contents is not a hexadecimal string", ErrMalformed)
	}
	return s.cover(contents)
}

// cover finds the revision that is covered.
func (s *Signature) cover(contents text) error {
	b, f := s.ByteRange, s.document.file
	end := b[2] + b[3]
	switch {
	case b[0] != 0:
		return fmt.Errorf("%w: it does not begin at the beginning", ErrCoverage)
	case b[1] != contents.from || b[2] != contents.to:
		return fmt.Errorf("%w: it leaves out something else than its own value", ErrCoverage)
	}
	n := -1
	for i, rev := range f.revisions {
		if rev.end <= end {
			n = i
		}
	}
	switch {
	case n < 0 || !f.blank(f.revisions[n].end, end):
		return fmt.Errorf("%w: it ends where no revision ends", ErrCoverage)
	case contents.to > f.revisions[n].end || n > 0 && contents.from < f.revisions[n-1].end:
		return fmt.Errorf("%w: its value stands in another revision than the one it covers", ErrCoverage)
	}
	s.Revision = n
	s.WholeFile = n == len(f.revisions)-1 && !f.trailing
	return nil
}

func (f *file) claims(view int, d dict) Claims {
	get := func(key name) string {
		t, _ := f.resolve(view, d[key]).(text)
		return decodeText(t.octets)
	}
	m, _ := f.resolve(view, d["M"]).(text)
	return Claims{Name: get("Name"), Reason: get("Reason"), Location: get("Location"), Contact: get("ContactInfo"), Time: parseDate(string(m.octets))}
}

// readReferences reads DocMDP and FieldMDP (ISO 32000-2 §12.8.2). What is not understood restricts most.
func (s *Signature) readReferences(view int, d dict) {
	f := s.document.file
	list := f.array(view, d["Reference"])
	for _, v := range list[:min(len(list), 16)] {
		r := f.dict(view, v)
		params := f.dict(view, r["TransformParams"])
		switch f.resolve(view, r["TransformMethod"]) {
		case name("DocMDP"):
			s.Permissions = AllowForms
			if p, there := params["P"]; there {
				n, _ := asInt(f.resolve(view, p))
				s.Permissions = Permissions(n)
				if n < 1 || n > 3 {
					s.Permissions = AllowNone
				}
			}
		case name("FieldMDP"):
			action, _ := f.resolve(view, params["Action"]).(name)
			lock := Lock{Action: string(action)}
			for _, v := range f.array(view, params["Fields"]) {
				t, _ := f.resolve(view, v).(text)
				lock.Fields = append(lock.Fields, decodeText(t.octets))
			}
			s.Locks = append(s.Locks, lock)
		}
	}
}

// A Store is a document security store (DSS, EN 319 142-1 §5.4.2): certificates and revocation information for later.
// Nothing is established about any of it.
type Store struct {
	Certificates [][]byte
	CRLs         [][]byte
	OCSPs        [][]byte // OCSPResponses
	VRI          []VRI
}

// A VRI says which of the Store was used for one signature, or brings more.
type VRI struct {
	Key                       string // SHA-1 of the signature, hexadecimal
	Signature                 *Signature
	Certificates, CRLs, OCSPs [][]byte
	Time                      time.Time // TU; zero if not stated
	TimeStamp                 []byte    // TS: a token; nil if there is none
}

// maxStored bounds the members of a store, and of a VRI.
const maxStored = 4096

// Store returns the security store as of a revision; nil if there is none. What stands in the store of a revision that a
// document time-stamp covers existed when that was made.
func (d *Document) Store(revision int) *Store {
	if revision < 0 || revision >= len(d.stores) {
		return nil
	}
	return d.stores[revision]()
}

func (d *Document) readStore(revision int) *Store {
	f := d.file
	catalog := f.dict(revision, f.revisions[revision].trailer["Root"])
	dss := f.dict(revision, catalog["DSS"])
	if dss == nil {
		return nil
	}
	room := int64(maxUnpack)
	out := &Store{
		Certificates: f.members(revision, dss["Certs"], &room), CRLs: f.members(revision, dss["CRLs"], &room),
		OCSPs: f.members(revision, dss["OCSPs"], &room),
	}
	vri := f.dict(revision, dss["VRI"])
	keys := make([]name, 0, len(vri))
	for key := range vri {
		if key != "Type" && len(keys) < maxStored {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		one := f.dict(revision, vri[key])
		v := VRI{
			Key: string(key), Certificates: f.members(revision, one["Cert"], &room), CRLs: f.members(revision, one["CRL"], &room),
			OCSPs: f.members(revision, one["OCSP"], &room),
		}
		at, _ := f.resolve(revision, one["TU"]).(text)
		v.Time = parseDate(string(at.octets))
		if ts := f.members(revision, array{one["TS"]}, &room); len(ts) == 1 {
			v.TimeStamp = ts[0]
		}
		for _, s := range d.Signatures {
			if slices.Contains(s.keys(), v.Key) {
				v.Signature = s
			}
		}
		out.VRI = append(out.VRI, v)
	}
	return out
}

// members reads an array of streams. What cannot be read is left out.
func (f *file) members(view int, v any, room *int64) [][]byte {
	var out [][]byte
	list := f.array(view, v)
	for _, v := range list[:min(len(list), maxStored)] {
		st, ok := f.resolve(view, v).(*stream)
		if !ok || *room < 0 {
			continue
		}
		if data, err := f.decode(view, st); err == nil {
			*room -= int64(len(data))
			out = append(out, data)
		}
	}
	return out
}
