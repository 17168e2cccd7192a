# the issuer's key under another name.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$random.32} 04{$key} 02{$serial} } } } } }
