package conform

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// faults are the deliberate defects of a runtime built with the tag "faults",
// each with the cases of which at least one has to notice it.
var faults = map[string][]string{
	"mask skipped":                         {"config-linux.md#masked-paths/a file reads empty"},
	"read-only path skipped":               {"config-linux.md#readonly-paths/a folder"},
	"default device left out":              {"config-linux.md#default-devices/full"},
	"mounts reversed":                      {"config.md#mounts/mounts are made in the order listed"},
	"root writable":                        {"config.md#root/readonly"},
	"host name skipped":                    {"config.md#hostname/hostname"},
	"sysctl skipped":                       {"config-linux.md#sysctl/net"},
	"seccomp skipped":                      {"config-linux.md#seccomp/the filter is on"},
	"root propagation ignored":             {"config-linux.md#rootfs-mount-propagation/shared"},
	"createContainer hooks skipped":        {"config.md#posix-platform-hooks/createContainer gets the state"},
	"mount propagation ignored":            {"config.md#linux-mount-options/propagation shared"},
	"recursive bind not recursive":         {"config.md#mounts/rbind takes what is below"},
	"bind flags ignored":                   {"config.md#linux-mount-options/bind nosuid"},
	"recursive flags ignored":              {"config.md#linux-mount-options/recursive rro"},
	"file system options lost":             {"config.md#mounts/tmpfs options"},
	"tmpfs flags ignored":                  {"config.md#linux-mount-options/tmpfs noexec"},
	"device mode ignored":                  {"config-linux.md#devices/type c"},
	"tmpfs not filled":                     {"config.md#linux-mount-options/tmpcopyup"},
	"bounding set kept":                    {"config.md#linux-process/capability CHOWN"},
	"ambient set lost":                     {"config.md#linux-process/ambient ones reach another user"},
	"capability inheritable":               {"config.md#linux-process/inheritable ones are those listed"},
	"noNewPrivileges skipped":              {"config.md#process/noNewPrivileges"},
	"umask ignored":                        {"config.md#user/umask"},
	"additional groups lost":               {"config.md#user/additionalGids"},
	"hard limit is the soft one":           {"config.md#posix-process/rlimit RLIMIT_NOFILE"},
	"current folder ignored":               {"config.md#process/cwd is the current folder"},
	"empty argument dropped":               {"config.md#process/args are passed unchanged"},
	"first variable lost":                  {"config.md#process/env is complete"},
	"no HOME":                              {"config.md#process/HOME is that of the user"},
	"failure not undone":                   {"runtime.md#create/a failure leaves no container"},
	"id taken twice":                       {"runtime.md#create/an id in use fails"},
	"limits skipped":                       {"config-linux.md#memory/limit"},
	"namespace not joined":                 {"config-linux.md#namespaces/joined by path ipc"},
	"gid map is the uid map":               {"config-linux.md#user-namespace-mappings/uid and gid maps differ"},
	"time offsets ignored":                 {"config-linux.md#offset-for-time-namespace/boottime"},
	"oomScoreAdj ignored":                  {"config.md#linux-process/oomScoreAdj"},
	"pid file with a newline":              {"runtime.md#create/--pid-file"},
	"cgroup not joined":                    {"config-linux.md#control-groups/the process is in its group"},
	"pid of a stopped container":           {"runtime.md#state/a stopped container has no pid"},
	"annotations lost":                     {"runtime.md#state/has what is demanded"},
	"running container deleted":            {"runtime.md#delete/of a running container fails"},
	"poststop hooks skipped":               {"config.md#posix-platform-hooks/poststop gets the state"},
	"poststart hooks skipped":              {"config.md#posix-platform-hooks/poststart gets the state"},
	"state left behind":                    {"runtime.md#delete/of a stopped container"},
	"every signal is TERM":                 {"runtime.md#kill/the signal is the one asked for"},
	"kill of a stopped container succeeds": {"runtime.md#kill/of a stopped container fails"},
	"pause does nothing":                   {"command line/pause and resume"},
	"exit status lost":                     {"config.md#process/the exit status is the process's"},
	"signal without 128":                   {"config.md#process/a signal is 128 and its number"},
	"exec without seccomp":                 {"command line/exec has the filter"},
	"exec user ignored":                    {"command line/exec --user"},
	"exec outside of the cgroup":           {"command line/exec is in the container's group"},
	"paused container entered":             {"command line/exec in a paused container fails"},
	"descriptor leaked":                    {"config.md#process/only three descriptors are open"},
	"process not held back":                {"runtime.md#create/does not run the process"},
	"startContainer hooks skipped":         {"config.md#posix-platform-hooks/startContainer runs in the container"},
	"ignored signals inherited":            {"config.md#process/a signal ignored by the caller is not ignored"},
	"hooks swapped":                        {"config.md#posix-platform-hooks/kinds run in the order of the lifecycle"},
	"console size ignored":                 {"config.md#process/consoleSize"},
	"lo stays down":                        {"config-linux.md#namespaces/lo is up in a new network namespace"},
	"hooks get no state":                   {"config.md#posix-platform-hooks/createRuntime gets the state"},
	"failed hook ignored":                  {"config.md#posix-platform-hooks/createRuntime that fails stops the creation"},
	"scheduling ignored":                   {"config.md#linux-process/ioPriority"},
	"personality ignored":                  {"config-linux.md#personality/LINUX32"},
}

// TestEveryFaultIsNoticed builds the runtime with its deliberate defects and
// runs the cases of each on it: one of them must fail.
func TestEveryFaultIsNoticed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if *runtimePath != "" {
		t.Skip("the runtime is another one")
	}
	if os.Getenv("ORLOP_BIN") != "" {
		if _, err := exec.LookPath("go"); err != nil {
			t.Skip("a runtime with faults has to be compiled")
		}
	}
	bin, err := program("orlop-runtime", "cmd/orlop-runtime", "-tags", "faults")
	if err != nil {
		t.Fatal(err)
	}
	root := image(t, cacheDir(t))
	cases := map[string]Case{}
	for _, c := range Cases() {
		cases[c.ID()] = c
	}
	for name, ids := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, id := range ids {
				c, ok := cases[id]
				if !ok {
					t.Fatalf("no case is called %s", id)
				}
				none := Runtime{Name: "no fault", Path: bin}
				if err := runOne(t, none, c, root); err != nil {
					t.Fatalf("%s does not pass without the fault: %v", id, err)
				}
				rt := Runtime{Name: name, Path: bin, Env: []string{"ORLOP_FAULT=" + name}}
				if err := runOne(t, rt, c, root); err != nil {
					t.Logf("noticed by %s: %v", id, err)
					return
				}
			}
			t.Errorf("not noticed by %v", ids)
		})
	}
}

// TestFaultsAreListed compares the list with the source.
func TestFaultsAreListed(t *testing.T) {
	found := map[string]bool{}
	call := regexp.MustCompile(`fault\.On\("([^"]+)"\)|\{"([^"]+)", rootfs\.`)
	err := filepath.WalkDir("../../internal/runtime", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range call.FindAllSubmatch(b, -1) {
			found[string(m[1])+string(m[2])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range found {
		if faults[name] == nil {
			t.Errorf("fault %q has no case", name)
		}
	}
	for name := range faults {
		if !found[name] {
			t.Errorf("fault %q is not in the source", name)
		}
	}
	t.Logf("%d faults", len(found))
}

// TestNoFaultIsInTheProgram looks for the names of the faults and of their
// switch in a program built as it is released, and in one that has them.
func TestNoFaultIsInTheProgram(t *testing.T) {
	for _, flags := range [][]string{{"-ldflags", "-s -w"}, {"-tags", "faults"}} {
		bin, err := program("orlop-runtime", "cmd/orlop-runtime", flags...)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		want := flags[0] == "-tags"
		for _, name := range append([]string{"ORLOP_FAULT"}, names()...) {
			if got := bytes.Contains(b, []byte(name)); got != want {
				t.Errorf("%q in a program built with %v: %v", name, flags, got)
			}
		}
	}
}

func names() (list []string) {
	for name := range faults {
		if len(name) > 12 { // a shorter string is compared by instructions, not from data
			list = append(list, name)
		}
	}
	return list
}
