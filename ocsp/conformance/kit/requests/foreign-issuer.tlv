# an issuer that does not exist.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$random.32} 04{$random.32} 02{$serial} } } } } }
