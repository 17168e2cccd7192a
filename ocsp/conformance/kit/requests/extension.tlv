# with an extension that nobody knows, 2.999.3, not critical.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } a2{ 30{ 30{ 06{883703} 04{0500} } } } } }
