// Package scripts runs what a person would type, from the files of testdata,
// against a private engine: once with our client and once with the official
// docker client, and, with ORLOP_SCRIPTS_PEER=docker, against Debian's dockerd
// instead, to learn what "exact" means.
//
// A script writes the client as "orlop", whichever runs. Beside testscript's
// own commands there are
//
//	daemon kill|start|stop|restart   the engine's daemon
//	inside COMMAND …                 a command in the engine's namespaces
//	registry [IMAGE …]               a registry on loopback with these images; $REGISTRY names it
//	await COMMAND …                  repeats an inside or orlop command until it succeeds
//	load IMAGE                       loads an image of test/images
//	configure JSON                   restarts the daemon with this daemon.json
//	unpacked NAME                    Debian's packages that scripts/peers.sh unpacks; $UNPACKED is their folder
//
// $RUNTIMES is a folder with Debian's runc and crun.
//
// Conditions: [orlop] and [docker] tell the client, [peer] the engine.
package scripts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/orlop/orlop/internal/testkit"
)

func TestWithOrlop(t *testing.T) { runScripts(t, "orlop") }

func TestWithTheOfficialClient(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Fatal("no docker client on this machine; scripts/clients.sh fetches one")
	}
	runScripts(t, "docker")
}

// state is what one script has: an engine in a sandbox and, when asked for, a
// registry.
type state struct {
	t        testing.TB
	client   string
	sandbox  *testkit.Sandbox
	socket   string
	dir      string
	engine   *testkit.Engine // nil when the engine is a peer
	registry string
}

// onPeer tells that the scripts are run against Debian's dockerd.
func onPeer() bool { return os.Getenv("ORLOP_SCRIPTS_PEER") == "docker" }

type stateKey struct{}

func runScripts(t *testing.T, client string) {
	testkit.NeedRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		ContinueOnError:     false,
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			s := &state{t: tb, client: client, dir: env.WorkDir}
			if onPeer() {
				s.sandbox, s.socket = testkit.NewDocker(tb)
			} else {
				s.engine = testkit.NewEngine(tb)
				s.sandbox, s.socket, s.dir = s.engine.Sandbox, s.engine.Socket, s.engine.Dir
			}
			env.Values[stateKey{}] = s
			env.Setenv("CLIENT", testkit.Program(tb, client))
			env.Setenv("SOCKET", s.socket)
			env.Setenv("DIR", s.dir)
			env.Setenv("RUNTIMES", foreignRuntimes(tb, env.WorkDir))
			env.Setenv("IMAGES", filepath.Dir(testkit.Image(tb, "busybox")))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "orlop", "docker":
				return cond == client, nil
			case "peer":
				return onPeer(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"orlop": func(ts *testscript.TestScript, neg bool, args []string) {
				of(ts).run(ts, neg, of(ts).command(ts, args))
			},
			"inside":   func(ts *testscript.TestScript, neg bool, args []string) { of(ts).run(ts, neg, of(ts).inside(ts, args)) },
			"daemon":   daemon,
			"registry": registry,
			"await":    await,
			"load":     load,
			"unpacked": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: unpacked NAME")
				}
				ts.Setenv("UNPACKED", testkit.Peer(of(ts).t, args[0]))
			},
			"configure": func(ts *testscript.TestScript, neg bool, args []string) {
				e := of(ts).engine
				if neg || len(args) != 1 || e == nil {
					ts.Fatalf("usage: configure JSON (not with a peer)")
				}
				ts.Check(os.WriteFile(filepath.Join(e.Dir, "daemon.json"), []byte(args[0]), 0o600))
				e.Kill()
				e.Start()
			},
		},
	})
}

// foreignRuntimes makes programs runc and crun that run Debian's, which are
// unpacked and not installed.
func foreignRuntimes(t testing.TB, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, "runtimes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	peer := testkit.Peer(t, "runtimes")
	for name, body := range map[string]string{
		"runc": "exec %s/usr/sbin/runc \"$@\"",
		// crun refuses a host with controllers on v1 and v2, so it does not get
		// to see the v2 ones.
		"crun": "export LD_LIBRARY_PATH=%[1]s/usr/lib/x86_64-linux-gnu\nexec unshare --mount --propagation slave " +
			"sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" \"$@\"' %[1]s/usr/bin/crun \"$@\"",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "#!/bin/sh\n"+body+"\n", peer), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func of(ts *testscript.TestScript) *state { return ts.Value(stateKey{}).(*state) }

func (s *state) command(ts *testscript.TestScript, args []string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(2*time.Minute))
	ts.Defer(cancel)
	cmd := s.sandbox.Command(ctx, testkit.Program(s.t, s.client), args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+s.socket, "ORLOP_HOST=unix://"+s.socket, "DOCKER_CONFIG="+s.dir+"/client")
	return cmd
}

func (s *state) inside(ts *testscript.TestScript, args []string) *exec.Cmd {
	if len(args) == 0 {
		ts.Fatalf("usage: inside COMMAND …")
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience(2*time.Minute))
	ts.Defer(cancel)
	cmd := s.sandbox.Command(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "STATUS="+ts.Getenv("STATUS"))
	return cmd
}

// run runs cmd with testscript's rules: "!" wants a failure, and the output is
// matched by the stdout and stderr commands that follow.
func (s *state) run(ts *testscript.TestScript, neg bool, cmd *exec.Cmd) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	_, _ = ts.Stdout().Write(out.Bytes())
	_, _ = ts.Stderr().Write(errOut.Bytes())
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		ts.Fatalf("%v", err)
	case err != nil && !neg:
		ts.Fatalf("exit status %d", cmd.ProcessState.ExitCode())
	case err == nil && neg:
		ts.Fatalf("unexpected success")
	}
	ts.Setenv("STATUS", fmt.Sprint(cmd.ProcessState.ExitCode()))
}

func daemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon kill|start|stop|restart")
	}
	e := of(ts).engine
	if e == nil {
		ts.Fatalf("a peer's daemon is not ours to kill: guard the script with [peer] skip")
	}
	switch args[0] {
	case "kill":
		e.Kill()
	case "start":
		e.Start()
	case "stop":
		e.Stop()
	case "restart":
		e.Kill()
		e.Start()
	default:
		ts.Fatalf("unknown verb %q", args[0])
	}
}

func registry(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: registry [IMAGE …]")
	}
	s := of(ts)
	s.registry = testkit.StartRegistry(s.t, s.sandbox, s.dir, args...)
	ts.Setenv("REGISTRY", s.registry)
}

// await repeats a command: containers and kernels need a moment, and a test
// that sleeps for it is either slow or flaky.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await orlop|inside ARG …")
	}
	s := of(ts)
	deadline := time.Now().Add(testkit.Patience(30 * time.Second))
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var cmd *exec.Cmd
		if args[0] == "orlop" {
			cmd = s.command(ts, args[1:])
		} else {
			cmd = s.inside(ts, args[1:])
		}
		out, err := cmd.CombinedOutput()
		if err == nil {
			_, _ = ts.Stdout().Write(out)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("never succeeded: %v\n%s", err, out)
		}
		time.Sleep(pause)
	}
}

func load(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: load IMAGE …")
	}
	s := of(ts)
	for _, name := range args {
		cmd := s.command(ts, []string{"load", "-q", "-i", testkit.Image(s.t, name)})
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("load %s: %v\n%s", name, err, out)
		}
	}
}
