package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
)

func (a *API) search(c *gin.Context) {
	by, q, page, err := a.beginQuery(c, "holder", "token", "serial", "state")
	if err != nil {
		a.refuse(c, err)
		return
	}
	req := ca.SearchRequest{Holder: q.Get("holder"), Token: q.Get("token"), State: jpki.State(q.Get("state")), Page: page}
	if s := q.Get("serial"); s != "" {
		if req.Serial, err = jpki.ParseSerial(s); err != nil {
			a.refuse(c, jpki.WrapError(jpki.Malformed, err, "serial is not upper-case hexadecimal"))
			return
		}
	}
	certs, more, err := a.Authority.Search(c.Request.Context(), by, req)
	a.answerPage(c, certs, more, err)
}

// maxDays bounds older_than_days: a hundred years.
const maxDays = 36525

func (a *API) undelivered(c *gin.Context) {
	by, q, page, err := a.beginQuery(c, "older_than_days")
	if err != nil {
		a.refuse(c, err)
		return
	}
	days, err := number(q, "older_than_days", maxDays)
	if err != nil {
		a.refuse(c, err)
		return
	}
	certs, more, err := a.Authority.Undelivered(c.Request.Context(), by, time.Duration(days)*24*time.Hour, page)
	a.answerPage(c, certs, more, err)
}

func (a *API) answerPage(c *gin.Context, certs []store.Certificate, more bool, err error) {
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.Page{Certificates: encodeCertificates(certs)}
	if more {
		out.Next = &certs[len(certs)-1].ID
	}
	a.answer(c, http.StatusOK, out)
}

// beginQuery authenticates the caller and reads the query strictly: the named parameters, each once, and those of a page.
func (a *API) beginQuery(c *gin.Context, names ...string) (by jpki.Actor, q url.Values, page ca.Page, err error) {
	if by, err = a.begin(c, nil); err != nil {
		return by, nil, page, err
	}
	if q, err = url.ParseQuery(c.Request.URL.RawQuery); err != nil {
		return by, nil, page, jpki.WrapError(jpki.Malformed, err, "the query is not well formed")
	}
	if err := onlyOnce(q, append(names, "after", "limit")); err != nil {
		return by, nil, page, err
	}
	if s := q.Get("after"); s != "" {
		if err := page.After.UnmarshalText([]byte(s)); err != nil {
			return by, nil, page, jpki.WrapError(jpki.Malformed, err, "after is no certificate's identifier")
		}
	}
	page.Limit, err = number(q, "limit", ca.MaxPage)
	return by, q, page, err
}

// onlyOnce checks that a query has no other parameters than those named, each once.
func onlyOnce(q url.Values, names []string) error {
	for name, values := range q {
		if !slices.Contains(names, name) || len(values) != 1 {
			return jpki.Errorf(jpki.Malformed, "the query has an unknown parameter or one twice")
		}
	}
	return nil
}

// number reads a parameter from 0 to most; one that is absent is 0.
func number(q url.Values, name string, most int) (int, error) {
	if !q.Has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 0 || n > most {
		return 0, jpki.Errorf(jpki.Malformed, "%s is a number up to %d", name, most)
	}
	return n, nil
}
