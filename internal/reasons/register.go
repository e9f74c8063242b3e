package reasons

// Register says what to do with the client block that registers a refused certificate
// of a realm. The block follows the text.
func Register(realm string) (before, paste string) {
	option := "mtls"
	if realm != "" && realm != "default" {
		option += " " + realm
	}
	return "Compare the thumbprint with the client's owner by another way first, because everybody can make a certificate with any name. " +
			"If it is the new certificate of a client that is declared already, add only the line in the block to that client.",
		"To register it, paste this into the global option '" + option + "', with the client's ID in place of CHANGE-ME:"
}
