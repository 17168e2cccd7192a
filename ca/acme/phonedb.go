package acme

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	stepacme "github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// accounts shows our store to smallstep's ACME handlers. It decides, too, where they leave something open: an account is
// one only when bound to an enrolment, nothing begins after that has ended, and what has ended stays so.
type accounts struct{ e *Enrolment }

var _ stepacme.DB = accounts{}

const (
	maxOrders     = 8   // of an account: two, and some that went wrong
	maxIdentifier = 128 // octets
	maxReason     = 300 // octets of a failed challenge's explanation
)

func (d accounts) view(ctx context.Context, f func(*store.Tx) error) error {
	return asACME(d.e.Store.View(ctx, f))
}

func (d accounts) update(ctx context.Context, f func(*store.Tx) error) error {
	return asACME(d.e.Store.Update(ctx, f))
}

// CreateNonce gives out a nonce.
func (d accounts) CreateNonce(context.Context) (stepacme.Nonce, error) {
	return stepacme.Nonce(d.e.nonces.give()), nil
}

// DeleteNonce spends a nonce.
func (d accounts) DeleteNonce(_ context.Context, nonce stepacme.Nonce) error {
	if !d.e.nonces.spend(string(nonce)) {
		return stepacme.NewError(stepacme.ErrorBadNonceType, "the nonce is unknown, spent or too old")
	}
	return nil
}

// CreateAccount records an account, which counts when it is bound. Its contacts are not kept: we have no use for them.
func (d accounts) CreateAccount(ctx context.Context, acc *stepacme.Account) error {
	key, err := json.Marshal(acc.Key.Public())
	if err != nil {
		return asACME(err)
	}
	keyID, err := stepacme.KeyToID(acc.Key)
	if err != nil {
		return err
	}
	acc.ID, acc.Contact = d.e.NewID(), nil
	row := store.ACMEAccount{ID: acc.ID, KeyID: keyID, Key: key, Directory: acc.ProvisionerID, Location: acc.LocationPrefix}
	return d.update(ctx, func(tx *store.Tx) error { return tx.PutACMEAccount(row, d.e.Now()) })
}

// GetAccount returns a bound account.
func (d accounts) GetAccount(ctx context.Context, id string) (*stepacme.Account, error) {
	return d.account(ctx, func(tx *store.Tx) (store.ACMEAccount, error) { return tx.ACMEAccount(id) })
}

// GetAccountByKeyID returns the bound account of a key.
func (d accounts) GetAccountByKeyID(ctx context.Context, kid string) (*stepacme.Account, error) {
	return d.account(ctx, func(tx *store.Tx) (store.ACMEAccount, error) { return tx.ACMEAccountByKey(kid) })
}

func (d accounts) account(ctx context.Context, read func(*store.Tx) (store.ACMEAccount, error)) (*stepacme.Account, error) {
	var row store.ACMEAccount
	err := d.e.Store.View(ctx, func(tx *store.Tx) (err error) { row, err = read(tx); return err })
	if errors.Is(err, jpki.NotFound) {
		return nil, stepacme.ErrNotFound
	}
	if err != nil {
		return nil, asACME(err)
	}
	acc := &stepacme.Account{
		ID: row.ID, Key: new(jose.JSONWebKey), Status: stepacme.StatusValid, LocationPrefix: row.Location, ProvisionerID: row.Directory, ProvisionerName: row.Directory,
	}
	if row.Deactivated {
		acc.Status = stepacme.StatusDeactivated
	}
	return acc, asACME(json.Unmarshal(row.Key, acc.Key))
}

// UpdateAccount deactivates an account. There is nothing else to be changed.
func (d accounts) UpdateAccount(ctx context.Context, acc *stepacme.Account) error {
	acc.Contact = nil
	if acc.Status != stepacme.StatusDeactivated {
		return nil
	}
	return d.update(ctx, func(tx *store.Tx) error { return tx.DeactivateACMEAccount(acc.ID) })
}

// GetExternalAccountKey returns the key of an enrolment that is open and not bound.
func (d accounts) GetExternalAccountKey(ctx context.Context, provisionerID, keyID string) (*stepacme.ExternalAccountKey, error) {
	id, err := ca.ParseBindingKeyID(keyID)
	if err != nil {
		return nil, asACME(err)
	}
	var row store.PhoneEnrolment
	err = d.e.Store.View(ctx, func(tx *store.Tx) (err error) { row, err = tx.PhoneEnrolment(id); return err })
	switch {
	case errors.Is(err, jpki.NotFound):
		return nil, asACME(jpki.Errorf(jpki.Unauthorized, "the key identifier of the external account binding is unknown"))
	case err != nil:
		return nil, asACME(err)
	case row.SealedKey == nil:
		return nil, asACME(jpki.Errorf(jpki.Unauthorized, "the external account binding has been used"))
	case !d.e.Now().Before(row.ExpiresAt):
		return nil, asACME(errEnded)
	}
	key, err := ca.OpenBinding(keyID, row)
	if err != nil {
		return nil, asACME(err)
	}
	return &stepacme.ExternalAccountKey{ID: row.ID, ProvisionerID: provisionerID, HmacKey: key}, nil
}

var errEnded = jpki.Errorf(jpki.Unauthorized, "the enrolment has ended")

// UpdateExternalAccountKey binds an account.
func (d accounts) UpdateExternalAccountKey(ctx context.Context, _ string, eak *stepacme.ExternalAccountKey) error {
	return d.update(ctx, func(tx *store.Tx) error {
		row, err := tx.PhoneEnrolment(eak.ID)
		if err != nil {
			return err
		}
		if err := tx.BindPhoneEnrolment(eak.ID, eak.AccountID); err != nil {
			return err
		}
		return tx.Audit(d.e.Now(), row.By, "phone.bound", eak.ID, map[string]any{"account": eak.AccountID})
	})
}

// GetExternalAccountKeyByAccountID is asked before an order is made: it refuses one whose enrolment has ended. Like
// smallstep's own it returns no key.
func (d accounts) GetExternalAccountKeyByAccountID(ctx context.Context, _, accountID string) (*stepacme.ExternalAccountKey, error) {
	return nil, d.view(ctx, func(tx *store.Tx) error { _, err := d.open(tx, accountID); return err })
}

// open returns the enrolment of an account, which must not have ended.
func (d accounts) open(tx *store.Tx, account string) (store.PhoneEnrolment, error) {
	row, err := tx.PhoneEnrolmentOf(account)
	if err == nil && !d.e.Now().Before(row.ExpiresAt) {
		err = errEnded
	}
	return row, err
}

// CreateChallenge names a challenge; CreateAuthorization records it.
func (d accounts) CreateChallenge(_ context.Context, ch *stepacme.Challenge) error {
	ch.ID = d.e.NewID()
	return nil
}

// CreateAuthorization records an authorization with its challenge, for as long as the enrolment lasts. Identifiers are what
// an attestation calls the device. They find nothing here and name nobody; they only must not be a person's number.
func (d accounts) CreateAuthorization(ctx context.Context, az *stepacme.Authorization) error {
	switch v := az.Identifier.Value; {
	case az.Identifier.Type != stepacme.PermanentIdentifier || az.Wildcard || len(az.Challenges) != 1:
		return stepacme.NewError(stepacme.ErrorUnsupportedIdentifierType, "phones have permanent identifiers")
	case len(v) > maxIdentifier || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }):
		return stepacme.NewError(stepacme.ErrorRejectedIdentifierType, "an identifier has at most %d printable characters", maxIdentifier)
	case jpki.ContainsMyNumber(v):
		return asACME(jpki.Errorf(jpki.MyNumberPresent, "in the identifier"))
	}
	az.ID = d.e.NewID()
	ch := az.Challenges[0]
	ch.AuthorizationID = az.ID
	return d.update(ctx, func(tx *store.Tx) error {
		enrolment, err := d.open(tx, az.AccountID)
		if err != nil {
			return err
		}
		az.ExpiresAt = enrolment.ExpiresAt.Truncate(time.Second)
		return tx.AddACMEAuthorization(store.ACMEAuthorization{
			ID: az.ID, Account: az.AccountID, Challenge: ch.ID, Identifier: az.Identifier.Value, Token: az.Token,
			Status: string(az.Status), ChallengeStatus: string(ch.Status), ExpiresAt: az.ExpiresAt,
		}, maxOrders)
	})
}

// GetAuthorization returns an authorization. When an order is being finalized, this is where its attested key becomes known.
func (d accounts) GetAuthorization(ctx context.Context, id string) (*stepacme.Authorization, error) {
	row, err := d.authorization(ctx, id)
	if err != nil {
		return nil, err
	}
	az := &stepacme.Authorization{
		ID: row.ID, AccountID: row.Account, Token: row.Token, Fingerprint: row.Fingerprint, Status: stepacme.Status(row.Status), ExpiresAt: row.ExpiresAt,
		Identifier: stepacme.Identifier{Type: stepacme.PermanentIdentifier, Value: row.Identifier}, Challenges: []*stepacme.Challenge{challenge(row)},
	}
	if f, finalizing := ctx.Value(finalizationKey{}).(*finalization); finalizing && az.Fingerprint != "" {
		return az, asACME(d.e.finalizing.add(az.Fingerprint, f))
	}
	return az, nil
}

func (d accounts) authorization(ctx context.Context, id string) (row store.ACMEAuthorization, err error) {
	err = d.view(ctx, func(tx *store.Tx) (err error) { row, err = tx.ACMEAuthorization(id); return err })
	return row, err
}

func challenge(row store.ACMEAuthorization) *stepacme.Challenge {
	ch := &stepacme.Challenge{
		ID: row.Challenge, AccountID: row.Account, AuthorizationID: row.ID, Value: row.Identifier, Type: stepacme.DEVICEATTEST01,
		Status: stepacme.Status(row.ChallengeStatus), Token: row.Token, ValidatedAt: row.ValidatedAt, Error: decodeError(row.ChallengeError),
	}
	return ch
}

// UpdateAuthorization records status and attested key.
func (d accounts) UpdateAuthorization(ctx context.Context, az *stepacme.Authorization) error {
	return d.update(ctx, func(tx *store.Tx) error { return tx.SetACMEAuthorization(az.ID, string(az.Status), az.Fingerprint) })
}

// GetChallenge returns a challenge of an authorization.
func (d accounts) GetChallenge(ctx context.Context, id, authzID string) (*stepacme.Challenge, error) {
	row, err := d.authorization(ctx, authzID)
	switch {
	case err != nil:
		return nil, err
	case row.Challenge != id:
		return nil, asACME(jpki.Errorf(jpki.NotFound, ""))
	case row.ChallengeStatus == string(stepacme.StatusPending) && !d.e.Now().Before(row.ExpiresAt):
		return nil, asACME(errEnded)
	}
	if a, ours := ctx.Value(answerKey{}).(*challengeAnswer); ours && row.ChallengeStatus == string(stepacme.StatusPending) {
		return d.e.judgeChallenge(ctx, a, row)
	}
	return challenge(row), nil
}

// UpdateChallenge records how a challenge ended. What smallstep believes without a sign of freshness, we do not.
func (d accounts) UpdateChallenge(ctx context.Context, ch *stepacme.Challenge) error {
	if _, ours := ctx.Value(answerKey{}).(*challengeAnswer); ours {
		return errNotServed // it was decided in judgeChallenge
	}
	if ch.Status == stepacme.StatusValid {
		if err := checkFreshness(ch.PayloadFormat, ch.Payload); err != nil {
			ch.Status, ch.ValidatedAt = stepacme.StatusInvalid, ""
			ch.Error = stepacme.NewDetailedError(stepacme.ErrorBadAttestationStatementType, "%s", err)
		}
	}
	if ch.Error != nil {
		// It quotes what the phone sent, at length, and names the device.
		ch.Error = &stepacme.Error{Type: ch.Error.Type, Detail: clip(ch.Error.Detail), Status: ch.Error.Status, Err: ch.Error.Err}
	}
	return d.update(ctx, func(tx *store.Tx) error {
		return tx.SetACMEChallenge(ch.AuthorizationID, string(ch.Status), encodeError(ch.Error), ch.ValidatedAt)
	})
}

// CreateOrder records an order for one identifier.
func (d accounts) CreateOrder(ctx context.Context, o *stepacme.Order) error {
	switch {
	case len(o.AuthorizationIDs) != 1:
		return stepacme.NewError(stepacme.ErrorRejectedIdentifierType, "an order is for one device and one key")
	case o.NotAfter.Sub(o.NotBefore) != defaultValidity:
		return stepacme.NewDetailedError(stepacme.ErrorMalformedType, "notBefore and notAfter are not the phone's to choose")
	}
	o.ID = d.e.NewID()
	return d.update(ctx, func(tx *store.Tx) error {
		enrolment, err := d.open(tx, o.AccountID)
		if err != nil {
			return err
		}
		o.ExpiresAt = enrolment.ExpiresAt.Add(orderGrace).Truncate(time.Second)
		return tx.AddACMEOrder(store.ACMEOrder{
			ID: o.ID, Account: o.AccountID, Authorization: o.AuthorizationIDs[0], Status: string(o.Status), NotBefore: o.NotBefore, NotAfter: o.NotAfter, ExpiresAt: o.ExpiresAt,
		})
	})
}

// defaultValidity is what smallstep makes of an order that asks for no dates: a day (see claims), backdated by a minute.
const defaultValidity = 24*time.Hour + time.Minute

// GetOrder returns an order.
func (d accounts) GetOrder(ctx context.Context, id string) (*stepacme.Order, error) {
	var row store.ACMEOrder
	var directory string
	err := d.view(ctx, func(tx *store.Tx) error {
		var err error
		if row, err = tx.ACMEOrder(id); err != nil {
			return err
		}
		acc, err := tx.ACMEAccount(row.Account)
		directory = acc.Directory
		return err
	})
	if err != nil {
		return nil, err
	}
	o := &stepacme.Order{
		ID: row.ID, AccountID: row.Account, ProvisionerID: directory, Status: stepacme.Status(row.Status), Error: decodeError(row.Error), ExpiresAt: row.ExpiresAt,
		Identifiers: []stepacme.Identifier{{Type: stepacme.PermanentIdentifier, Value: row.Identifier}}, AuthorizationIDs: []string{row.Authorization},
		NotBefore: row.NotBefore, NotAfter: row.NotAfter,
	}
	if row.Certificate != nil {
		o.CertificateID = o.ID
	}
	return o, nil
}

// GetOrdersByAccountID lists an account's orders that are not ended.
func (d accounts) GetOrdersByAccountID(ctx context.Context, accountID string) (ids []string, err error) {
	err = d.view(ctx, func(tx *store.Tx) (err error) { ids, err = tx.PendingACMEOrders(accountID, d.e.Now()); return err })
	return ids, err
}

// UpdateOrder records an order's status, but not that it is valid: that came with the certificate.
func (d accounts) UpdateOrder(ctx context.Context, o *stepacme.Order) error {
	if o.Status == stepacme.StatusValid {
		return nil
	}
	return d.update(ctx, func(tx *store.Tx) error { return tx.SetACMEOrder(o.ID, string(o.Status), encodeError(o.Error)) })
}

// CreateCertificate names a certificate after its order: it is recorded where all certificates are.
func (accounts) CreateCertificate(_ context.Context, cert *stepacme.Certificate) error {
	cert.ID = cert.OrderID
	return nil
}

// GetCertificate returns the certificate of an order, with its issuer's.
func (d accounts) GetCertificate(ctx context.Context, id string) (*stepacme.Certificate, error) {
	cert := &stepacme.Certificate{ID: id, OrderID: id}
	var leaf, issuer []byte
	err := d.view(ctx, func(tx *store.Tx) error {
		o, err := tx.ACMEOrder(id)
		if err != nil {
			return err
		}
		if o.Certificate == nil {
			return jpki.Errorf(jpki.NotFound, "")
		}
		c, err := tx.Certificate(*o.Certificate)
		if err != nil {
			return err
		}
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(generations, func(g store.Generation) bool { return g.Issuer == o.Certificate.Issuer })
		if i < 0 {
			return errors.New("the certificate's generation is not recorded")
		}
		cert.AccountID, leaf, issuer = o.Account, c.DER, generations[i].Certificate
		return nil
	})
	if err != nil {
		return nil, err
	}
	if cert.Leaf, err = x509.ParseCertificate(leaf); err != nil {
		return nil, asACME(err)
	}
	parent, err := x509.ParseCertificate(issuer)
	cert.Intermediates = []*x509.Certificate{parent}
	return cert, asACME(err)
}

// errNotServed answers what only routes and commands ask that are not served here.
var errNotServed = stepacme.NewError(stepacme.ErrorNotImplementedType, "not served here")

// CreateExternalAccountKey is for smallstep's administration: enrolments are begun by ca.Authority.
func (accounts) CreateExternalAccountKey(context.Context, string, string) (*stepacme.ExternalAccountKey, error) {
	return nil, errNotServed
}

// GetExternalAccountKeys is for smallstep's administration.
func (accounts) GetExternalAccountKeys(context.Context, string, string, int) ([]*stepacme.ExternalAccountKey, string, error) {
	return nil, "", errNotServed
}

// GetExternalAccountKeyByReference is for smallstep's administration.
func (accounts) GetExternalAccountKeyByReference(context.Context, string, string) (*stepacme.ExternalAccountKey, error) {
	return nil, errNotServed
}

// DeleteExternalAccountKey is for smallstep's administration.
func (accounts) DeleteExternalAccountKey(context.Context, string, string) error { return errNotServed }

// GetAuthorizationsByAccountID is for revocation by who is authorized for a device, which is not served: the account that
// ordered a certificate is whom we know, and the certificate's own key.
func (accounts) GetAuthorizationsByAccountID(context.Context, string) ([]*stepacme.Authorization, error) {
	return nil, errNotServed
}

// GetCertificateBySerial returns a phone's certificate that somebody asks to be revoked, and notes that they do.
func (d accounts) GetCertificateBySerial(ctx context.Context, serial string) (*stepacme.Certificate, error) {
	r, revoking := ctx.Value(revocationKey{}).(*revocation)
	if !revoking {
		return nil, errNotServed
	}
	return d.e.findRevoked(r, serial)
}

func encodeError(err *stepacme.Error) string {
	if err == nil {
		return ""
	}
	text, _ := json.Marshal(err) // of two strings
	return string(text)
}

func decodeError(text string) *stepacme.Error {
	out := new(stepacme.Error)
	if text == "" || json.Unmarshal([]byte(text), out) != nil {
		return nil
	}
	return out
}

// clip bounds foreign text.
func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
