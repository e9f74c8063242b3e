package refusals

// Class says what is known about a refused caller.
type Class uint8

const (
	// KnownClient is a client that has been authenticated.
	KnownClient Class = iota
	// WithCertificate is a caller of whom only a certificate is known.
	WithCertificate
	// WithoutCertificate is a caller of whom only the address is known.
	WithoutCertificate

	// Classes is how many there are.
	Classes = iota
)

// Key is what repetitions of a refusal have in common. It is comparable.
type Key struct {
	Realm, Directive, Message, Reason string
	Class                             Class
	// Caller is the client_id of a known client, else the thumbprint of the certificate,
	// else the address.
	Caller string
}

// Key returns what repetitions of the refusal have in common with it.
func (r *Record) Key() Key {
	key := Key{Realm: r.Realm, Directive: r.Directive, Message: r.Message, Reason: r.Reason}
	switch {
	case r.ClientID != "" && !r.Claimed:
		key.Class, key.Caller = KnownClient, r.ClientID
	case r.Certificate != nil:
		key.Class, key.Caller = WithCertificate, r.Certificate.Thumbprint
	default:
		key.Class, key.Caller = WithoutCertificate, r.RemoteIP
	}
	return key
}

// octets returns about how much memory the record takes.
func (r *Record) octets() int {
	const (
		structure   = 1024 // what keeps a record without text in a Memory
		certificate = 224  // and a certificate
		name        = 32   // and each of its names
	)
	size := structure + len(r.ErrorID) + len(r.Detail) + len(r.RemoteIP) + len(r.Host) + len(r.URI) + len(r.ClientID) +
		len(r.Hint) + len(r.Register) + len(r.TokenIssuer) + len(r.TokenID)
	if cert := r.Certificate; cert != nil {
		size += certificate + len(cert.Subject) + len(cert.Issuer) + len(cert.Serial) + len(cert.Thumbprint) + len(cert.PublicKey)
		for _, text := range cert.Names {
			size += name + len(text)
		}
	}
	return size
}
