package command

import (
	"errors"
	"fmt"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// The exit status of every command is
//   - 0 if it did what it says, or its answer is yes,
//   - 1 if it failed, or its answer is no,
//   - 2 if the command line is wrong, so that nothing was tried.
//
// Caddy exits with 1 for an error of a command, unless its wrapper of commands made the
// error.
const statusUsage = 2

// usageError is the error for a command line that is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns a [usageError].
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// commandError is an error as Caddy reports it. Its text is printed on the terminal.
type commandError struct{ cause, status error }

func (e *commandError) Error() string {
	lines := strings.Split(e.cause.Error(), "\n")
	for i, line := range lines {
		lines[i] = source.Text(strings.ReplaceAll(line, "\t", "    "), len(line))
	}
	return strings.Join(lines, "\n")
}

func (e *commandError) Unwrap() []error {
	if e.status == nil {
		return []error{e.cause}
	}
	return []error{e.cause, e.status}
}

// report returns the error of a command with its exit status.
func report(err error) error {
	if err == nil {
		return nil
	}
	reported := &commandError{cause: err}
	if usage := (usageError{}); errors.As(err, &usage) {
		exit := caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return statusUsage, nil })
		reported.status = exit(new(cobra.Command), nil)
	}
	return reported
}

// reportErrors makes a command and those below it report their errors. It is called once
// all of them have been added.
func reportErrors(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return report(usageError{err}) })
	checkArgs, run := cmd.Args, cmd.RunE
	if checkArgs == nil {
		checkArgs = cobra.ArbitraryArgs // as cobra does
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := checkArgs(cmd, args)
		if err == nil {
			// Cobra checks these later, where no exit status can be set.
			err = errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups())
		}
		if err == nil {
			return nil
		}
		return report(usageError{err})
	}
	if run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return report(run(cmd, args)) }
	}
	if cmd.ValidArgsFunction == nil && cmd.HasSubCommands() {
		cmd.ValidArgsFunction = completeArgs(nil) // cobra offers the commands, and no files
	}
	for _, below := range cmd.Commands() {
		reportErrors(below)
	}
}
