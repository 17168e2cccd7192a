# with a nonce that is not wrapped in an OCTET STRING of its own, as before RFC 6960.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } a2{ 30{ 30{ 06{2b0601050507300102} 04{$nonce.16} } } } } }
