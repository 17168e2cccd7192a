package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// A relay and a follower need no more of Redis than the documented user may do, whose password is in a file. With another
// password there is no copy, and the relay says why.
func TestRelayAsDocumentedUser(t *testing.T) {
	t.Parallel()
	name := storetest.Postgres(t)
	db := storetest.Create(t, name)
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		return tx.AddStatus(jpki.StatusChange{
			ID: jpki.CertID{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, Serial: serial}, Partition: "99101", NotAfter: time.Now().Add(time.Hour), Status: jpki.Status{State: jpki.Good, Since: time.Now()},
		})
	}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "ACL SETUSER jpki ")
	rules, _, _ := strings.Cut(rest, "\n")
	redis := redistest.Start(t)
	redis.Do(append([]string{"ACL", "SETUSER", "jpki"}, strings.Fields(rules)...)...)
	var secret [16]byte
	_, _ = rand.Read(secret[:])
	password := hex.EncodeToString(secret[:])
	redis.Do("ACL", "SETUSER", "jpki", ">"+password)
	redis.Do("ACL", "SETUSER", "default", "-@all", "+ping", "+acl")

	dir := t.TempDir()
	key := bytes.Repeat([]byte("k"), 32)
	for file, octets := range map[string][]byte{"key": key, "password": []byte(password + "\n"), "wrong": []byte("wrong\n")} {
		if err := os.WriteFile(filepath.Join(dir, file), octets, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func(passwordFile string) (said *bytes.Buffer, end func()) {
		config := filepath.Join(dir, passwordFile+".yaml")
		text := fmt.Sprintf("database: %q\nredis: {addresses: ['%s'], username: jpki, password_file: %s}\nkey_file: key\nadmin: 127.0.0.1:0\n", name, redis.Addr(), passwordFile)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said = &bytes.Buffer{}
		cmd := exec.CommandContext(t.Context(), "jpki", "relay", "-config", config)
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return said, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	follower, err := relay.NewFollower(relay.FollowerConfig{Server: relay.Server{Addrs: []string{redis.Addr()}, Username: "jpki", Password: password}, Key: key, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = follower.Run(t.Context()) }()

	_, endWrong := start("wrong")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if changes, err := follower.StatusChanges(short, 0, 100); err == nil {
		t.Errorf("%d changes through a relay that Redis does not know", len(changes))
	}
	endWrong()
	said, end := start("password")
	defer end()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("relay: %s\nRedis: %s", said, redis.Do("ACL", "LOG"))
		}
	})
	redistest.Until(t, "the log is read through Redis", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		changes, err := follower.StatusChanges(ctx, 0, 100)
		return err == nil && len(changes) == 1 && changes[0].ID.Serial == serial
	})
	if log := redis.Do("ACL", "LOG"); strings.Contains(log, "command") {
		t.Errorf("Redis refused something: %s", log)
	}
}
