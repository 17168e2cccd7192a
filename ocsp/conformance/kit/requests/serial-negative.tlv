# a negative serial number.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{ff7e $random.14 } } } } } }
