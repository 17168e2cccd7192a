# indefinite length, which is BER and not DER.
3080 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } } 0000
