package pdf_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openjpki/jpki/verifier/pdf"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func byteRange(n ...int) string { return strings.ReplaceAll(fmt.Sprint(n), ",", "") }

// replace changes octets of a file without moving the others.
func replace(t testing.TB, file []byte, old, with string) []byte {
	t.Helper()
	if len(old) != len(with) || bytes.Count(file, []byte(old)) != 1 {
		t.Fatalf("%q stands there %d times", old, bytes.Count(file, []byte(old)))
	}
	return bytes.Replace(file, []byte(old), []byte(with), 1)
}

// signedParts finds the value of the only signature, delimiters included, and its ByteRange with the spaces behind.
func signedParts(t testing.TB, file []byte) (from, to int, ranges string) {
	t.Helper()
	s := read(t, file).Signatures[0]
	ranges = fmt.Sprintf("[0 %d %d %d]", s.ByteRange[1], s.ByteRange[2], s.ByteRange[3])
	rest := file[bytes.Index(file, []byte(ranges))+len(ranges):]
	return int(s.ByteRange[1]), int(s.ByteRange[2]), ranges + string(rest[:len(rest)-len(bytes.TrimLeft(rest, " "))])
}

// Attacks on what a signature covers: universal forgery (a signature without what is needed to check it), wrapping (what was
// signed is moved), and incremental saving (something is added). Each must have the error of its class.
func TestAttacks(t *testing.T) {
	s := p256(t)
	signed := sign(t, document(sample()), s.config())
	from, to, ranges := signedParts(t, signed)
	value := string(signed[from:to])
	tip := strings.TrimRight(value, "0>")
	tip = tip[len(tip)-24 : len(tip)-4]
	dictionary := func(byteRange, contents string) string {
		return fmt.Sprintf("<</Type/Sig/Filter/Adobe.PPKLite/SubFilter/ETSI.CAdES.detached%s%s>>", byteRange, contents)
	}
	evil := stream("", "BT /Helv 24 Tf 72 720 Td (Pay 9999999 to Eve) Tj ET")
	override := func(contents string) []byte { return update(signed, objects{signatureObject: contents}, "") }
	pad := func(s string) string { return s + strings.Repeat(" ", len(ranges)-len(s)) }

	for name, tc := range map[string]struct {
		file []byte
		want error
	}{
		"none": {signed, nil},

		// universal signature forgery
		"no ByteRange":                    {replace(t, signed, "/ByteRange", "/ByteRanga"), pdf.ErrMalformed},
		"ByteRange of nothing":            {replace(t, signed, ranges, pad("[]")), pdf.ErrMalformed},
		"ByteRange of null":               {replace(t, signed, ranges, pad("null")), pdf.ErrMalformed},
		"ByteRange of two":                {replace(t, signed, ranges, pad("[0 100]")), pdf.ErrMalformed},
		"ByteRange of six":                {replace(t, signed, ranges, pad("[0 1 2 3 4 5]")), pdf.ErrMalformed},
		"ByteRange with a negative":       {replace(t, signed, ranges, pad("[0 1 -2 3]")), pdf.ErrMalformed},
		"ByteRange of names":              {replace(t, signed, ranges, pad("[/a /b /c /d]")), pdf.ErrMalformed},
		"ByteRange of zeros":              {replace(t, signed, ranges, pad("[0 0 0 0]")), pdf.ErrCoverage},
		"ByteRange with an overflow":      {replace(t, signed, ranges, pad("[0 1 9007199254740990 9007199254740990]")), pdf.ErrCoverage},
		"no Contents":                     {replace(t, signed, "/Contents <", "/Contenta <"), pdf.ErrMalformed},
		"dictionary without Contents":     {override(dictionary("/ByteRange"+ranges, "")), pdf.ErrMalformed},
		"Contents of null":                {override(dictionary("/ByteRange"+ranges, "/Contents null")), pdf.ErrMalformed},
		"Contents of nothing":             {override(dictionary("/ByteRange"+ranges, "/Contents<>")), pdf.ErrMalformed},
		"Contents of zeros":               {replace(t, signed, value, "<"+strings.Repeat("0", len(value)-2)+">"), pdf.ErrMalformed},
		"Contents elsewhere":              {update(signed, objects{40: value, signatureObject: dictionary("/ByteRange"+ranges, "/Contents 40 0 R")}, ""), pdf.ErrMalformed},
		"Contents in parentheses":         {override(dictionary("/ByteRange"+ranges, "/Contents(abc)")), pdf.ErrMalformed},
		"two Contents":                    {override(dictionary("/ByteRange"+ranges, "/Contents"+value+"/Contents<00>")), pdf.ErrMalformed},
		"two ByteRanges":                  {override(dictionary("/ByteRange"+ranges+"/ByteRange[0 1 2 3]", "/Contents"+value)), pdf.ErrMalformed},
		"two SubFilters":                  {override(dictionary("/SubFilter/adbe.pkcs7.detached/ByteRange"+ranges, "/Contents"+value)), pdf.ErrMalformed},
		"an unknown encoding":             {replace(t, signed, "/ETSI.CAdES.detached", "/ETSI.CAdES.detacheX"), pdf.ErrUnsupported},
		"another value":                   {replace(t, signed, tip, flip(tip)), errAny},
		"a value that says nothing":       {replace(t, signed, value[:40], "<"+strings.Repeat("f", 39)), pdf.ErrMalformed},
		"something hidden in the padding": {replace(t, signed, value[len(value)-9:], "deadbeef>"), pdf.ErrMalformed},
		"white space in the value":        {replace(t, signed, value[len(value)-9:], "        >"), pdf.ErrMalformed},

		// signature wrapping
		"wrapped, range as it was":          {wrapped(t, signed, evil, false), pdf.ErrCoverage},
		"wrapped, range moved":              {wrapped(t, signed, evil, true), pdf.ErrCoverage},
		"range that leaves out more":        {replace(t, signed, ranges, pad(byteRange(0, from-40, to, len(signed)-to))), pdf.ErrCoverage},
		"range that leaves out less":        {replace(t, signed, ranges, pad(byteRange(0, from+1, to-1, len(signed)-to+1))), pdf.ErrCoverage},
		"range with an overlap":             {replace(t, signed, ranges, pad(byteRange(0, to, from, len(signed)-from))), pdf.ErrCoverage},
		"range that begins later":           {replace(t, signed, ranges, pad(byteRange(1, from-1, to, len(signed)-to))), pdf.ErrCoverage},
		"range that ends early":             {replace(t, signed, ranges, pad(byteRange(0, from, to, len(signed)-to-20))), pdf.ErrCoverage},
		"range that ends late":              {replace(t, signed, ranges, pad(byteRange(0, from, to, len(signed)-to+20))), pdf.ErrCoverage},
		"the value of an earlier signature": {override(dictionary("/ByteRange"+ranges, "/Contents"+value)), pdf.ErrCoverage},

		// what was signed is changed
		"an octet at the beginning": {replace(t, signed, "Pay 100 to Alice", "Pay 900 to Alice"), pdf.ErrDigest},
		"an octet of the update":    {replace(t, signed, "/SigFlags 3", "/SigFlags 1"), pdf.ErrDigest},

		// incremental saving
		"other content":                 {update(signed, objects{4: evil}, ""), pdf.ErrModified},
		"other content, no earlier one": {update(signed, objects{4: evil}, "/Root 1 0 R/Prev 0"), errRead},
		"objects without a trailer":     {append(bytes.Clone(signed), "4 0 obj\n"+evil+"\nendobj\n"...), pdf.ErrModified},
		"objects and half a trailer":    {append(bytes.Clone(signed), "4 0 obj\n"+evil+"\nendobj\nxref\n0 0\ntrailer\n<<>>\n"...), pdf.ErrModified},
		"a file of its own behind":      {renewed(t, signed, evil), pdf.ErrCoverage},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := pdf.Read(bytes.NewReader(tc.file), int64(len(tc.file)))
			if err != nil {
				if !errors.Is(tc.want, errRead) {
					t.Fatal(err)
				}
				return
			}
			v := d.Verify(nil)
			if len(v) != 1 {
				t.Fatalf("%d signatures", len(v))
			}
			switch {
			case errors.Is(tc.want, errAny):
				if v[0].Err == nil {
					t.Error("valid")
				}
			case !errors.Is(v[0].Err, tc.want):
				t.Errorf("%v, want %v; %v", v[0].Err, tc.want, v[0].Changes)
			case v[0].Err != nil && v[0].Baseline != pdf.NotPAdES:
				t.Errorf("level %s", v[0].Baseline)
			}
		})
	}
}

var (
	errAny  = errors.New("any error of the verdict")
	errRead = errors.New("the file may be refused")
)

// flip returns other digits.
func flip(digits string) string {
	out := []byte(digits)
	for i := range out {
		out[i] ^= 1
		if !strings.ContainsRune("0123456789abcdef", rune(out[i])) {
			out[i] = '0'
		}
	}
	return string(out)
}

// wrapped moves the second part of what was signed behind something new, which the cross-reference section then finds.
func wrapped(t *testing.T, signed []byte, evil string, moved bool) []byte {
	from, to, ranges := signedParts(t, signed)
	out := bytes.Clone(signed[:to])
	tail := signed[to:]
	space := "\nendobj\n"
	out = append(out, ">>"...) // closes the dictionary early
	out = append(out, space...)
	at := len(out)
	out = fmt.Appendf(out, "4 0 obj\n%s\nendobj\n", evil)
	xref := len(out)
	out = fmt.Appendf(out, "xref\n4 1\n%010d 00000 n\r\ntrailer\n<</Size 99/Root 1 0 R/Prev %d>>\nstartxref\n%d\n%%%%EOF\n", at, lastXref(signed[:from]), xref)
	second := len(out)
	out = append(out, tail...)
	if moved {
		with := fmt.Sprintf("[0 %d %d %d]", from, second, len(tail))
		out = bytes.Replace(out, []byte(ranges), []byte(with+strings.Repeat(" ", max(0, len(ranges)-len(with)))), 1)
	}
	// The field must still find a signature dictionary.
	sig := bytes.LastIndex(signed[:from], fmt.Appendf(nil, "%d 0 obj", signatureObject))
	field := bytes.LastIndex(signed, fmt.Appendf(nil, "%d 0 obj", fieldObject))
	o := objects{5: "<</Fields[6 0 R 16 0 R]/SigFlags 3>>", fieldObject: string(signed[field+len("16 0 obj") : field+bytes.Index(signed[field:], []byte("endobj"))])}
	file := update(out, o, fmt.Sprintf("/Root 1 0 R/Prev %d", xref))
	file = bytes.Replace(file, []byte("xref\n5 1\n"), fmt.Appendf(nil, "xref\n%d 1\n%010d 00000 n\r\n5 1\n", signatureObject, sig), 1)
	return file
}

// renewed appends a whole document that takes the signature dictionary over and does not name the signed revision.
func renewed(t *testing.T, signed []byte, evil string) []byte {
	t.Helper()
	o := sample()
	o[4], o[5] = evil, "<</Fields[6 0 R 16 0 R]/SigFlags 3>>"
	o[fieldObject] = "<</FT/Sig/T(Signature2)/V 15 0 R/Rect[0 0 0 0]>>"
	out := bytes.Clone(signed)
	offsets := map[int]int{signatureObject: bytes.LastIndex(signed, fmt.Appendf(nil, "\n%d 0 obj", signatureObject)) + 1}
	for n := range 20 {
		if o[n] != "" {
			offsets[n] = len(out)
			out = fmt.Appendf(out, "%d 0 obj\n%s\nendobj\n", n, o[n])
		}
	}
	o[signatureObject] = "there"
	file := table(out, o, offsets, "/Root 1 0 R/Prev none")
	return bytes.Replace(file, []byte("/Prev none"), []byte("          "), 1)
}

// What comes after a signature is told apart, and held to what the signer allowed. Shadow attacks are among it: content that
// was prepared before signing is shown by a change that looks harmless.
func TestModifications(t *testing.T) {
	plain := document(sample())
	base := func(with pdf.Permissions) []byte {
		c := p256(t).config()
		c.Certify = with
		return sign(t, plain, c)
	}
	approved := base(pdf.Unrestricted)
	form := func(fields, more string) string {
		return "<</Fields[6 0 R 16 0 R" + fields + "]/SigFlags 3/DA(/Helv 0 Tf 0 g)/DR<</Font<</Helv 7 0 R>>>>" + more + ">>"
	}
	page := func(annots, more string) string {
		return strings.Replace(sample()[3], "/Annots[6 0 R]", "/Annots[6 0 R 16 0 R"+annots+"]"+more, 1)
	}
	catalog := func(more string) string { return strings.Replace(sample()[1], "/Outlines", more+"/Outlines", 1) }
	other := stream("", "evil")
	look := stream("/Type/XObject/Subtype/Form/BBox[0 0 128 20]/Resources<</Font<</Helv 7 0 R>>>>", "BT /Helv 12 Tf (900) Tj ET")
	filled := strings.Replace(sample()[6], "V(100)/", "V(900)/", 1)
	signatureField := func(rect string) string {
		return "<</Type/Annot/Subtype/Widget/FT/Sig/T(new)/P 3 0 R/Rect[" + rect + "]>>"
	}

	for name, tc := range map[string]struct {
		change  objects
		trailer string
		want    pdf.Level
	}{
		"nothing":                    {objects{}, "", pdf.Unchanged},
		"the same again":             {objects{4: sample()[4], 7: sample()[7]}, "", pdf.Unchanged},
		"an object nobody refers to": {objects{40: other}, "", pdf.Unchanged},

		"security store":           {objects{1: catalog("/DSS 40 0 R"), 40: "<</Certs[41 0 R]>>", 41: other}, "", pdf.LTA},
		"document information":     {objects{9: "<</Producer(other)>>"}, "", pdf.LTA},
		"metadata and extensions":  {objects{1: catalog("/Metadata 40 0 R/Extensions<</ESIC<<>>>>"), 40: other}, "", pdf.LTA},
		"an unseen empty field":    {objects{5: form(" 40 0 R", ""), 3: page(" 40 0 R", ""), 40: signatureField("0 0 0 0")}, "", pdf.Forms},
		"a font for the form":      {objects{5: strings.Replace(form("", ""), "/Helv 7 0 R", "/Helv 7 0 R/New 7 0 R", 1)}, "", pdf.Forms},
		"filled in":                {objects{6: filled, 8: look}, "", pdf.Forms},
		"filled in, no appearance": {objects{6: filled}, "", pdf.Forms},

		"appearance without value": {objects{8: look}, "", pdf.Annotations}, // shadow: replace
		"an annotation":            {objects{3: page(" 40 0 R", ""), 40: "<</Type/Annot/Subtype/FreeText/Rect[0 0 300 300]/Contents(evil)>>"}, "", pdf.Annotations},
		"a field to be seen":       {objects{5: form(" 40 0 R", ""), 3: page(" 40 0 R", ""), 40: signatureField("0 0 300 300")}, "", pdf.Annotations},

		"an annotation with an author": {objects{3: page(" 40 0 R", ""), 40: "<</Type/Annot/Subtype/FreeText/T(Eve)/Rect[0 0 300 300]>>"}, "", pdf.Annotations},
		"the signature's picture twice": {objects{
			5: form(" 40 0 R", ""), 3: page(" 40 0 R", ""),
			40: fmt.Sprintf("<</Type/Annot/Subtype/Widget/FT/Sig/T(new)/P 3 0 R/Rect[0 0 300 300]/V %d 0 R>>", signatureObject),
		}, "", pdf.Other},
		"a widget of a field that is not seen": {objects{
			5: form(" 40 0 R", ""), 3: page(" 41 0 R", ""), 40: signatureField("0 0 0 0"), 41: "<</Type/Annot/Subtype/Widget/Parent 40 0 R/Rect[0 0 300 300]>>",
		}, "", pdf.Annotations},
		"a widget of an old field":       {objects{3: page(" 41 0 R", ""), 41: "<</Type/Annot/Subtype/Widget/Parent 6 0 R/Rect[0 0 300 300]>>"}, "", pdf.Other},
		"a field that is more than that": {objects{5: form(" 40 0 R", ""), 40: "<</Subtype/FreeText/FT/Sig/T(new)/Rect[0 0 0 0]>>"}, "", pdf.Other},
		"a new text field":               {objects{5: form(" 40 0 R", ""), 40: "<</FT/Tx/T(new)/V(evil)>>"}, "", pdf.Other},
		"a field with a name taken":      {objects{5: form(" 40 0 R", ""), 40: "<</FT/Sig/T(amount)/Rect[0 0 0 0]>>"}, "", pdf.Other},
		"a field with an action":         {objects{5: form(" 40 0 R", ""), 40: "<</FT/Sig/T(new)/Rect[0 0 0 0]/AA<<>>>>"}, "", pdf.Other},
		"a field gone":                   {objects{5: "<</Fields[16 0 R]/SigFlags 3>>"}, "", pdf.Other},
		"fields in another order":        {objects{5: strings.Replace(form("", ""), "6 0 R 16 0 R", "16 0 R 6 0 R", 1)}, "", pdf.Other},
		"a field elsewhere":              {objects{6: strings.Replace(sample()[6], "72 600", "72 100", 1)}, "", pdf.Other},
		"a widget gone":                  {objects{3: strings.Replace(page("", ""), "[6 0 R 16", "[16", 1)}, "", pdf.Other},
		"all annotations gone":           {objects{3: strings.Replace(sample()[3], "/Annots[6 0 R]", "", 1)}, "", pdf.Other},
		"the form drawn anew":            {objects{5: form("", "/NeedAppearances true")}, "", pdf.Other},
		"the look of the form":           {objects{5: strings.Replace(form("", ""), "0 g", "1 g", 1)}, "", pdf.Other},
		"a font of the form":             {objects{5: strings.Replace(form("", ""), "/Helv 7 0 R", "/Helv 9 0 R", 1)}, "", pdf.Other},
		"a form of another technology":   {objects{5: form("", "/XFA 40 0 R"), 40: other}, "", pdf.Other},
		"an action on opening":           {objects{1: catalog("/OpenAction<</S/JavaScript/JS(evil)>>")}, "", pdf.Other},
		"content":                        {objects{4: other}, "", pdf.Other},
		"content added":                  {objects{3: strings.Replace(page("", ""), "/Contents 4 0 R", "/Contents[4 0 R 40 0 R]", 1), 40: other}, "", pdf.Other},
		"a page added":                   {objects{2: "<</Type/Pages/Kids[3 0 R 40 0 R]/Count 2>>", 40: "<</Type/Page/Parent 2 0 R>>"}, "", pdf.Other},
		"a page turned":                  {objects{3: page("", "/Rotate 180")}, "", pdf.Other},
		"a bookmark":                     {objects{14: strings.Replace(sample()[14], "Top", "Evil", 1)}, "", pdf.Other},
		"the signature's reason":         {objects{signatureObject: "<</Type/Sig/SubFilter/ETSI.CAdES.detached/Reason(other)>>"}, "", pdf.Other},

		"shadow: an overlay is hidden":        {objects{10: ""}, "", pdf.Other},
		"shadow: a font is replaced":          {objects{7: strings.Replace(sample()[7], "Helvetica", "Wingdings", 1)}, "", pdf.Other},
		"shadow: the other catalog":           {nil, "/Root 11 0 R", pdf.Other},
		"shadow: the other pages":             {objects{1: strings.Replace(sample()[1], "2 0 R", "12 0 R", 1)}, "", pdf.Other},
		"shadow: an object of the same place": {objects{10: sample()[8]}, "", pdf.Other},
	} {
		t.Run(name, func(t *testing.T) {
			for permission, most := range map[pdf.Permissions]pdf.Level{
				pdf.Unrestricted: pdf.Forms, pdf.AllowNone: pdf.LTA, pdf.AllowForms: pdf.Forms, pdf.AllowAnnotated: pdf.Annotations,
			} {
				before := approved
				if permission != pdf.Unrestricted {
					before = base(permission)
				}
				change := objects{}
				for n, text := range tc.change {
					if permission != pdf.Unrestricted && n == 1 {
						text = strings.Replace(text, "/Outlines", fmt.Sprintf("/Perms<</DocMDP %d 0 R>>/Outlines", signatureObject), 1)
					}
					change[n] = text
				}
				d := read(t, update(before, change, tc.trailer))
				if tc.trailer == "/Root 11 0 R" || tc.change[5] == "" && len(d.Signatures) == 0 { // nothing is left to be taken for signed
					if len(d.Signatures) != 0 {
						t.Error("there is a signature")
					}
					continue
				}
				v := d.Verify(nil)[0]
				if v.Modification != tc.want && !errors.Is(v.Err, pdf.ErrMalformed) {
					t.Errorf("%v, want %v: %v", v.Modification, tc.want, v.Changes)
				}
				if tc.want <= most != (v.Err == nil) {
					t.Errorf("permission %d: %v", permission, v.Err)
				}
				if v.Err != nil && !errors.Is(v.Err, pdf.ErrModified) && !errors.Is(v.Err, pdf.ErrMalformed) {
					t.Errorf("permission %d: %v", permission, v.Err)
				}
			}
		})
	}
}

// What was prepared before signing to be exchanged by means other than an object of its own.
func TestShadowsInTheFile(t *testing.T) {
	other := stream("", "BT /Helv 24 Tf (Pay 9999999 to Eve) Tj ET")
	s := p256(t)
	valid := func(t *testing.T, file []byte) bool {
		d, err := pdf.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return false
		}
		v := d.Verify(nil)
		return len(v) > 0 && !slices.ContainsFunc(v, func(v pdf.Verdict) bool { return v.Err != nil })
	}
	t.Run("two objects of one number", func(t *testing.T) {
		o := sample()
		hidden := "4 0 obj\n" + other + "\nendobj\n"
		file := update(append([]byte("%PDF-1.7\n"), hidden...), o, "")
		signed := sign(t, file, s.config())
		if !valid(t, signed) {
			t.Fatal("not valid before")
		}
		if valid(t, table(bytes.Clone(signed), objects{4: "x"}, map[int]int{4: len("%PDF-1.7\n")}, "")) {
			t.Error("the hidden object was shown, and the signature is valid")
		}
	})
	t.Run("an entry beyond the revision", func(t *testing.T) {
		o := sample()
		o[3] = strings.Replace(o[3], "/Contents 4 0 R", "/Contents[4 0 R 30 0 R]", 1)
		file := document(o)
		const beyond = 60_000
		at := lastXref(file)
		file = append(bytes.Clone(file[:at]), bytes.Replace(file[at:], []byte("14 1\n"), fmt.Appendf(nil, "30 1\n%010d 00000 n\r\n14 1\n", beyond), 1)...)
		signed := sign(t, file, s.config())
		if !valid(t, signed) {
			t.Fatal("not valid before")
		}
		signed = append(signed, "%"+strings.Repeat(" ", beyond-len(signed)-2)+"\n"...)
		if valid(t, update(signed, objects{30: other}, "")) || valid(t, update(append(signed, "30 0 obj\n"+other+"\nendobj\n"...), objects{}, "")) {
			t.Error("an object was put where the signed revision points, and the signature is valid")
		}
	})
	t.Run("an object stream", func(t *testing.T) {
		packed, plain := split(sample())
		signed := sign(t, streamed(packed, plain), s.config())
		if !valid(t, signed) {
			t.Fatal("not valid before")
		}
		packed[13] = "<</First 14 0 R/Last 14 0 R/Count 666>>"
		if valid(t, update(signed, objects{50: objectStream(packed)}, "")) {
			t.Error("the object stream was replaced, and the signature is valid")
		}
		packed[13] = sample()[13]
		if !valid(t, update(signed, objects{50: objectStream(packed)}, "")) {
			t.Error("the object stream was replaced by the same, and the signature is not valid")
		}
	})
	t.Run("the length of a stream", func(t *testing.T) {
		o := sample()
		o[4], o[30] = strings.Replace(o[4], fmt.Sprintf("/Length %d", len("BT /Helv 24 Tf 72 720 Td (Pay 100 to Alice) Tj ET /X Do")), "/Length 30 0 R", 1), "55"
		signed := sign(t, document(o), s.config())
		if !valid(t, signed) {
			t.Fatal("not valid before")
		}
		if valid(t, update(signed, objects{30: "5"}, "")) {
			t.Error("the length was changed, and the signature is valid")
		}
	})
	t.Run("another object in the place", func(t *testing.T) {
		signed := sign(t, document(sample()), s.config())
		at := bytes.Index(signed, []byte("10 0 obj"))
		if valid(t, table(bytes.Clone(signed), objects{4: "x"}, map[int]int{4: at}, "")) {
			t.Error("an entry that points to another object, and the signature is valid")
		}
	})
	t.Run("a hybrid file", func(t *testing.T) {
		signed := sign(t, document(sample()), s.config())
		var row [5]byte
		row[0] = 1
		at := len(signed)
		row[1], row[2], row[3] = byte(at>>16), byte(at>>8), byte(at)
		file := fmt.Appendf(bytes.Clone(signed), "4 0 obj\n%s\nendobj\n", other)
		hidden := len(file)
		file = fmt.Appendf(file, "40 0 obj\n%s\nendobj\n", stream("/Type/XRef/Size 99/W[1 3 1]/Index[4 1]", string(row[:])))
		if valid(t, table(file, objects{}, nil, fmt.Sprintf("/Root 1 0 R/XRefStm %d", hidden))) {
			t.Error("content was replaced by a hybrid section, and the signature is valid")
		}
	})
}

// A later signature that is seen but says nothing is a picture on the page: the earlier one is no longer valid.
func TestPictures(t *testing.T) {
	s := newSigner(t, rsaKey())
	signed := sign(t, document(sample()), s.config())
	for rect, want := range map[string]error{"0 0 0 0": nil, "0 0 300 300": pdf.ErrModified} {
		file := update(signed, objects{
			5:  "<</Fields[6 0 R 16 0 R 40 0 R]/SigFlags 3/DA(/Helv 0 Tf 0 g)/DR<</Font<</Helv 7 0 R>>>>>>",
			3:  strings.Replace(sample()[3], "[6 0 R]", "[6 0 R 16 0 R 40 0 R]", 1),
			40: "<</Type/Annot/Subtype/Widget/FT/Sig/T(new)/P 3 0 R/V 41 0 R/Rect[" + rect + "]>>",
			41: "<</Type/Sig/SubFilter/ETSI.CAdES.detached/Contents<00>/ByteRange[0 1 2 3]>>",
		}, "")
		d := read(t, file)
		for i, v := range d.Verify(nil) {
			if d.Signatures[i].Field == "new" {
				if !errors.Is(v.Err, pdf.ErrCoverage) {
					t.Errorf("%s: the later one: %v", rect, v.Err)
				}
			} else if !errors.Is(v.Err, want) {
				t.Errorf("%s: %v, want %v", rect, v.Err, want)
			}
		}
	}
}

// The author's signature is told apart.
func TestCertified(t *testing.T) {
	c := p256(t).config()
	c.Certify = pdf.AllowForms
	file := sign(t, sign(t, document(sample()), c), p256(t).config())
	d := read(t, file)
	if len(d.Signatures) != 2 || d.Certified != d.Signatures[0] || d.Certified.Permissions != pdf.AllowForms || d.Signatures[1].Permissions != pdf.Unrestricted {
		t.Errorf("%+v", d.Certified)
	}
	for _, v := range d.Verify(nil) {
		if v.Err != nil {
			t.Error(v.Err, v.Changes)
		}
	}
	d = read(t, update(file, objects{1: sample()[1]}, "")) // without Perms
	if v := d.Verify(nil); d.Certified != nil || !errors.Is(v[0].Err, pdf.ErrModified) || !errors.Is(v[1].Err, pdf.ErrModified) {
		t.Errorf("decertified: %v, %v, %v", d.Certified, v[0].Err, v[1].Err)
	}
}

// Nothing can be done to one signature behind the back of the others.
func TestOtherSignatures(t *testing.T) {
	first := sign(t, document(sample()), p256(t).config())
	both := sign(t, first, p256(t).config())
	form := func(fields string) string {
		return "<</Fields[" + fields + "]/SigFlags 3/DA(/Helv 0 Tf 0 g)/DR<</Font<</Helv 7 0 R>>>>>>"
	}
	const second = fieldObject + 2
	for name, change := range map[string]objects{
		"taken away":     {5: form("6 0 R 16 0 R")},
		"emptied":        {second: "<</Type/Annot/Subtype/Widget/FT/Sig/T<5369676e617475726533>/F 132/P 3 0 R/Rect[0 0 0 0]>>"},
		"given the same": {second: "<</Type/Annot/Subtype/Widget/FT/Sig/T<5369676e617475726533>/F 132/P 3 0 R/Rect[0 0 0 0]/V 15 0 R>>"},
		"replaced":       {second: "<</Type/Annot/Subtype/Widget/FT/Sig/T<5369676e617475726533>/F 132/P 3 0 R/Rect[0 0 0 0]/V 40 0 R>>", 40: "<</Type/Sig>>"},
		"overwritten":    {second - 1: "<</Type/Sig>>"},
	} {
		if v := read(t, update(both, change, "")).Verify(nil)[0]; !errors.Is(v.Err, pdf.ErrModified) && !errors.Is(v.Err, pdf.ErrMalformed) {
			t.Errorf("%s: %v %v", name, v.Err, v.Changes)
		} else if v.Modification != pdf.Other {
			t.Errorf("%s: %v", name, v.Modification)
		}
	}
}

// Files that are refused, and nothing is repaired.
func TestRefused(t *testing.T) {
	plain := document(sample())
	text := string(plain)
	revised := update(plain, objects{9: "<<>>"}, "")
	pointer := fmt.Sprintf("startxref\n%d\n", lastXref(plain))
	for name, file := range map[string]string{
		"nothing":                             "",
		"no header":                           "%PDX" + text[4:],
		"something before the header":         "\n" + text,
		"no startxref":                        strings.Replace(text, "startxref", "startxraf", 1),
		"startxref to nowhere":                strings.Replace(text, pointer, "startxref\n99999999\n", 1),
		"startxref to something else":         strings.Replace(text, pointer, "startxref\n0\n", 1),
		"no end":                              strings.Replace(text, "%%EOF", "%%", 1),
		"an older startxref to another place": strings.Replace(string(revised), pointer, strings.Replace(pointer, "\n", "\n1", 1), 1),
		"sections in a circle":                string(update(plain, objects{9: "<<>>"}, fmt.Sprintf("/Root 1 0 R/Prev %d", len(plain)+len("9 0 obj\n<<>>\nendobj\n")))),
		"an older section further behind":     string(update(update(plain, objects{}, ""), objects{}, fmt.Sprintf("/Root 1 0 R/Prev %d", len(plain)*9))),
		"a number twice":                      strings.Replace(text, "xref\n0 1\n", "xref\n0 1\n0000000000 65535 f\r\n0 1\n", 1),
		"too large a number":                  strings.Replace(text, "xref\n0 1\n", "xref\n99999999 1\n", 1),
		"no catalog":                          strings.Replace(text, "/Root", "/Roat", 1),
		"a field in two places":               string(update(plain, objects{5: "<</Fields[6 0 R 6 0 R]>>"}, "")),
		"encrypted":                           string(update(plain, objects{}, "/Root 1 0 R/Encrypt<<>>")),
	} {
		_, err := pdf.Read(strings.NewReader(file), int64(len(file)))
		want := pdf.ErrMalformed
		if name == "encrypted" {
			want = pdf.ErrEncrypted
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A failing reads right up to a position, and fails from there.
type failing struct {
	file []byte
	from int64
}

var errDisk = errors.New("disk")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return copy(p, f.file[off:]), nil
}

// What cannot be read is not called malformed or changed.
func TestReadFailure(t *testing.T) {
	file := sign(t, document(sample()), p256(t).config())
	for n := range len(file) / 100 {
		from := int64(n * 100)
		if _, err := pdf.Read(failing{file, from}, int64(len(file))); !errors.Is(err, errDisk) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	r := &failing{file, 1 << 30}
	d, err := pdf.Read(r, int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	r.from = 100
	if v := d.Verify(nil)[0]; !errors.Is(v.Err, errDisk) || errors.Is(v.Err, pdf.ErrDigest) {
		t.Error(v.Err)
	}
}

// Many verify at once.
func TestConcurrent(t *testing.T) {
	signed := sign(t, sign(t, streamed(split(sample())), p256(t).config()), p256(t).config())
	d := read(t, update(signed, objects{4: stream("", "evil")}, ""))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for _, v := range d.Verify(nil) {
				if !errors.Is(v.Err, pdf.ErrModified) {
					t.Error(v.Err)
				}
			}
		})
	}
	group.Wait()
}

// Locked fields may not be filled in after signing (FieldMDP).
func TestFieldMDP(t *testing.T) {
	s := newSigner(t, rsaKey())
	filled := strings.Replace(sample()[6], "V(100)/", "V(900)/", 1)
	for params, locked := range map[string]bool{
		"/Action/All":                        true,
		"/Action/Include/Fields[(amount)]":   true,
		"/Action/Include/Fields[(remark)]":   false,
		"/Action/Exclude/Fields[(amount)]":   false,
		"/Action/Exclude/Fields[(remark)]":   true,
		"/Action/Unknown/Fields[(amount)]":   true,
		"/Action/Include/Fields[(amo)(u)()]": false,
	} {
		file := placeholder(t, document(sample()), "/SubFilter/adbe.pkcs7.detached/Reference[<</TransformMethod/FieldMDP/TransformParams<<"+params+">>>>]", s.openssl(t))
		if v := read(t, file).Verify(nil)[0]; v.Err != nil {
			t.Fatal(v.Err)
		}
		v := read(t, update(file, objects{6: filled}, "")).Verify(nil)[0]
		if errors.Is(v.Err, pdf.ErrModified) != locked || v.Modification != pdf.Forms {
			t.Errorf("%s: %v %v", params, v.Err, v.Modification)
		}
	}
}
