//go:build cgo

package pkcs11

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki/hsm/signer"
)

// A token is a module with a login to one token, in a process that has no other.
type token struct {
	ctx      *pkcs11.Ctx
	sessions []pkcs11.SessionHandle
	slot     uint
}

// A wrong is an error with the state it means.
type wrong struct {
	state State
	err   error
}

func (w wrong) Error() string { return w.err.Error() }
func (w wrong) Unwrap() error { return w.err }

func code(err error) pkcs11.Error {
	e, _ := errors.AsType[pkcs11.Error](err)
	return e
}

// login loads a module, finds the one token that a URI tells, and logs in. Steps:
//  1. load and initialise
//  2. find the token
//  3. leave a PIN alone that is locked, or that one wrong try would lock
//  4. open a session and log in, once
func login(u URI, write bool) (*token, error) {
	// 1.
	if _, err := os.Stat(u.Module); err != nil {
		return nil, wrong{Absent, err}
	}
	t := &token{ctx: pkcs11.New(u.Module)}
	if t.ctx == nil {
		return nil, wrong{Absent, fmt.Errorf("%s is not a PKCS #11 module that loads here", u.Module)}
	}
	if err := t.ctx.Initialize(); err != nil {
		return nil, wrong{Absent, fmt.Errorf("C_Initialize: %w", err)}
	}
	// 2.
	slots, err := t.ctx.GetSlotList(true)
	if err != nil {
		return nil, wrong{Absent, fmt.Errorf("C_GetSlotList: %w", err)}
	}
	var info pkcs11.TokenInfo
	found := 0
	for _, slot := range slots {
		i, err := t.ctx.GetTokenInfo(slot)
		if err != nil || i.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 || !u.tells(slot, i) {
			continue
		}
		t.slot, info = slot, i
		found++
	}
	if found != 1 {
		return nil, wrong{Absent, fmt.Errorf("%d tokens answer to %s", found, u.WithoutKey())}
	}
	// 3.
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return nil, wrong{PINLocked, errors.New("the token says that its PIN is locked")}
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return nil, wrong{PINLocked, errors.New("the token says that one more wrong PIN locks it: log in once with the vendor's tool")}
	}
	// 4.
	pin, err := readPIN(u.PINFile)
	if err != nil {
		return nil, wrong{Absent, err}
	}
	flags := uint(pkcs11.CKF_SERIAL_SESSION)
	if write {
		flags |= pkcs11.CKF_RW_SESSION
	}
	session, err := t.ctx.OpenSession(t.slot, flags)
	if err != nil {
		return nil, wrong{Absent, fmt.Errorf("C_OpenSession: %w", err)}
	}
	t.sessions = []pkcs11.SessionHandle{session}
	switch err := t.ctx.Login(session, pkcs11.CKU_USER, pin); code(err) {
	case pkcs11.CKR_OK, pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		return t, nil
	case pkcs11.CKR_PIN_LOCKED:
		return nil, wrong{PINRefused, fmt.Errorf("C_Login: %w", err)}
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED:
		return nil, wrong{PINRefused, fmt.Errorf("C_Login: %w", err)}
	default:
		return nil, wrong{Absent, fmt.Errorf("C_Login: %w", err)}
	}
}

// tells reports whether the URI tells this token; fields of tokens are padded with blanks.
func (u URI) tells(slot uint, i pkcs11.TokenInfo) bool {
	same := func(want, got string) bool { return want == "" || want == strings.TrimRight(got, " \x00") }
	return same(u.Token, i.Label) && same(u.Manufacturer, i.ManufacturerID) && same(u.Model, i.Model) && same(u.Serial, i.SerialNumber) &&
		(u.SlotID == nil || *u.SlotID == uint64(slot))
}

// find returns the one object of a class that a URI tells.
func (t *token) find(u URI, class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if u.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object))
	}
	if u.ID != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(u.ID)))
	}
	s := t.sessions[0]
	if err := t.ctx.FindObjectsInit(s, template); err != nil {
		return 0, fmt.Errorf("C_FindObjectsInit: %w", err)
	}
	found, _, err := t.ctx.FindObjects(s, 2)
	if err = errors.Join(err, t.ctx.FindObjectsFinal(s)); err != nil {
		return 0, fmt.Errorf("C_FindObjects: %w", err)
	}
	switch len(found) {
	case 0:
		return 0, fs.ErrNotExist
	case 1:
		return found[0], nil
	}
	return 0, errors.New("several objects answer to the URI")
}

// A key is a private key of a token.
type key struct {
	handle pkcs11.ObjectHandle
	public crypto.PublicKey
}

// open finds a private key and its public half, in the attributes of the private key or of the public one beside it.
func (t *token) open(u URI) (key, error) {
	handle, err := t.find(u, pkcs11.CKO_PRIVATE_KEY)
	if err != nil {
		return key{}, err
	}
	k := key{handle: handle}
	attribute := func(o pkcs11.ObjectHandle, name uint) []byte {
		a, err := t.ctx.GetAttributeValue(t.sessions[0], o, []*pkcs11.Attribute{pkcs11.NewAttribute(name, nil)})
		if err != nil || len(a) != 1 {
			return nil
		}
		return a[0].Value
	}
	either := func(name uint) []byte {
		if v := attribute(handle, name); len(v) > 0 {
			return v
		}
		beside, err := t.find(u, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return nil
		}
		return attribute(beside, name)
	}
	if modulus := either(pkcs11.CKA_MODULUS); len(modulus) > 0 {
		e := new(big.Int).SetBytes(either(pkcs11.CKA_PUBLIC_EXPONENT))
		pub := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}
		if pub.N.BitLen() != 2048 || e.Cmp(big.NewInt(65537)) != 0 {
			return key{}, errors.New("the key is RSA but not of 2048 bits with the exponent 65537")
		}
		k.public = pub
		return k, nil
	}
	curve := curveOf(either(pkcs11.CKA_EC_PARAMS))
	var point cryptobyte.String
	der := cryptobyte.String(either(pkcs11.CKA_EC_POINT))
	if curve == nil || !der.ReadASN1(&point, cbasn1.OCTET_STRING) || !der.Empty() {
		return key{}, errors.New("the key is neither RSA-2048, P-256 nor P-384, or its public half is not on the token")
	}
	if k.public, err = ecdsa.ParseUncompressedPublicKey(curve, point); err != nil {
		return key{}, errors.New("the public key is not a point of its curve")
	}
	return k, nil
}

// Parameters of the curves: named by OID (RFC 5480 §2.1.1.1).
var (
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

func curveOf(params []byte) elliptic.Curve {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) != 0 {
		return nil
	}
	switch {
	case oid.Equal(oidP256):
		return elliptic.P256()
	case oid.Equal(oidP384):
		return elliptic.P384()
	}
	return nil
}

// prefixes are what stands before a digest in a DigestInfo (RFC 8017 §9.2, note 1).
var prefixes = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// pssHashes are the mechanisms and the mask generation functions of PSS.
var pssHashes = map[crypto.Hash][2]uint{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// sign makes one signature in a session, in the form that the protocol says.
func (t *token) sign(s pkcs11.SessionHandle, k key, scheme signer.Scheme, h crypto.Hash, digest []byte) ([]byte, error) {
	var m *pkcs11.Mechanism
	ec, isEC := k.public.(*ecdsa.PublicKey)
	switch {
	case scheme == signer.PKCS1v15 && !isEC:
		m, digest = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), slices.Concat(prefixes[h], digest)
	case scheme == signer.PSS && !isEC:
		m = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(pssHashes[h][0], pssHashes[h][1], uint(h.Size())))
	case scheme == signer.ECDSA && isEC:
		m = pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)
		if n := (ec.Curve.Params().BitSize + 7) / 8; len(digest) > n { // some tokens refuse more; both curves end at an octet
			digest = digest[:n]
		}
	default:
		return nil, pkcs11.Error(pkcs11.CKR_KEY_TYPE_INCONSISTENT)
	}
	if err := t.ctx.SignInit(s, []*pkcs11.Mechanism{m}, k.handle); err != nil {
		return nil, err
	}
	sig, err := t.ctx.Sign(s, digest)
	if err != nil || !isEC {
		return sig, err
	}
	if len(sig) == 0 || len(sig)%2 != 0 {
		return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[:len(sig)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[len(sig)/2:]))
	})
	return b.Bytes()
}

// test proves that a key signs what its public half verifies.
func (t *token) test(k key) error {
	scheme, digest := signer.PKCS1v15, sha256.Sum256([]byte("a test message; a signature of it means nothing"))
	if _, ok := k.public.(*ecdsa.PublicKey); ok {
		scheme = signer.ECDSA
	}
	sig, err := t.sign(t.sessions[0], k, scheme, crypto.SHA256, digest[:])
	if err != nil {
		return fmt.Errorf("sign a test message: %w", err)
	}
	if !signer.Verify(k.public, scheme, crypto.SHA256, digest[:], sig) {
		return errors.New("the key's signature of a test message does not verify")
	}
	return nil
}

// harmless are results that say something about a request and nothing about the token: everything else ends the process.
var harmless = []pkcs11.Error{
	pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE,
}

// Work is the child's life: it is told which token and keys, reports what it found, and signs until the connection ends or
// the token is lost. The caller ends the process afterwards, whatever threads a module has left. Steps:
//  1. log in, find and test the keys
//  2. open as many sessions as asked for, or as the token gives
//  3. sign, each session by a goroutine of its own
func Work(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, 16<<10)
	var o order
	if err := readFrame(r, &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	// 1.
	u, err := ParseURI(o.Token)
	if err != nil {
		return err
	}
	t, err := login(u, false)
	if err != nil {
		w, _ := errors.AsType[wrong](err)
		return writeFrame(conn, report{State: w.state, Detail: err.Error()})
	}
	found := report{State: Up, Keys: map[string][]byte{}, Missing: map[string]string{}}
	keys := map[string]key{}
	for name, uri := range o.Keys {
		u, err := ParseURI(uri)
		if err != nil {
			return err
		}
		k, err := t.open(u)
		if err == nil {
			err = t.test(k)
		}
		if err == nil {
			found.Keys[name], err = x509.MarshalPKIXPublicKey(k.public)
		}
		if err != nil {
			found.Missing[name] = err.Error()
			continue
		}
		keys[name] = k
	}
	if len(keys) == 0 {
		return writeFrame(conn, report{State: Absent, Detail: "the token has none of the keys", Missing: found.Missing})
	}
	// 2.
	for len(t.sessions) < o.Sessions {
		s, err := t.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			break // CKR_SESSION_COUNT, or a token that says it otherwise: fewer do
		}
		t.sessions = append(t.sessions, s)
	}
	found.Sessions = len(t.sessions)
	if err := writeFrame(conn, found); err != nil {
		return err
	}
	// 3.
	w, requests, ended := signer.NewWriter(conn), make(chan signer.Request, 1024), make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	for _, s := range t.sessions {
		go func() {
			for req := range requests {
				resp := signer.Response{ID: req.ID}
				k, ok := keys[req.Key]
				var err error
				if !ok || req.Op != signer.OpSign {
					err = pkcs11.Error(pkcs11.CKR_KEY_TYPE_INCONSISTENT)
				} else {
					resp.Data, err = t.sign(s, k, req.Scheme, req.Hash, req.Digest)
				}
				if err != nil {
					resp.Code, resp.Data = signer.Gone, []byte(err.Error())
					if slices.Contains(harmless, code(err)) {
						resp.Code = signer.Failed
					}
				}
				_ = w.Write(func(b []byte) []byte { return signer.AppendResponse(b, resp) })
				if resp.Code == signer.Gone {
					end()
				}
			}
		}()
	}
	go func() {
		defer end()
		for {
			req, err := signer.ReadRequest(r)
			if err != nil {
				return
			}
			requests <- req
		}
	}()
	<-ended
	time.Sleep(time.Millisecond) // answers that another goroutine is about to write
	return nil
}

// Create makes a key pair on the token that u tells, with u's label and id, and returns the public key. The private key
// never leaves the token: it is sensitive, not extractable, and signs, nothing else. The algorithm is rsa-2048, p-256 or p-384. A key that is
// there already is an fs.ErrExist. The process must have no other use of the module.
func Create(ctx context.Context, u URI, algorithm string) (crypto.PublicKey, error) {
	if err := u.Check(); err != nil {
		return nil, err
	}
	if u.Object == "" {
		return nil, errors.New("a new key needs a label: object=")
	}
	t, err := login(u, true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.ctx.Finalize() }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := t.find(u, pkcs11.CKO_PRIVATE_KEY); err == nil {
		return nil, fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if u.ID == "" {
		id := make([]byte, 8)
		_, _ = rand.Read(id)
		u.ID = string(id)
	}
	common := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(u.ID))}
	public := append(slices.Clone(common), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false), pkcs11.NewAttribute(pkcs11.CKA_WRAP, false))
	private := append(slices.Clone(common), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false), pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false)) // tokens' own defaults differ
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	oids := map[string]asn1.ObjectIdentifier{"p-256": oidP256, "p-384": oidP384}
	switch oid, ec := oids[algorithm]; {
	case ec:
		params, err := asn1.Marshal(oid)
		if err != nil {
			return nil, err
		}
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params))
	case algorithm == "rsa-2048":
		mechanism = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, 2048), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	default:
		return nil, fmt.Errorf("algorithm %q is not one of rsa-2048, p-256, p-384", algorithm)
	}
	if _, _, err := t.ctx.GenerateKeyPair(t.sessions[0], []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, private); err != nil {
		return nil, fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	k, err := t.open(u)
	if err == nil {
		err = t.test(k)
	}
	return k.public, err
}
