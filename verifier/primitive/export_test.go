package primitive

// VerifyPKCS1v15 and VerifyPSS are what checks where crypto/rsa does not.
var (
	VerifyPKCS1v15 = verifyPKCS1v15
	VerifyPSS      = verifyPSS
)
