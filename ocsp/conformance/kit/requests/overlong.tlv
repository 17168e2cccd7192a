# a length that the body does not have: 2³² octets.
3084ffffffff 30{3000}
