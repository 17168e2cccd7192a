package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/openjpki/jpki"
)

// decode reads the body, one JSON object, into a struct. A member that it does not have is refused, but passed over if extensible, as the
// framework for shared signals demands. Errors are [jpki.MyNumberPresent] or [jpki.Malformed]; they quote nothing.
func (c call) decode(into any, extensible bool) error {
	switch {
	case c.media() != "application/json":
		return jpki.Errorf(jpki.Malformed, "Content-Type is not application/json")
	case !utf8.Valid(c.body):
		return jpki.Errorf(jpki.Malformed, "not UTF-8")
	case mentionsMyNumber(c.body):
		return jpki.Errorf(jpki.MyNumberPresent, "remove the My Number; nothing was kept")
	}
	d := json.NewDecoder(bytes.NewReader(c.body))
	if !extensible {
		d.DisallowUnknownFields()
	}
	err := d.Decode(into)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows")
		}
	}
	if err != nil || bytes.TrimLeft(c.body, " \t\r\n")[0] != '{' {
		return jpki.Errorf(jpki.Malformed, "not one JSON object of the members described")
	}
	return nil
}

// queries names the query parameters there are; where nothing stands there are none.
var queries = map[string][]string{
	"GET /v1/changes":                    {"after", "limit", "wait"},
	"GET /v1/endpoints/:id/dead-letters": {"after", "limit"},
	"GET /v1/ssf/streams":                {"stream_id"},
	"DELETE /v1/ssf/streams":             {"stream_id"},
	"GET /v1/ssf/status":                 {"stream_id"},
}

// checkQuery refuses parameters that a route has not, or that come twice.
func checkQuery(r route, raw string) error {
	if raw == "" {
		return nil
	}
	known := queries[r.method+" "+r.path]
	if known == nil {
		return jpki.Errorf(jpki.Malformed, "there are no query parameters")
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return jpki.Errorf(jpki.Malformed, "the query cannot be read")
	}
	for name, values := range q {
		if !slices.Contains(known, name) || len(values) != 1 {
			return jpki.Errorf(jpki.Malformed, "query parameters are %v, each once", known)
		}
	}
	return nil
}

// number reads a parameter between 0 and most; standard if it is absent.
func (c call) number(name string, standard, most int64) (int64, error) {
	text := c.URL.Query().Get(name)
	if text == "" {
		return standard, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, jpki.Errorf(jpki.Malformed, "%s is not a number from 0 to %d", name, most)
	}
	return n, nil
}
