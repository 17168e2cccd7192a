package primitive

// VerifyPKCS1v15 and VerifyPSS are what checks where crypto/rsa does not; PolicyInASN1 is what one digest is over.
var (
	VerifyPKCS1v15 = verifyPKCS1v15
	VerifyPSS      = verifyPSS
	PolicyInASN1   = policyInASN1
)
