package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxAnswer bounds the answer of the admin API, in bytes, and maxAnswerError what
	// is printed of one that is not JSON.
	maxAnswer      = 64 << 20
	maxAnswerError = 300
)

// adminFlags say where the admin API is, as those of Caddy's own commands do.
type adminFlags struct{ address, config, adapter string }

func addAdminFlags(cmd *cobra.Command) *adminFlags {
	f := new(adminFlags)
	cmd.Flags().StringVar(&f.address, "address", "", "Address of the admin API, if it is neither in the configuration nor the default")
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "Configuration file to find the address of the admin API in")
	cmd.Flags().StringVarP(&f.adapter, "adapter", "a", "", "Name of the config adapter to apply")
	return f
}

// adminError is an answer of the admin API that is an error.
type adminError struct {
	status  int
	message string
}

func (e *adminError) Error() string { return e.message }

// answerError matches the error of [caddycmd.AdminAPIRequest] for such an answer.
var answerError = regexp.MustCompile(`(?s)^caddy responded with error: HTTP (\d{3}): (.*)$`)

// maxLimit is how many entries the admin API lists at most.
const maxLimit = 1000

func checkLimit(limit int) error {
	if limit < 1 || limit > maxLimit {
		return usagef("--limit is %d; use a number from 1 to %d", limit, maxLimit)
	}
	return nil
}

// answer is an answer of the admin API.
type answer struct {
	header http.Header
	body   []byte
}

// ask sends a request to the admin API.
func (f *adminFlags) ask(method, path string, header http.Header, body []byte) (*answer, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(f.address, nil, f.config, f.adapter)
	if err != nil {
		return nil, fmt.Errorf("finding the address of the admin API: %w", err)
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	response, err := caddycmd.AdminAPIRequest(address, method, path, header, content)
	if err != nil {
		return nil, explainAdminError(address, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("the answer of the admin API at %s has more than %d bytes; is Caddy there?", address, maxAnswer)
	}
	return &answer{response.Header, text}, nil
}

// explainAdminError returns the error of a request to the admin API with what to do
// about it.
func explainAdminError(address string, err error) error {
	match := answerError.FindStringSubmatch(err.Error())
	if match == nil {
		if strings.HasPrefix(err.Error(), "performing request: ") {
			return fmt.Errorf("no admin API at %s: %w; start Caddy there, or name its address with --address, or its configuration with --config. A Caddy with 'admin off' has none", address, err)
		}
		return fmt.Errorf("asking the admin API at %s: %w", address, err)
	}
	status, _ := strconv.Atoi(match[1])
	var refusal struct {
		Error string `json:"error"`
	}
	switch {
	case json.Unmarshal([]byte(match[2]), &refusal) == nil && refusal.Error != "":
		return &adminError{status, source.Text(refusal.Error, maxAnswer)}
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return &adminError{status, fmt.Sprintf("the Caddy at %s has no admin API of this plugin, or an older one; start it with the same binary as this command", address)}
	}
	return &adminError{status, fmt.Sprintf("the admin API at %s answers %d: %s; is Caddy there?", address, status, source.Text(match[2], maxAnswerError))}
}

// escapeSegment returns text for a segment of a path. A segment "." or ".." would lead
// elsewhere.
func escapeSegment(text string) string {
	if strings.Trim(text, ".") == "" {
		return strings.ReplaceAll(text, ".", "%2E")
	}
	return url.PathEscape(text)
}
