package main

import (
	"github.com/goccy/go-yaml"

	"github.com/openjpki/jpki/ca/acme"
)

// Phones is what an entry of enrolment.phones has acme.New told.
func Phones(text string) (acme.Attestation, error) {
	var a attestation
	if err := yaml.UnmarshalWithOptions([]byte(text), &a, yaml.Strict()); err != nil {
		return acme.Attestation{}, err
	}
	return a.policy(nil)
}
