# the serial number behind superfluous zeros (X.690 §8.3.2).
30{ 30{ 30{ 30{ 30{ 30{ 06{$oid} 0500 } 04{$name} 04{$key} 02{ 000000 $serial } } } } } }
