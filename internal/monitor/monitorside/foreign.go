package monitorside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/pidfd"
	linuxprocess "github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/lifecycle"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// foreign runs a container with another OCI runtime: its command line
// (create, start, exec, pause, resume, update, delete) stands for lifecycle.
// Processes it leaves behind become children of the monitor, which is a
// subreaper for that.
type foreign struct {
	foreignProcess
	group
	id, dir string
	runtime []string
	reaper  *reaper
	owner   *os.File // user namespace that the bundle names, until it is started

	mu   sync.Mutex
	next int // number of exec files
}

// foreignProcess is a process that a foreign runtime started.
type foreignProcess struct {
	pid     int
	start   uint64
	pidfd   *os.File
	console *os.File
	reaper  *reaper
}

func startForeign(ctx context.Context, l *launch, s stdio) (_ runner, err error) {
	if !strings.HasPrefix(l.Runtime, "/") {
		return nil, &lifecycle.StartError{Code: 128, Err: fmt.Errorf("exec: %q: executable file not found in $PATH", l.Runtime)}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	f := &foreign{id: l.ID, dir: l.RunDir, group: groupOf(l), reaper: newReaper()}
	f.runtime = append([]string{l.Runtime, "--root", filepath.Join(l.RunDir, "runtime")}, l.RuntimeArgs...)
	if l.SystemdCgroup {
		f.runtime = append(f.runtime, "--systemd-cgroup")
	}
	defer func() {
		if err != nil {
			f.reaper.stop()
		}
	}()
	if err := f.writeBundle(l); err != nil {
		return nil, err
	}
	defer func() {
		if f.owner != nil {
			f.owner.Close()
		}
	}()
	args := []string{"create", "--bundle", l.RunDir}
	f.foreignProcess, err = f.launch(args, l.Spec.Process.Terminal, s, l)
	if err != nil {
		return nil, err
	}
	if out, err := f.call(nil, "start", f.id); err != nil {
		_ = f.Delete(ctx)
		return nil, startFailure(err, out)
	}
	return f, nil
}

// foreignVersion is what config.json says it is: older runtimes (crun before
// 1.9) refuse any newer number, and all ignore keys that they do not know.
const foreignVersion = "1.0.2"

// writeBundle writes config.json; the root is a folder beside it where layers
// are mounted.
func (f *foreign) writeBundle(l *launch) error {
	spec := *l.Spec
	spec.Version = foreignVersion
	spec.Mounts = plainReadonly(spec.Mounts)
	if l.Rootfs != nil {
		readonly := spec.Root != nil && spec.Root.Readonly
		spec.Root = &specs.Root{Path: "rootfs", Readonly: readonly}
		if err := f.makeRoot(len(l.Rootfs.UIDs) > 0); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	if l.netNS != nil && spec.Linux != nil {
		linux := *spec.Linux
		linux.Namespaces = append([]specs.LinuxNamespace(nil), linux.Namespaces...)
		for i, n := range linux.Namespaces {
			if n.Type == specs.NetworkNamespace && n.Path == "" {
				linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.netNS.Fd())
			}
			if n.Type == specs.UserNamespace && n.Path == "" {
				// The one that the network was made for.
				owner, own, err := linuxprocess.Owner(l.netNS.Fd())
				if err != nil {
					return fmt.Errorf("make bundle: %w", err)
				}
				f.owner = owner
				if !own {
					linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), owner.Fd())
				}
			}
		}
		spec.Linux = &linux
	}
	data, err := json.Marshal(&spec)
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "config.json"), data, 0o600); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	return nil
}

// makeRoot makes the folder that layers are mounted on. Root of a user namespace
// has to get to it; what else is beside it is not readable for others.
func (f *foreign) makeRoot(remapped bool) error {
	root := filepath.Join(f.dir, "rootfs")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if !remapped {
		return nil
	}
	for _, dir := range []string{root, f.dir, filepath.Dir(f.dir)} {
		if err := os.Chmod(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// launch runs a verb that leaves a process behind: create, or exec. With l the
// layers are mounted for it where nobody else sees them.
func (f *foreign) launch(args []string, terminal bool, s stdio, l *launch) (p foreignProcess, err error) {
	f.mu.Lock()
	f.next++
	number := strconv.Itoa(f.next)
	f.mu.Unlock()
	pidFile := filepath.Join(f.dir, "pid."+number)
	logFile := filepath.Join(f.dir, "log."+number)
	defer func() {
		_ = os.Remove(pidFile)
		_ = os.Remove(logFile)
	}()
	args = append(args, "--pid-file", pidFile)
	var console *consoleSocket
	if terminal {
		// A name without folder: the runtime's working directory is ours, and a
		// socket address has room for 108 bytes only.
		if console, err = listenConsole(f.dir, "console."+number); err != nil {
			return p, err
		}
		defer console.close()
		args = append(args, "--console-socket", "console."+number)
	}
	args = append(args, f.id)
	verb := append([]string{"--log", logFile, "--log-format", "json"}, args...)
	f.reaper.hold()
	defer f.reaper.release()
	if l != nil && l.Rootfs != nil {
		err = f.inMounted(l, func() error { return f.exec(verb, s) })
	} else {
		err = f.exec(verb, s)
	}
	if err != nil {
		return p, startFailure(err, lastLog(logFile))
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return p, fmt.Errorf("runtime %s wrote no pid: %w", f.runtime[0], err)
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return p, fmt.Errorf("runtime %s: pid file: %w", f.runtime[0], err)
	}
	if p.pidfd, err = pidfd.Open(p.pid); err != nil {
		return p, fmt.Errorf("process of runtime %s: %w", f.runtime[0], err)
	}
	if st, err := pidfd.ReadStat(p.pid); err == nil {
		p.start = st.Start
	}
	p.reaper = f.reaper
	f.reaper.add(p.pid)
	if console != nil {
		if p.console, err = console.receive(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// inMounted calls fn on a thread whose private mount namespace has the layers
// mounted at the bundle's root. The container clones that namespace; the thread
// and its copy end here.
func (f *foreign) inMounted(l *launch, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("private mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
				return fmt.Errorf("private mount namespace: %w", err)
			}
			if err := mountLayers(l, filepath.Join(f.dir, "rootfs")); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-result
}

// exec runs a verb with the streams of a process.
func (f *foreign) exec(args []string, s stdio) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []*os.File{s.in, s.out, s.err}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	return f.execFiles(args, files)
}

func (f *foreign) execFiles(args []string, files []*os.File) error {
	argv := append(append([]string(nil), f.runtime...), args...)
	// The global options stand in front of the verb.
	p, err := os.StartProcess(f.runtime[0], argv, &os.ProcAttr{Dir: f.dir, Env: os.Environ(), Files: files})
	if err != nil {
		return fmt.Errorf("run runtime: %w", err)
	}
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("run runtime %s: %w", f.runtime[0], err)
	}
	if !state.Success() {
		return fmt.Errorf("runtime %s: %s", f.runtime[0], state)
	}
	return nil
}

// call runs a verb that leaves no process behind and returns what it said.
func (f *foreign) call(input []byte, args ...string) (string, error) {
	f.reaper.hold()
	defer f.reaper.release()
	in, err := memory(input)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := memory(nil)
	if err != nil {
		return "", err
	}
	defer out.Close()
	err = f.execFiles(args, []*os.File{in, out, out})
	said := make([]byte, 4096)
	n, _ := out.ReadAt(said, 0)
	return strings.TrimSpace(string(said[:n])), err
}

// memory is a file with the given content.
func memory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("runtime", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "memfd")
	if _, err := file.WriteAt(content, 0); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// startFailure makes the runtime's words an error with the exit code that users
// know. Another program's text is all there is to tell the causes apart.
func startFailure(err error, said string) error {
	if said == "" {
		return &lifecycle.StartError{Code: 128, Err: fmt.Errorf("unable to retrieve OCI runtime error: %w", err)}
	}
	code := 128
	words := strings.ToLower(said)
	switch {
	case strings.Contains(words, "not found in $path"), strings.Contains(words, "no such file or directory"):
		code = 127
	case strings.Contains(words, "permission denied"), strings.Contains(words, "is a directory"), strings.Contains(words, "exec format error"):
		code = 126
	}
	return &lifecycle.StartError{Code: code, Err: errors.New(said)}
}

// lastLog returns the message of the last error in a runtime's JSON log.
func lastLog(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	last := ""
	for line := range bytes.Lines(data) {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}

// result makes an error of a verb that failed.
func result(said string, err error) error {
	if err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

func (f *foreign) Pause(context.Context) error  { return result(f.call(nil, "pause", f.id)) }
func (f *foreign) Resume(context.Context) error { return result(f.call(nil, "resume", f.id)) }

func (f *foreign) Update(_ context.Context, r *specs.LinuxResources) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return result(f.call(data, "update", "--resources", "-", f.id))
}

func (f *foreign) Exec(_ context.Context, x *execution, s stdio) (process, error) {
	data, err := json.Marshal(x.Process)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(f.dir, "process-*.json")
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(data)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	p, err := f.launch([]string{"exec", "--detach", "--process", file.Name()}, x.Process.Terminal, s, nil)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

func (f *foreign) Delete(ctx context.Context) error {
	said, err := f.call(nil, "delete", "--force", f.id)
	f.reaper.stop()
	if err != nil {
		return result(said, err)
	}
	return f.remove(ctx)
}

// Remember: how to go on is not known; such a monitor stays as it is.
func (f *foreign) Remember(*settledState) bool { return false }

func (p *foreignProcess) Pid() int          { return p.pid }
func (p *foreignProcess) StartTime() uint64 { return p.start }
func (p *foreignProcess) Console() *os.File { return p.console }

func (p *foreignProcess) Ended() error { return pidfd.Ended(p.pidfd) }

func (p *foreignProcess) Wait() (int, error) {
	ws, err := pidfd.Wait(p.pidfd)
	p.reaper.remove(p.pid)
	if err != nil {
		return 0, err
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

func (p *foreignProcess) Signal(sig int) error { return pidfd.Signal(p.pidfd, sig) }

func (p *foreignProcess) Close() error {
	if p.console != nil {
		p.console.Close()
	}
	return p.pidfd.Close()
}

// mountLayers mounts the container's root.
func mountLayers(l *launch, target string) error {
	m, err := rootfs.MountRoot(overlay(l.Rootfs), "")
	if err != nil {
		return err
	}
	defer m.Close()
	at, err := safepath.OpenRoot(target)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := mount.Attach(m, at); err != nil {
		return fmt.Errorf("mount rootfs at %s: %w", target, err)
	}
	return nil
}

// plainReadonly writes "rro" as "ro" where that is the same, on files: crun
// before 1.9 applies it to folders only.
func plainReadonly(mounts []specs.Mount) []specs.Mount {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if j := slices.Index(m.Options, "rro"); j >= 0 {
			if st, err := os.Stat(m.Source); err == nil && !st.IsDir() {
				mounts[i].Options = slices.Clone(m.Options)
				mounts[i].Options[j] = "ro"
			}
		}
	}
	return mounts
}
