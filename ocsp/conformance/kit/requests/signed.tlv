# with a signature that proves nothing: 256 octets under sha256WithRSAEncryption.
30{ 30{ a1{ a4{3000} } 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } } a0{ 30{ 30{ 06{2a864886f70d01010b} 0500 } 03{ 00 $random.256 } } } }
