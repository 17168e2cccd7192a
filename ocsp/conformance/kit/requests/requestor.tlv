# with a requestor's name (directoryName of an empty name), unsigned.
30{ 30{ a1{ a4{3000} } 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } } }
