package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// A status server renews one delegate for each generation, each a few times a month. Whoever has its key shall not be able to
// keep an authority's key busy.
const (
	ordersRate  = 1.0 / 60 // a second, of each status server
	ordersBurst = 32
)

// delegate has a status server's key certified.
func (a *API) delegate(c *gin.Context) {
	var body client.ResponderOrder
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	if a.Delegate == nil {
		a.refuse(c, jpki.Errorf(jpki.NotFound, "status servers are certified elsewhere"))
		return
	}
	if err := a.orders.Spend(by.ID); err != nil {
		a.refuse(c, err)
		return
	}
	der, err := decodeRequest(body.Request)
	if err != nil {
		a.refuse(c, err)
		return
	}
	ctx := c.Request.Context()
	cert, err := a.Authority.CertifyResponder(ctx, by, body.Issuer, der, a.Delegate)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusCreated, client.ResponderCertificate{Certificate: client.PEM(cert.Raw), NotAfter: cert.NotAfter})
}
