# a serial number of 4000 octets.
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{ 52 $fill.3999 } } } } } }
