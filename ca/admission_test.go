package ca_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

func admission(t *testing.T, c ca.AdmissionConfig) *ca.Admission {
	t.Helper()
	c.Now = time.Now
	a, err := ca.NewAdmission(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A crowd waits at an admission of one place and notes in which order it is let in.
type crowd struct {
	mu    sync.Mutex
	order []string
}

func (c *crowd) wait(ctx context.Context, name string, enter func(context.Context, string) (func(), error), station string) {
	done, err := enter(ctx, station)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.order = append(c.order, name)
	c.mu.Unlock()
	time.Sleep(time.Millisecond)
	done()
}

// position returns after how many others name was let in.
func (c *crowd) position(name string) int {
	for i, n := range c.order {
		if n == name {
			return i
		}
	}
	return -1
}

func TestAFloodDoesNotStarveTheCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admission(t, ca.AdmissionConfig{Concurrent: 1, Patience: time.Hour, Waiting: 1000})
		var c crowd
		hold, _ := a.Single(t.Context(), "first")
		const lines = 3000
		for i := range lines {
			go c.wait(t.Context(), fmt.Sprint("flood ", i), a.Line, "flood")
		}
		for i := range 500 {
			go c.wait(t.Context(), fmt.Sprint("busy ", i), a.Single, "busy")
		}
		synctest.Wait()
		go c.wait(t.Context(), "counter", a.Single, "counter")
		go c.wait(t.Context(), "other batch", a.Line, "other")
		synctest.Wait()
		hold()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(c.order) != lines+502 {
			t.Fatalf("%d were let in", len(c.order))
		}
		if n := c.position("counter"); n > 1 {
			t.Errorf("%d others went before the counter's single card", n)
		}
		if n := c.position("other batch"); n > 2*(8+1) {
			t.Errorf("%d others went before the other station's batch line", n)
		}
		// While single cards wait, every ninth place is a batch line's.
		batch := 0
		for _, name := range c.order[:90] {
			if name == "other batch" || name[:5] == "flood" {
				batch++
			}
		}
		if batch != 10 {
			t.Errorf("%d of the first 90 were batch lines", batch)
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admission(t, ca.AdmissionConfig{Concurrent: 1, Waiting: 2, Patience: time.Second, Streams: 1, Rate: 2, Burst: 3})
		hold, err := a.Single(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		impatient := make(chan error, 2)
		for range 2 {
			go func() { _, err := a.Single(t.Context(), "a"); impatient <- err }()
		}
		synctest.Wait()
		if _, err := a.Single(t.Context(), "a"); !errors.Is(err, jpki.RateLimited) {
			t.Errorf("the third that waits: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var gone error
		go func() { _, gone = a.Line(ctx, "b") }()
		synctest.Wait()
		cancel()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for range 2 {
			if err := <-impatient; !errors.Is(err, jpki.RateLimited) {
				t.Errorf("waited too long: %v", err)
			}
		}
		if !errors.Is(gone, context.Canceled) {
			t.Errorf("gave up: %v", gone)
		}
		hold()
		hold() // twice does no harm
		free, err := a.Line(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if _, err := a.Line(ctx, "c"); !errors.Is(err, context.Canceled) {
			t.Errorf("there was one place, now two: %v", err)
		}
		free()

		end, err := a.Stream("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Stream("a"); !errors.Is(err, jpki.RateLimited) {
			t.Errorf("a second stream: %v", err)
		}
		if _, err := a.Stream("b"); err != nil {
			t.Error(err)
		}
		end()
		if _, err := a.Stream("a"); err != nil {
			t.Error(err)
		}

		spent := func(station string) (n int) {
			for a.Spend(station) == nil {
				n++
			}
			return n
		}
		if n := spent("a"); n != 3 {
			t.Errorf("%d requests at once, want 3", n)
		}
		time.Sleep(time.Second)
		if n, m := spent("a"), spent("b"); n != 2 || m != 3 {
			t.Errorf("%d requests a second later and %d of another station, want 2 and 3", n, m)
		}
	})
}

func TestAdmissionConfig(t *testing.T) {
	if _, err := ca.NewAdmission(ca.AdmissionConfig{}); err == nil {
		t.Error("without a clock")
	}
	if _, err := ca.NewAdmission(ca.AdmissionConfig{Now: time.Now, Rate: -1}); err == nil {
		t.Error("a negative rate")
	}
}
