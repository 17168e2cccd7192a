# a SEQUENCE with nothing in it.
3000
