package main

import (
	"bytes"
	"crypto/x509"
	"encoding/csv"
	"encoding/pem"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki/crl/snapshot"
)

// A table that is read comes back line by line with one column more, and otherwise as it was.
func FuzzCheckTable(f *testing.F) {
	text, err := os.ReadFile("../../crl/snapshot/testdata/issuer.crt")
	if err != nil {
		f.Fatal(err)
	}
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	issuer, err := x509.ParseCertificate(text)
	if err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile("../../crl/snapshot/testdata/example.snapshot")
	if err != nil {
		f.Fatal(err)
	}
	s, err := snapshot.Open(file, snapshot.Config{IssuerCert: issuer, Now: func() time.Time { return time.Date(2026, 4, 1, 4, 0, 0, 0, time.UTC) }})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("serial,not_before,not_after\n84D12BB8D0E60E1AC8E46268C69C934B,2026-01-01T00:00:00Z,2030-01-01T00:00:00Z\nFE70,x,y\n"))
	f.Add([]byte("customer,certificate\n1,MIIB\n\"2\n3\",\n"))
	f.Add([]byte("a\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		var out bytes.Buffer
		if _, err := checkTable(&out, bytes.NewReader(table), s, issuer); err != nil {
			return
		}
		want, err := csv.NewReader(bytes.NewReader(table)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		got, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d lines of %d: %v", len(got), len(want), err)
		}
		for i, line := range got {
			if !slices.Equal(line[:len(line)-1], want[i]) {
				t.Errorf("line %d: %q, was %q", i, line, want[i])
			}
		}
	})
}
