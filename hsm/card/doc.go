// Package card is a My Number card in software, for sandboxes and tests.
//
// A [Card] has two keys made on it, a PIN with a retry counter for each, and the certificates written to it after
// issue. It is not a secure element: the private keys lie unencrypted in a file that only its owner may read, and whoever
// copies the file has the card. It holds no My Number and no attributes; its operations are those of
// the JPKI applet, and a [Session] answers that applet's commands (ISO/IEC 7816-4 and -8) for whoever brings them from a reader. Certification requests are PKCS #10 (RFC 2986), signatures
// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2) by RSA-2048 keys or, on a card of the next generation, ECDSA by P-384 keys. Of that
// generation P-384 with SHA-384 is announced; that its signatures are DER, that this card's two PINs and files are
// as today's, and its applet's name are ours, and so are all commands of personalisation.
// Cards are safe for concurrent use, by several goroutines and several processes: every operation locks the card's file,
// works on what the file says, and makes changes durable before it returns. A try is taken off the retry counter durably
// before the PIN is compared, so a process killed at any moment gains no try.
// Start at New, Card.Sign and NewSession.
package card
