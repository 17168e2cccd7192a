# a length of 2⁶⁴ octets and more.
308affffffffffffffffffff 3000
