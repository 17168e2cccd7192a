# the issuer's name with a key that is not its own: another generation, or somebody else's.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$random.32} 02{$serial} } } } } }
