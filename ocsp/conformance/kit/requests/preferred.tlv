# prefers sha256WithRSAEncryption, then ecdsa-with-SHA256 (RFC 6960 §4.4.7).
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } a2{ 30{ 30{ 06{2b0601050507300108} 04{ 30{ 30{ 30{ 06{2a864886f70d01010b} 0500 } } 30{ 30{ 06{2a8648ce3d040302} } } } } } } } } }
