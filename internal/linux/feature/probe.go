package feature

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rowOf is a switch, not a table: a package variable with function values
// would be built at every start of the runtime.
func rowOf(f Feature) row {
	switch f {
	case Openat2:
		return row{"openat2", "5.6", probeOpenat2}
	case PidfdOpen:
		return row{"pidfd_open", "5.3", probePidfdOpen}
	case PidfdExitInfo:
		return row{"exit status by pidfd", "6.15", probePidfdExitInfo}
	case CloneIntoCgroup:
		return row{"clone into a cgroup", "5.7", probeCloneIntoCgroup}
	case CloseRange:
		return row{"close_range with cloexec", "5.11", probeCloseRange}
	case MountAPI:
		return row{"fsopen", "5.2", func() error { return fsContext("tmpfs", func(int) error { return nil }) }}
	case MountSetattr:
		return row{"mount_setattr", "5.12", probeMountSetattr}
	case IDMappedOverlay:
		return row{"idmapped overlay layers", "5.19", probeIDMappedOverlay}
	case OverlayAppend:
		return row{"overlay lowerdir+", "6.8", func() error { return probeOption("overlay", "lowerdir+", "/") }}
	case OverlayVolatile:
		return row{"overlay volatile", "5.10", probeOverlayVolatile}
	case EROFSFile:
		return row{"erofs from a file", "6.12", probeEROFSFile}
	case ProcSubset:
		return row{"proc subset=pid", "5.8", func() error { return probeOption("proc", "subset", "pid") }}
	case UserNamespace:
		return row{"user namespaces", "3.8", probeUserNamespace}
	case TimeNamespace:
		return row{"time namespaces", "5.6", func() error { return statFile("/proc/self/ns/time") }}
	case CgroupNamespace:
		return row{"cgroup namespaces", "4.6", func() error { return statFile("/proc/self/ns/cgroup") }}
	case CgroupV2:
		return row{"cgroup v2", "4.5", func() error { _, err := cgroup2(); return err }}
	case CgroupKill:
		return row{"cgroup.kill", "5.14", func() error { return probeCgroupFile("cgroup.kill") }}
	case CgroupFreeze:
		return row{"cgroup.freeze", "5.2", func() error { return probeCgroupFile("cgroup.freeze") }}
	case CgroupDeviceBPF:
		return row{"cgroup device bpf", "4.15", probeCgroupDeviceBPF}
	case SeccompFilter:
		return row{"seccomp filters", "3.17", func() error { return probeSeccompAction(unix.SECCOMP_RET_ERRNO) }}
	case SeccompNotify:
		return row{"seccomp notify", "5.0", func() error { return probeSeccompAction(unix.SECCOMP_RET_USER_NOTIF) }}
	case SeccompWaitKillable:
		return row{"seccomp wait killable", "5.19", probeSeccompWaitKillable}
	case MemfdExec:
		return row{"memfd_create MFD_EXEC", "6.3", probeMemfdExec}
	}
	return row{"feature " + strconv.Itoa(int(f)), "?", func() error { return errors.New("no such feature") }}
}

func statFile(path string) error {
	var st unix.Stat_t
	return unix.Stat(path, &st)
}

func probeOpenat2() error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func probePidfdOpen() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// pidfdInfo is version 0 of struct pidfd_info (linux/pidfd.h): the mask of
// what was filled in, ids, and the exit code at its end.
type pidfdInfo struct {
	mask     uint64
	_        [13]uint32
	exitCode int32
}

// PIDFD_GET_INFO is _IOWR(0xFF, 11, struct pidfd_info) with size 64.
const (
	pidfdGetInfo  = 3<<30 | 64<<16 | 0xff<<8 | 11
	pidfdInfoExit = 1 << 3
)

func probePidfdExitInfo() error {
	// 6.13 and 6.14 have the call without the exit status, and refuse it for
	// a reaped process: only a reaped child shows the difference.
	const code = 7
	var pidfd int32 = -1
	pid, err := fork(unix.CLONE_PIDFD, &pidfd, code)
	if err != nil {
		return err
	}
	defer unix.Close(int(pidfd))
	if err := reap(pid); err != nil {
		return err
	}
	info := pidfdInfo{mask: pidfdInfoExit}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
		return e
	}
	if info.mask&pidfdInfoExit == 0 {
		return errors.New("no exit status given")
	}
	return nil
}

func probeCloneIntoCgroup() error {
	// With a descriptor nobody has, a kernel that knows the flag says EBADF.
	args := struct {
		flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
	}{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: 1<<31 - 1}
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if e == unix.EBADF {
		return nil
	}
	return e
}

func probeCloseRange() error {
	// The highest number: nothing of ours can be there.
	const top = uintptr(^uint32(0))
	if _, _, e := unix.RawSyscall(unix.SYS_CLOSE_RANGE, top, top, unix.CLOSE_RANGE_CLOEXEC); e != 0 {
		return e
	}
	return nil
}

// fsContext opens a file system's configuration context.
func fsContext(fs string, f func(fd int) error) error {
	fd, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// checks reports whether a context looks at options when they are given. One
// of a file system with the older interface takes everything and looks when
// it is mounted.
func checks(fd int) bool {
	return unix.FsconfigSetString(fd, "orlop-no-such-option", "1") != nil
}

func probeOption(fs, key, value string) error {
	return fsContext(fs, func(fd int) error {
		if !checks(fd) {
			return errors.New("the file system has the older mount interface")
		}
		return unix.FsconfigSetString(fd, key, value)
	})
}

func probeOverlayVolatile() error {
	modern := false
	err := fsContext("overlay", func(fd int) error {
		modern = checks(fd)
		if !modern {
			return nil
		}
		return unix.FsconfigSetFlag(fd, "volatile")
	})
	if err != nil || modern {
		return err
	}
	// The older interface: an unknown option is EINVAL before the layer that
	// is not there is looked for.
	return fsContext("overlay", func(fd int) error {
		if err := unix.FsconfigSetFlag(fd, "volatile"); err != nil {
			return err
		}
		if err := unix.FsconfigSetString(fd, "lowerdir", "/proc/self/orlop-no-such-layer"); err != nil {
			return err
		}
		if err := unix.FsconfigCreate(fd); err != unix.ENOENT {
			return err
		}
		return nil
	})
}

func probeMountSetattr() error {
	// Size 0 is below the first version's: EINVAL from a kernel that has it.
	_, _, e := unix.RawSyscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0)
	if e == unix.EINVAL {
		return nil
	}
	return e
}

func probeEROFSFile() error {
	// Our own program is a plain file and no EROFS image: EINVAL from a kernel
	// that looked into it, ENOTBLK from one that wants a device.
	return fsContext("erofs", func(fd int) error {
		if err := unix.FsconfigSetString(fd, "source", "/proc/self/exe"); err != nil {
			return err
		}
		if err := unix.FsconfigCreate(fd); err != unix.EINVAL {
			return err
		}
		return nil
	})
}

func probeUserNamespace() error {
	pid, err := fork(unix.CLONE_NEWUSER, nil, 0)
	if err != nil {
		return err
	}
	return reap(pid)
}

func reap(pid int) error {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			if err == unix.ECHILD {
				return nil // a reaper of this process was faster
			}
			return err
		}
	}
}

// cgroup2 is where a cgroup2 file system is mounted.
func cgroup2() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		if before, _, ok := bytes.Cut(line, []byte(" - cgroup2 ")); ok {
			if f := bytes.Fields(before); len(f) > 4 {
				return string(f[4]), nil
			}
		}
	}
	return "", errors.New("none is mounted")
}

// probeCgroupFile looks for a control file, which the root group lacks: a
// group of its own is made for the look.
func probeCgroupFile(file string) error {
	mount, err := cgroup2()
	if err != nil {
		return err
	}
	dir := fmt.Sprintf("%s/orlop-probe-%d-%d", mount, os.Getpid(), unix.Gettid())
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	err = statFile(dir + "/" + file)
	return errors.Join(err, unix.Rmdir(dir))
}

func probeCgroupDeviceBPF() error {
	// r0 = 1; exit
	prog := [2]uint64{0x00000001_0000_00_b7, 0x95}
	license := [...]byte{'G', 'P', 'L', 0}
	attr := struct {
		progType, insnCount uint32
		insns, license      uint64
		logLevel, logSize   uint32
		logBuf              uint64
		version, flags      uint32
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, insnCount: 2,
		insns: uint64(uintptr(unsafe.Pointer(&prog))), license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&prog)
	runtime.KeepAlive(&license)
	if e != 0 {
		return e
	}
	return unix.Close(int(fd))
}

func probeSeccompAction(action uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); e != 0 {
		return e
	}
	return nil
}

func probeSeccompWaitKillable() error {
	// Flags are looked at before the program, which is not there: EFAULT.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	if e == unix.EFAULT {
		return nil
	}
	return e
}

func probeMemfdExec() error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_EXEC|unix.MFD_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return err
}
