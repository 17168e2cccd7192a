// Package reader is both sides of a card reader: it puts virtual cards into one, and it talks to the card in one.
//
// A [Slot] shows a [Card] to vpcd, the virtual reader of vsmartcard, by its own small protocol over TCP. A [Client] speaks with pcscd, the
// daemon through which Linux reaches every reader, real or virtual, in version 4 of its protocol over a unix socket; it needs neither libpcsclite
// nor cgo. A [Terminal] turns what one wants of a JPKI card into commands (ISO/IEC 7816-4) and its answers into errors one can branch on. The package
// keeps no journal, asks no authority, and knows T=1 readers on one machine only.
// Slots and clients may be many; each, and each terminal, is for one goroutine at a time. A pulled card, a reset one and a daemon that ended are
// errors of their own ([ErrCardGone], [ErrDaemonGone]) after which one connects again.
// Start at Slot.Show, Dial and NewTerminal.
package reader
