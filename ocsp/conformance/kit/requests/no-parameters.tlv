# the hash algorithm without its NULL (RFC 5754 §2).
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} } 04{$name} 04{$key} 02{$serial} } } } } }
