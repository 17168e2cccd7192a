package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Where stations enrol is read with the server's certificate and key beside the rest.
func TestEnrolmentIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.yaml")
	if err := os.WriteFile(path, []byte(`database: "sqlite:ca.db"
profile: sandbox
status_url: http://status.example.jp
keys: {certificates: "file:{}.key"}
server: {certificate: server.pem, key: "file:server.key"}
stations_ca: infrastructure.pem
audit: {key: audit.key, checkpoints: checkpoints}
publish: public
enrolment:
  listen: 127.0.0.1:8445
  hosts: [ca.example.jp]
  certificate: infrastructure.pem
  key: file:infrastructure.key
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Enrolment; e == nil || e.Certificate != "infrastructure.pem" || e.Key != "file:infrastructure.key" || e.Listen != "127.0.0.1:8445" {
		t.Errorf("enrolment is %+v", e)
	}
}
