// Package hooks runs the programs a configuration names for points of a
// container's life. Run is the entry point. No locks.
package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/runtime/fault"
)

// maxOutput bounds what is kept of a hook's output for its error, in bytes.
const maxOutput = 4 << 10

// Run runs hooks one after the other, each with the container's state on its
// standard input, and stops at the first that fails. name is the key in the
// configuration, e.g. "createRuntime".
func Run(name string, list []specs.Hook, state *specs.State) error {
	if len(list) == 0 {
		return nil
	}
	in, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("hook %s: %w", name, err)
	}
	if fault.On("hooks get no state") {
		in = nil
	}
	for i := range list {
		if err := run(&list[i], in); err != nil && !fault.On("failed hook ignored") {
			return fmt.Errorf("error running %s hook #%d: %w", name, i, err)
		}
	}
	return nil
}

func run(h *specs.Hook, in []byte) error {
	stdin, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, out, err := os.Pipe()
	if err != nil {
		_ = stdin.Close()
		_ = inW.Close()
		return err
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	env := h.Env
	if env == nil {
		env = []string{} // nil would be our own environment
	}
	runtime.LockOSThread()
	process.UsualSlack()
	p, err := os.StartProcess(h.Path, args, &os.ProcAttr{Env: env, Files: []*os.File{stdin, out, out}, Dir: "/"})
	runtime.UnlockOSThread()
	_ = stdin.Close()
	_ = out.Close()
	if err != nil {
		_ = inW.Close()
		_ = outR.Close()
		return err
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		_, _ = inW.Write(in) // a hook need not read it
		_ = inW.Close()
	}()
	said := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, io.LimitReader(outR, maxOutput))
		_, _ = io.Copy(io.Discard, outR)
		said <- b.Bytes()
	}()
	st, err := wait(p, h.Timeout)
	_ = inW.Close()
	<-fed
	// A child of the hook may hold the pipe; its words are not waited for.
	_ = outR.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	text := <-said
	_ = outR.Close()
	if err != nil {
		return err
	}
	if !st.Success() {
		return fmt.Errorf("%s: %s, stdout: , stderr: %s", h.Path, st, strings.TrimSpace(string(text)))
	}
	return nil
}

// wait waits for a hook for timeout seconds and kills it then; nil is for ever.
func wait(p *os.Process, timeout *int) (*os.ProcessState, error) {
	if timeout == nil {
		return p.Wait()
	}
	f, err := pidfd.Open(p.Pid)
	if err != nil {
		return p.Wait()
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(time.Duration(*timeout) * time.Second))
	ended := pidfd.Ended(f)
	if errors.Is(ended, os.ErrDeadlineExceeded) {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
		return nil, fmt.Errorf("hook ran past specified timeout of %ds", *timeout)
	}
	return p.Wait()
}
