package jpki

import "time"

// A State is where a certificate is in its life. Expiry is not a state: it follows from the certificate itself.
type State string

// The states. Revoked is terminal.
const (
	Good      State = "good"
	Suspended State = "suspended" // 一時停止・一時保留: on the wire, revoked with certificateHold
	Revoked   State = "revoked"   // 失効
)

// A Reason is a CRLReason of RFC 5280 §5.3.1, the only thing about a revocation that is published.
type Reason int

// The reasons in use and what JPKI means by each (docs/glossary.md).
const (
	Unspecified          Reason = 0 // discarded before delivery
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3 // the certificate's content changed: a move, a new name
	Superseded           Reason = 4 // renewed
	CessationOfOperation Reason = 5 // no longer used
	CertificateHold      Reason = 6 // suspended
	RemoveFromCRL        Reason = 8 // only in delta CRLs
)

// String returns the name of RFC 5280.
func (r Reason) String() string {
	switch r {
	case Unspecified:
		return "unspecified"
	case KeyCompromise:
		return "keyCompromise"
	case CACompromise:
		return "cACompromise"
	case AffiliationChanged:
		return "affiliationChanged"
	case Superseded:
		return "superseded"
	case CessationOfOperation:
		return "cessationOfOperation"
	case CertificateHold:
		return "certificateHold"
	case RemoveFromCRL:
		return "removeFromCRL"
	}
	return "unknown"
}

// A Cause is what happened in the world that changed a status. It stays inside the authority: a relying party sees
// only the [Reason] that the cause maps to.
type Cause string

// The causes.
const (
	NoCause Cause = "" // of a good certificate

	Lost     Cause = "lost"      // card or phone lost or stolen
	KeyDoubt Cause = "key-doubt" // the key may not be safe
	Found    Cause = "found"     // ends a suspension

	Moved            Cause = "moved"
	Renamed          Cause = "renamed"
	BirthDateChanged Cause = "birth-date-changed"
	SexChanged       Cause = "sex-changed"
	RecordError      Cause = "record-error" // the certificate was issued with wrong content
	Died             Cause = "died"
	LeftRegister     Cause = "left-register"
	Guardianship     Cause = "guardianship" // the holder came under guardianship of adults

	Renewed        Cause = "renewed"
	TokenReplaced  Cause = "token-replaced" // a new card or phone took the old one's place
	HolderRequest  Cause = "holder-request"
	CardReturned   Cause = "card-returned"
	KeyCompromised Cause = "key-compromised"
	CAKeyLeak      Cause = "ca-key-leak"
	Discarded      Cause = "discarded" // before delivery
	Abandoned      Cause = "abandoned" // its issuance never ended; the number is burnt
)

// reasons maps every cause that ends or holds a certificate to what is published of it.
var reasons = map[Cause]Reason{
	Lost: CertificateHold, KeyDoubt: CertificateHold,
	Moved: AffiliationChanged, Renamed: AffiliationChanged, BirthDateChanged: AffiliationChanged, SexChanged: AffiliationChanged, RecordError: AffiliationChanged,
	Died: CessationOfOperation, LeftRegister: CessationOfOperation, Guardianship: CessationOfOperation,
	Renewed: Superseded, TokenReplaced: Superseded,
	HolderRequest: CessationOfOperation, CardReturned: CessationOfOperation,
	KeyCompromised: KeyCompromise, CAKeyLeak: CACompromise,
	Discarded: Unspecified, Abandoned: Unspecified,
}

// Reason returns what is published of the cause, and false for a cause that neither holds nor ends a certificate.
func (c Cause) Reason() (Reason, bool) { r, ok := reasons[c]; return r, ok }

// A Status is what the authority holds to be true of one certificate.
type Status struct {
	State   State     `json:"state"`
	Reason  Reason    `json:"reason"` // meaningful unless State is Good
	Cause   Cause     `json:"-"`      // never leaves the authority
	Since   time.Time `json:"since"`  // when this state began, to the second: OCSP and CRL carry no more
	Version int64     `json:"version"`
}

// Revocation says how the status appears in OCSP answers and CRLs, where a suspended certificate is a revoked one
// with reason certificateHold (RFC 5280 §5.3.1). It is the only place where that translation is made.
func (s Status) Revocation() (reason Reason, at time.Time, revoked bool) {
	switch s.State {
	case Suspended:
		return CertificateHold, s.Since, true
	case Good:
		return 0, time.Time{}, false
	}
	return s.Reason, s.Since, true // revoked; and a state that is none of ours must never pass for good
}

// A StatusChange is one entry of the status log: certificate ID had the given status from position Seq on.
// The log is append-only and its positions have no gaps; a certificate's first entry is its issuance.
type StatusChange struct {
	Seq       int64
	ID        CertID
	Partition string // the CRL partition fixed in the certificate: a municipality code
	NotAfter  time.Time
	Status    Status
}

// NewTimeline reports whether an entry says that a restored log goes on here. The log had other entries at these positions
// before it was lost; whoever read them begins anew (docs/backup.md). Such an entry is about a number that was drawn for it
// and never issued, with an end in 1970, so that nothing but the log ever speaks of it.
func (c StatusChange) NewTimeline() bool {
	return c.Status.State == Revoked && c.NotAfter.Equal(time.Unix(0, 0))
}
