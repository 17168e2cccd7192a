# the same certificate named by SHA-1 and by SHA-256.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid.sha1} 0500 } 04{$name.sha1} 04{$key.sha1} 02{$serial} } } 30{ 30{ 30{ 06{$oid.sha256} 0500 } 04{$name.sha256} 04{$key.sha256} 02{$serial} } } } } }
