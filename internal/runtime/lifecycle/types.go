package lifecycle

import (
	"log/slog"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// Options say what Create makes.
type Options struct {
	// ID names the container below Root: 1–1024 of [A-Za-z0-9_+.-].
	ID string
	// Bundle is the folder of config.json: relative root and mount sources
	// start there. Required.
	Bundle string
	// Root is the folder that holds one state folder per container; it should
	// lie on a tmpfs.
	Root string
	// Spec is the configuration; nil reads Bundle/config.json.
	Spec *specs.Spec
	// Config is the JSON that Spec was read from, if it was and is unchanged: it is
	// kept as it is, because the first use of encoding/json for these types costs a
	// new process 0.5 ms. nil encodes Spec.
	Config []byte
	// Rootfs replaces Spec.Root.Path when not nil.
	Rootfs *rootfs.Overlay
	// NetNS is joined when Spec asks for a network namespace without a path;
	// nil makes a new one with its loopback up. Not closed by Create.
	NetNS *os.File
	// Stdin, Stdout and Stderr become descriptors 0–2; nil is /dev/null. They
	// are ignored when Spec.Process.Terminal. Not closed by Create.
	Stdin, Stdout, Stderr *os.File
	// ExtraFiles become descriptors 3, 4, … of the process.
	ExtraFiles []*os.File
	// SystemdCgroup reads Spec.Linux.CgroupsPath as slice:prefix:name.
	SystemdCgroup bool
	// PlainCgroup keeps the control group at one path in all hierarchies; for
	// callers that look for it themselves.
	PlainCgroup bool
	// NoPivot moves the root mount instead of pivot_root (for a root on ramfs).
	NoPivot bool
	// NoNewKeyring leaves the caller's session keyring in place.
	NoNewKeyring bool
	// ConsoleSocket is the path of a unix socket that gets the pty's master.
	ConsoleSocket string
	// PidFile gets the pid of the container's process.
	PidFile string
	// StartNow runs the process at once: Create returns after its execve. The
	// state "created" is then never visible.
	StartNow bool
	// StartApart says that another process will call Start: what it would have
	// to find out is written down for package quickstart.
	StartApart bool
	// Executable is the sealed program the init stages are exec'ed from; nil
	// is a process.SealSelf of its own. Its main must hand
	// os.Args[1] == "init" to initproc.Main.
	Executable *os.File
	// Logger gets warnings, e.g. of a limit that was clipped; nil discards.
	Logger *slog.Logger
}

// ExecOptions say what Exec runs inside a container.
type ExecOptions struct {
	Process *specs.Process
	// Stdin, Stdout, Stderr: as in Options.
	Stdin, Stdout, Stderr *os.File
	ExtraFiles            []*os.File
	PidFile               string
	ConsoleSocket         string
	// Detach only says that nobody will Wait.
	Detach bool
	// Cgroup is a path below the container's cgroup to run in; empty is the
	// container's own.
	Cgroup string
	// IgnorePaused runs the process although the container is frozen; it
	// stops at once and goes on with the container.
	IgnorePaused bool
	// NoNewKeyring, Executable, Logger: as in Options.
	NoNewKeyring bool
	Executable   *os.File
	Logger       *slog.Logger
}

// Status is how a process ended.
type Status struct {
	// Code is the exit status, or 128+Signal.
	Code int
	// Signal that ended it, or 0.
	Signal int
	// CoreDumped: the signal wrote a core file.
	CoreDumped bool
}

// StartError is why the process of a container, or an exec, was not started.
type StartError struct {
	// Code is the exit status a command line reports: 127 when the program or
	// a folder on the way to it does not exist, 126 when it cannot be
	// executed, 128 for every other cause.
	Code int
	// Err has the text users know, e.g.
	// `exec: "foo": executable file not found in $PATH`.
	Err error
}

func (e *StartError) Error() string { return e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }
