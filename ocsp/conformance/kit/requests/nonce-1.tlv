# with a nonce of 1 octets (RFC 9654).
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } a2{ 30{ 30{ 06{2b0601050507300102} 04{ 04{$nonce.1} } } } } } }
