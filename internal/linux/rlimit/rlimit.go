// Package rlimit sets POSIX resource limits of a process from the OCI
// configuration. Apply is the entry point.
//
// Limits above what the caller may set are clipped to its own hard limit, with
// a warning, where Docker as an unconfined root would have succeeded.
package rlimit

import (
	"errors"
	"fmt"
	"math"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Parse finds a resource by its OCI name, "RLIMIT_NOFILE" (getrlimit(2)).
// ErrInvalidArgument for an unknown one.
func Parse(name string) (int, error) {
	switch name {
	case "RLIMIT_CPU":
		return unix.RLIMIT_CPU, nil
	case "RLIMIT_FSIZE":
		return unix.RLIMIT_FSIZE, nil
	case "RLIMIT_DATA":
		return unix.RLIMIT_DATA, nil
	case "RLIMIT_STACK":
		return unix.RLIMIT_STACK, nil
	case "RLIMIT_CORE":
		return unix.RLIMIT_CORE, nil
	case "RLIMIT_RSS":
		return unix.RLIMIT_RSS, nil
	case "RLIMIT_NPROC":
		return unix.RLIMIT_NPROC, nil
	case "RLIMIT_NOFILE":
		return unix.RLIMIT_NOFILE, nil
	case "RLIMIT_MEMLOCK":
		return unix.RLIMIT_MEMLOCK, nil
	case "RLIMIT_AS":
		return unix.RLIMIT_AS, nil
	case "RLIMIT_LOCKS":
		return unix.RLIMIT_LOCKS, nil
	case "RLIMIT_SIGPENDING":
		return unix.RLIMIT_SIGPENDING, nil
	case "RLIMIT_MSGQUEUE":
		return unix.RLIMIT_MSGQUEUE, nil
	case "RLIMIT_NICE":
		return unix.RLIMIT_NICE, nil
	case "RLIMIT_RTPRIO":
		return unix.RLIMIT_RTPRIO, nil
	case "RLIMIT_RTTIME":
		return unix.RLIMIT_RTTIME, nil
	}
	return 0, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("unknown resource limit %q", name))
}

// Check reports the first entry with an unknown name, a name given twice, or
// a soft limit above its hard limit (runtime-spec config.md, rlimits).
func Check(limits []specs.POSIXRlimit) error {
	var seen uint32
	for _, l := range limits {
		r, err := Parse(l.Type)
		if err != nil {
			return err
		}
		if seen&(1<<r) != 0 {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("resource limit %s is given twice", l.Type))
		}
		seen |= 1 << r
		if l.Soft > l.Hard {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("resource limit %s: soft limit %s above hard limit %s", l.Type, value(l.Soft), value(l.Hard)))
		}
	}
	return nil
}

// Apply sets the limits of process pid; 0 is the caller. Warnings tell which
// were clipped and to what. It goes through unix.Prlimit, which also keeps
// the Go runtime from restoring its saved RLIMIT_NOFILE at exec.
func Apply(pid int, limits []specs.POSIXRlimit) (warnings []string, err error) {
	if err := Check(limits); err != nil {
		return nil, err
	}
	for _, l := range limits {
		r, err := Parse(l.Type)
		if err != nil {
			return warnings, err
		}
		want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		err = unix.Prlimit(pid, r, &want, nil)
		if errors.Is(err, unix.EPERM) {
			var have unix.Rlimit
			if gerr := unix.Prlimit(pid, r, nil, &have); gerr != nil {
				return warnings, fmt.Errorf("read resource limit %s: %w", l.Type, gerr)
			}
			// Also /proc/sys/fs/nr_open bounds NOFILE for those who have
			// CAP_SYS_RESOURCE; what we have is below it by definition.
			want = unix.Rlimit{Cur: min(l.Soft, have.Max), Max: min(l.Hard, have.Max)}
			if err = unix.Prlimit(pid, r, &want, nil); err == nil {
				warnings = append(warnings, clipped(l, want))
			}
		}
		if err != nil {
			return warnings, fmt.Errorf("set resource limit %s to %s:%s: %w", l.Type, value(l.Soft), value(l.Hard), err)
		}
	}
	return warnings, nil
}

// Limit is what prlimit(2) takes.
type Limit struct {
	Resource int
	unix.Rlimit
}

// Plan is what Apply would set for a child of the caller, clipped for a caller
// without CAP_SYS_RESOURCE (raise false), with the same warnings.
func Plan(limits []specs.POSIXRlimit, raise bool) (plan []Limit, warnings []string, err error) {
	if err := Check(limits); err != nil {
		return nil, nil, err
	}
	for _, l := range limits {
		r, err := Parse(l.Type)
		if err != nil {
			return nil, nil, err
		}
		want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		var have unix.Rlimit
		if err := unix.Prlimit(0, r, nil, &have); err != nil {
			return nil, nil, fmt.Errorf("read resource limit %s: %w", l.Type, err)
		}
		if !raise && l.Hard > have.Max {
			want = unix.Rlimit{Cur: min(l.Soft, have.Max), Max: have.Max}
			warnings = append(warnings, clipped(l, want))
		}
		plan = append(plan, Limit{r, want})
	}
	return plan, warnings, nil
}

func clipped(l specs.POSIXRlimit, to unix.Rlimit) string {
	return fmt.Sprintf("resource limit %s=%s:%s is above this process's own hard limit: set to %s:%s",
		l.Type, value(l.Soft), value(l.Hard), value(to.Cur), value(to.Max))
}

func value(v uint64) string {
	if v == math.MaxUint64 {
		return "unlimited"
	}
	return fmt.Sprint(v)
}
