// Package clients runs programs written for other people's libraries against a
// private engine: docker-py from Debian, dockerode from npm, and with
// ORLOP_CLIENTS_PEER=docker the same programs against Debian's dockerd, which
// shows that what they demand is what Docker does.
package clients

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orlop/orlop/internal/testkit"
)

// start returns a sandbox with an engine in it and the engine's socket.
func start(t *testing.T) (*testkit.Sandbox, string) {
	if os.Getenv("ORLOP_CLIENTS_PEER") == "docker" {
		return testkit.NewDocker(t)
	}
	e := testkit.NewEngine(t)
	return e.Sandbox, e.Socket
}

func run(t *testing.T, s *testkit.Sandbox, socket string, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(5*time.Minute))
	defer cancel()
	cmd := s.Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), append(env, "DOCKER_HOST=unix://"+socket, "BUSYBOX_TAR="+testkit.Image(t, "busybox"))...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
	}
	t.Log(strings.TrimSpace(string(out)))
}

func TestDockerPy(t *testing.T) {
	testkit.NeedRoot(t)
	if err := exec.Command("/usr/bin/python3", "-c", "import docker").Run(); err != nil {
		t.Fatal("python3-docker is not installed; make test installs it")
	}
	script, err := filepath.Abs("testdata/docker_py.py")
	if err != nil {
		t.Fatal(err)
	}
	// The newest version the library knows, and older ones that others still speak.
	for _, version := range []string{"auto", "1.41", "1.35", "1.24"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s, socket := start(t)
			run(t, s, socket, nil, "/usr/bin/python3", script, version)
		})
	}
}

func TestDockerode(t *testing.T) {
	testkit.NeedRoot(t)
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("npm is not installed; scripts/clients.sh fetches it")
	}
	modules := filepath.Join(testkit.CacheDir(t), "npm-dockerode-5.0.1")
	if _, err := os.Stat(filepath.Join(modules, "node_modules/dockerode/package.json")); err != nil {
		if err := os.MkdirAll(modules, 0o755); err != nil {
			t.Fatal(err)
		}
		install := exec.Command("npm", "install", "--prefix", modules, "--no-audit", "--no-fund", "--silent", "dockerode@5.0.1")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm install dockerode: %v\n%s", err, out)
		}
	}
	script, err := filepath.Abs("testdata/dockerode.js")
	if err != nil {
		t.Fatal(err)
	}
	s, socket := start(t)
	run(t, s, socket, []string{"NODE_PATH=" + filepath.Join(modules, "node_modules")}, "node", script)
}
