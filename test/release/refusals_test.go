// Package release_test checks what scripts/release refuses. That it makes the same files
// twice, and what is in them, is checked by test/release/run.
package release_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const changelog = `# Changelog

## [Unreleased]

## [1.2.3] - 2026-11-29

### Added

- Something.

## [1.2.2] - 2026-11-01
`

// fakeGo is the go command of these tests. It calls every commit v1.2.3.
const fakeGo = `#!/bin/sh
case $1 in
version) printf '\tmod\tgithub.com/caddymtls/caddy-mtls-auth\tv1.2.3\t\n' ;;
run) echo reached the SBOM >&2; exit 1 ;;
esac
`

// repository is a clone with the script, whose only commit is tagged v1.2.3.
type repository struct {
	dir string
	// programs is the only folder that the script finds programs in.
	programs string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{dir: t.TempDir(), programs: t.TempDir()}
	script, err := os.ReadFile("../../scripts/release")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write(t, "scripts/release", string(script))
	r.write(t, "CHANGELOG.md", changelog)
	r.write(t, ".gitignore", "/dist/\n")
	for _, program := range []string{"bash", "env", "git", "dirname", "awk", "head", "tr", "mktemp", "mkdir", "rm", "mv", "cat", "sha256sum", "shasum"} {
		if path, err := exec.LookPath(program); err == nil {
			if err := os.Symlink(path, filepath.Join(r.programs, program)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(r.programs, "go"), []byte(fakeGo), 0o755); err != nil {
		t.Fatal(err)
	}
	r.git(t, "init", "-q")
	r.commit(t)
	r.git(t, "tag", "-a", "v1.2.3", "-m", "v1.2.3")
	return r
}

func (r *repository) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (r *repository) git(t *testing.T, args ...string) {
	t.Helper()
	if out, err := r.command(t, "git", args...).CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// commit commits all files.
func (r *repository) commit(t *testing.T) {
	t.Helper()
	r.git(t, "add", "-A")
	r.git(t, "commit", "-q", "--allow-empty", "-m", "change")
}

// retag moves the tag to HEAD.
func (r *repository) retag(t *testing.T) {
	t.Helper()
	r.git(t, "tag", "-f", "-a", "v1.2.3", "-m", "v1.2.3")
}

func (r *repository) remove(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if err := os.RemoveAll(filepath.Join(r.programs, program)); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *repository) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + r.programs, "HOME=" + r.dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_CEILING_DIRECTORIES=" + filepath.Dir(r.dir),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	return cmd
}

// release runs the script and returns what it says, and its exit status.
func (r *repository) release(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := r.command(t, filepath.Join(r.dir, "scripts/release"), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestReleaseStops checks that nothing is made of a state that is not a release, and that
// the message says why in one line.
func TestReleaseStops(t *testing.T) {
	testtool.Path(t, "git")
	const tag = "v1.2.3"
	changeLog := func(before, after string) func(*testing.T, *repository) {
		return func(t *testing.T, r *repository) {
			t.Helper()
			r.write(t, "CHANGELOG.md", strings.Replace(changelog, before, after, 1))
			r.commit(t)
			r.retag(t)
		}
	}
	for name, c := range map[string]struct {
		args    []string
		prepare func(*testing.T, *repository)
		want    string
		status  int
	}{
		"no tag":                   {nil, nil, "no tag given; usage: ", 2},
		"no version":               {[]string{"1.2.3"}, nil, "'1.2.3' is not a version; use one like v1.2.3", 2},
		"a pre-release":            {[]string{"v1.2.3-rc.1"}, nil, "'v1.2.3-rc.1' is not a version", 2},
		"a leading zero":           {[]string{"v1.02.3"}, nil, "'v1.02.3' is not a version", 2},
		"a path":                   {[]string{"v1.2.3/../.."}, nil, "'v1.2.3/../..' is not a version", 2},
		"a branch":                 {[]string{"main"}, nil, "'main' is not a version", 2},
		"an unknown target":        {[]string{tag, "plan9/amd64"}, nil, "'plan9/amd64' is not a target; use some of: linux/amd64 ", 2},
		"half a target":            {[]string{tag, "linux"}, nil, "'linux' is not a target", 2},
		"an empty target":          {[]string{tag, ""}, nil, "'' is not a target", 2},
		"go is missing":            {[]string{tag}, func(t *testing.T, r *repository) { r.remove(t, "go") }, "go is missing; install it", 1},
		"git is missing":           {[]string{tag}, func(t *testing.T, r *repository) { r.remove(t, "git") }, "git is missing; install it", 1},
		"sha256sum is missing":     {[]string{tag}, func(t *testing.T, r *repository) { r.remove(t, "sha256sum", "shasum") }, "sha256sum or shasum is missing", 1},
		"no tag of that name":      {[]string{"v1.2.4"}, nil, "there is no tag v1.2.4; create it with ", 1},
		"a branch of that name":    {[]string{"v1.2.4"}, func(t *testing.T, r *repository) { r.git(t, "branch", "v1.2.4") }, "there is no tag v1.2.4", 1},
		"a commit after the tag":   {[]string{tag}, func(t *testing.T, r *repository) { r.commit(t) }, "run 'git checkout v1.2.3' first", 1},
		"a changed file":           {[]string{tag}, func(t *testing.T, r *repository) { r.write(t, "CHANGELOG.md", "") }, "there are changes that are not committed; commit, stash or remove them:  M CHANGELOG.md", 1},
		"a new file":               {[]string{tag}, func(t *testing.T, r *repository) { r.write(t, "new.go", "") }, "remove them: ?? new.go", 1},
		"a staged file":            {[]string{tag}, func(t *testing.T, r *repository) { r.write(t, "a", ""); r.git(t, "add", "a") }, "remove them: A  a", 1},
		"not a repository":         {[]string{tag}, func(t *testing.T, r *repository) { os.RemoveAll(filepath.Join(r.dir, ".git")) }, "this is not a clone of the repository", 1},
		"an unchanged changelog":   {[]string{tag}, changeLog("## [1.2.3] - 2026-11-29\n", ""), "the newest version in CHANGELOG.md is '## [1.2.2] - 2026-11-01'; give v1.2.3 a section '## [1.2.3] - <date>'", 1},
		"another version on top":   {[]string{tag}, changeLog("## [1.2.3]", "## [1.3.0] - 2026-12-01\n\n## [1.2.3]"), "the newest version in CHANGELOG.md is '## [1.3.0] - 2026-12-01'", 1},
		"a version without a date": {[]string{tag}, changeLog("[1.2.3] - 2026-11-29", "[1.2.3]"), "the newest version in CHANGELOG.md is '## [1.2.3]'", 1},
		"dots are dots":            {[]string{tag}, changeLog("[1.2.3]", "[1x2.3]"), "the newest version in CHANGELOG.md is '## [1x2.3] - 2026-11-29'", 1},
		"no version at all":        {[]string{tag}, changeLog(changelog, "# Changelog\n"), "the newest version in CHANGELOG.md is 'none'", 1},
		"an entry is left over":    {[]string{tag}, changeLog("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- Left over.\n"), "CHANGELOG.md has entries in [Unreleased]; move them to [1.2.3], commit that and tag that commit: - Left over.", 1},
		"go sees another version": {[]string{"v1.2.4"}, func(t *testing.T, r *repository) {
			changeLog("[1.2.3]", "[1.2.4]")(t, r)
			r.git(t, "tag", "v1.2.4")
		}, "go calls this commit v1.2.3, not v1.2.4", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			if c.prepare != nil {
				c.prepare(t, r)
			}
			out, status := r.release(t, c.args...)
			last := out[strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1:]
			if status != c.status || !strings.HasPrefix(last, "scripts/release: ") || !strings.Contains(last, c.want) {
				t.Errorf("exit status %d, want %d and %q\n%s", status, c.status, c.want, out)
			}
			if left, _ := filepath.Glob(filepath.Join(r.dir, "dist/*")); left != nil {
				t.Errorf("left behind: %q", left)
			}
			if left, _ := filepath.Glob(filepath.Join(r.dir, "dist/.*")); left != nil {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestReleaseGoesOn checks that what the test above changes is what stops the script.
func TestReleaseGoesOn(t *testing.T) {
	testtool.Path(t, "git")
	for name, prepare := range map[string]func(*testing.T, *repository){
		"an annotated tag":        func(*testing.T, *repository) {},
		"a lightweight tag":       func(t *testing.T, r *repository) { r.git(t, "tag", "-f", "v1.2.3", "v1.2.3^{commit}") },
		"a file that git ignores": func(t *testing.T, r *repository) { mkdir(t, r, "dist") },
		"a tag that others have":  func(t *testing.T, r *repository) { r.git(t, "branch", "v1.2.3"); r.git(t, "tag", "nightly") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			prepare(t, r)
			if out, _ := r.release(t, "v1.2.3", "linux/amd64"); !strings.Contains(out, "reached the SBOM") || strings.Contains(out, "scripts/release: ") {
				t.Error(out)
			}
		})
	}
}

func mkdir(t *testing.T, r *repository, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(r.dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write(t, name+"/old", "")
}
