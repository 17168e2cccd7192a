# hashes of no octets.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 0400 0400 02{$serial} } } } } }
