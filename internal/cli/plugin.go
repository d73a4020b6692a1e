package cli

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/endpoint"
)

const annPlugin = "com.docker.cli.plugin"

// pluginPrefix and pluginQuestion are Docker's protocol: a plugin is a program docker-NAME that describes itself when
// it is called with that one word, and otherwise runs `NAME …` with the whole command line.
const (
	pluginPrefix   = "docker-"
	pluginQuestion = "docker-cli-plugin-metadata"
)

// plugin is a CLI plugin that described itself.
type plugin struct {
	Name             string `json:"Name"`
	Path             string `json:"Path"`
	Vendor           string `json:"Vendor"`
	Version          string `json:"Version,omitempty"`
	ShortDescription string `json:"ShortDescription,omitempty"`
	URL              string `json:"URL,omitempty"`
	SchemaVersion    string `json:"SchemaVersion,omitempty"`
	Hidden           bool   `json:"Hidden,omitempty"`
	Err              string `json:"Err,omitempty"`
}

// pluginDirs are the folders plugins are looked for in, the first find counts.
func (a *app) pluginDirs() []string {
	dirs := slices.Clone(a.configFile().CLIPluginsExtraDirs)
	dirs = append(dirs, filepath.Join(config.Dir(), "cli-plugins"))
	if runtime.GOOS == "windows" {
		return append(dirs, filepath.Join(os.Getenv("ProgramData"), "Docker", "cli-plugins"), filepath.Join(os.Getenv("ProgramFiles"), "Docker", "cli-plugins"))
	}
	return append(dirs, "/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins")
}

func isPluginName(name string) bool {
	return regexp.MustCompile(`^[a-z][a-z0-9]*$`).MatchString(name)
}

// findPlugin looks a plugin's program up; it is not run.
func (a *app) findPlugin(name string) (path string, ok bool) {
	if !isPluginName(name) {
		return "", false
	}
	file := pluginPrefix + name
	if runtime.GOOS == "windows" {
		file += ".exe"
	}
	for _, dir := range a.pluginDirs() {
		path := filepath.Join(dir, file)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, true
		}
	}
	return "", false
}

// describe asks a plugin who it is; a plugin that does not answer well is invalid, with the reason.
func describe(ctx context.Context, name, path string) plugin {
	p := plugin{Name: name, Path: path}
	out, err := exec.CommandContext(ctx, path, pluginQuestion).Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	switch {
	case err != nil:
		p.Err = "failed to fetch metadata: " + err.Error()
	case p.SchemaVersion != "0.1.0" && !strings.HasPrefix(p.SchemaVersion, "0.") && !strings.HasPrefix(p.SchemaVersion, "1."):
		p.Err = "plugin SchemaVersion " + p.SchemaVersion + " is not valid"
	case p.Vendor == "":
		p.Err = "plugin metadata does not define a vendor"
	}
	return p
}

// plugins describes every plugin found, ordered by name.
func (a *app) plugins(ctx context.Context) []plugin {
	found := map[string]string{}
	for _, dir := range a.pluginDirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			name, ok := strings.CutPrefix(strings.TrimSuffix(entry.Name(), ".exe"), pluginPrefix)
			if _, shadowed := found[name]; !ok || shadowed || entry.IsDir() {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			if _, err := os.Stat(path); err == nil {
				found[name] = path
			}
		}
	}
	var all []plugin
	for name, path := range found {
		all = append(all, describe(ctx, name, path))
	}
	slices.SortFunc(all, func(x, y plugin) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// addPluginStubs lists the plugins among root's commands, for help texts.
func (a *app) addPluginStubs(root *cobra.Command) {
	for _, p := range a.plugins(root.Context()) {
		if p.Err != "" || p.Hidden || knows(root, []string{p.Name}) {
			continue
		}
		root.AddCommand(&cobra.Command{
			Use: p.Name, Short: p.ShortDescription, Run: func(*cobra.Command, []string) {},
			Annotations: map[string]string{annPlugin: "true"}, DisableFlagParsing: true,
		})
	}
}

// runPlugin hands the command line to the plugin of that name, when there is one: ran is false when there is none.
// On Unix the plugin takes this process's place, so signals and status are its own.
func (a *app) runPlugin(ctx context.Context, name string, args []string) (ran bool, _ error) {
	path, ok := a.findPlugin(name)
	if !ok {
		return false, nil
	}
	if p := describe(ctx, name, path); p.Err != "" {
		return false, nil
	}
	env := append(os.Environ(), "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND="+a.cfg.Args[0])
	if host := a.hostForPlugins(); host != "" {
		env = append(env, client.EnvOverrideHost+"="+host)
	}
	return true, a.become(ctx, path, append([]string{path}, args...), env)
}

// hostForPlugins is the address a plugin must be told: it knows Docker's flags, variables and contexts, but not our
// variable and our default socket.
func (a *app) hostForPlugins() string {
	if len(a.global.hosts) > 0 || a.currentContext() != endpoint.DefaultContext {
		return ""
	}
	ep, err := a.defaultEndpoint()
	if err != nil || ep.Host == endpoint.DockerHost() {
		return ""
	}
	return ep.Host
}
