package jpki

import "fmt"

// A Kind is one of the four kinds of certificate a person can hold.
type Kind string

// The kinds. Signature certificates carry the holder's four attributes, authentication certificates carry none.
const (
	CardSign  Kind = "card-sign"  // 個人番号カード用署名用電子証明書
	CardAuth  Kind = "card-auth"  // 個人番号カード用利用者証明用電子証明書
	PhoneSign Kind = "phone-sign" // 移動端末設備用署名用電子証明書
	PhoneAuth Kind = "phone-auth" // 移動端末設備用利用者証明用電子証明書
)

// Kinds lists all kinds in the order in which tables show them.
var Kinds = []Kind{CardSign, CardAuth, PhoneSign, PhoneAuth}

// A TokenType is what a certificate's private key lives in.
type TokenType string

// The two tokens.
const (
	Card  TokenType = "card"
	Phone TokenType = "phone"
)

// CA returns the authority that issues certificates of kind k.
func (k Kind) CA() CA {
	if k == CardSign || k == PhoneSign {
		return SignCA
	}
	return AuthCA
}

// Token returns what the key of a certificate of kind k lives in.
func (k Kind) Token() TokenType {
	if k == CardSign || k == CardAuth {
		return Card
	}
	return Phone
}

// ParseKind reads one of the four kinds.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case CardSign, CardAuth, PhoneSign, PhoneAuth:
		return k, nil
	}
	return "", fmt.Errorf("kind %q is not one of card-sign, card-auth, phone-sign, phone-auth", clip(s))
}
