package pdf

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A SignConfig says who signs, how, and what is claimed.
type SignConfig struct {
	// Certificate is the signer's, DER. Required.
	Certificate []byte
	// Signer makes the signature value, by the key in Certificate: a card, for example. Required.
	Signer crypto.Signer
	// Rand is given to Signer. Required; most signers ignore it.
	Rand io.Reader
	// Time is claimed as the time of signing. Required.
	Time time.Time
	// Chain are further certificates to put into the signature.
	Chain [][]byte
	// Algorithm is how to sign; zero as in cms.SignConfig.
	Algorithm primitive.Algorithm
	// Name, Reason, Location and Contact are claimed. Empty ones are left out.
	Name, Reason, Location, Contact string
	// Field is the name of the new signature field; it must be new, without a full stop. Empty means SignatureN.
	Field string
	// Certify makes the signature the author's and says what may change afterwards. Zero makes an approval signature.
	Certify Permissions
	// Reserve is how many octets to keep for the CMS value. Zero means enough for the certificates, and 8 KiB.
	Reserve int
}

// Sign copies a document to w and adds a PAdES-B-B signature, in a field that is not seen, by an incremental update: what
// was signed before stays signed. Steps:
//  1. read the document; refuse what an earlier signature does not allow, and what could not be verified afterwards
//  2. lay out the update: signature, field, form, catalog, first page, cross-reference section of the kind the file has
//  3. copy document and update, have everything but the gap signed, and put the value into the gap
//
// The update is held in memory; the document is read twice.
func Sign(w io.Writer, r io.ReaderAt, size int64, c SignConfig) error {
	switch {
	case w == nil || r == nil || c.Signer == nil || c.Rand == nil:
		return errors.New("pdf: sign: w, r, Signer and Rand are required")
	case c.Time.IsZero():
		return errors.New("pdf: sign: Time is required")
	case c.Certify < 0 || c.Certify > AllowAnnotated:
		return errors.New("pdf: sign: Certify must be one of the permissions")
	}
	d, err := Read(r, size)
	if err != nil {
		return err
	}
	u, err := d.update(&c)
	if err != nil {
		return err
	}
	if err := u.layOut(); err != nil {
		return err
	}
	value, err := cms.Sign(u.signed(), cms.SignConfig{
		Certificate: c.Certificate, Signer: c.Signer, Rand: c.Rand, Chain: c.Chain, Algorithm: c.Algorithm,
	}) // without signing time: EN 319 142-1 §6.3 has it in M
	if err != nil {
		return err
	}
	if len(value) > u.reserve {
		return fmt.Errorf("pdf: sign: the signature has %d octets, %d were reserved", len(value), u.reserve)
	}
	copy(u.out[u.from+1:], fmt.Sprintf("%x", value))
	if _, err := io.Copy(w, io.NewSectionReader(r, 0, size)); err != nil {
		return fmt.Errorf("pdf: copy the document: %w", err)
	}
	if _, err := w.Write(u.out); err != nil {
		return fmt.Errorf("pdf: write the signature: %w", err)
	}
	return nil
}

// An update is an incremental update in the making.
type update struct {
	file    *file
	objects map[ref]any
	trailer dict
	next    uint32
	value   ref
	reserve int

	out      []byte
	from, to int // of the value, delimiters included, in out
}

// gapLength is how long ByteRange is, written: room for four numbers.
const gapLength = 4*16 + 3

func (u *update) add(v any) ref {
	r := ref{num: u.next}
	u.next++
	u.objects[r] = v
	return r
}

// update prepares the objects of a new signature.
func (d *Document) update(c *SignConfig) (*update, error) {
	f := d.file
	last := len(f.revisions) - 1
	u := &update{file: f, objects: map[ref]any{}, trailer: dict{}, reserve: c.Reserve}
	if u.reserve == 0 {
		u.reserve = 8<<10 + len(c.Certificate)
		for _, der := range c.Chain {
			u.reserve += len(der)
		}
	}
	if f.trailing {
		return nil, fmt.Errorf("%w: something follows the last %%%%EOF", ErrMalformed)
	}
	for _, s := range d.Signatures {
		if s.Permissions == AllowNone || c.Certify != 0 {
			return nil, fmt.Errorf("%w: signature %q excludes another one", ErrModified, s.Field)
		}
	}
	for _, rev := range f.revisions {
		for num := range rev.entries {
			u.next = max(u.next, num+1)
		}
		size, _ := asInt(rev.trailer["Size"])
		u.next = max(u.next, uint32(min(max(size, 1), maxNumber)))
	}
	for _, key := range []name{"Root", "Info", "ID"} {
		if v, ok := f.revisions[last].trailer[key]; ok {
			u.trailer[key] = v
		}
	}
	root, ok := u.trailer["Root"].(ref)
	if !ok {
		return nil, fmt.Errorf("%w: no catalog", ErrMalformed)
	}
	page, err := f.firstPage(last, root)
	if err != nil {
		return nil, err
	}

	signature := dict{
		"Type": name("Sig"), "Filter": name("Adobe.PPKLite"), "SubFilter": name(CAdES), "M": text{octets: []byte(formatDate(c.Time))},
	}
	for key, claim := range map[name]string{"Name": c.Name, "Reason": c.Reason, "Location": c.Location, "ContactInfo": c.Contact} {
		if claim != "" {
			signature[key] = text{octets: encodeText(claim)}
		}
	}
	if c.Certify != 0 {
		signature["Reference"] = array{dict{
			"Type": name("SigRef"), "TransformMethod": name("DocMDP"),
			"TransformParams": dict{"Type": name("TransformParams"), "P": int64(c.Certify), "V": name("1.2")},
		}}
	}
	u.value = u.add(signature)
	catalog := maps.Clone(f.dict(last, root))
	form := maps.Clone(f.dict(last, catalog["AcroForm"]))
	if form == nil {
		form = dict{}
	}
	title, err := d.newTitle(last, c.Field, f.array(last, form["Fields"]))
	if err != nil {
		return nil, err
	}
	field := u.add(dict{
		"Type": name("Annot"), "Subtype": name("Widget"), "FT": name("Sig"), "T": text{octets: encodeText(title)}, "V": u.value,
		"F": int64(132), "Rect": array{int64(0), int64(0), int64(0), int64(0)}, "P": page, // printed if it were seen, locked
	})
	u.extend(last, form, "Fields", field)
	form["SigFlags"] = int64(3) // signatures exist; append only (table 225)
	if r, ok := catalog["AcroForm"].(ref); ok {
		u.objects[r] = form
	} else {
		catalog["AcroForm"] = form
	}
	if c.Certify != 0 {
		perms := maps.Clone(f.dict(last, catalog["Perms"]))
		if perms == nil {
			perms = dict{}
		}
		perms["DocMDP"] = u.value
		catalog["Perms"] = perms
	}
	u.objects[root] = catalog
	sheet := maps.Clone(f.dict(last, page))
	if u.extend(last, sheet, "Annots", field) {
		u.objects[page] = sheet
	}
	for r, v := range u.objects {
		if r != u.value && !writable(v) {
			return nil, fmt.Errorf("%w: object %d cannot be written again", ErrMalformed, r.num)
		}
	}
	return u, nil
}

// extend adds to an array in a dictionary, or to the object the dictionary refers to; it reports whether the dictionary
// has changed.
func (u *update) extend(view int, d dict, key name, v any) bool {
	list := append(slices.Clone(u.file.array(view, d[key])), v)
	if r, ok := d[key].(ref); ok && u.file.array(view, r) != nil {
		u.objects[r] = list
		return false
	}
	d[key] = list
	return true
}

// newTitle returns the name of the new field.
func (d *Document) newTitle(view int, want string, fields array) (string, error) {
	f := d.file
	taken := map[string]bool{}
	for _, v := range fields {
		taken[f.fieldName(view, "", f.dict(view, v))] = true
	}
	if want != "" {
		if taken[want] || bytes.ContainsRune([]byte(want), '.') || len(want) > maxClaim/2 {
			return "", fmt.Errorf("pdf: sign: the field name %.64q is taken, too long or has a full stop", want)
		}
		return want, nil
	}
	n := len(fields) + 1
	for taken[fmt.Sprintf("Signature%d", n)] {
		n++
	}
	return fmt.Sprintf("Signature%d", n), nil
}

// firstPage finds the page to put the field on.
func (f *file) firstPage(view int, root ref) (ref, error) {
	v := f.dict(view, root)["Pages"]
	for range maxNesting {
		d := f.dict(view, v)
		kids := f.array(view, d["Kids"])
		if r, ok := v.(ref); ok && d != nil && kids == nil {
			return r, nil
		}
		if len(kids) == 0 {
			break
		}
		v = kids[0]
	}
	return ref{}, fmt.Errorf("%w: no page", ErrMalformed)
}

// layOut writes the update with a gap for the value.
func (u *update) layOut() error {
	base := u.file.size
	var out bytes.Buffer
	out.WriteByte('\n')
	offsets := map[ref]int64{}
	refs := slices.SortedFunc(maps.Keys(u.objects), func(a, b ref) int { return int(a.num) - int(b.num) })
	begin := 0
	for _, r := range refs {
		offsets[r] = base + int64(out.Len())
		fmt.Fprintf(&out, "%d %d obj\n", r.num, r.gen)
		if r != u.value {
			write(&out, u.objects[r])
		} else {
			d, _ := u.objects[r].(dict)
			var rest bytes.Buffer
			write(&rest, d)
			out.WriteString("<</ByteRange ")
			begin = out.Len()
			fmt.Fprintf(&out, "%*s", gapLength+2, "")
			out.WriteString("/Contents ")
			u.from = out.Len()
			fmt.Fprintf(&out, "<%0*d>", 2*u.reserve, 0)
			u.to = out.Len()
			out.Write(rest.Bytes()[2:])
		}
		out.WriteString("\nendobj\n")
	}
	last := u.file.revisions[len(u.file.revisions)-1]
	u.trailer["Prev"] = last.offset
	at := base + int64(out.Len())
	if last.stream {
		u.xrefStream(&out, refs, offsets, at)
	} else {
		u.table(&out, refs, offsets)
	}
	fmt.Fprintf(&out, "startxref\n%d\n%%%%EOF\n", at)
	u.out = out.Bytes()
	end := base + int64(len(u.out))
	ranges := fmt.Sprintf("[0 %d %d %d]", base+int64(u.from), base+int64(u.to), end-base-int64(u.to))
	if len(ranges) > gapLength+2 || u.next >= maxNumber || !last.stream && end >= 1e10 {
		return fmt.Errorf("%w: the file is too large", ErrMalformed)
	}
	copy(u.out[begin:], ranges)
	return nil
}

// table writes a cross-reference table and the trailer.
func (u *update) table(out *bytes.Buffer, refs []ref, offsets map[ref]int64) {
	out.WriteString("xref\n")
	for i := 0; i < len(refs); {
		n := i + 1
		for n < len(refs) && refs[n].num == refs[n-1].num+1 {
			n++
		}
		fmt.Fprintf(out, "%d %d\n", refs[i].num, n-i)
		for ; i < n; i++ {
			fmt.Fprintf(out, "%010d %05d n\r\n", offsets[refs[i]], refs[i].gen)
		}
	}
	u.trailer["Size"] = int64(u.next)
	out.WriteString("trailer\n")
	write(out, u.trailer)
	out.WriteByte('\n')
}

// xrefStream writes a cross-reference stream, uncompressed.
func (u *update) xrefStream(out *bytes.Buffer, refs []ref, offsets map[ref]int64, at int64) {
	self := ref{num: u.next}
	u.next++
	refs = append(slices.Clone(refs), self)
	offsets[self] = at
	var rows bytes.Buffer
	var index array
	for _, r := range refs {
		index = append(index, int64(r.num), int64(1))
		rows.WriteByte(1)
		for shift := 56; shift >= 0; shift -= 8 {
			rows.WriteByte(byte(offsets[r] >> shift))
		}
		rows.Write([]byte{byte(r.gen >> 8), byte(r.gen)})
	}
	d := maps.Clone(u.trailer)
	maps.Copy(d, dict{
		"Type": name("XRef"), "Size": int64(u.next), "W": array{int64(1), int64(8), int64(2)}, "Index": index, "Length": int64(rows.Len()),
	})
	fmt.Fprintf(out, "%d 0 obj\n", self.num)
	write(out, d)
	out.WriteString("\nstream\n")
	out.Write(rows.Bytes())
	out.WriteString("\nendstream\nendobj\n")
}

// signed returns what the signature is to cover.
func (u *update) signed() io.Reader {
	return io.MultiReader(io.NewSectionReader(u.file.r, 0, u.file.size), bytes.NewReader(u.out[:u.from]), bytes.NewReader(u.out[u.to:]))
}
