package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orlop/orlop/internal/cli/endpoint"
)

// globalOptions are the flags before the command.
type globalOptions struct {
	hosts                     hostList
	context, configDir        string
	logLevel                  string
	debug, tls, tlsVerify     bool
	caFile, certFile, keyFile string
}

// hostList is --host: shown as a list, as Docker 28 does, and given at most once.
type hostList []string

func (h *hostList) String() string {
	if len(*h) == 0 {
		return ""
	}
	return fmt.Sprint([]string(*h))
}
func (h *hostList) Set(v string) error { *h = append(*h, v); return nil }
func (*hostList) Type() string         { return "list" }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:              a.name + " [OPTIONS] COMMAND [ARG...]",
		Short:            "A self-sufficient runtime for containers",
		SilenceUsage:     true,
		SilenceErrors:    true,
		TraverseChildren: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.showHelp(cmd, nil)
			}
			return fmt.Errorf("%[1]s: unknown command: %[1]s %[2]s\n\nRun '%[1]s --help' for more information", a.name, args[0])
		},
		PersistentPreRunE:     func(cmd *cobra.Command, _ []string) error { return a.supported(cmd) },
		Version:               a.version() + ", build " + a.commit(),
		DisableFlagsInUseLine: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd:    true,
			DisableDescriptions: os.Getenv("DOCKER_CLI_DISABLE_COMPLETION_DESCRIPTION") != "",
		},
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate(a.product + " version {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(a.usage)
	root.SetHelpFunc(a.help)
	root.SetHelpCommand(a.helpCommand())
	root.PersistentFlags().BoolP("help", "h", false, "Print usage")
	help := root.PersistentFlags().Lookup("help")
	help.ShorthandDeprecated = "use --help"
	help.Hidden = true
	a.globalFlags(root.Flags())
	return root
}

func (a *app) globalFlags(f *pflag.FlagSet) {
	g := &a.global
	dir := config.Dir()
	certs := os.Getenv(client.EnvOverrideCertPath)
	if certs == "" {
		certs = dir
	}
	f.StringVar(&g.configDir, "config", dir, "Location of client config files")
	f.StringVarP(&g.context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "`+a.name+` context use")`)
	f.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	f.VarP(&g.hosts, "host", "H", "Daemon socket to connect to")
	f.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	f.BoolVar(&g.tls, "tls", os.Getenv("DOCKER_TLS") != "", "Use TLS; implied by --tlsverify")
	f.StringVar(&g.caFile, "tlscacert", filepath.Join(certs, "ca.pem"), "Trust certs signed only by this CA")
	f.StringVar(&g.certFile, "tlscert", filepath.Join(certs, "cert.pem"), "Path to TLS certificate file")
	f.StringVar(&g.keyFile, "tlskey", filepath.Join(certs, "key.pem"), "Path to TLS key file")
	f.BoolVar(&g.tlsVerify, "tlsverify", os.Getenv(client.EnvTLSVerify) != "", "Use TLS and verify the remote")
	f.BoolP("version", "v", false, "Print version information and quit")
}

// applyGlobals puts the global flags to work, before a command is looked for: plugins depend on the folder.
func (a *app) applyGlobals(f *pflag.FlagSet) error {
	g := &a.global
	level, err := logLevel(g.logLevel)
	if err != nil {
		return err
	}
	if g.debug {
		level = slog.LevelDebug
		// Plugins and companions read it.
		if err := os.Setenv("DEBUG", "1"); err != nil {
			return err
		}
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level})))
	if f.Changed("config") {
		config.SetDir(g.configDir)
	}
	if g.context != "" && len(g.hosts) > 0 {
		return errors.New("conflicting options: cannot specify both --host and --context")
	}
	if f.Changed("tlsverify") || g.tlsVerify {
		g.tls = true
	}
	if g.tls {
		// A certificate and key that were not named are optional: the daemon may not ask for them.
		for flag, file := range map[string]*string{"tlscert": &g.certFile, "tlskey": &g.keyFile} {
			if _, err := os.Stat(*file); os.IsNotExist(err) && !f.Changed(flag) {
				*file = ""
			}
		}
	}
	return nil
}

func logLevel(name string) (slog.Level, error) {
	levels := map[string]slog.Level{
		"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
		"warning": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError, "panic": slog.LevelError, "": slog.LevelInfo,
	}
	level, ok := levels[name]
	if !ok {
		return level, &statusError{code: 1, text: "Unable to parse logging level: " + name}
	}
	return level, nil
}

// hostVariables name the daemon in the environment, first come first served. Under the name docker only Docker's
// own variable counts.
func (a *app) hostVariables() []string {
	if a.name == "docker" {
		return []string{client.EnvOverrideHost}
	}
	return []string{"ORLOP_HOST", client.EnvOverrideHost}
}

// hostFromEnv returns the daemon's address from the environment and the variable it came from.
func (a *app) hostFromEnv() (variable, host string) {
	for _, variable := range a.hostVariables() {
		if host := os.Getenv(variable); host != "" {
			return variable, host
		}
	}
	return "", ""
}

// currentContext is the name of the context in force: --context, else "default" when an address was given by flag or
// environment, else DOCKER_CONTEXT, else the configured one. Whether it exists shows when it is used.
func (a *app) currentContext() string {
	switch {
	case a.global.context != "":
		return a.global.context
	case len(a.global.hosts) > 0:
		return endpoint.DefaultContext
	}
	if variable, _ := a.hostFromEnv(); variable != "" {
		return endpoint.DefaultContext
	}
	if name := os.Getenv("DOCKER_CONTEXT"); name != "" {
		return name
	}
	if name := a.configFile().CurrentContext; name != "" {
		return name
	}
	return endpoint.DefaultContext
}

// endpoint is the daemon this invocation talks to.
func (a *app) endpoint() (endpoint.Endpoint, error) {
	if name := a.currentContext(); name != endpoint.DefaultContext {
		return a.contexts().Endpoint(name)
	}
	return a.defaultEndpoint()
}

// defaultEndpoint is the "default" context: address and TLS of flags and environment.
func (a *app) defaultEndpoint() (endpoint.Endpoint, error) {
	if len(a.global.hosts) > 1 {
		return endpoint.Endpoint{}, errors.New("Specify only one -H")
	}
	_, text := a.hostFromEnv()
	if len(a.global.hosts) == 1 {
		text = a.global.hosts[0]
	}
	var e endpoint.Endpoint
	switch {
	case text != "":
		host, err := endpoint.ParseHost(text)
		if err != nil {
			return e, err
		}
		e.Host = host
	case a.global.tls:
		e.Host = endpoint.DefaultTLSHost()
	default:
		e.Host = a.localHost()
	}
	if !a.global.tls {
		return e, nil
	}
	files, err := endpoint.ReadTLSFiles(a.global.caFile, a.global.certFile, a.global.keyFile)
	if err != nil {
		return e, err
	}
	e.TLS, e.SkipTLSVerify = files, !a.global.tlsVerify
	return e, nil
}

// localHost is the daemon of this machine. Under the name docker it is Docker's socket if there is one and else
// ours, so that a docker command works where only Orlop is installed.
func (a *app) localHost() string {
	ours := "unix://" + orlopSocket
	if a.name != "docker" {
		return ours
	}
	theirs := endpoint.DockerHost()
	if !exists(theirs) && exists(ours) {
		return ours
	}
	return theirs
}

// orlopSocket is orlopd's default socket.
const orlopSocket = "/run/orlop/orlop.sock"

func exists(host string) bool {
	_, path, _ := strings.Cut(host, "://")
	_, err := os.Stat(path)
	return err == nil
}
