# says to be of version 2.
30{ 30{ a0{020101} 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{$serial} } } } } }
