# name and key in each other's place.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$key} 04{$name} 02{$serial} } } } } }
