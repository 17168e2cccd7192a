# something else that is DER: a PKCS #10 request's skeleton.
30{ 30{ 020100 3000 30{ 30{ 06{2a864886f70d010101} 0500 } 03{ 00 $random.64 } } a000 } 30{ 06{2a864886f70d01010b} 0500 } 03{ 00 $random.64 } }
