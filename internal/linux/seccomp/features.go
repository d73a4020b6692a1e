package seccomp

import (
	"errors"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Architectures lists, sorted, those that a profile may name.
func Architectures() []string {
	out := make([]string, len(arches))
	for i, a := range arches {
		out[i] = string(a)
	}
	slices.Sort(out)
	return out
}

// SupportedFlags lists, sorted, the flags that the running kernel takes. It
// asks with a program that is not there, so nothing is attached (seccomp(2):
// EFAULT for a flag that is known, EINVAL for one that is not).
func SupportedFlags() ([]string, error) {
	var out []string
	for flag, bits := range map[specs.LinuxSeccompFlag]uintptr{
		flagTsync:                              unix.SECCOMP_FILTER_FLAG_TSYNC,
		specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
		specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		specs.LinuxSeccompFlagWaitKillableRecv: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
	} {
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, bits, 0)
		switch {
		case errors.Is(errno, unix.EFAULT):
			out = append(out, string(flag))
		case !errors.Is(errno, unix.EINVAL):
			return nil, fmt.Errorf("ask the kernel for the seccomp flag %s: %w", flag, errno)
		}
	}
	slices.Sort(out)
	return out, nil
}
