package initproc

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/capability"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/rlimit"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/confine"
)

// ErrStage is returned by BecomeCalls for what only a stage can do.
var ErrStage = errors.New("this process needs a stage")

// Place is where the steps of BecomeCalls run.
type Place struct {
	// Root is the container's root, to read its passwd for HOME.
	Root safepath.FD
	// Proc gives the descriptor of a procfs that shows the child; in the child.
	Proc func() uintptr
	// Join adds the steps that join v1 cgroups; nil when there are none to join.
	Join func()
	// Talk is the descriptor of the talk with the parent, closed as the last one
	// before the process waits at Config.Gate: who sees its end knows that.
	Talk uintptr
	// Waiting adds the step that tells the parent that nothing failed up to there.
	Waiting func()
}

// BecomeCalls adds to l what become does in a stage, in the same order, as steps
// that need no stage. Whatever they fail with is better told by a stage: the
// caller then starts one. ErrStage for a configuration with anything that few
// have; warnings is what had to be left out.
func (c *Config) BecomeCalls(l *process.Calls, at Place) (warnings []string, err error) {
	p := c.Process
	if len(defense.Environment()) > 0 {
		return nil, ErrStage // which has the defenses to take away
	}
	if p.Terminal || !c.Rare.empty() || len(p.Args) == 0 {
		return nil, ErrStage
	}
	have, err := capability.Current()
	if c.UserNS {
		// Whoever enters a user namespace has every capability in it.
		var all capability.Set
		all, err = capability.Supported()
		have = capability.State{Effective: all, Permitted: all, Bounding: all}
	}
	if err != nil {
		return nil, err
	}
	conf, err := confine.NewFor(have, p, c.Seccomp)
	if err != nil {
		return nil, err
	}
	if conf.Notify() {
		return nil, ErrStage
	}
	if w := conf.Warning(); w != "" {
		warnings = append(warnings, w)
	}
	limits, clipped, err := rlimit.Plan(p.Rlimits, have.Effective.Has(unix.CAP_SYS_RESOURCE) && !c.UserNS)
	if err != nil {
		return nil, err
	}
	if c.UserNS && len(clipped) > 0 {
		return nil, ErrStage // the parent may be able to raise them
	}
	warnings = append(warnings, clipped...)
	env, err := environmentIn(p, at.Root)
	if err != nil {
		return nil, err
	}

	give := at.Proc
	var proc *uintptr
	at.Proc = func() uintptr {
		if proc == nil {
			fd := give()
			proc = &fd
		}
		return *proc
	}
	l.Add("setsid", unix.SYS_SETSID)
	if err := oomScoreCall(l, p, at.Proc); err != nil {
		return nil, err
	}
	if !c.NoNewKeyring {
		keyringCalls(l, c.ID, p)
	}
	if !confine.LabelCalls(l, p, at.Proc) {
		return nil, ErrStage
	}
	// Before any path of the configuration is looked at: the procfs may be the
	// host's, and "/proc/self/fd/N/../bin/sh" would lead there until execve closes
	// it (CVE-2024-21626).
	l.Add("close procfs", unix.SYS_CLOSE, at.Proc())
	umask := uintptr(0o022)
	if p.User.Umask != nil {
		umask = uintptr(*p.User.Umask)
	}
	l.Add("umask", unix.SYS_UMASK, umask).Optional()
	first := l.Add("chdir to cwd", unix.SYS_CHDIR, l.Str(p.Cwd)).Optional()
	if at.Join != nil {
		at.Join()
	}
	for _, r := range limits {
		l.Add("error setting rlimits", unix.SYS_PRLIMIT64, 0, uintptr(r.Resource), l.Words(uintptr(r.Cur), uintptr(r.Max)), 0)
	}
	if err := conf.UserCalls(l, p, c.DenySetgroups); err != nil {
		return nil, err
	}
	l.SkipIfResult(first, ^uintptr(0), 0, 1)
	l.Add("chdir to cwd", unix.SYS_CHDIR, l.Str(p.Cwd))
	insideCalls(l)
	names := candidates(p.Args[0], env)
	if c.Gate >= 0 {
		lookCalls(l, names)
	}
	l.Add("close descriptors", unix.SYS_CLOSE_RANGE, uintptr(3+c.Extra), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if c.Gate >= 0 {
		// Who waits, maybe for days, holds nothing of the host.
		l.CloseFrom(uintptr(3+c.Extra), uintptr(c.Gate), at.Talk)
		at.Waiting()
		l.Add("end the talk", unix.SYS_CLOSE, at.Talk)
		gateCalls(l, c.Gate)
	}
	signalCalls(l)
	conf.FinalCalls(l)
	if c.Gate >= 0 {
		execLate(l, p, names, env)
	} else {
		execCalls(l, p, names, env)
	}
	return warnings, nil
}

// lookCalls end the list unless execCalls will find a program: lookPath, which
// comes before the gate because it is `create` that fails then.
func lookCalls(l *process.Calls, names []string) {
	// struct statx: the word at 24 is the gid and, above it, the mode.
	const modeWord, format, regular = 24, uintptr(unix.S_IFMT) << 32, uintptr(unix.S_IFREG) << 32
	buf := l.Bytes(make([]byte, unsafe.Sizeof(unix.Statx_t{})))
	cwd := unix.AT_FDCWD
	var found []*process.Call
	for _, name := range names {
		path := l.Str(name)
		access := l.Add("access "+name, unix.SYS_FACCESSAT2, uintptr(cwd), path, unix.X_OK, unix.AT_EACCESS).Optional()
		l.SkipIfResult(access, ^uintptr(0), 0, 1)
		next := l.Skip(0)
		stat := l.Add("stat "+name, unix.SYS_STATX, uintptr(cwd), path, 0, unix.STATX_TYPE, buf).Optional()
		l.SkipIfResult(stat, ^uintptr(0), 0, 1)
		missing := l.Skip(0)
		l.SkipIf(buf+modeWord, format, regular, 1)
		special := l.Skip(0)
		found = append(found, l.Skip(0))
		for _, s := range []*process.Call{next, missing, special} {
			l.SkipTo(s)
		}
	}
	none := -1
	l.Add("executable file not found", unix.SYS_CLOSE, uintptr(none))
	for _, s := range found {
		l.SkipTo(s)
	}
}

// gateCalls are stage.gate.
func gateCalls(l *process.Calls, gate int) {
	fd := uintptr(gate)
	poll := l.Bytes([]byte{byte(gate), byte(gate >> 8), 0, 0, unix.POLLIN, 0, 0, 0}) // struct pollfd
	l.Add("wait for start", unix.SYS_PPOLL, poll, 1, 0, 0, 0)
	got := l.Add("wait for start", unix.SYS_READ, fd, l.Bytes(make([]byte, 8)), 1)
	l.SkipIfResult(got, ^uintptr(0), 1, 1)
	l.Exit("wait for start: the starter went away in the middle of it", codeOther)
	l.Add("close start fifo", unix.SYS_CLOSE, fd)
}

// execFailures are what execve fails with for a program that lookCalls found.
var execFailures = []unix.Errno{
	unix.ENOENT, unix.ENOEXEC, unix.EACCES, unix.EPERM, unix.ETXTBSY, unix.ELIBBAD, unix.ENOTDIR, unix.ENOMEM, unix.E2BIG, unix.ELOOP,
	unix.EINVAL, unix.EAGAIN,
}

// execLate are execCalls behind a gate: nobody may be there to hear of a failure
// any more, so the application's own streams and its exit status tell.
func execLate(l *process.Calls, p *specs.Process, names, env []string) {
	say := func(text string) {
		l.Add("write error", unix.SYS_WRITE, 2, l.Bytes([]byte(text)), uintptr(len(text))).Optional()
	}
	argv, envp := l.Strs(p.Args), l.Strs(env)
	var failed []*process.Call
	for i, name := range names {
		l.Add("exec "+name, unix.SYS_EXECVE, l.Str(name), argv, envp).Optional()
		if i < len(names)-1 {
			// Only when there is nothing at that place, the next one is tried.
			const rest = 3
			l.SkipIfLast(unix.ENOENT, rest)
			l.SkipIfLast(unix.ENOTDIR, rest-1)
		}
		say("exec " + name + ": ")
		failed = append(failed, l.Skip(0))
	}
	for _, s := range failed {
		l.SkipTo(s)
	}
	for _, e := range execFailures {
		l.SkipIfLast(e, 1)
		next := l.Skip(0)
		say(e.Error() + "\n")
		l.Exit("exec "+p.Args[0], ExecCode(e))
		l.SkipTo(next)
	}
	say("failed\n")
	l.Exit("exec "+p.Args[0], codeOther)
}

// keyringCalls are the steps of stage.keyring.
func keyringCalls(l *process.Calls, id string, p *specs.Process) {
	// What the kernel gives a new session keyring, and search for its user.
	const perm = 0x3f000000 | 0x130000 | 0x80000
	session := unix.KEY_SPEC_SESSION_KEYRING
	const negative = uintptr(1) << 63
	join := l.Add("join a session keyring of its own", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, l.Str("_ses."+id)).Watched()
	l.SkipIfResult(join, negative, negative, 1)
	l.Add("permit searching the session keyring", unix.SYS_KEYCTL, unix.KEYCTL_SETPERM, uintptr(session), perm).Optional()
}

// oomScoreCall sets the score when it is not the one that a child of ours has.
func oomScoreCall(l *process.Calls, p *specs.Process, proc func() uintptr) error {
	if p.OOMScoreAdj == nil {
		return nil
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	want := strconv.Itoa(*p.OOMScoreAdj)
	if strings.TrimSpace(string(own)) == want {
		return nil
	}
	how := l.Words(unix.O_WRONLY|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
	file := l.Add("open oom_score_adj", unix.SYS_OPENAT2, proc(), l.Str("thread-self/oom_score_adj"), how, unix.SizeofOpenHow)
	// Lowering it needs CAP_SYS_RESOURCE; without it, it is left out.
	l.Add("set oomScoreAdj "+want, unix.SYS_WRITE, 0, l.Bytes([]byte(want)), uintptr(len(want))).Of(file).Watched()
	return nil
}

// insideCalls are insideRoot: a path that does not begin with "/" is outside.
func insideCalls(l *process.Calls) {
	buf := l.Bytes(make([]byte, unix.PathMax))
	l.Add("current folder", unix.SYS_GETCWD, buf, unix.PathMax)
	l.SkipIf(buf, 0xff, '/', 1)
	none := -1
	l.Add("current working directory is outside of container mount namespace root", unix.SYS_CLOSE, uintptr(none))
}

// signalCalls are defaultSignals: what we ignore would be ignored in the child.
func signalCalls(l *process.Calls) {
	const ignored = 1 // SIG_IGN
	type action struct{ handler, flags, restorer, mask uintptr }
	def := uintptr(0)
	for sig := uintptr(1); sig <= 64; sig++ {
		var now action
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if errno != 0 || now.handler != ignored {
			continue
		}
		if def == 0 {
			def = l.Bytes(make([]byte, unsafe.Sizeof(now)))
		}
		l.Add("default signal", unix.SYS_RT_SIGACTION, sig, def, 0, 8)
	}
}

// execCalls try the program at every place of PATH, as execvp(3) does.
func execCalls(l *process.Calls, p *specs.Process, names, env []string) {
	argv, envp := l.Strs(p.Args), l.Strs(env)
	for i, name := range names {
		try := l.Add("exec "+name, unix.SYS_EXECVE, l.Str(name), argv, envp)
		if i == len(names)-1 {
			return
		}
		try.Optional()
		// Only when there is nothing at that place, the next one is tried.
		missing, notFolder := -int64(unix.ENOENT), -int64(unix.ENOTDIR)
		l.SkipIfResult(try, ^uintptr(0), uintptr(missing), 2)
		l.SkipIfResult(try, ^uintptr(0), uintptr(notFolder), 1)
		l.Add("exec "+name, unix.SYS_EXECVE, l.Str(name), argv, envp) // fails again, and ends it
	}
	if len(names) == 0 {
		l.Add("exec "+p.Args[0], unix.SYS_EXECVE, l.Str(""), argv, envp)
	}
}

// candidates are the paths that lookPath looks at.
func candidates(file string, env []string) []string {
	if strings.Contains(file, "/") {
		return []string{file}
	}
	path := ""
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, "PATH="); ok {
			path = rest
			break
		}
	}
	var names []string
	for _, dir := range filepath.SplitList(path) {
		name := filepath.Join(dir, file)
		if dir == "" || dir == "." {
			name = "./" + file
		}
		names = append(names, name)
	}
	return names
}

// environmentIn is environment for a container whose root is looked at from
// outside. ErrStage when passwd is not a plain file of the root's own file
// system: reading another one could keep us waiting.
func environmentIn(p *specs.Process, root safepath.FD) ([]string, error) {
	for _, v := range p.Env {
		if strings.HasPrefix(v, "HOME=") && v != "HOME=" {
			return p.Env, nil
		}
	}
	env := make([]string, 0, len(p.Env)+1)
	for _, v := range p.Env {
		if !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	home := "/"
	fd, err := root.OpenExact("etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
	case err != nil:
		return nil, ErrStage
	default:
		f := os.NewFile(uintptr(fd), "passwd")
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return nil, ErrStage
		}
		body, err := io.ReadAll(io.LimitReader(f, maxPasswd))
		if err != nil {
			return nil, ErrStage
		}
		home = homeFrom(string(body), p.User.UID)
	}
	return append(env, "HOME="+home), nil
}
