# an unknown extension to the single request, not critical.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } a0{ 30{ 30{ 06{883703} 04{0500} } } } } } } }
