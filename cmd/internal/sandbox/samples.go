package sandbox

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/card"
)

// sampleHolder is the resident whose certificates have their keys in files, for tools that are no cards.
const sampleHolder = "sample-holder"

// A Resident is somebody fictitious.
type Resident struct {
	ID           string
	Municipality string
	Attributes   jpki.Attributes
}

// residents are the people of the stories; places and names exist nowhere.
var residents = []Resident{
	{Municipality: "99101", Attributes: jpki.Attributes{Name: "砂場　花子", Sex: jpki.Female, BirthDate: jpki.NewBirthDate(1980, 2, 17), Address: "砂箱県青葉市中央一丁目２番３号"}},
	{Municipality: "99101", Attributes: jpki.Attributes{Name: "試験　太郎", Sex: jpki.Male, BirthDate: jpki.NewBirthDate(1975, 11, 3), Address: "砂箱県青葉市南町四丁目５番６号"}},
	{Municipality: "99101", Attributes: jpki.Attributes{Name: "仮野　名子", Sex: jpki.Female, BirthDate: jpki.NewBirthDate(2001, 7, 29), Address: "砂箱県青葉市北町七丁目８番９号"}},
}

// NewResident returns a fictitious resident with an identifier never used before.
func NewResident(n int) Resident {
	r := residents[n%len(residents)]
	r.ID = "H" + rand.Text()[:16]
	return r
}

// RegisterResident has the register report a person.
func RegisterResident(ctx context.Context, register *client.Client, r Resident) error {
	_, err := register.ReportEvent(ctx, r.Registration())
	return err
}

// Registration is the event by which the person enters the register.
func (r Resident) Registration() jpki.Event {
	return jpki.Event{
		ID: "registered." + r.ID, Holder: r.ID, Type: jpki.Registered, EffectiveAt: time.Now().Add(-time.Minute).UTC().Truncate(time.Second), Municipality: r.Municipality, Attributes: &r.Attributes,
	}
}

// Personalise does what a counter does with a blank card: has it ask for certificates with keys made on it, orders them,
// writes them on the card and hands it over.
func Personalise(ctx context.Context, station *client.Client, c *card.Card, holder, signPIN, authPIN string, kinds ...jpki.Kind) ([]client.Certificate, error) {
	return personaliseWith(ctx, station, (*client.Client).Issue, c, holder, signPIN, authPIN, kinds...)
}

// ordering is one of the station's two ways to certificates: [client.Client.Issue] and [client.Client.Renew].
type ordering func(station *client.Client, ctx context.Context, key string, o client.CertificateOrder) (client.Certificates, error)

func personaliseWith(ctx context.Context, station *client.Client, do ordering, c *card.Card, holder, signPIN, authPIN string, kinds ...jpki.Kind) ([]client.Certificate, error) {
	pins := map[jpki.Kind]string{jpki.CardSign: signPIN, jpki.CardAuth: authPIN}
	order := client.CertificateOrder{Holder: holder, Token: c.ID()}
	for _, k := range kinds {
		request, err := c.CertificateRequest(k, pins[k])
		if err != nil {
			return nil, fmt.Errorf("ask the card for a request: %w", err)
		}
		order.Requests = append(order.Requests, client.KeyRequest{Kind: k, Request: client.RequestPEM(request)})
	}
	answer, err := do(station, ctx, rand.Text(), order)
	if err != nil {
		return nil, err
	}
	for _, issued := range answer.Certificates {
		der, err := client.DER(issued.Certificate)
		if err != nil {
			return nil, err
		}
		issuer, err := client.DER(issued.Issuer)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(c.WriteCertificate(issued.Kind, der), c.WriteCACertificate(issued.Kind, issuer)); err != nil {
			return nil, fmt.Errorf("write to the card: %w", err)
		}
	}
	_, err = station.Deliver(ctx, rand.Text(), c.ID())
	return answer.Certificates, err
}

// makeSamples sees to it that the sample holder has two certificates in force whose keys are files.
func (s *System) makeSamples(ctx context.Context) error {
	register, err := s.env.Register()
	if err != nil {
		return err
	}
	station, err := s.env.Station()
	if err != nil {
		return err
	}
	sample := residents[0]
	sample.ID = sampleHolder
	if err := RegisterResident(ctx, register, sample); err != nil && !errors.Is(err, jpki.EventConflict) {
		return err
	}
	if s.samplesInForce(ctx) {
		return nil
	}
	// Whatever is left of earlier samples makes place: a new card, with new keys.
	order := client.CertificateOrder{Holder: sampleHolder, Token: "sample-" + rand.Text()[:10]}
	keys := map[jpki.Kind]string{jpki.CardSign: s.env.SampleSignKey, jpki.CardAuth: s.env.SampleAuthKey}
	for _, k := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		if err := os.Remove(keys[k]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		key, err := hsm.Create(ctx, hsm.FileURI(keys[k]), s.profile.samples)
		if err != nil {
			return err
		}
		request, err := request(key)
		if err != nil {
			return err
		}
		order.Requests = append(order.Requests, client.KeyRequest{Kind: k, Request: request})
	}
	answer, err := station.Issue(ctx, rand.Text(), order)
	if err != nil {
		return err
	}
	files := map[jpki.Kind]string{jpki.CardSign: s.env.SampleSignCert, jpki.CardAuth: s.env.SampleAuthCert}
	for _, c := range answer.Certificates {
		if err := writeFile(files[c.Kind], []byte(c.Certificate), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// samplesInForce reports whether both sample certificates are there and good.
func (s *System) samplesInForce(ctx context.Context) bool {
	for path, k := range map[string]jpki.Kind{s.env.SampleSignCert: jpki.CardSign, s.env.SampleAuthCert: jpki.CardAuth} {
		cert, err := ReadCertificate(path)
		if err != nil || time.Now().After(cert.NotAfter) || !s.profile.madeFor(cert.PublicKey) {
			return false
		}
		// Scripts verify the samples with the generation that issues.
		id, err := s.env.CertID(cert)
		if err != nil || id.Issuer != s.keys.active[slices.Index(jpki.CAs, k.CA())].ID {
			return false
		}
		state, err := s.reader.StatusOf(ctx, id)
		if err != nil || state.Status.State != jpki.Good || len(cert.OCSPServer) == 0 || cert.OCSPServer[0] != s.env.OCSPURL {
			return false
		}
	}
	return true
}

// request makes a certification request for a key that is no card's, PEM.
func request(key crypto.Signer) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
