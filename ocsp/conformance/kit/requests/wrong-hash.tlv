# says SHA-1 and has the hashes of SHA-256.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid.sha1} 0500 } 04{$name.sha256} 04{$key.sha256} 02{$serial} } } } } }
