package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

func auditCommand() *cobra.Command {
	var asJSON bool
	var of recordFiles
	verify := &cobra.Command{
		Use: "verify", Short: "Check that nothing in the audit record was removed, reordered or altered",
		Long: `Reads the record from the database, checks each entry's link to the one before it and every signed checkpoint, and that
every status there is or ever was stands in the record, and nothing else. Works while the authority runs and when it does not.
Without -database it is the sandbox's record. Exit code 0 means the record is whole; 3 that it is not.`,
		Example: `  jpki audit verify
  jpki audit verify -dir /tmp/b -json | jq .whole
  jpki audit verify -database 'postgres://jpki_ca@db1,db2/jpki?target_session_attrs=read-write' -key audit.pub -checkpoints ca-1/checkpoints,ca-2/checkpoints`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			switch given := of.database != ""; {
			case given != (of.key != "") || !given && of.checkpoints != nil:
				return usageError{errors.New("-database and -key go together, and -checkpoints with them")}
			case !given:
				of = sandboxRecord(dirOf(c))
			}
			return verifyAudit(c, of, asJSON)
		},
	}
	verify.Flags().StringVar(&of.database, "database", "", "an authority's database: sqlite:PATH or postgres://… (default the sandbox's)")
	verify.Flags().StringVar(&of.key, "key", "", "file with the public audit key: 32 octets in base64")
	verify.Flags().StringSliceVar(&of.checkpoints, "checkpoints", nil, "files with signed checkpoints, one for each process that wrote some")
	verify.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return group(&cobra.Command{Use: "audit", Short: "The authority's audit record", Example: verify.Example}, verify)
}

// recordFiles say where a record is, and what it is compared with.
type recordFiles struct {
	database, key string
	checkpoints   []string
}

func sandboxRecord(dir string) recordFiles {
	return recordFiles{
		database: "sqlite:" + filepath.Join(dir, "authority", "ca.db"), key: filepath.Join(dir, "public", "audit.pub"),
		checkpoints: []string{filepath.Join(dir, "authority", "checkpoints")},
	}
}

// findings are what a look at the record found.
type findings struct {
	Whole        bool       `json:"whole"`
	Wrong        []string   `json:"wrong"`
	Entries      int64      `json:"entries"`
	Checkpoints  int        `json:"checkpoints"`
	Certificates int        `json:"certificates"`
	Head         audit.Hash `json:"-"`
	HeadText     string     `json:"head"`
}

func verifyAudit(c *cobra.Command, of recordFiles, asJSON bool) error {
	f, err := inspectRecord(c, of)
	if broken, ok := errors.AsType[*audit.BrokenChainError](err); ok {
		f.Wrong, err = append(f.Wrong, broken.Error()), nil
	} else if errors.Is(err, errForged) {
		f.Wrong, err = append(f.Wrong, err.Error()), nil
	}
	if err != nil {
		return err
	}
	f.Whole, f.HeadText = len(f.Wrong) == 0, f.Head.String()
	out := c.OutOrStdout()
	switch {
	case asJSON:
		if err := json.NewEncoder(out).Encode(f); err != nil {
			return err
		}
	case f.Whole:
		fmt.Fprintf(out, "whole: %d entries, %d signed checkpoints, %d certificates as recorded\nhead   %s\n", f.Entries, f.Checkpoints, f.Certificates, f.Head)
	default:
		for _, w := range f.Wrong {
			fmt.Fprintln(out, w)
		}
	}
	if !f.Whole {
		return errNo
	}
	return nil
}

// inspectRecord reads checkpoints first and then everything else in one snapshot of the database: what the authority does
// meanwhile is in none of it, and no checkpoint can be ahead of an honest record. Steps:
//  1. the checkpoints' signatures
//  2. the chain, and that it runs through every checkpoint
//  3. the status log: each entry stands in the record
//  4. the present statuses: each is what the log says last
func inspectRecord(c *cobra.Command, of recordFiles) (f findings, err error) {
	f.Wrong = []string{}
	db, err := store.Open(c.Context(), of.database)
	if err != nil {
		return f, fmt.Errorf("open the authority's database (if it is the sandbox's, has that been started once?): %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// 1.
	checkpoints, err := readCheckpoints(of)
	if err != nil {
		return f, err
	}
	return f, db.View(c.Context(), func(tx *store.Tx) error {
		// 2.
		r, err := readRecord(tx, checkpoints)
		if err != nil {
			return err
		}
		f.Entries, f.Head, f.Checkpoints = r.head.Seq, r.head.Hash, len(checkpoints)
		var seen int64
		for _, cp := range checkpoints {
			seen = max(seen, cp.Seq)
		}
		if seen > r.head.Seq {
			f.Wrong = append(f.Wrong, fmt.Sprintf("entries %d to %d are missing: a signed checkpoint saw them", r.head.Seq+1, seen))
		}
		// 3.
		last, wrong, err := r.compareLog(tx)
		if err != nil {
			return err
		}
		f.Wrong, f.Certificates = append(f.Wrong, wrong...), len(last)
		// 4.
		wrong, err = compareStatuses(tx, last)
		f.Wrong = append(f.Wrong, wrong...)
		return err
	})
}

// A version is one status of one certificate.
type version struct {
	id jpki.CertID
	n  int64
}

// A record is what the audit record says of statuses.
type record struct {
	head     audit.Head
	statuses map[version]recorded
	seeds    []sandbox.SeedRecord // test data, recorded a batch at a time
}

// recorded is what the record says of one status.
type recorded struct {
	State   jpki.State `json:"state"`
	Reason  string     `json:"reason"`
	Cause   jpki.Cause `json:"cause"`
	Version int64      `json:"version"`
}

func statusAsRecorded(s jpki.Status) recorded {
	r := recorded{State: s.State, Cause: s.Cause, Version: s.Version}
	if s.State != jpki.Good {
		r.Reason = s.Reason.String()
	}
	return r
}

func (r recorded) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", r.State, r.Reason, r.Cause)), " ") + fmt.Sprintf(" (version %d)", r.Version)
}

// readRecord walks the chain.
func readRecord(tx *store.Tx, checkpoints []audit.Checkpoint) (*record, error) {
	at := map[int64]audit.Hash{}
	for _, cp := range checkpoints {
		if hash, twice := at[cp.Seq]; twice && hash != cp.Hash {
			return nil, &audit.BrokenChainError{Seq: cp.Seq, Reason: "two signed checkpoints saw different ones"}
		}
		at[cp.Seq] = cp.Hash
	}
	r := &record{statuses: map[version]recorded{}}
	var err error
	r.head, err = audit.Verify(tx.AuditEntries(), func(e audit.Entry) error {
		if hash, ok := at[e.Seq]; ok && hash != e.Hash {
			return &audit.BrokenChainError{Seq: e.Seq, Reason: "not what a signed checkpoint saw"}
		}
		switch e.Action {
		case "issue", "suspend", "resume", "revoke", "issue.abandoned":
			var s recorded
			id, err := jpki.ParseCertID(e.Subject)
			if err != nil || json.Unmarshal([]byte(e.Detail), &s) != nil {
				return &audit.BrokenChainError{Seq: e.Seq, Reason: "no certificate's status in it"}
			}
			r.statuses[version{id, s.Version}] = s
		case "seed":
			var s sandbox.SeedRecord
			if json.Unmarshal([]byte(e.Detail), &s) != nil {
				return &audit.BrokenChainError{Seq: e.Seq, Reason: "no batch of test data in it"}
			}
			r.seeds = append(r.seeds, s)
		}
		return nil
	})
	return r, err
}

// compareLog checks that the status log and the record tell the same, and returns the log's last word on each certificate.
func (r *record) compareLog(tx *store.Tx) (last map[jpki.CertID]recorded, wrong []string, err error) {
	last = map[jpki.CertID]recorded{}
	var batch []jpki.StatusChange // of test data, still to be matched
	for c, err := range tx.StatusLog() {
		if err != nil {
			return nil, nil, err
		}
		got, v := statusAsRecorded(c.Status), version{c.ID, c.Status.Version}
		last[c.ID] = got
		want, found := r.statuses[v]
		delete(r.statuses, v)
		switch {
		case found && got == want:
		case found:
			wrong = append(wrong, fmt.Sprintf("status log entry %d: %s is %s, the record says %s", c.Seq, c.ID, got, want))
		case len(r.seeds) > 0 && c.Status.Version == 1:
			if batch = append(batch, c); len(batch) == r.seeds[0].Count {
				if sandbox.SeedDigest(batch) != r.seeds[0].SHA256 {
					wrong = append(wrong, fmt.Sprintf("status log entries to %d: not the test data that the record says", c.Seq))
				}
				batch, r.seeds = nil, r.seeds[1:]
			}
		default:
			wrong = append(wrong, fmt.Sprintf("status log entry %d: %s is %s, the record says nothing of it", c.Seq, c.ID, got))
		}
	}
	for _, c := range batch {
		wrong = append(wrong, fmt.Sprintf("status log entry %d: %s is %s, the record says nothing of it", c.Seq, c.ID, statusAsRecorded(c.Status)))
	}
	var missing []string
	for v, want := range r.statuses {
		missing = append(missing, fmt.Sprintf("%s: the record says %s, the status log nothing", v.id, want))
	}
	return last, append(wrong, slices.Sorted(slices.Values(missing))...), nil
}

// compareStatuses checks the present statuses against the last word on each. It empties last.
func compareStatuses(tx *store.Tx, last map[jpki.CertID]recorded) (wrong []string, err error) {
	for c, err := range tx.Statuses() {
		if err != nil {
			return nil, err
		}
		got := statusAsRecorded(c.Status)
		want, found := last[c.ID]
		delete(last, c.ID)
		switch {
		case !found:
			wrong = append(wrong, fmt.Sprintf("%s is %s, the record says nothing of it", c.ID, got))
		case got != want:
			wrong = append(wrong, fmt.Sprintf("%s is %s, the record says %s", c.ID, got, want))
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(last), func(a, b jpki.CertID) int { return strings.Compare(a.String(), b.String()) }) {
		wrong = append(wrong, fmt.Sprintf("%s has no status, the record says %s", id, last[id]))
	}
	return wrong, nil
}

var errForged = errors.New("not signed with the audit key")

// readCheckpoints reads the signed heads and checks their signatures.
func readCheckpoints(of recordFiles) (out []audit.Checkpoint, err error) {
	public, err := os.ReadFile(of.key)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(public)))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%s is not an audit key", of.key)
	}
	for _, path := range of.checkpoints {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		// A process killed while it wrote leaves at most one line without its end.
		lines := strings.Split(string(text), "\n")
		for i, line := range lines[:len(lines)-1] {
			c, err := audit.ParseCheckpoint(line)
			if err != nil || !c.Valid(key) {
				return nil, fmt.Errorf("checkpoint in line %d: %w", i+1, errForged)
			}
			out = append(out, c)
		}
	}
	return out, nil
}
