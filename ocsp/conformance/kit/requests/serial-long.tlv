# a serial number of 21 octets.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{ 52 $random.20 } } } } } }
