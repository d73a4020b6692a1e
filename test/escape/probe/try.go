package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An act is something a default container must not be able to do. It returns
// nil when it was allowed.
type act struct {
	name string
	do   func() error
}

// try does every act and prints its name and how it ended: an errno's name,
// "allowed", or what it saw.
func try() {
	runtime.LockOSThread() // some acts are about one thread
	for _, a := range acts() {
		err := a.do()
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Printf("%s: allowed\n", a.name)
		case errors.As(err, &errno):
			fmt.Printf("%s: %s\n", a.name, unix.ErrnoName(errno))
		default:
			fmt.Printf("%s: %v\n", a.name, err)
		}
	}
}

// call makes a system call with up to four arguments.
func call(nr uintptr, args ...uintptr) func() error {
	var a [6]uintptr
	copy(a[:], args)
	return func() error {
		if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
			return e
		}
		return nil
	}
}

func open(name string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
}

// content reads a file and says that it is empty, or how much is in it.
func content(name string) func() error {
	return func() error {
		body, err := os.ReadFile(name)
		if err == nil && len(body) == 0 {
			err = errors.New("empty")
		}
		return err
	}
}

// entries lists a folder and says that it is empty.
func entries(name string) func() error {
	return func() error {
		list, err := os.ReadDir(name)
		if err == nil && len(list) == 0 {
			err = errors.New("empty")
		}
		return err
	}
}

// device makes a node and opens it.
func device(kind uint32, major, minor uint32, flags int) func() error {
	return func() error {
		const name = "/tmp/node"
		_ = unix.Unlink(name)
		if err := unix.Mknod(name, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		return open(name, flags)()
	}
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
}

// kept is what system calls are given by address: it stays where it is.
var kept [][]byte

func ptr(b []byte) uintptr {
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

func acts() []act {
	path := func(s string) uintptr { return ptr(append([]byte(s), 0)) }
	page := make([]byte, 4096)
	list := []act{
		// Files and devices of the host.
		{"read /proc/kcore", open("/proc/kcore", unix.O_RDONLY)},
		{"read /proc/keys", content("/proc/keys")},
		{"read /proc/interrupts", content("/proc/interrupts")},
		{"read /proc/timer_list", content("/proc/timer_list")},
		{"list /proc/acpi", entries("/proc/acpi")},
		{"list /proc/scsi", entries("/proc/scsi")},
		{"list /sys/firmware", entries("/sys/firmware")},
		{"list /sys/devices/virtual/powercap", entries("/sys/devices/virtual/powercap")},
		{"list /sys/kernel/debug", entries("/sys/kernel/debug")},
		{"list /sys/kernel/tracing", entries("/sys/kernel/tracing")},
		{"list /sys/fs/bpf", entries("/sys/fs/bpf")},
		{"write /proc/sysrq-trigger", open("/proc/sysrq-trigger", unix.O_WRONLY)},
		{"write /proc/sys/kernel/core_pattern", open("/proc/sys/kernel/core_pattern", unix.O_WRONLY)},
		{"write /proc/sys/vm/overcommit_memory", open("/proc/sys/vm/overcommit_memory", unix.O_WRONLY)},
		{"write /proc/sys/net/ipv4/ip_forward", open("/proc/sys/net/ipv4/ip_forward", unix.O_WRONLY)},
		{"write /proc/irq/default_smp_affinity", open("/proc/irq/default_smp_affinity", unix.O_WRONLY)},
		{"write /sys/kernel/mm/transparent_hugepage/enabled", open("/sys/kernel/mm/transparent_hugepage/enabled", unix.O_WRONLY)},
		{"write /sys/kernel/uevent_seqnum", open("/sys/kernel/uevent_seqnum", unix.O_WRONLY)},
		{"write own oom_score_adj below", func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) }},
		{"make a control group", func() error {
			name := "/sys/fs/cgroup/escape"
			if dirs, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs"); len(dirs) > 0 {
				name = filepath.Join(filepath.Dir(dirs[0]), "escape")
			}
			return os.Mkdir(name, 0o700)
		}},
		{"open /dev/mem", open("/dev/mem", unix.O_RDONLY)},
		{"open /dev/kmsg", open("/dev/kmsg", unix.O_RDONLY)},
		{"make and open mem", device(unix.S_IFCHR, 1, 1, unix.O_RDONLY)},
		{"make and open port", device(unix.S_IFCHR, 1, 4, unix.O_RDONLY)},
		{"make and open kmsg", device(unix.S_IFCHR, 1, 11, unix.O_RDONLY)},
		{"make and open a disk", device(unix.S_IFBLK, 254, 0, unix.O_RDONLY)},
		{"make and open a loop", device(unix.S_IFBLK, 7, 0, unix.O_RDONLY)},
		{"make and open fuse", device(unix.S_IFCHR, 10, 229, unix.O_RDWR)},
		{"make and open tun", device(unix.S_IFCHR, 10, 200, unix.O_RDWR)},
		{"make and open kvm", device(unix.S_IFCHR, 10, 232, unix.O_RDWR)},
		{"make and open a console", device(unix.S_IFCHR, 4, 1, unix.O_RDWR|unix.O_NOCTTY)},
		{"open by handle", func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), unix.O_RDONLY)
			return err
		}},
		{"see other processes", others},
		{"see other sockets", abstract},

		// Processes.
		{"trace a process outside", call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 4194000)},
		{"signal a process outside", call(unix.SYS_KILL, 4194000, 9)},
		{"compare processes", call(unix.SYS_KCMP, 1, 1, 0)},
		{"real-time scheduling", func() error {
			return call(unix.SYS_SCHED_SETSCHEDULER, 0, 1 /* SCHED_FIFO */, ptr([]byte{1, 0, 0, 0}))()
		}},
		{"higher priority", call(unix.SYS_SETPRIORITY, 0, 0, ^uintptr(19))},
		{"raise a hard limit", func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
				return err
			}
			l.Max++
			return unix.Prlimit(0, unix.RLIMIT_NOFILE, &l, nil)
		}},
		{"take every capability", func() error {
			h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			all := unix.CapUserData{Effective: ^uint32(0), Permitted: ^uint32(0)}
			d := [2]unix.CapUserData{all, all}
			return unix.Capset(&h, &d[0])
		}},
		{"an ambient capability", func() error {
			return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_CHOWN, 0, 0)
		}},
		{"another personality", call(unix.SYS_PERSONALITY, 0x0040000)},

		// Namespaces and mounts.
		{"unshare user", call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)},
		{"unshare mount", call(unix.SYS_UNSHARE, unix.CLONE_NEWNS)},
		{"unshare cgroup", call(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)},
		{"unshare net", call(unix.SYS_UNSHARE, unix.CLONE_NEWNET)},
		{"clone a user namespace", func() error {
			p, err := os.StartProcess("/proc/self/exe", []string{"probe", "true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}})
			if err == nil {
				_, err = p.Wait()
			}
			return err
		}},
		{"clone3", call(unix.SYS_CLONE3, 0, 0)},
		{"setns", func() error {
			fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open: %w", err)
			}
			defer func() { _ = unix.Close(fd) }()
			return unix.Setns(fd, 0)
		}},
		{"mount", call(unix.SYS_MOUNT, path("none"), path("/tmp"), path("tmpfs"), 0)},
		{"remount /sys writable", call(unix.SYS_MOUNT, path("none"), path("/sys"), path(""), unix.MS_REMOUNT|unix.MS_BIND)},
		{"umount a mask", call(unix.SYS_UMOUNT2, path("/proc/keys"), unix.MNT_DETACH)},
		{"pivot_root", call(unix.SYS_PIVOT_ROOT, path("/tmp"), path("/tmp"))},
		{"fsopen", call(unix.SYS_FSOPEN, path("tmpfs"), 0)},
		{"open_tree", call(unix.SYS_OPEN_TREE, ^uintptr(99), path("/"), unix.OPEN_TREE_CLONE)},
		{"move_mount", call(unix.SYS_MOVE_MOUNT, 0, path("/"), 0, path("/"))},
		{"mount_setattr", call(unix.SYS_MOUNT_SETATTR, 0, path("/"), 0, ptr(page), 32)},
		{"fspick", call(unix.SYS_FSPICK, ^uintptr(99), path("/"), 0)},

		// The kernel.
		{"init_module", call(unix.SYS_INIT_MODULE, ptr(page), 0, path(""))},
		{"finit_module", call(unix.SYS_FINIT_MODULE, 0, path(""), 0)},
		{"delete_module", call(unix.SYS_DELETE_MODULE, path("none"), 0)},
		{"dmesg", call(unix.SYS_SYSLOG, 3, ptr(page), 4096)},
		{"bpf", call(unix.SYS_BPF, 0, ptr(page), 64)},
		{"perf_event_open", call(unix.SYS_PERF_EVENT_OPEN, ptr(page), 0, ^uintptr(0), ^uintptr(0))},
		{"userfaultfd", call(unix.SYS_USERFAULTFD, 0)},
		{"kexec_load", call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0)},
		{"kexec_file_load", call(unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0), ^uintptr(0), 0, 0)},
		{"reboot", call(unix.SYS_REBOOT, 1, 2, 3)},
		{"clock_settime", func() error {
			// The time of this moment: where it may be set it is everybody's.
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
				return err
			}
			return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
		}},
		{"settimeofday", call(unix.SYS_SETTIMEOFDAY, ptr(page), 0)},
		{"adjust the clock", func() error {
			tx := unix.Timex{Modes: unix.ADJ_SETOFFSET}
			_, err := unix.Adjtimex(&tx)
			return err
		}},
		{"iopl", call(unix.SYS_IOPL, 3)},
		{"ioperm", call(unix.SYS_IOPERM, 0x80, 1, 1)},
		{"swapon", call(unix.SYS_SWAPON, path("/tmp"), 0)},
		{"swapoff", call(unix.SYS_SWAPOFF, path("/tmp"))},
		{"quotactl", call(unix.SYS_QUOTACTL, 0, path("/"), 0, 0)},
		{"acct", call(unix.SYS_ACCT, path("/tmp/acct"))},
		{"vhangup", call(unix.SYS_VHANGUP)},
		{"fanotify_init", call(unix.SYS_FANOTIFY_INIT, 0, 0)},
		{"lookup_dcookie", call(unix.SYS_LOOKUP_DCOOKIE, 0, ptr(page), 4096)},
		{"io_uring_setup", call(unix.SYS_IO_URING_SETUP, 1, ptr(make([]byte, 256)))},
		{"move_pages of another", call(unix.SYS_MOVE_PAGES, 1, 0, 0, 0)},
		{"set_mempolicy", call(unix.SYS_SET_MEMPOLICY, 0, 0, 0)},
		{"sethostname", call(unix.SYS_SETHOSTNAME, path("other"), 5)},
		{"setdomainname", call(unix.SYS_SETDOMAINNAME, path("other"), 5)},

		// Keys.
		{"keyctl", call(unix.SYS_KEYCTL, 0, ^uintptr(2), 0)},
		{"add_key", call(unix.SYS_ADD_KEY, path("user"), path("k"), path("v"), 1)},
		{"request_key", call(unix.SYS_REQUEST_KEY, path("user"), path("k"), 0, 0)},

		// The network.
		{"set an interface down", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			req, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
		}},
		{"a socket to the hypervisor", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
		{"a socket of the kernel's ciphers", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
	}
	return list
}

// others says who else is to be seen in /proc.
func others() error {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	if len(pids) == 1 && pids[0] == "/proc/1" {
		return errors.New("only itself")
	}
	return fmt.Errorf("%d processes", len(pids))
}

// abstract says which named sockets of other network namespaces are to be seen.
func abstract() error {
	body, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	if n := strings.Count(string(body), "\n"); n != 1 {
		return fmt.Errorf("%d sockets", n-1)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Connect(fd, &unix.SockaddrUnix{Name: "@orlop-escape"})
}
