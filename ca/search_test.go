package ca_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

func TestSearch(t *testing.T) {
	onBoth(t, func(w *world) {
		w.register("far", "99202", jpki.NewBirthDate(1980, 2, 17))
		var ids []jpki.CertID
		for i := range 3 { // each card ends the one before
			for _, c := range w.issue("h1", fmt.Sprint("card-", i), jpki.CardSign, jpki.CardAuth) {
				ids = append(ids, c.ID)
			}
			w.now = w.now.Add(time.Minute)
		}
		away, err := w.a.Issue(w.t.Context(), other, w.request("far", "card-far", jpki.CardAuth))
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Certificate: &ids[5], Cause: jpki.Lost}); err != nil {
			w.t.Fatal(err)
		}
		for name, c := range map[string]struct {
			req  ca.SearchRequest
			want []jpki.CertID
		}{
			"holder":              {ca.SearchRequest{Holder: "h1"}, ids},
			"holder, good":        {ca.SearchRequest{Holder: "h1", State: jpki.Good}, ids[4:5]},
			"holder, suspended":   {ca.SearchRequest{Holder: "h1", State: jpki.Suspended}, ids[5:]},
			"holder, revoked":     {ca.SearchRequest{Holder: "h1", State: jpki.Revoked}, ids[:4]},
			"token":               {ca.SearchRequest{Token: "card-1"}, ids[2:4]},
			"serial":              {ca.SearchRequest{Serial: ids[3].Serial}, ids[3:4]},
			"serial of elsewhere": {ca.SearchRequest{Serial: away[0].ID.Serial}, nil},
		} {
			for _, limit := range []int{0, 1, 2, 5} {
				req, got := c.req, []store.Certificate(nil)
				req.Limit = limit
				for pages := 1; ; pages++ {
					page, more, err := w.a.Search(w.t.Context(), counter, req)
					if err != nil {
						w.t.Fatal(name, err)
					}
					got = append(got, page...)
					if limit > 0 && len(page) > limit || more && len(page) == 0 {
						w.t.Errorf("%s: a page of %d", name, len(page))
					}
					if !more {
						break
					}
					req.After = page[len(page)-1].ID
				}
				same := len(got) == len(c.want)
				seen := map[jpki.CertID]bool{}
				for _, g := range got {
					seen[g.ID] = true
				}
				for _, id := range c.want {
					same = same && seen[id]
				}
				if !same {
					w.t.Errorf("%s by %d: found %d certificates, want %d", name, limit, len(got), len(c.want))
				}
			}
		}
		unknown := jpki.CertID{Issuer: ids[0].Issuer, Serial: ids[1].Serial}
		for name, c := range map[string]struct {
			by   jpki.Actor
			req  ca.SearchRequest
			want jpki.Problem
		}{
			"nothing":                 {counter, ca.SearchRequest{}, jpki.Malformed},
			"two things":              {counter, ca.SearchRequest{Holder: "h1", Token: "card-1"}, jpki.Malformed},
			"an odd state":            {counter, ca.SearchRequest{Holder: "h1", State: "expired"}, jpki.Malformed},
			"a page too large":        {counter, ca.SearchRequest{Holder: "h1", Page: ca.Page{Limit: ca.MaxPage + 1}}, jpki.Malformed},
			"a cursor of nothing":     {counter, ca.SearchRequest{Holder: "h1", Page: ca.Page{After: unknown}}, jpki.Malformed},
			"a My Number":             {counter, ca.SearchRequest{Holder: "621498320257"}, jpki.MyNumberPresent},
			"somebody unknown":        {counter, ca.SearchRequest{Holder: "h9"}, jpki.UnknownHolder},
			"an unknown card":         {counter, ca.SearchRequest{Token: "h9"}, jpki.UnknownToken},
			"of another municipality": {counter, ca.SearchRequest{Holder: "far"}, jpki.WrongMunicipality},
			"a card from there":       {counter, ca.SearchRequest{Token: "card-far"}, jpki.WrongMunicipality},
			"the call centre":         {centre, ca.SearchRequest{Holder: "h1"}, jpki.Forbidden},
		} {
			if _, _, err := w.a.Search(w.t.Context(), c.by, c.req); jpki.ProblemOf(err) != c.want {
				w.t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
	})
}

func TestUndelivered(t *testing.T) {
	onBoth(t, func(w *world) {
		for _, p := range []string{"p1", "p2", "p3"} {
			w.register(p, "99101", jpki.NewBirthDate(1980, 2, 17))
		}
		w.register("far", "99202", jpki.NewBirthDate(1980, 2, 17))
		w.issue("h1", "old", jpki.CardSign, jpki.CardAuth)
		w.issue("p1", "delivered", jpki.CardAuth)
		w.issue("p2", "discarded", jpki.CardAuth)
		if _, err := w.a.Issue(w.t.Context(), other, w.request("far", "far", jpki.CardAuth)); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.a.Deliver(w.t.Context(), counter, w.name(), "delivered"); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.change(w.a.Revoke, counter, ca.ChangeRequest{Token: "discarded", Cause: jpki.Discarded}); err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(10 * 24 * time.Hour)
		w.issue("p3", "young", jpki.CardAuth)
		list := func(days int) (tokens []string) {
			var p ca.Page
			p.Limit = 1
			for {
				certs, more, err := w.a.Undelivered(w.t.Context(), counter, time.Duration(days)*24*time.Hour, p)
				if err != nil {
					w.t.Fatal(err)
				}
				for _, c := range certs {
					tokens = append(tokens, c.Token)
					p.After = c.ID
				}
				if !more {
					return tokens
				}
			}
		}
		for days, want := range map[int]string{0: "[old old young]", 1: "[old old]", 10: "[old old]", 11: "[]"} {
			if got := fmt.Sprint(list(days)); got != want {
				w.t.Errorf("older than %d days: %s, want %s", days, got, want)
			}
		}
		w.now = w.now.AddDate(20, 0, 0)
		if got := list(0); len(got) != 0 {
			w.t.Errorf("expired ones are listed: %v", got)
		}
		if _, _, err := w.a.Undelivered(w.t.Context(), counter, -1, ca.Page{}); jpki.ProblemOf(err) != jpki.Malformed {
			w.t.Error(err)
		}
		if _, _, err := w.a.Undelivered(w.t.Context(), register, 0, ca.Page{}); jpki.ProblemOf(err) != jpki.Forbidden {
			w.t.Error(err)
		}
	})
}
