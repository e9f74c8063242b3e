package command

import (
	"encoding/json"
	"net/http"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/version"
)

// caddyModule is the path of Caddy's module.
const caddyModule = "github.com/caddyserver/caddy/v2"

// versions are what this program, and a running Caddy, are made of.
type versions struct {
	Plugin string `json:"plugin"`
	Commit string `json:"commit"`
	// Modified is whether the files differed from the commit.
	Modified bool   `json:"modified,omitempty"`
	Caddy    string `json:"caddy"`
	Go       string `json:"go"`
	// Running is the version of the plugin in the running Caddy, if it was asked.
	Running string `json:"running,omitempty"`
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version [--running]",
		Short: "Prints the versions of the plugin, of Caddy and of Go, and the commit",
		Long: `
Prints the versions of the plugin, of Caddy and of Go that this program is made
of, and the commit of the plugin, with "modified" if the files differed from it.
The commit is "unknown" if the program was built of a released version or of a
folder without a repository. With --running, also asks the admin API of a
running Caddy for its version of the plugin, which is older if Caddy was not
restarted after an upgrade.

	$ caddy mtls version --running`,
		Args: cobra.NoArgs,
	}
	admin := addAdminFlags(cmd)
	running := cmd.Flags().Bool("running", false, "Ask a running Caddy for its version, too")
	asJSON := addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versions{Plugin: version.Plugin(), Caddy: version.Of(caddyModule), Go: runtime.Version()}
		v.Commit, v.Modified = version.Commit()
		if *running {
			answer, err := admin.ask(http.MethodGet, "/mtls/status?limit=1", nil, nil)
			if err != nil {
				return err
			}
			var report struct {
				Version string `json:"version"`
			}
			if err := json.Unmarshal(answer.body, &report); err != nil {
				return errUnreadable(err)
			}
			v.Running = report.Version
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), v)
		}
		f := facts{cmd.OutOrStdout()}
		f.print("plugin", "%s", v.Plugin)
		if v.Modified {
			f.print("commit", "%s, modified", v.Commit)
		} else {
			f.print("commit", "%s", v.Commit)
		}
		f.print("Caddy", "%s", v.Caddy)
		f.print("Go", "%s", v.Go)
		if *running {
			f.print("running", "%s", source.Text(v.Running, maxCell))
		}
		return nil
	}
	return cmd
}
