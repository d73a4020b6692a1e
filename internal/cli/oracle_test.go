package cli_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// invocation is one command line of the comparison.
type invocation struct {
	args  string            // split at blanks; 'single quotes' keep blanks
	stdin string            // what comes on stdin
	files map[string]string // made in the working folder first
	env   []string
	cfg   string // config.json

	ignore   string // a regular expression for lines of output and requests that may differ
	unsorted bool   // the order of the lines of stdout is the client's own business

	noDaemon bool // nobody listens on the socket
}

// outcome is what can be compared of an invocation.
type outcome struct {
	Stdout, Stderr string
	Status         int
	Requests       []string
	Files          map[string]string
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "orlop-cli-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "docker")
	out, err := exec.Command("go", "build", "-o", path, "github.com/orlop/orlop/cmd/orlop").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// ours builds the client under the name docker, so that its texts can be compared word for word.
func ours(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// theirs is Docker's own client.
func theirs(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("there is no docker client to compare with")
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "Docker version 28.") {
		t.Skipf("the docker client is not of version 28: %s", out)
	}
	return path
}

var words = regexp.MustCompile(`'[^']*'|[^\s']+('[^']*')?[^\s']*`)

func (i invocation) words() []string {
	var list []string
	for _, w := range words.FindAllString(i.args, -1) {
		list = append(list, strings.ReplaceAll(w, "'", ""))
	}
	return list
}

// perform runs a client in a folder of its own against a daemon of its own.
func perform(t *testing.T, program string, i invocation) outcome {
	t.Helper()
	d := newFakeDaemon(t)
	home, work := t.TempDir(), t.TempDir()
	for name, content := range i.files {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(home, ".docker")
	if err := os.Mkdir(config, 0o700); err != nil {
		t.Fatal(err)
	}
	if i.cfg != "" {
		if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(i.cfg), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program, i.words()...)
	cmd.Dir = work
	cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "DOCKER_HOST=unix://" + d.socket, "TZ=UTC", "VISIBLE=from the environment"}, i.env...)
	if i.noDaemon {
		cmd.Env = append(cmd.Env, "DOCKER_HOST=unix:///no/such.sock")
	}
	cmd.Stdin = strings.NewReader(i.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o := outcome{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode(), Requests: d.asked(), Files: map[string]string{}}
	replace := strings.NewReplacer(d.socket, "SOCKET", home, "HOME", work, "WORK")
	o.Stdout, o.Stderr = replace.Replace(o.Stdout), replace.Replace(o.Stderr)
	for n := range o.Requests {
		o.Requests[n] = replace.Replace(o.Requests[n])
	}
	entries, err := os.ReadDir(work)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if content, err := os.ReadFile(filepath.Join(work, e.Name())); err == nil {
			o.Files[e.Name()] = string(content)
		}
	}
	if content, err := os.ReadFile(filepath.Join(config, "config.json")); err == nil {
		o.Files["config.json"] = string(content)
	}
	return o.comparable(i)
}

// comparable takes out what may differ: the order of requests that are made at the same time, and ignored lines.
func (o outcome) comparable(i invocation) outcome {
	if i.ignore != "" {
		skip := regexp.MustCompile(i.ignore)
		o.Requests = slices.DeleteFunc(o.Requests, skip.MatchString)
		o.Stdout, o.Stderr = without(o.Stdout, skip), without(o.Stderr, skip)
	}
	slices.Sort(o.Requests)
	if i.unsorted {
		o.Stdout = sortedLines(o.Stdout)
	}
	return o
}

func without(text string, skip *regexp.Regexp) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, skip.MatchString), "\n")
}

func sortedLines(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestEveryCommandLineDoesWhatDockersClientDoes runs the same command lines with both clients against equal daemons:
// they print the same on both streams, end with the same status, ask the daemon for the same and leave the same files.
func TestEveryCommandLineDoesWhatDockersClientDoes(t *testing.T) {
	docker, orlop := theirs(t), ours(t)
	for _, i := range invocations() {
		name := i.args
		if i.cfg != "" {
			name += " with " + i.cfg
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, got := perform(t, docker, i), perform(t, orlop, i)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("docker (-) and we (+) differ:\n%s", diff)
			}
		})
	}
}
