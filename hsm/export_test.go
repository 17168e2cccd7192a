package hsm

// SelfTest is what Open does with every key, for keys of a test's own making.
var SelfTest = selfTest
