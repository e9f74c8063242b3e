package clients

import (
	"fmt"
	"iter"
)

// ConflictError says why a client cannot be added to those that are there.
type ConflictError struct {
	// Holder is the client that has what the other one claims.
	Holder *Client
	text   string
}

// Error implements error.
func (e *ConflictError) Error() string { return e.text }

func conflictf(holder *Client, format string, args ...any) *ConflictError {
	return &ConflictError{holder, fmt.Sprintf(format, args...)}
}

// twiceText says that a client has two records, and in which sources.
func twiceText(id, first, second string) string {
	if first == second {
		return fmt.Sprintf("client '%s' is twice in %s; keep one", id, first)
	}
	return fmt.Sprintf("client '%s' is in %s and again in %s; keep one", id, first, second)
}

// conflictsWith yields the reasons why a client cannot be added, at least one for each
// client that is in its way.
func (e *Edit) conflictsWith(c *Client, credentials []indexedCredential) iter.Seq[*ConflictError] {
	return func(yield func(*ConflictError) bool) {
		if other := e.next.Client(c.ID); other != nil &&
			!yield(&ConflictError{other, twiceText(c.ID, other.source, c.source)}) {
			return
		}
		for _, cred := range credentials {
			search := conflictSearch{&e.next.credentialIndex, e, cred, yield}
			goOn := true
			switch {
			case cred.Kind == KindJWKS:
			case cred.isName():
				goOn = search.names()
			default:
				goOn = search.hashes()
			}
			if !goOn {
				return
			}
		}
	}
}

// conflictSearch looks for the clients that one certificate could match together with
// the client of a credential. Its methods report whether the search is to go on.
type conflictSearch struct {
	*credentialIndex
	edit  *Edit
	cred  indexedCredential
	yield func(*ConflictError) bool
}

// hashes looks for credentials that are the same, or that are another hash of a
// certificate in a file.
func (s conflictSearch) hashes() bool {
	for _, own := range s.cred.keys {
		rivals := []spaceKey{own}
		switch own.space {
		case spaceSHA1:
			rivals = append(rivals, spaceKey{spaceFileSHA1, own.key})
		case spacePublicKey:
			rivals = append(rivals, spaceKey{spaceFileKey, own.key})
		case spaceFileSHA1:
			rivals[0].space = spaceSHA1
		case spaceFileKey:
			rivals[0].space = spacePublicKey
		}
		for _, rival := range rivals {
			// two certificates in files can have the same key
			alike := rival.space != spaceFileKey && rival.space != spaceFileSHA1
			if _, goOn := s.among(s.under(rival.space, rival.key), alike); !goOn {
				return false
			}
		}
	}
	return true
}

// names looks for names that overlap, and for another trust domain.
func (s conflictSearch) names() bool {
	if domain := s.cred.name().TrustDomain(); domain != "" {
		for other := range s.allSPIFFE() {
			realm := other.name().TrustDomain()
			if realm == domain {
				break // it is that of all others, too
			}
			if !s.yield(conflictf(other.Client, "client '%s': %s '%s' has another SPIFFE trust domain than '%s'; a realm has only one, so declare another realm", s.cred.Client.ID, s.cred.Kind, s.cred.Value, realm)) {
				return false
			}
		}
	}
	shared, goOn := s.among(s.named(s.cred.name()), true)
	if goOn && !shared {
		_, goOn = s.among(s.overlappingWhile(s.cred.name(), s.edit.GoOn), false)
	}
	return goOn
}

// among compares the credential with others. If these are all alike, one that is shared
// stands for all, because the others were compared with it.
func (s conflictSearch) among(others iter.Seq[*Credential], alike bool) (shared, goOn bool) {
	for other := range others {
		switch {
		case !s.edit.GoOn():
			return false, false
		case other.Client == s.cred.Client:
			continue
		case !other.Client.SharedCredential || !s.cred.Client.SharedCredential:
			if !s.yield(s.conflict(other)) {
				return false, false
			}
		case alike:
			return true, true
		}
	}
	return false, true
}

func (s conflictSearch) conflict(other *Credential) *ConflictError {
	if s.cred.name() != other.name() {
		return conflictf(other.Client, "client '%s': %s '%s' overlaps with '%s' of client '%s': one certificate could match both; narrow one of them, or set shared_credential in both",
			s.cred.Client.ID, s.cred.Kind, s.cred.Value, other.Value, other.Client.ID)
	}
	return conflictf(other.Client, "client '%s': %s '%s' is also a credential of client '%s'; remove it from one of them, or set shared_credential in both",
		s.cred.Client.ID, s.cred.Kind, s.cred.Value, other.Client.ID)
}
