// Package seccomp turns an OCI seccomp profile into a kernel filter and
// attaches it.
//
// Compile is the entry point. It needs no C library: system call numbers come
// from tables that are constant data (no start-up cost for programs that only
// link this package), and the program it writes finds a call by a binary tree
// over ranges of numbers, so that both the kernel's JIT and its per-call
// cache of always-allowed calls have little to do.
//
// A filter travels between processes as bytes (Filter.MarshalBinary,
// UnmarshalFilter): whoever prepares a container compiles, and its init only
// attaches. Cache keeps compiled profiles.
//
// Locks: Cache.mu is the only one and is never held while compiling.
package seccomp

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile: a classic BPF program over struct
// seccomp_data and the flags it is attached with. It is immutable.
type Filter struct {
	prog   []unix.SockFilter
	flags  uint32
	notify bool
}

// Compile translates a profile for the kernel this process runs on.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	return nil, errdefs.ErrNotImplemented
}

// Notify reports whether the program can return SECCOMP_RET_USER_NOTIF, in
// which case it must be attached by InstallNotify.
func (f *Filter) Notify() bool { return f.notify }

// Len is the number of BPF instructions.
func (f *Filter) Len() int { return len(f.prog) }

// Install attaches the filter to the calling thread, which must be locked to
// its goroutine and needs no_new_privs or CAP_SYS_ADMIN. It refuses a filter
// that notifies a supervisor; that is what InstallNotify is for.
func (f *Filter) Install() error {
	return fmt.Errorf("attach seccomp filter: %w", errdefs.ErrNotImplemented)
}

// InstallNotify attaches the filter like Install and returns the listener of
// its notifications, or nil when the filter has none.
func (f *Filter) InstallNotify() (*os.File, error) {
	return nil, fmt.Errorf("attach seccomp filter: %w", errdefs.ErrNotImplemented)
}

// MarshalBinary returns the filter's portable form.
func (f *Filter) MarshalBinary() ([]byte, error) {
	return nil, errdefs.ErrNotImplemented
}

// UnmarshalFilter reads what MarshalBinary wrote.
func UnmarshalFilter(data []byte) (*Filter, error) {
	return nil, errdefs.ErrNotImplemented
}

// DefaultProfile is Docker's default profile for this kernel and a container
// with the given capabilities (its bounding set, OCI names: "CAP_CHOWN").
func DefaultProfile(caps []string) (*specs.LinuxSeccomp, error) {
	return nil, errdefs.ErrNotImplemented
}

// LoadProfile reads a profile in Docker's JSON form (security-opt
// seccomp=FILE) and resolves it as DefaultProfile does.
func LoadProfile(body []byte, caps []string) (*specs.LinuxSeccomp, error) {
	return nil, errdefs.ErrNotImplemented
}
