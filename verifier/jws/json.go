package jws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds on one file. Text inside text (headers, unsigned properties) is bounded likewise.
const (
	MaxBytes      = 64 << 20
	maxDepth      = 32     // of arrays and objects inside each other
	maxValues     = 20_000 // of members and elements
	maxSignatures = 100    // counter-signatures among them
)

// object and array are what JSON has; beside them there are string, json.Number, bool and nil.
type (
	object map[string]any
	array  []any
)

// parseObject reads one JSON object and nothing beside it. A member that occurs twice is refused: readers differ on which of
// the two holds (RFC 7515 §4 and §5.2).
func parseObject(text []byte) (object, error) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, fmt.Errorf("%w: no JSON text", ErrMalformed)
	}
	r := jsonReader{dec: json.NewDecoder(bytes.NewReader(text))}
	r.dec.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(object)
	if _, err := r.dec.Token(); !ok || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: no JSON object", ErrMalformed)
	}
	return o, nil
}

type jsonReader struct {
	dec    *json.Decoder
	values int
}

func (r *jsonReader) value(depth int) (any, error) {
	if r.values++; r.values > maxValues || depth > maxDepth {
		return nil, fmt.Errorf("%w: JSON of more than %d values or %d levels", ErrUnsupported, maxValues, maxDepth)
	}
	t, err := r.dec.Token()
	if err != nil {
		return nil, fmt.Errorf("%w: no JSON text", ErrMalformed)
	}
	switch t {
	case json.Delim('{'):
		return r.object(depth)
	case json.Delim('['):
		out := array{}
		for r.dec.More() {
			v, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		_, err = r.dec.Token()
		return out, err
	}
	return t, nil
}

func (r *jsonReader) object(depth int) (any, error) {
	out := object{}
	for r.dec.More() {
		t, err := r.dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, fmt.Errorf("%w: no JSON text", ErrMalformed)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%w: a member occurs twice in a JSON object", ErrMalformed)
		}
		if out[name], err = r.value(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := r.dec.Token()
	return out, err
}

// get returns a member that is to be of type T, if it is there.
func get[T any](o object, name string) (v T, there bool, err error) {
	x, there := o[name]
	if !there {
		return v, false, nil
	}
	v, ok := x.(T)
	if !ok {
		return v, true, fmt.Errorf("%w: %q is of another type", ErrMalformed, name)
	}
	return v, true, nil
}

// strict is base64url as RFC 7515 §2 has it: one text for one value.
var strict = base64.RawURLEncoding.Strict()

func decode(s string) ([]byte, error) { return decodeAs(strict, s) }

// decodeAs decodes base64 without the line breaks that encoding/base64 passes over.
func decodeAs(enc *base64.Encoding, s string) ([]byte, error) {
	out, err := enc.DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: not base64", ErrMalformed)
	}
	return out, nil
}
