package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A connection that the server cut is nobody's fault: the call that notices says Unavailable, and the next has another.
func TestStatusReaderIsCut(t *testing.T) {
	t.Parallel()
	name := storetest.Postgres(t)
	s := storetest.Create(t, name)
	world(t, s)
	id := certificate(1).ID
	update(t, s, func(tx *store.Tx) error {
		return tx.AddStatus(jpki.StatusChange{ID: id, Status: jpki.Status{State: jpki.Good, Since: now}, Partition: "99101", NotAfter: now})
	})
	calls := map[string]func(*store.StatusReader) error{
		"StatusChanges": func(r *store.StatusReader) error { _, err := r.StatusChanges(t.Context(), 0, 10); return err },
		"StatusOf":      func(r *store.StatusReader) error { _, err := r.StatusOf(t.Context(), id); return err },
		"Listed":        func(r *store.StatusReader) error { _, err := r.Listed(t.Context(), id.Issuer, ""); return err },
		"Partitions":    func(r *store.StatusReader) error { _, err := r.Partitions(t.Context(), id.Issuer); return err },
	}
	for what, call := range calls {
		r, err := store.OpenStatusReader(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		cuts := 0
		for range 20 { // the driver sometimes notices by itself, and then nothing is to be seen
			if err := call(r); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			storetest.Exec(t, name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
			if err := call(r); err != nil {
				cuts++
				if !errors.Is(err, jpki.Unavailable) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		if cuts == 0 {
			t.Errorf("%s: no call noticed", what)
		}
	}
	r, err := store.OpenStatusReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.StatusOf(t.Context(), certificate(2).ID); !errors.Is(err, jpki.UnknownCertificate) {
		t.Errorf("a certificate that is not there: %v", err)
	}
}

// A database's name has to lead to the primary, and its password is not repeated.
func TestCheckPrimary(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"sqlite:ca.db":                                                     true,
		"postgres://u:hush@db1/ca":                                         true,
		"postgres://u:hush@db1,db2/ca":                                     false,
		"postgres://u:hush@db1:1,db1:2/ca":                                 false,
		"postgresql://u:hush@db1,db2/ca":                                   false,
		"postgres:///ca?host=db1,db2":                                      false,
		"postgres://u:hu,sh@db1/ca":                                        true,
		"postgres://u:hush@db1,db2/ca?target_session_attrs=read-write":     true,
		"postgres://u:hush@db1,db2/ca?target_session_attrs=primary":        true,
		"postgres://u:hush@db1,db2/ca?target_session_attrs=any":            false,
		"postgres://u:hush@db1,db2/ca?target_session_attrs=read-only":      false,
		"postgres://u:hush@db1/ca?target_session_attrs=standby":            false,
		"postgres://u:target_session_attrs=read-write@db1,db2/ca":          false,
		"postgres://u:hush@db1:port/ca":                                    false,
		"postgres://u:hush@db1/ca?target_session_attrs=nonsense&hush=hush": false,
	} {
		err := store.CheckPrimary(name)
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), ":hush") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}
