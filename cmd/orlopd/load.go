package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"github.com/orlop/orlop/internal/domain/version"
)

// command is what the command line asks for.
type command struct {
	config     *Config
	configFile string
	validate   bool
	help       bool
	version    bool

	flags *pflag.FlagSet
	opts  []option
	args  []string
}

// parse reads the command line (without the program's name).
func parse(brand Brand, args []string) (*command, error) {
	cmd := &command{config: defaultConfig(brand), args: args}
	cmd.flags = pflag.NewFlagSet(brand.Program, pflag.ContinueOnError)
	cmd.flags.SetOutput(io.Discard)
	cmd.flags.SortFlags = false
	cmd.flags.Usage = func() {}
	cmd.opts = options(cmd.config)
	bind(cmd.flags, cmd.opts)
	cmd.flags.StringVar(&cmd.configFile, "config-file", brand.ConfigFile(), "Daemon configuration file")
	cmd.flags.BoolVar(&cmd.validate, "validate", false, "Validate daemon configuration and exit")
	cmd.flags.BoolVarP(&cmd.version, "version", "v", false, "Print version information and quit")
	cmd.flags.BoolVarP(&cmd.help, "help", "h", false, "Print usage")
	if err := cmd.flags.Parse(args); err != nil {
		return nil, fmt.Errorf("%w\nSee '%s --help'.", err, brand.Program)
	}
	if rest := cmd.flags.Args(); len(rest) > 0 {
		return nil, fmt.Errorf("%q accepts no arguments.\nSee '%s --help'.\n\nUsage:  %s [OPTIONS]", brand.Program, brand.Program, brand.Program)
	}
	return cmd, nil
}

// load completes the configuration from daemon.json and the environment and
// checks it.
func (cmd *command) load(env func(string) string) error {
	c := cmd.config
	if v := env("DOCKER_MIN_API_VERSION"); v != "" && !cmd.flags.Changed("min-api-version") {
		c.MinAPIVersion = v
	}
	verifyFromEnv := env("DOCKER_TLS_VERIFY") != ""
	if verifyFromEnv {
		c.TLSVerify = true
	}
	before := *c
	if cmd.configFile != "" {
		if err := readConfigFile(cmd.configFile, cmd.flags, cmd.opts); err != nil && !fileMissing(err, cmd.flags) {
			return fmt.Errorf("unable to configure the %s daemon with file %s: %w", c.Brand.Product, cmd.configFile, err)
		}
	}
	// TLS is on when either option says so, and then verifies unless told not
	// to.
	tlsGiven := cmd.flags.Changed("tls") || c.TLS != before.TLS
	verifyGiven := cmd.flags.Changed("tlsverify") || c.TLSVerify != before.TLSVerify || verifyFromEnv
	c.TLSSet = tlsGiven || verifyGiven
	if verifyGiven {
		c.TLS = true
	} else if c.TLS {
		c.TLSVerify = true
	}
	if c.TLS {
		c.defaultCertificates(env)
	}
	return c.normalize()
}

// defaultCertificates looks where Docker's programs keep them.
func (c *Config) defaultCertificates(env func(string) string) {
	dir := env("DOCKER_CERT_PATH")
	if dir == "" {
		dir = env("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(env("HOME"), ".docker")
	}
	for _, file := range []struct {
		p    *string
		name string
	}{{&c.TLSCA, "ca.pem"}, {&c.TLSCert, "cert.pem"}, {&c.TLSKey, "key.pem"}} {
		if *file.p == "" {
			*file.p = filepath.Join(dir, file.name)
		}
	}
}

// usage is what --help prints.
func (cmd *command) usage() string {
	name := cmd.config.Brand.Program
	return fmt.Sprintf("Usage:  %s [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n%s", name, cmd.flags.FlagUsages())
}

// versionLine is what --version prints, in the form that Docker's tools parse.
func versionLine(b Brand) string {
	return fmt.Sprintf("%s version %s, build %s", b.Product, version.Version, version.Commit)
}

// errNotRoot is said before anything is made.
func checkSystem(b Brand) error {
	if runtime.GOOS != "linux" {
		return errors.New("system requirements not met: this program runs on Linux only")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs to be started with root privileges", b.Program)
	}
	return nil
}

// findBinary looks for a companion program beside this one, then in PATH.
func findBinary(given, name, self string, lookPath func(string) (string, error)) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return beside, nil
	}
	path, err := lookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: it is neither beside %s nor in PATH; name it with --%s-binary", name, self, strings.TrimPrefix(name, "orlop-"))
	}
	return path, nil
}
