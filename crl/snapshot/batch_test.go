package snapshot_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

// Many questions at once have the answers that they have one by one: good, suspended, revoked, changed by a delta, never issued
// and not covered, in any number and order.
func TestAppendAnswers(t *testing.T) {
	a := newAuthority(t, "p-256")
	var all []*snapshot.Snapshot
	for _, u := range []universe{
		{9000, 1311, 5243, 1},
		{9000, 3277, 3277, 2},
		{9000, 0, 6554, 3},
		{9000, 6554, 0, 4},
		{9000, 10000, 30000, 6},
		{500, 0, 65536, 7},
		{500, 65536, 0, 7},
		{500, 0, 0, 8},
		{40, 9000, 20000, 9},
		{1, 0, 65536, 9},
		{0, 0, 0, 10},
	} {
		s := open(t, build(t, template(a, 1), u.all), config(a))
		changed := u
		changed.salt += 100
		var delta bytes.Buffer
		if _, err := snapshot.BuildDelta(&delta, template(a, 2), s, changed.all); err != nil {
			t.Fatal(err)
		}
		later, err := s.Apply(delta.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s, later)
	}
	at := t0.Add(time.Hour)
	outOfDate := config(a)
	outOfDate.Now = func() time.Time { return at }
	old := open(t, build(t, template(a, 1), universe{9000, 1311, 5243, 1}.all), outOfDate)
	at = t0.Add(48 * time.Hour)
	all = append(all, old)

	rapid.Check(t, func(r *rapid.T) {
		s := rapid.SampledFrom(all).Draw(r, "snapshot")
		questions := make([]snapshot.Question, rapid.IntRange(0, 300).Draw(r, "questions"))
		from := rapid.Uint64Range(0, 12_000).Draw(r, "from")
		for i := range questions {
			questions[i] = universe{}.question(from + uint64(i))
		}
		for range rapid.IntRange(0, 10).Draw(r, "not covered") {
			if len(questions) == 0 {
				break
			}
			q := &questions[rapid.IntRange(0, len(questions)-1).Draw(r, "which")]
			switch rapid.IntRange(0, 2).Draw(r, "why") {
			case 0:
				q.Serial = jpki.Serial{}
			case 1:
				q.NotBefore = t0.AddDate(1, 0, 0)
			case 2:
				q.NotAfter = t0.AddDate(0, -1, 0)
			}
		}
		before := []snapshot.Answer{{State: "before"}}[:rapid.IntRange(0, 1).Draw(r, "before")]
		want := append([]snapshot.Answer{}, before...)
		for _, q := range questions {
			state, covered := s.Lookup(q)
			want = append(want, snapshot.Answer{State: state, Covered: covered})
		}
		if diff := cmp.Diff(want, s.AppendAnswers(append([]snapshot.Answer{}, before...), questions)); diff != "" {
			r.Fatalf("answers (-one by one +at once)\n%s", diff)
		}
	})

	// What the property compares is not all the same: each state is there, and the truth.
	u := universe{9000, 1311, 5243, 1}
	questions := make([]snapshot.Question, u.n)
	for n := range u.n {
		questions[n] = u.question(n)
	}
	seen := map[jpki.State]int{}
	for n, answer := range all[0].AppendAnswers(nil, questions) {
		if want := u.state(uint64(n)); !answer.Covered || answer.State != want {
			t.Fatalf("certificate %d: %v, want %s", n, answer, want)
		}
		seen[answer.State]++
	}
	if len(seen) != 3 {
		t.Errorf("states %v, want three", seen)
	}
	if answers := old.AppendAnswers(nil, questions[:1]); answers[0] != (snapshot.Answer{}) {
		t.Errorf("out of date: %v", answers)
	}
}

// Many at once cost no memory but what the answers take.
func TestAppendAnswersAllocatesNothing(t *testing.T) {
	a := newAuthority(t, "p-256")
	u := universe{9000, 1311, 5243, 1}
	s := open(t, build(t, template(a, 1), u.all), config(a))
	questions := make([]snapshot.Question, 1000)
	for n := range questions {
		questions[n] = u.question(uint64(n))
	}
	answers := make([]snapshot.Answer, 0, len(questions))
	if n := testing.AllocsPerRun(10, func() { answers = s.AppendAnswers(answers[:0], questions) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
