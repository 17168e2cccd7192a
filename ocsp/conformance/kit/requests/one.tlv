# OCSPRequest for one certificate, and nothing else.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } } }
