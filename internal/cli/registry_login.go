package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	"github.com/spf13/cobra"
)

// loginFlags are the flags of login.
type loginFlags struct {
	user, password string
	fromStdin      bool
}

func (a *app) loginCommand() *cobra.Command {
	var o loginFlags
	cmd := &cobra.Command{
		Use:                   "login [OPTIONS] [SERVER]",
		Short:                 "Authenticate to a registry",
		Long:                  "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:                  maxArgs(1),
		Annotations:           map[string]string{annTop: "8"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			f := cmd.Flags()
			switch {
			case f.Changed("password") && o.fromStdin:
				return errors.New("conflicting options: cannot specify both --password and --password-stdin")
			case o.fromStdin && o.user == "":
				return errors.New("the --password-stdin option requires --username to be set")
			case f.Changed("username") && o.user == "":
				return errors.New("username is empty")
			case f.Changed("password") && o.password == "":
				return errors.New("password is empty")
			}
			return a.login(cmd.Context(), o, strings.Join(args, ""))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	f.BoolVar(&o.fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	f.StringVarP(&o.user, "username", "u", "", "Username")
	return cmd
}

func (a *app) login(ctx context.Context, o loginFlags, server string) error {
	if o.password != "" {
		fmt.Fprintln(a.stderr, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if o.fromStdin {
		content, err := io.ReadAll(a.stdin)
		if err != nil {
			return err
		}
		o.password = strings.TrimRight(string(content), "\r\n")
	}
	key := indexServer
	if server != "" && server != "docker.io" {
		key = credentials.ConvertToHostname(server)
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	var known types.AuthConfig
	if o.user == "" && o.password == "" {
		if known, err = a.configFile().GetAuthConfig(key); err != nil {
			known = types.AuthConfig{}
		}
	}
	known.ServerAddress = key
	if known.Username != "" && known.Password != "" {
		status, err := a.loginAgain(ctx, api, known)
		if err == nil {
			fmt.Fprintln(a.stdout, status)
			return nil
		}
	}
	status, err := a.loginNew(ctx, api, o, known)
	if err != nil {
		return err
	}
	if status != "" {
		fmt.Fprintln(a.stdout, status)
	}
	return nil
}

// loginAgain tries the credentials that are stored already.
func (a *app) loginAgain(ctx context.Context, api *client.Client, known types.AuthConfig) (string, error) {
	fmt.Fprintf(a.stderr, "Authenticating with existing credentials... [Username: %s]\n", known.Username)
	a.note(fmt.Sprintf("To login with a different account, run '%[1]s logout' followed by '%[1]s login'", a.name))
	fmt.Fprint(a.stderr, "\n\n")
	status, err := a.authenticate(ctx, api, known)
	switch {
	case errdefs.IsUnauthorized(err):
		fmt.Fprintln(a.stderr, "Stored credentials invalid or expired")
	case err != nil:
		fmt.Fprintln(a.stderr, "Login did not succeed, error:", err)
	}
	return status, err
}

// loginNew asks for what was not given.
func (a *app) loginNew(ctx context.Context, api *client.Client, o loginFlags, known types.AuthConfig) (string, error) {
	if (o.user == "" || o.password == "") && !a.stdin.terminal {
		return "", errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	auth := types.AuthConfig{ServerAddress: known.ServerAddress, Username: strings.TrimSpace(o.user), Password: o.password}
	in := bufio.NewReader(a.stdin)
	var err error
	if auth.Username == "" {
		question := "Username: "
		if known.Username != "" {
			question = fmt.Sprintf("Username (%s): ", known.Username)
		}
		if auth.Username, err = a.ask(ctx, in, question); err != nil {
			return "", err
		}
		if auth.Username == "" {
			auth.Username = known.Username
		}
		if auth.Username == "" {
			return "", errors.New("error: username is required")
		}
	}
	if strings.TrimSpace(auth.Password) == "" {
		if auth.Password, err = a.askSecret(ctx, in, "Password: "); err != nil {
			return "", err
		}
		if auth.Password == "" {
			return "", errors.New("error: password is required")
		}
	}
	return a.authenticate(ctx, api, auth)
}

// authenticate lets the daemon try the credentials and stores them when the registry took them; a token the registry
// gave takes the password's place.
func (a *app) authenticate(ctx context.Context, api *client.Client, auth types.AuthConfig) (string, error) {
	result, err := api.RegistryLogin(ctx, client.RegistryLoginOptions{
		Username: auth.Username, Password: auth.Password, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
	if err != nil {
		return "", err
	}
	if result.Auth.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", result.Auth.IdentityToken
	}
	if err := a.configFile().GetCredentialsStore(auth.ServerAddress).Store(auth); err != nil {
		return "", fmt.Errorf("error saving credentials: %w", err)
	}
	return result.Auth.Status, nil
}

// ask prints a question and reads a line, until ctx ends.
func (a *app) ask(ctx context.Context, in *bufio.Reader, question string) (string, error) {
	fmt.Fprint(a.stdout, question)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := in.ReadString('\n')
		answered <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case r := <-answered:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", r.err
		}
		return r.line, nil
	case <-ctx.Done():
		fmt.Fprintln(a.stdout)
		return "", context.Cause(ctx)
	}
}

// askSecret is ask without showing what is typed.
func (a *app) askSecret(ctx context.Context, in *bufio.Reader, question string) (string, error) {
	state, err := term.SaveState(a.stdin.fd)
	if err != nil {
		return "", err
	}
	if err := term.DisableEcho(a.stdin.fd, state); err != nil {
		return "", err
	}
	defer func() { _ = term.RestoreTerminal(a.stdin.fd, state) }()
	secret, err := a.ask(ctx, in, question)
	fmt.Fprintln(a.stdout)
	return secret, err
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "logout [SERVER]",
		Short:                 "Log out from a registry",
		Long:                  "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
		Args:                  maxArgs(1),
		Annotations:           map[string]string{annTop: "9"},
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			server := strings.Join(args, "")
			shown, keys := indexServer, []string{indexServer}
			if server != "" {
				shown = credentials.ConvertToHostname(server)
				// Earlier clients stored under any of these.
				keys = []string{server, shown, "http://" + shown, "https://" + shown}
			}
			fmt.Fprintln(a.stdout, "Removing login credentials for", shown)
			var failed []string
			for _, key := range keys {
				if err := a.configFile().GetCredentialsStore(key).Erase(key); err != nil && !os.IsNotExist(err) {
					failed = append(failed, fmt.Sprintf("%s: %s", key, err))
				}
			}
			if len(failed) == len(keys) {
				fmt.Fprintln(a.stderr, "WARNING: could not erase credentials:")
				fmt.Fprintln(a.stderr, strings.Join(failed, "\n"))
			}
			return nil
		},
	}
}
