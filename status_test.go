package jpki_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

// constantsOf returns the values of the string constants of a type in a source file, in the order in which they stand
// there. Tests walk them, so that a new constant cannot be forgotten in a table.
func constantsOf[T ~string](t *testing.T, file, typeName string) (values []T) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range f.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			if name, ok := value.Type.(*ast.Ident); !ok || name.Name != typeName {
				continue
			}
			for _, v := range value.Values {
				text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, T(text))
			}
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s declares no constant of type %s", file, typeName)
	}
	return values
}

func TestRevocation(t *testing.T) {
	since := time.Date(2026, 4, 1, 3, 0, 0, 0, jpki.JST)
	type appearance struct {
		Reason  jpki.Reason
		At      time.Time
		Revoked bool
	}
	want := map[jpki.State]appearance{
		jpki.Good:      {},
		jpki.Suspended: {jpki.CertificateHold, since, true},
		jpki.Revoked:   {jpki.AffiliationChanged, since, true},
	}
	for _, state := range constantsOf[jpki.State](t, "status.go", "State") {
		w, ok := want[state]
		if !ok {
			t.Errorf("nobody decided how %q appears", state)
			continue
		}
		var got appearance
		// The reason is meaningless while good, and of a suspended certificate it can be only one.
		got.Reason, got.At, got.Revoked = jpki.Status{State: state, Reason: jpki.AffiliationChanged, Since: since}.Revocation()
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("%s: %s", state, diff)
		}
	}
}

func TestEveryCauseHasADecision(t *testing.T) {
	neither := []jpki.Cause{jpki.NoCause, jpki.Found}
	want := map[jpki.Cause]jpki.Reason{
		jpki.Lost: 6, jpki.KeyDoubt: 6,
		jpki.Moved: 3, jpki.Renamed: 3, jpki.BirthDateChanged: 3, jpki.SexChanged: 3, jpki.RecordError: 3,
		jpki.Died: 5, jpki.LeftRegister: 5, jpki.Guardianship: 5, jpki.HolderRequest: 5, jpki.CardReturned: 5,
		jpki.Renewed: 4, jpki.TokenReplaced: 4,
		jpki.KeyCompromised: 1, jpki.CAKeyLeak: 2,
		jpki.Discarded: 0, jpki.Abandoned: 0,
	}
	for _, cause := range constantsOf[jpki.Cause](t, "status.go", "Cause") {
		reason, published := cause.Reason()
		w, decided := want[cause]
		switch {
		case slices.Contains(neither, cause):
			if published {
				t.Errorf("%q is published as %v, but neither holds nor ends a certificate", cause, reason)
			}
		case !decided:
			t.Errorf("nobody decided what is published of %q", cause)
		case !published || reason != w:
			t.Errorf("%q: got %v, %t; want %v", cause, reason, published, w)
		}
	}
	if reason, ok := jpki.Cause("bored").Reason(); ok {
		t.Errorf("an unknown cause is published as %v", reason)
	}
}

func TestReasonNames(t *testing.T) {
	// RFC 5280 §5.3.1; 7 is not used there, and JPKI has no attribute certificates (9, 10).
	names := map[jpki.Reason]string{
		0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
		5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL",
	}
	for r := jpki.Reason(-1); r < 12; r++ {
		want, ok := names[r]
		if !ok {
			want = "unknown"
		}
		if r.String() != want {
			t.Errorf("%d is %q, want %q", int(r), r, want)
		}
	}
}

func TestCauseStaysInside(t *testing.T) {
	b, err := json.Marshal(jpki.Status{State: jpki.Revoked, Reason: jpki.CessationOfOperation, Cause: jpki.Died, Version: 2})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), string(jpki.Died)) {
		t.Errorf("the cause leaves the authority: %s", b)
	}
}

func TestEventTypes(t *testing.T) {
	if diff := cmp.Diff(jpki.EventTypes, constantsOf[jpki.EventType](t, "event.go", "EventType")); diff != "" {
		t.Error("EventTypes does not list the event types:", diff)
	}
}
