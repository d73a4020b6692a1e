//go:build unix

package cli_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const hello = `#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
	echo '{"SchemaVersion":"0.1.0","Vendor":"Test","Version":"v1","ShortDescription":"Says hello"}'
	exit
fi
echo "args: $*"
echo "host: $DOCKER_HOST"
echo "called as: ${DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND##*/}"
exit 7
`

func TestAPluginTakesOverTheCommandLineAndIsToldWhichDaemon(t *testing.T) {
	built := ours(t)
	home := t.TempDir()
	plugins := filepath.Join(home, ".docker", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"docker-hello": hello, "docker-broken": "#!/bin/sh\necho nonsense\n"} {
		if err := os.WriteFile(filepath.Join(plugins, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	orlop := filepath.Join(home, "orlop")
	if err := os.Symlink(built, orlop); err != nil {
		t.Fatal(err)
	}
	run := func(program string, env []string, args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, env...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, c := range []struct {
		program string
		env     []string
		args    string
		want    string
		status  int
	}{
		{orlop, []string{"ORLOP_HOST=unix:///x.sock"}, "hello a --b c", "args: hello a --b c\nhost: unix:///x.sock\ncalled as: orlop\n", 7},
		{orlop, nil, "hello", "args: hello\nhost: unix:///run/orlop/orlop.sock\ncalled as: orlop\n", 7},
		{orlop, []string{"DOCKER_HOST=tcp://h:1"}, "-D hello", "args: -D hello\nhost: tcp://h:1\ncalled as: orlop\n", 7},
		{orlop, nil, "-H tcp://h:1 hello", "args: -H tcp://h:1 hello\nhost: \ncalled as: orlop\n", 7},
		{built, []string{"ORLOP_HOST=unix:///x.sock", "DOCKER_HOST=unix:///y.sock"}, "hello", "args: hello\nhost: unix:///y.sock\ncalled as: docker\n", 7},
		{orlop, nil, "help hello", "args: hello --help\nhost: unix:///run/orlop/orlop.sock\ncalled as: orlop\n", 7},
		{orlop, nil, "broken", "orlop: unknown command: orlop broken\n\nRun 'orlop --help' for more information\n", 1},
		{orlop, nil, "build .", "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component to build images with BuildKit:\n       https://docs.docker.com/go/buildx/\n", 1},
	} {
		if out, status := run(c.program, c.env, strings.Fields(c.args)...); out != c.want || status != c.status {
			t.Errorf("%s %s: status %d and\n%s", c.env, c.args, status, out)
		}
	}
	if out, _ := run(orlop, nil, "--help"); !strings.Contains(out, "  hello*      Says hello\n") || strings.Contains(out, "broken") {
		t.Errorf("help:\n%s", out)
	}
}
