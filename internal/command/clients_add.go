package command

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// maxRecordFile bounds the size of a file with a record, in bytes.
const maxRecordFile = 64 << 10

// recordFlags are the flags that a client record is made of.
type recordFlags struct {
	file                        string
	name                        string
	thumbprints, publicKeys     []string
	certificates                []string
	subjects, dns, uris, scopes []string
	jwksURI                     string
	claims                      []string
}

func clientsAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add <client_id> --certificate <file> | --thumbprint <hash> | --subject <dn> | --file <record.json> ...",
		Short: "Adds a client",
		Long: `
Adds a client to the writable source of a realm. It is admitted at once. A
client that exists is not changed. With --json, prints the record that the
client has.

Add the client of a certificate, by the certificate's thumbprint:

	$ caddy mtls clients add sensor-7 --certificate sensor-7.pem --scope telemetry

Add a client by the subject of its certificates, which a CA of the realm issues:

	$ caddy mtls clients add billing --subject "CN=billing,O=Company" --scope api1

Add a client whose record is in a file, or comes from standard input:

	$ caddy mtls clients add --file sensor-7.json
	$ caddy mtls clients show sensor-7 | caddy mtls clients add --address localhost:2020 --file -`,
		Args: cobra.MaximumNArgs(1),
	}
	f := addRealmFlags(cmd)
	var r recordFlags
	cmd.Flags().StringVar(&r.file, "file", "", "File with the client record as JSON; - is standard input")
	cmd.Flags().StringArrayVar(&r.certificates, "certificate", nil, "File with a certificate, whose thumbprint identifies the client")
	cmd.Flags().StringArrayVar(&r.thumbprints, "thumbprint", nil, "SHA-256 thumbprint of a certificate")
	cmd.Flags().StringArrayVar(&r.publicKeys, "public-key", nil, "SHA-256 hash of a public key")
	cmd.Flags().StringArrayVar(&r.subjects, "subject", nil, "Subject of certificates that a CA of the realm issues")
	cmd.Flags().StringArrayVar(&r.dns, "san-dns", nil, "DNS name in such certificates")
	cmd.Flags().StringArrayVar(&r.uris, "san-uri", nil, "URI in such certificates")
	cmd.Flags().StringVar(&r.jwksURI, "jwks", "", "https URL of a JWK Set with the client's certificates")
	cmd.Flags().StringArrayVar(&r.scopes, "scope", nil, "Scope that the client may have")
	cmd.Flags().StringArrayVar(&r.claims, "claim", nil, "Claim of the client's tokens, as name=value")
	cmd.Flags().StringVar(&r.name, "name", "", "Name of the client, for people")
	flags := certfile.AddPasswordFlags(cmd)
	asJSON := addJSONFlag(cmd)
	cmd.ValidArgsFunction = completeArgs(nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := ""
		if len(args) == 1 {
			id = args[0]
		}
		record, err := r.record(cmd, id, flags)
		if err != nil {
			return err
		}
		answer, err := f.admin.ask(http.MethodPut, f.client(record.ClientID), http.Header{"If-None-Match": {"*"}}, record.text)
		if isStatus(err, http.StatusPreconditionFailed) {
			return fmt.Errorf("client '%s' exists already; change it with PATCH in the admin API, or remove it first", record.ClientID)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return printRecord(cmd.OutOrStdout(), answer.body)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "client '%s' is added\n", record.ClientID)
		return err
	}
	return cmd
}

// addedRecord is the record of a client that is to be added.
type addedRecord struct {
	ClientID string
	text     []byte
}

// record returns the record that the flags say.
func (r *recordFlags) record(cmd *cobra.Command, id string, flags *certfile.Password) (addedRecord, error) {
	if r.file != "" {
		for _, name := range []string{"certificate", "thumbprint", "public-key", "subject", "san-dns", "san-uri", "jwks", "scope", "claim", "name"} {
			if cmd.Flags().Changed(name) {
				return addedRecord{}, usagef("--file has the whole record; write what --%s says into it", name)
			}
		}
		return readRecord(cmd.InOrStdin(), r.file, id)
	}
	if id == "" {
		return addedRecord{}, usagef("missing client_id; name the client, or its record with --file")
	}
	record := clients.Record{
		ClientID: id, ClientName: r.name, Scope: strings.Join(r.scopes, " "), Thumbprints: r.thumbprints, PublicKeys: r.publicKeys,
		SubjectDN: r.subjects, SANDNS: r.dns, SANURI: r.uris, JWKSURI: r.jwksURI,
	}
	for _, file := range r.certificates {
		certificates, _, err := certfile.Read(cmd.InOrStdin(), file, flags)
		if err != nil {
			return addedRecord{}, err
		}
		record.Thumbprints = append(record.Thumbprints, fmt.Sprintf("%x", sha256.Sum256(certificates[0].Raw)))
	}
	if !record.HasCredential() {
		return addedRecord{}, usagef("the client has no credential; add --certificate, --thumbprint, --public-key, --subject, --san-dns, --san-uri or --jwks")
	}
	for _, claim := range r.claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok {
			return addedRecord{}, usagef("--claim '%s' has no value; write it as name=value", claim)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return addedRecord{}, err
		}
		if _, twice := record.Claims[name]; twice {
			return addedRecord{}, usagef("--claim %s is given twice; name a claim once, or write an array into a --file", name)
		}
		if record.Claims == nil {
			record.Claims = make(map[string]json.RawMessage)
		}
		record.Claims[name] = text
	}
	text, err := json.Marshal(record)
	return addedRecord{id, text}, err
}

// readRecord reads a record from a file, or from in if the name is "-". If id is not
// "", it must be that of the record, or the record has none.
func readRecord(in io.Reader, file, id string) (addedRecord, error) {
	name := file
	if file == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return addedRecord{}, err
		}
		defer opened.Close()
		in = opened
	}
	text, err := io.ReadAll(io.LimitReader(in, maxRecordFile+1))
	if err != nil {
		return addedRecord{}, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxRecordFile {
		return addedRecord{}, fmt.Errorf("%s has more than %d bytes; a client record is smaller", name, maxRecordFile)
	}
	text = bytes.TrimSpace(source.WithoutBOM(text))
	members, err := strictjson.Object(text, maxRecordFile)
	if err != nil {
		return addedRecord{}, fmt.Errorf("%s is not a client record: %w", name, err)
	}
	declared := ""
	if raw, ok := members["client_id"]; ok {
		if err := json.Unmarshal(raw, &declared); err != nil || declared == "" {
			return addedRecord{}, fmt.Errorf("%s: client_id is %.100s; use a string", name, raw)
		}
	}
	switch {
	case declared == "" && id == "":
		return addedRecord{}, fmt.Errorf("%s has no client_id; add it, or name the client before --file", name)
	case declared != "" && id != "" && declared != id:
		return addedRecord{}, fmt.Errorf("%s is the record of client %.200q, not of '%s'; make them the same", name, declared, id)
	case declared == "":
		declared = id
	}
	return addedRecord{declared, text}, nil
}
