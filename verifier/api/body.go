package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openjpki/jpki"
)

const (
	maxBody    = 1 << 20 // octets
	maxBinding = 256     // characters
	maxUser    = 128     // characters
)

// binary names the members that hold base64. Octets are not searched for My Numbers: a run of twelve digits in base64 is
// chance. The shortest of them, a digest, has 32 octets; anything much shorter is text in the wrong place.
var binary = []string{"certificate", "digest", "signature", "document", "detached", "nonce"}

// booleans names the members that are true or false.
var booleans = []string{"store_attributes", "identify_user"}

// lists names the members that are lists of words. They are read as words with spaces between them.
var lists = []string{"items"}

const (
	minBinary = 20
	maxList   = 16 // words
)

// fields holds the members of a request body, which is one flat object of strings and truth values. err is the first thing wrong with a
// member that was read.
type fields struct {
	values map[string]string
	err    error
}

// fields reads the request body. names lists the members that it must have; those with a question mark may be missing,
// and if all have one the body may be empty. Errors are [jpki.MyNumberPresent] or [jpki.Malformed]; they quote nothing.
func (c call) fields(names ...string) (*fields, error) {
	if len(c.body) == 0 && !slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, "?") }) {
		return &fields{values: map[string]string{}}, nil
	}
	if c.media() != "application/json" {
		return nil, jpki.Errorf(jpki.Malformed, "Content-Type is not application/json")
	}
	return parseFields(c.body, names...)
}

// parseFields reads one object.
func parseFields(body []byte, names ...string) (*fields, error) {
	known := make([]string, 0, len(names))
	for _, n := range names {
		known = append(known, strings.TrimSuffix(n, "?"))
	}
	f := &fields{values: make(map[string]string, len(names))}
	if err := f.parse(body, known); err != nil {
		return nil, err
	}
	return f, f.require(names...)
}

// require says which of the names without question mark is missing.
func (f *fields) require(names ...string) error {
	for _, n := range names {
		if _, present := f.values[n]; !present && !strings.HasSuffix(n, "?") {
			return jpki.Errorf(jpki.Malformed, "%s is missing", n)
		}
	}
	return nil
}

// without says which of the names is there though it may not be.
func (f *fields) without(names ...string) error {
	for _, n := range names {
		if f.has(n) {
			return jpki.Errorf(jpki.Malformed, "%s does not go with the others", n)
		}
	}
	return nil
}

func (f *fields) has(name string) bool { _, present := f.values[name]; return present }

// media returns the body's media type, "" if it has none that can be read or is compressed.
func (c call) media() string {
	media, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || c.Header.Get("Content-Encoding") != "" {
		return ""
	}
	return media
}

// parse reads the one form there is. What has another form is searched for a My Number before it is called malformed:
// the sender must learn of it.
func (f *fields) parse(body []byte, known []string) error {
	if !utf8.Valid(body) {
		return jpki.Errorf(jpki.Malformed, "not UTF-8")
	}
	found, detail := false, ""
	if !f.quick(string(body), known) {
		clear(f.values)
		detail = f.flat(body, known)
	}
	if detail != "" {
		found = mentionsMyNumber(body)
	}
	for name, value := range f.values {
		found = found || jpki.ContainsMyNumber(value) && !isBinary(name, value)
	}
	switch {
	case found:
		return jpki.Errorf(jpki.MyNumberPresent, "remove the My Number; nothing was kept")
	case detail != "":
		return jpki.Errorf(jpki.Malformed, "%s", detail)
	}
	return nil
}

// quick reads what flat would read without fault, if no string in it has an escape, and in a fraction of the time; false leaves it to
// flat. The body is UTF-8. Values are parts of it.
func (f *fields) quick(body string, known []string) bool {
	at := 0
	next := func() byte { // takes the next octet that is no white space (RFC 8259 §2); 0 at the end
		for at < len(body) {
			c := body[at]
			at++
			if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
				return c
			}
		}
		return 0
	}
	text := func() (string, bool) { // up to the closing quotation mark
		end := strings.IndexByte(body[at:], '"')
		if end < 0 {
			return "", false
		}
		s := body[at : at+end]
		at += end + 1
		for i := range len(s) {
			if s[i] < ' ' || s[i] == '\\' {
				return "", false
			}
		}
		return s, true
	}
	if next() != '{' {
		return false
	}
	for {
		if next() != '"' {
			return false
		}
		name, ok := text()
		if !ok || !slices.Contains(known, name) || f.has(name) || next() != ':' {
			return false
		}
		switch c := next(); {
		case slices.Contains(booleans, name):
			value := strconv.FormatBool(c == 't')
			if !strings.HasPrefix(body[at-1:], value) {
				return false
			}
			f.values[name] = value
			at += len(value) - 1
		case c == '"':
			if f.values[name], ok = text(); !ok {
				return false
			}
		default:
			return false
		}
		switch next() {
		case ',':
		case '}':
			return strings.TrimLeft(body[at:], " \t\r\n") == ""
		default:
			return false
		}
	}
}

// flat reads an object of strings, each under a known name that comes once, and returns what is wrong with it, or "".
func (f *fields) flat(body []byte, known []string) string {
	const form = "not one JSON object of the members described"
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return form
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return form
		}
		value, err := dec.Token()
		key, _ := name.(string)
		text, ok := value.(string)
		if slices.Contains(lists, key) {
			text, ok = words(dec, value)
		}
		if truth, is := value.(bool); is && slices.Contains(booleans, key) {
			text, ok = strconv.FormatBool(truth), true
		} else if ok && slices.Contains(booleans, key) {
			return key + " is not true or false"
		}
		if err != nil || !ok {
			return form
		}
		if !slices.Contains(known, key) {
			return "a member is none of " + strings.Join(known, ", ")
		}
		if _, twice := f.values[key]; twice {
			return key + " occurs twice"
		}
		f.values[key] = text
	}
	if _, err := dec.Token(); err != nil {
		return form
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "something follows the object"
	}
	return ""
}

// words reads the rest of a list of words.
func words(dec *json.Decoder, begin json.Token) (string, bool) {
	if begin != json.Delim('[') {
		return "", false
	}
	var out []string
	for dec.More() {
		t, err := dec.Token()
		word, ok := t.(string)
		if err != nil || !ok || word == "" || strings.ContainsRune(word, ' ') || len(out) == maxList {
			return "", false
		}
		out = append(out, word)
	}
	_, err := dec.Token()
	return strings.Join(out, " "), err == nil
}

// mentionsMyNumber searches every name, string and number of any JSON, and as plain text what is not JSON.
func mentionsMyNumber(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err != nil {
			return jpki.ContainsMyNumber(string(body[dec.InputOffset():]))
		}
		switch t := token.(type) {
		case string:
			if jpki.ContainsMyNumber(t) {
				return true
			}
		case json.Number:
			if jpki.ContainsMyNumber(t.String()) || jpki.ContainsMyNumber(expand(t)) {
				return true
			}
		}
	}
}

// isBinary reports whether a value stands where base64 belongs and is base64.
func isBinary(key, value string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(value)
	return err == nil && len(b) >= minBinary && slices.Contains(binary, key)
}

// expand writes a number without exponent, as a My Number would be written.
func expand(n json.Number) string {
	v, err := n.Float64()
	if err != nil || v >= 1e15 || v <= -1e15 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func (f *fields) fail(detail string) {
	if f.err == nil {
		f.err = jpki.Errorf(jpki.Malformed, "%s", detail)
	}
}

func (f *fields) text(name string) string { return f.values[name] }

func (f *fields) octets(name string) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(f.values[name])
	if err != nil || len(b) == 0 {
		f.fail(name + " is not base64 (RFC 4648 section 4, with padding)")
	}
	return b
}

// time reads a time; zero if the member is absent.
func (f *fields) time(name string) time.Time {
	s, present := f.values[name]
	if !present {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		f.fail(name + " is not a time as in RFC 3339")
	}
	return t
}

// user reads the tenant's own name for a user.
func (f *fields) user() string {
	u := f.values["user"]
	if utf8.RuneCountInString(u) > maxUser || f.has("user") && u == "" {
		f.fail("user has not 1 to 128 characters")
	}
	return u
}

// store reads whether certificates with attributes shall be kept; standard if the member is absent.
func (f *fields) store(standard bool) bool {
	if s, present := f.values["store_attributes"]; present {
		return s == "true"
	}
	return standard
}

// session returns what a challenge is bound to. The relying party whose token it is always takes part, so that nobody
// else can redeem the challenge, whatever audience and binding they name.
func (f *fields) session(party string) (audience string, binding []byte) {
	audience, given := f.values["audience"]
	if !given {
		audience = party
	}
	b := f.values["binding"]
	if utf8.RuneCountInString(b) > maxBinding {
		f.fail("binding is longer than 256 characters")
	}
	sum := sha256.Sum256([]byte("relying party\x00" + party + "\x00" + b))
	return audience, sum[:]
}
