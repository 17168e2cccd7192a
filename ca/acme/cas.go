package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"sync"

	"github.com/smallstep/certificates/authority/provisioner"
	casapi "github.com/smallstep/certificates/cas/apiv1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// An order is a certificate that the handler has authorised. smallstep's signing calls carry neither context nor caller,
// so an order waits under its key until the call arrives; a call without one signs nothing.
type order struct {
	ca.StationOrder
	ctx context.Context // of the request, which ends after the order
	err error           // why our side refused; smallstep's errors wrap it in HTTP statuses
}

// orders are those under way, by subjectPublicKeyInfo.
type orders struct {
	mu sync.Mutex
	m  map[string]*order
}

func (s *orders) add(o *order) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[string(o.Key)] != nil {
		return jpki.Errorf(jpki.InProgress, "a request for this key is being worked on")
	}
	if s.m == nil {
		s.m = map[string]*order{}
	}
	s.m[string(o.Key)] = o
	return nil
}

// take returns an order once.
func (s *orders) take(key crypto.PublicKey) *order {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.m[string(spki)]
	delete(s.m, string(spki))
	return o
}

func (s *orders) drop(o *order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[string(o.Key)] == o {
		delete(s.m, string(o.Key))
	}
}

// issue runs smallstep's pipeline for an order.
func (e *Enrolment) issue(o *order, pipeline func() ([]*x509.Certificate, error)) ([]*x509.Certificate, error) {
	if err := e.orders.add(o); err != nil {
		return nil, err
	}
	defer e.orders.drop(o)
	chain, err := pipeline()
	if o.err != nil {
		return nil, o.err
	}
	return chain, err
}

// service is the signing service of the embedded authority.
type service struct{ e *Enrolment }

// CreateCertificate signs for the order of the request's key.
func (s service) CreateCertificate(req *casapi.CreateCertificateRequest) (*casapi.CreateCertificateResponse, error) {
	if req.Provisioner != nil && req.Provisioner.Type == provisioner.TypeACME.String() {
		return s.e.certifyPhone(req.CSR)
	}
	cert, err := s.certify(req.Template)
	if err != nil {
		return nil, err
	}
	return &casapi.CreateCertificateResponse{Certificate: cert, CertificateChain: []*x509.Certificate{s.e.Root}}, nil
}

// RenewCertificate signs for the order of the request's key.
func (s service) RenewCertificate(req *casapi.RenewCertificateRequest) (*casapi.RenewCertificateResponse, error) {
	cert, err := s.certify(req.Template)
	if err != nil {
		return nil, err
	}
	return &casapi.RenewCertificateResponse{Certificate: cert, CertificateChain: []*x509.Certificate{s.e.Root}}, nil
}

// RevokeCertificate ends a phone's certificate. With a station's it has nothing to do: database.Revoke ends that.
func (s service) RevokeCertificate(req *casapi.RevokeCertificateRequest) (*casapi.RevokeCertificateResponse, error) {
	if r := s.e.revoking.find(req.SerialNumber); r != nil {
		if err := s.e.revokePhone(r, req.ReasonCode); err != nil {
			return nil, err
		}
	}
	return &casapi.RevokeCertificateResponse{Certificate: req.Certificate}, nil
}

// certify takes nothing from smallstep's draft but the key, by which it finds the order.
func (s service) certify(draft *x509.Certificate) (*x509.Certificate, error) {
	o := s.e.orders.take(draft.PublicKey)
	if o == nil {
		return nil, errors.New("nobody authorised a certificate for this key")
	}
	cert, err := s.e.Authority.CertifyStation(o.ctx, o.StationOrder, func(serial jpki.Serial) (*x509.Certificate, error) {
		return s.e.Certify(draft.PublicKey, o.Station.ID, serial)
	})
	o.err = err
	return cert, err
}
