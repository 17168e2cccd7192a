package cms

// Definite is what brings BER into a form that can be read as DER.
var Definite = definite
