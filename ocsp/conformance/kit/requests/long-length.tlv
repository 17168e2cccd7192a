# a length in more octets than it needs, which is BER and not DER.
30{ 3083000057 $fill.87 }
