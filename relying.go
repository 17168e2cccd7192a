package jpki

// A Use is what a certificate serves its holder for. Relying parties are entitled to one or both.
type Use string

// The uses.
const (
	ForSignature      Use = "signature"      // 署名検証者
	ForAuthentication Use = "authentication" // 利用者証明検証者
)

// Uses lists both.
var Uses = []Use{ForSignature, ForAuthentication}

// Use returns what certificates of kind k serve for.
func (k Kind) Use() Use {
	if k.CA() == SignCA {
		return ForSignature
	}
	return ForAuthentication
}

// A ChangeClass is all that a relying party is told of what happened to a person whom it watches: never what, only of which
// class. Death, guardianship and protection look like any other end.
type ChangeClass string

// The classes.
const (
	AttributesChanged ChangeClass = "attributes-changed" // one of the four attributes is another now: time to ask for the latest
	CredentialRenewed ChangeClass = "credential-renewed" //nolint:gosec // no credential: there is a new certificate of the same person
	CredentialHeld    ChangeClass = "suspended"
	CredentialResumed ChangeClass = "resumed"
	CredentialEnded   ChangeClass = "ended" // for good, without a successor so far
)

// ChangesMissed is no class of what happened to somebody: it stands in a tenant's feed where the verifier may have missed changes.
const ChangesMissed ChangeClass = "resync"

// ChangeClasses lists all classes of what happens to persons.
var ChangeClasses = []ChangeClass{AttributesChanged, CredentialRenewed, CredentialHeld, CredentialResumed, CredentialEnded}

// An Item is one of the four attributes that a holder may consent to hand out.
type Item string

// The items, as in the JSON of [Attributes].
const (
	ItemName      Item = "name"
	ItemAddress   Item = "address"
	ItemBirthDate Item = "birth_date"
	ItemSex       Item = "sex"
)

// Items lists the four in the order in which texts name them.
var Items = []Item{ItemName, ItemAddress, ItemBirthDate, ItemSex}
