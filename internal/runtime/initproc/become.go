package initproc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/lsm"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/pty"
	"github.com/orlop/orlop/internal/linux/rlimit"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/confine"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/hooks"
	"github.com/orlop/orlop/internal/runtime/limits"
)

// become gives away every right and executes the application: the part that
// a container's first process and an exec have in common. It returns only on failure.
func (s *stage) become() error {
	p := s.Process
	c, err := confine.New(p, s.Seccomp)
	if err != nil {
		return err
	}
	s.confine = c
	s.warn(c.Warning())
	if err := s.resources(p); err != nil {
		return err
	}
	if err := s.labels(p); err != nil {
		return err
	}
	if p.User.Umask != nil {
		unix.Umask(int(*p.User.Umask))
	} else {
		unix.Umask(0o022)
	}
	env := environment(p)
	// Once with our rights: root may enter folders that the user may not.
	first := unix.Chdir(p.Cwd)
	if !s.CgroupNS {
		if err := s.joinCgroups(); err != nil {
			return err
		}
	}
	// Late, because they bind us too, but with the rights that raising needs.
	warnings, err := rlimit.Apply(0, p.Rlimits)
	for _, w := range warnings {
		s.warn(w)
	}
	if err != nil {
		return fmt.Errorf("error setting rlimits: %w", err)
	}
	if err := c.User(p, s.DenySetgroups); err != nil {
		return err
	}
	// And as the user, who may enter what root may not (NFS).
	if first != nil {
		if err := unix.Chdir(p.Cwd); err != nil {
			code := codeOther
			if errors.Is(err, unix.ENOENT) {
				code = codeNotFound
			} else if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTDIR) {
				code = codeCannotExec
			}
			return &codedError{code, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", p.Cwd, err)}
		}
	}
	if err := insideRoot(); err != nil {
		return err
	}
	// Without a process there is a container, but nothing to start in it.
	name, err := "", errors.New("configuration has no process to start")
	if len(p.Args) > 0 {
		if name, err = lookPath(p.Args[0], env); err != nil {
			return err
		}
	}
	if err := closeFrom(3 + s.Extra); err != nil {
		return err
	}
	if fault.On("descriptor leaked") {
		_, _ = unix.Dup(0)
	}
	if err := s.gate(); err != nil {
		return err
	}
	if len(p.Args) == 0 {
		return err
	}
	if err := s.startHooks(); err != nil {
		return err
	}
	// Before the filter, which need not allow sendmsg. Behind a gate the parent
	// may have gone long ago.
	if err := s.conn.Send(Ready, nil); err != nil && s.Gate < 0 {
		return err
	}
	if !fault.On("ignored signals inherited") {
		defaultSignals()
	}
	if err := c.Final(s.listener); err != nil {
		return err
	}
	err = syscall.Exec(name, p.Args, env)
	return &codedError{ExecCode(err), fmt.Errorf("exec %s: %w", name, err)}
}

// defaultSignals undoes what our starters ignore: handlers end with execve, but
// a signal that is ignored stays so (signal(7)), and a container should not
// depend on the shell its daemon was started from.
func defaultSignals() {
	for sig := unix.Signal(1); sig <= 64; sig++ {
		process.DefaultSignal(sig)
	}
}

// resources sets limits and scheduling of this thread.
func (s *stage) resources(p *specs.Process) error {
	if !s.NoNewKeyring {
		if err := s.keyring(p); err != nil {
			return err
		}
	}
	r := &s.Rare
	if err := limits.Personality(r.Personality); err != nil {
		return err
	}
	if err := limits.MemoryPolicy(r.MemoryPolicy); err != nil {
		return err
	}
	if err := limits.Scheduler(r.Scheduler); err != nil {
		return err
	}
	if err := limits.IOPriority(r.IOPriority); err != nil {
		return err
	}
	if s.Exec && r.ExecCPUAffinity != nil {
		return limits.Affinity(r.ExecCPUAffinity.Final)
	}
	return nil
}

// keyring joins a session keyring of the container's own, so that it does not
// see its starter's keys (config-linux.md knows no word about keyrings; runc
// and crun name it "_ses." and the id).
func (s *stage) keyring(p *specs.Process) error {
	if p.SelinuxLabel != "" && lsm.SELinuxEnabled() {
		proc, err := s.procFile()
		if err != nil {
			return err
		}
		defer proc.Close()
		if err := lsm.SetSELinuxKeyring(proc, p.SelinuxLabel); err != nil {
			return err
		}
	}
	ring, err := unix.KeyctlJoinSessionKeyring("_ses." + s.ID)
	if err != nil {
		// ENOSYS: no keys in the kernel; EACCES, EDQUOT, EPERM: a quota or a sandbox.
		if !errors.Is(err, unix.ENOSYS) {
			s.warn("no session keyring of its own: " + err.Error())
		}
		return nil
	}
	// The ring must be searchable by whom the application becomes.
	perm, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, ring)
	if err != nil {
		return nil
	}
	if parts := strings.Split(perm, ";"); len(parts) >= 4 {
		if mask, err := strconv.ParseUint(parts[3], 16, 32); err == nil {
			const userSearch = 0x80000
			_ = unix.KeyctlSetperm(ring, uint32(mask)|userSearch)
		}
	}
	return nil
}

func (s *stage) labels(p *specs.Process) error {
	if p.ApparmorProfile == "" && p.SelinuxLabel == "" {
		return nil
	}
	proc, err := s.procFile()
	if err != nil {
		return err
	}
	defer proc.Close()
	return confine.Labels(p, proc)
}

// joinCgroups moves this thread, which is the one that executes the
// application, into the v1 groups: a write to tasks is cheap, one to
// cgroup.procs waits for the kernel.
func (s *stage) joinCgroups() error {
	for _, fd := range s.join {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
		_ = unix.Close(fd)
	}
	s.join = nil
	return nil
}

// insideRoot refuses a current folder outside of our root (CVE-2024-21626).
func insideRoot() error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err == nil && n > 1 && buf[0] == '/' || defense.Dropped(defense.CwdInside) {
		return nil
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return errors.New("current working directory is outside of container mount namespace root -- possible container breakout detected")
	}
	return fmt.Errorf("failed to verify if current working directory is safe: %w", err)
}

// closeFrom marks every descriptor from fd on to be closed at execve.
func closeFrom(fd int) error {
	if err := unix.CloseRange(uint(fd), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}

// gate waits until somebody writes to the start fifo.
func (s *stage) gate() error {
	if s.Gate < 0 || fault.On("process not held back") {
		return nil
	}
	if err := s.conn.Send(Waiting, nil); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(s.Gate), Events: unix.POLLIN}}
	var b [1]byte
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for start: %w", err)
		}
		n, err := unix.Read(s.Gate, b[:])
		switch {
		case n == 1:
			return unix.Close(s.Gate)
		case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			if fds[0].Revents&unix.POLLHUP != 0 {
				return errors.New("wait for start: the starter went away in the middle of it")
			}
		default:
			return fmt.Errorf("wait for start: %w", err)
		}
	}
}

// startHooks runs the startContainer hooks: in the container, as its user.
func (s *stage) startHooks() error {
	if len(s.Rare.StartContainer) == 0 || fault.On("startContainer hooks skipped") {
		return nil
	}
	s.Rare.State.Status = specs.StateCreated
	return hooks.Run("startContainer", s.Rare.StartContainer, s.Rare.State)
}

// listener gives the listener of the filter to the agent. It runs on a thread
// that the filter is not in force on. When it fails it ends this process: the
// other thread may have no system call left to do it with.
func (s *stage) listener(fd int) {
	err := pty.SendOver(s.agent, s.Agent, fd)
	_ = unix.Close(fd)
	_ = unix.Close(s.agent)
	if err == nil {
		return
	}
	f := Failure{Code: codeOther, Text: "send seccomp listener: " + err.Error()}
	_ = s.conn.Send(Failed, f.encode())
	unix.Exit(1)
}

// environment is the process's with HOME from the container's own passwd
// when it has none (as runc sets it; Docker relies on that).
func environment(p *specs.Process) []string {
	env := make([]string, 0, len(p.Env)+1)
	home := false
	for _, v := range p.Env {
		home = home || strings.HasPrefix(v, "HOME=") && v != "HOME="
	}
	for _, v := range p.Env {
		if home || !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	if !home && !fault.On("no HOME") {
		env = append(env, "HOME="+homeOf(p.User.UID))
	}
	return env
}

// maxPasswd bounds how much of a container's passwd is read, in bytes.
const maxPasswd = 1 << 20

func homeOf(uid uint32) string {
	root, err := safepath.OpenRoot("/")
	if err != nil {
		return "/"
	}
	defer root.Close()
	body, err := root.ReadFile("etc/passwd", maxPasswd)
	if err != nil {
		return "/"
	}
	return homeFrom(string(body), uid)
}

// homeFrom finds the home of a user in a passwd file, "/" for one it does not have.
func homeFrom(passwd string, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.SplitSeq(passwd, "\n") {
		// name:password:uid:gid:comment:home:shell (passwd(5))
		if f := strings.Split(line, ":"); len(f) >= 6 && f[2] == want {
			return f[5]
		}
	}
	return "/"
}

// lookPath finds the program as execvp(3) does, with the PATH of env.
func lookPath(file string, env []string) (string, error) {
	if strings.Contains(file, "/") {
		if err := executable(file); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				err = &os.PathError{Op: "stat", Path: file, Err: err}
			}
			return "", notExecutable(file, err)
		}
		return file, nil
	}
	path := ""
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, "PATH="); ok {
			path = rest // the first one wins, as with getenv(3)
			break
		}
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		name := filepath.Join(dir, file)
		if dir == "." {
			name = "./" + file
		}
		err := executable(name)
		if err == nil {
			return name, nil
		}
		if errors.Is(err, unix.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", notExecutable(file, denied)
	}
	return "", &codedError{codeNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", file)}
}

func executable(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if err := unix.Faccessat2(unix.AT_FDCWD, name, unix.X_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

func notExecutable(file string, err error) error {
	return &codedError{ExecCode(err), fmt.Errorf("exec: %q: %w", file, err)}
}

// ExecCode is the exit status a shell reports for a failed execve.
func ExecCode(err error) int {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return codeNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOEXEC),
		errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.ELIBBAD):
		return codeCannotExec
	}
	return codeOther
}

// loopbackUp sets the interface lo of our network namespace up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
