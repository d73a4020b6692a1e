// Package initproc is the stage of our program that becomes a container's
// process, or one beside it (exec): it starts inside the namespaces, builds and
// enters the root, gives rights away, and ends with execve. Main is the entry
// point; wire.go draws its talk with the parent. One goroutine on one locked
// thread does everything; no locks.
package initproc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/confine"
)

// Arg is os.Args[1] of a stage; os.Args[2] is the number of its socket.
const Arg = "init"

// Exit codes of a command line whose program was not run.
const (
	codeNotFound   = 127
	codeCannotExec = 126
	codeOther      = 128
)

// codedError is an error with the exit code that a command line reports.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// stage is a running stage.
type stage struct {
	*Config
	conn *Conn
	// join are the files of v1 cgroups to write "0" to.
	join []int
	// proc is a procfs of our pid namespace that nothing covers, or None.
	proc safepath.FD
	// givenProc is a detached procfs of the container's pid namespace, for who is
	// not in it, or None.
	givenProc safepath.FD
	confine   *confine.Confinement
	// agent is a connection to the seccomp agent, or -1.
	agent int
}

// Main runs a stage (args are os.Args[2:]). It returns only when the stage
// failed; the parent has been told why then.
func Main(args []string) int {
	// Everything from here on is about this thread: its namespaces, cgroups,
	// capabilities. It is the one that calls execve.
	runtime.LockOSThread()
	// Nobody in the container may look into us (CVE-2016-9962).
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if len(args) != 1 {
		return 1
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < 3 {
		return 1
	}
	unix.CloseOnExec(fd)
	conn := NewConn(fd)
	err = run(conn)
	f := Failure{Code: codeOther, Text: err.Error()}
	var coded *codedError
	if errors.As(err, &coded) {
		f.Code = coded.code
	}
	if conn.Send(Failed, f.encode()) != nil {
		// Nobody is there to tell: the application's own streams are left.
		_, _ = os.Stderr.WriteString(f.Text + "\n")
		return f.Code
	}
	return 1
}

func run(conn *Conn) error {
	payload, join, err := conn.expect(Configure)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	config, err := DecodeConfig(payload)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if config.Process == nil {
		return errors.New("configuration has no process")
	}
	// Whatever else came along is for us alone: no hook may see it.
	if err := closeFrom(3 + config.Extra); err != nil {
		return err
	}
	s := &stage{Config: config, conn: conn, join: join, proc: safepath.None, givenProc: safepath.None, agent: -1}
	if len(config.Agent) > 0 {
		if len(join) == 0 {
			return errors.New("read configuration: no connection to the seccomp agent")
		}
		last := len(join) - 1
		s.join, s.agent = join[:last], join[last]
	}
	// Signals the starter ignored would stay ignored in the application.
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT} {
		process.DefaultSignal(sig)
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("setsid: %w", err)
	}
	if s.Exec {
		return s.exec()
	}
	return s.create()
}

// warn tells the parent something that does not stop us.
func (s *stage) warn(text string) {
	if text != "" {
		_ = s.conn.Send(Warn, []byte(text))
	}
}

// procfs opens our own procfs when the root has none that is known to be whole.
func (s *stage) procfs() (safepath.FD, error) {
	if s.proc != safepath.None {
		return s.proc, nil
	}
	fd, err := ownProc()
	if err != nil {
		return safepath.None, err
	}
	s.proc = fd
	return fd, nil
}

// procFile is procfs for packages that take a file; closing it is harmless.
func (s *stage) procFile() (*os.File, error) {
	fd, err := s.procfs()
	if err != nil {
		return nil, err
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dup), "/proc"), nil
}
