package backup_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/backup"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var (
	now      = time.Date(2026, 4, 1, 9, 0, 0, 0, time.UTC)
	operator = jpki.Actor{Role: jpki.System, ID: "operator-sato"}
	key      = backup.Key{1, 2, 3}
)

// fill gives a database n statuses, each with an entry in the audit record, and a row with every type of value.
func fill(t testing.TB, db *store.Store, n int) {
	t.Helper()
	issuer := jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	for from := 0; from < n; from += 1000 {
		if err := db.Update(t.Context(), func(tx *store.Tx) error {
			if from == 0 {
				if err := tx.AddGeneration(store.Generation{Issuer: issuer, Certificate: []byte{0, 255}, Active: true}, now); err != nil {
					return err
				}
			}
			for i := from; i < min(n, from+1000); i++ {
				serial, err := jpki.SerialFromBytes(fmt.Appendf([]byte{1}, "%015d", i))
				if err != nil {
					return err
				}
				id := jpki.CertID{Issuer: issuer, Serial: serial}
				if err := tx.AddStatus(jpki.StatusChange{ID: id, Partition: "99101", NotAfter: now.AddDate(5, 0, 0), Status: jpki.Status{State: jpki.Good, Since: now}}); err != nil {
					return err
				}
				if err := tx.Audit(now, operator, "issue", id.String(), "砂場 \x00 '"); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, db *store.Store, after *store.Position) ([]byte, *backup.Manifest) {
	t.Helper()
	var out bytes.Buffer
	m, err := backup.Write(t.Context(), &out, backup.Config{Store: db, Key: key, Now: func() time.Time { return now }, Rand: rand.Reader, After: after})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), m
}

// What is restored is what was backed up, on either engine and from one to the other, and what is written again is the same
// but for what the fence wrote into the record.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		db := storetest.Create(t, fresh(t))
		fill(t, db, 3000)
		file, m := write(t, db, nil)
		if m.Tables["certificate_status"].Rows != 3000 || m.End != (store.Position{Audit: 3000, Status: 3000}) {
			t.Errorf("%+v", m)
		}
		for name, target := range map[string]string{"the same engine": fresh(t), "SQLite": "sqlite:" + filepath.Join(t.TempDir(), "other.db")} {
			other := storetest.Create(t, target)
			if _, err := backup.Restore(t.Context(), other, bytes.NewReader(file), key, operator, now); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			// Lifted without looking, to be read again.
			if err := other.UpdateFenced(t.Context(), func(tx *store.Tx) error { return tx.LiftFence() }); err != nil {
				t.Fatal(err)
			}
			_, again := write(t, other, nil)
			for _, fenced := range []string{"audit", "head"} {
				delete(again.Tables, fenced)
			}
			want := maps.Clone(m.Tables)
			maps.DeleteFunc(want, func(name string, _ backup.Table) bool { return name == "audit" || name == "head" })
			if diff := cmp.Diff(rows(want), rows(again.Tables)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if again.End != (store.Position{Audit: 3001, Status: 3000}) {
				t.Errorf("%s: %+v", name, again.End)
			}
			if _, err := audit.Verify(other.AuditEntries(t.Context()), nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// rows leaves out what depends on the order of rows, which no engine promises.
func rows(tables map[string]backup.Table) map[string]int64 {
	out := map[string]int64{}
	for name, t := range tables {
		out[name] = t.Rows
	}
	return out
}

// Records alone are what came since, they continue the chain, and they cannot be taken for a whole backup.
func TestRecords(t *testing.T) {
	t.Parallel()
	db := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"))
	fill(t, db, 10)
	file, m := write(t, db, &store.Position{Audit: 4, Status: 7})
	if m.End != (store.Position{Audit: 10, Status: 10}) || m.Tables["audit"].Rows != 6 || m.Tables["status_log"].Rows != 3 || len(m.Tables) != 2 {
		t.Errorf("%+v", m)
	}
	var seqs []int64
	got, err := backup.Read(t.Context(), bytes.NewReader(file), key, backup.Visitor{Change: func(c jpki.StatusChange) error { seqs = append(seqs, c.Seq); return nil }})
	if err != nil || !slices.Equal(seqs, []int64{8, 9, 10}) || got.AuditHash != m.AuditHash {
		t.Errorf("%v %+v %v", seqs, got, err)
	}
	other := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "other.db"))
	if _, err := backup.Restore(t.Context(), other, bytes.NewReader(file), key, operator, now); err == nil {
		t.Error("records alone were restored")
	}
	if fenced, err := other.Fenced(t.Context()); fenced || err != nil {
		t.Errorf("what failed has left a fence: %v %v", fenced, err)
	}
}

// No octet can be altered and no part left out: neither is anything restored then, and the database stays as it was.
func TestDamage(t *testing.T) {
	t.Parallel()
	db := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"))
	fill(t, db, 3000) // several chunks
	file, _ := write(t, db, nil)
	const chunk, head = 64<<10 + 16, len("jpki backup 1\n") + 32
	if len(file) < head+3*chunk {
		t.Fatalf("only %d octets", len(file))
	}
	damaged := map[string][]byte{
		"empty": nil, "cut off at a chunk's end": file[:head+chunk], "cut off within a chunk": file[:head+chunk+100], "the last octet": file[:len(file)-1], "more": append(slices.Clone(file), 0),
		"a chunk left out": slices.Concat(file[:head+chunk], file[head+2*chunk:]),
		"two exchanged":    slices.Concat(file[:head], file[head+chunk:head+2*chunk], file[head:head+chunk], file[head+2*chunk:]),
		"one repeated":     slices.Concat(file[:head+chunk], file[head:head+chunk], file[head+chunk:]),
	}
	for at := 0; at < len(file); at += 9973 {
		other := slices.Clone(file)
		other[at] ^= 1
		damaged[fmt.Sprint("octet ", at)] = other
	}
	for name, d := range damaged {
		if m, err := backup.Read(t.Context(), bytes.NewReader(d), key, backup.Visitor{}); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := backup.Read(t.Context(), bytes.NewReader(file), backup.Key{9}, backup.Visitor{}); !errors.Is(err, backup.ErrSealed) {
		t.Errorf("another key: %v", err)
	}
	other := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "other.db"))
	if _, err := backup.Restore(t.Context(), other, bytes.NewReader(damaged["the last octet"]), key, operator, now); err == nil {
		t.Error("restored from a damaged file")
	}
	if n, err := other.StatusPosition(t.Context()); n != 0 || err != nil {
		t.Errorf("a failed restore has left entries up to %d (%v)", n, err)
	}
	if _, err := backup.Restore(t.Context(), other, bytes.NewReader(file), key, operator, now); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// A database whose audit record was tampered with gives no backup.
func TestATamperedRecordIsNotBackedUp(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"altered": `UPDATE audit SET actor = 'nobody' WHERE seq = 5`, "removed": `DELETE FROM audit WHERE seq = 5`,
		"cut short": `DELETE FROM audit WHERE seq = 10`, "a gap in the log": `DELETE FROM status_log WHERE seq = 5`,
	} {
		path := "sqlite:" + filepath.Join(t.TempDir(), "ca.db")
		db := storetest.Create(t, path)
		fill(t, db, 10)
		storetest.Exec(t, path, statement)
		if _, err := backup.Write(t.Context(), new(bytes.Buffer), backup.Config{Store: db, Key: key, Now: time.Now, Rand: rand.Reader}); err == nil {
			t.Errorf("%s: backed up", name)
		}
	}
}

// Every table of the schema is in a backup, but for the one that says which migrations were made.
func TestNoTableIsForgotten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ca.db")
	db := storetest.Create(t, "sqlite:"+path)
	fill(t, db, 1)
	_, m := write(t, db, nil)
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	found, err := raw.Query(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'goose_%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = found.Close() }()
	n := 0
	for found.Next() {
		var name string
		if err := found.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if n++; m.Tables[name].SHA256 == "" {
			t.Errorf("table %s is not backed up", name)
		}
	}
	if n != len(m.Tables) || found.Err() != nil {
		t.Errorf("%d tables, %d backed up (%v)", n, len(m.Tables), found.Err())
	}
}

// What is in the file is not to be read without the key, and keys do not show themselves.
func TestSecrecy(t *testing.T) {
	t.Parallel()
	db := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"))
	fill(t, db, 10)
	file, _ := write(t, db, nil)
	other, _ := write(t, db, nil)
	for _, s := range []string{"operator-sato", "certificate_status", "99101"} {
		if bytes.Contains(file, []byte(s)) {
			t.Errorf("%q is legible", s)
		}
	}
	if bytes.Equal(file[50:], other[50:]) {
		t.Error("two backups of the same are the same")
	}
	if text := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.ContainsAny(text, "123") {
		t.Errorf("a key prints as %s", text)
	}
	text, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := backup.ParseKey(text); err != nil || again != key {
		t.Errorf("a key file is not read back: %v", err)
	}
	for _, bad := range []string{"", "AAAA", strings.Repeat("A", 43) + "B", "x" + string(text)} {
		if _, err := backup.ParseKey([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	db, err := store.Create(f.Context(), "sqlite:"+filepath.Join(f.TempDir(), "ca.db"))
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	fill(f, db, 3)
	file, _ := write(f, db, nil)
	records, _ := write(f, db, &store.Position{Audit: 1, Status: 1})
	for _, b := range [][]byte{file, records} {
		plain, err := backup.Unseal(b, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		sealed, err := backup.Seal(plain, key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := backup.Unseal(sealed, key); err != nil || !bytes.Equal(again, plain) {
			t.Fatalf("what was sealed is not what was opened: %v", err)
		}
		read := map[string]int64{}
		table := ""
		m, err := backup.Read(context.Background(), bytes.NewReader(sealed), key, backup.Visitor{
			Table: func(t store.Table) error { table = t.Name; return nil },
			Row:   func([]any) error { read[table]++; return nil },
		})
		if err != nil {
			return
		}
		for name, t2 := range m.Tables {
			if read[name] != t2.Rows {
				t.Errorf("%d rows of %s, the manifest says %d", read[name], name, t2.Rows)
			}
		}
	})
}
