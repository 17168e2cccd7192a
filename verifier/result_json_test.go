package verifier_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// What is written by hand is what encoding/json writes, whatever the fields hold. The values are made by reflection, so a field that is
// added to a result and not to its writer is found.
func TestAppendJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var res verifier.Result
		fill(t, r, reflect.ValueOf(&res).Elem())
		sameJSON(t, res, res.AppendJSON)
		var doc verifier.DocumentResult
		fill(t, r, reflect.ValueOf(&doc).Elem())
		sameJSON(t, doc, doc.AppendJSON)
	}
	sameJSON(t, verifier.Result{}, (&verifier.Result{}).AppendJSON)
	sameJSON(t, verifier.DocumentResult{}, (&verifier.DocumentResult{}).AppendJSON)
	far := verifier.Result{ValidationTime: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
	if _, err := far.AppendJSON(nil); err == nil {
		t.Error("the year 10000 has no form in RFC 3339")
	}
}

func sameJSON(t *testing.T, v any, appendJSON func([]byte) ([]byte, error)) {
	t.Helper()
	want, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := appendJSON([]byte("before "))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "before "+string(want) {
		t.Fatalf("got  %s\nwant %s", got[len("before "):], want)
	}
}

var awkward = []string{
	"", "ok", "http://sandbox.example/?a=1&b=<2>", `quoted "\"`, "line\nbreak\x00\x1f\x7f", "試験　太郎", "\u2028\u2029", "\xff broken \xe2\x80", "\U0001F600 “”",
}

// fill gives every field a value, empty ones among them.
func fill(t *testing.T, r *rand.Rand, v reflect.Value) {
	t.Helper()
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		if r.IntN(4) > 0 {
			*p = time.Unix(r.Int64N(4e9), r.Int64N(2)*r.Int64N(1e9)).In([]*time.Location{time.UTC, jpki.JST}[r.IntN(2)])
		}
		return
	case *jpki.Serial:
		*p, _ = jpki.SerialFromBytes([]byte{byte(r.IntN(256)), byte(r.IntN(256))})
		return
	case *jpki.Reason:
		*p = jpki.Reason(r.IntN(11))
		return
	case *verifier.Evidence, *error: // not in the JSON
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(awkward[r.IntN(len(awkward))])
	case reflect.Int:
		v.SetInt(r.Int64N(3) * r.Int64N(1e6))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Uint8:
		v.SetUint(r.Uint64N(256))
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, r, v.Elem())
		}
	case reflect.Slice:
		if n := r.IntN(4) - 1; n >= 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(t, r, v.Index(i))
			}
		}
	case reflect.Struct:
		for f, field := range v.Fields() {
			if f.IsExported() {
				fill(t, r, field)
			}
		}
	default:
		t.Fatalf("no values for %s", v.Type())
	}
}
