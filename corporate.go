package jpki

import "strings"

// A CorporateNumber (法人番号) names an organisation in Japan: 13 digits, of which the first is a check digit. It is public,
// unlike a My Number.
type CorporateNumber string

// ParseCorporateNumber reads 13 digits and checks the check digit. Anything else is [Malformed]; the error does not quote it,
// since a number in the wrong place may be a person's.
func ParseCorporateNumber(s string) (CorporateNumber, error) {
	if len(s) != 13 || strings.Trim(s, "0123456789") != "" {
		return "", Errorf(Malformed, "a Corporate Number has 13 digits")
	}
	if s[0] != corporateCheckDigit(s[1:]) {
		return "", Errorf(Malformed, "the Corporate Number's check digit is wrong")
	}
	return CorporateNumber(s), nil
}

// corporateCheckDigit computes 9 − (Σ Pn·Qn mod 9) over twelve digits, where n counts from the right and Qn is 1 for odd and 2
// for even n (ordinance on the designation of Corporate Numbers, Article 2).
func corporateCheckDigit(base string) byte {
	sum := 0
	for i := range len(base) {
		sum += int(base[len(base)-1-i]-'0') * (1 + i%2)
	}
	return byte('0' + 9 - sum%9)
}
