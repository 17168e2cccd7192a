//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"
	"net"
)

var errNoCgo = errors.New("this program was built without cgo and cannot load a PKCS #11 module; build cmd/jpki-signer with CGO_ENABLED=1")

// Work fails: without cgo there is no module to load.
func Work(net.Conn) error { return errNoCgo }

// Create fails: without cgo there is no module to load.
func Create(context.Context, URI, string) (crypto.PublicKey, error) { return nil, errNoCgo }
