package images

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// changeCommands are the instructions that make no layer.
var changeCommands = []string{
	"cmd", "entrypoint", "healthcheck", "env", "expose", "label", "onbuild", "stopsignal", "user", "volume", "workdir",
}

// ApplyChanges changes an image's configuration by Dockerfile instructions, as
// `import --change` and `commit --change` do. ErrInvalidArgument.
func ApplyChanges(config *dockerspec.DockerOCIImageConfig, changes []string) error {
	if len(changes) == 0 {
		return nil
	}
	parsed, err := parser.Parse(strings.NewReader(strings.Join(changes, "\n")))
	if err != nil {
		return errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	for _, node := range parsed.AST.Children {
		if !slices.Contains(changeCommands, strings.ToLower(node.Value)) {
			return errdefs.ErrInvalidArgument.WithMessage(node.Value + " is not a valid change command")
		}
		command, err := instructions.ParseCommand(node)
		if err == nil {
			err = expand(command, parsed.EscapeToken, config.Env)
		}
		if err == nil {
			err = applyChange(config, command)
		}
		if err != nil {
			return errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
	}
	return nil
}

// expand replaces variables and takes quotes away, as a build does.
func expand(command any, escape rune, env []string) error {
	expandable, ok := command.(instructions.SupportsSingleWordExpansion)
	if !ok {
		return nil
	}
	lex := shell.NewLex(escape)
	return expandable.Expand(func(word string) (string, error) {
		result, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(env))
		return result, err
	})
}

func applyChange(config *dockerspec.DockerOCIImageConfig, command any) error {
	switch c := command.(type) {
	case *instructions.CmdCommand:
		config.Cmd = commandLine(c.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		config.Entrypoint = commandLine(c.ShellDependantCmdLine)
		// An inherited command was meant for another entrypoint.
		config.Cmd = nil
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			config.Env = setEnv(config.Env, pair.Key, pair.Value)
		}
	case *instructions.ExposeCommand:
		return expose(config, c.Ports)
	case *instructions.LabelCommand:
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, pair := range c.Labels {
			config.Labels[pair.Key] = pair.Value
		}
	case *instructions.HealthCheckCommand:
		config.Healthcheck = c.Health
	case *instructions.OnbuildCommand:
		config.OnBuild = append(config.OnBuild, c.Expression)
	case *instructions.StopSignalCommand:
		config.StopSignal = c.Signal
	case *instructions.UserCommand:
		config.User = c.User
	case *instructions.VolumeCommand:
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		for _, volume := range c.Volumes {
			config.Volumes[volume] = struct{}{}
		}
	case *instructions.WorkdirCommand:
		if path.IsAbs(c.Path) {
			config.WorkingDir = path.Clean(c.Path)
		} else {
			config.WorkingDir = path.Join("/", config.WorkingDir, c.Path)
		}
	default:
		return fmt.Errorf("%T is not a valid change command", command)
	}
	return nil
}

func commandLine(c instructions.ShellDependantCmdLine) []string {
	if c.PrependShell {
		return append([]string{"/bin/sh", "-c"}, c.CmdLine...)
	}
	return c.CmdLine
}

func setEnv(env []string, key, value string) []string {
	for i, entry := range env {
		if name, _, _ := strings.Cut(entry, "="); name == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// expose adds ports ("80", "80/tcp", "7000-7002/udp").
func expose(config *dockerspec.DockerOCIImageConfig, ports []string) error {
	if config.ExposedPorts == nil {
		config.ExposedPorts = map[string]struct{}{}
	}
	for _, spec := range ports {
		numbers, proto, given := strings.Cut(spec, "/")
		if !given {
			proto = "tcp"
		}
		proto = strings.ToLower(proto)
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("invalid proto: %s", proto)
		}
		var first, last int
		from, to, ranged := strings.Cut(numbers, "-")
		if !ranged {
			to = from
		}
		if _, err := fmt.Sscanf(from+" "+to, "%d %d", &first, &last); err != nil || first < 1 || last > 65535 || first > last {
			return fmt.Errorf("invalid containerPort: %s", spec)
		}
		for port := first; port <= last; port++ {
			config.ExposedPorts[fmt.Sprintf("%d/%s", port, proto)] = struct{}{}
		}
	}
	return nil
}
