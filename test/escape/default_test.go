package escape

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
)

// forbidden is what a default container tries, and how the kernel answers. More
// than one answer is good where kernels differ: what they do not have is ENOENT
// or ENOSYS.
var forbidden = []struct{ act, answer string }{
	{"read /proc/kcore", "empty|ENOENT|EACCES"}, // EACCES by AppArmor
	{"read /proc/keys", "empty|ENOENT"},
	{"read /proc/interrupts", "empty|ENOENT"},
	{"read /proc/timer_list", "empty|ENOENT"},
	{"list /proc/acpi", "empty|ENOENT"},
	{"list /proc/scsi", "empty|ENOENT"},
	{"list /sys/firmware", "empty|ENOENT"},
	{"list /sys/devices/virtual/powercap", "empty|ENOENT"},
	{"list /sys/kernel/debug", "empty|ENOENT|EACCES"},
	{"list /sys/kernel/tracing", "empty|ENOENT|EACCES"},
	{"list /sys/fs/bpf", "empty|ENOENT|EACCES"},
	{"write /proc/sysrq-trigger", "EROFS|ENOENT"},
	{"write /proc/sys/kernel/core_pattern", "EROFS|EACCES"},
	{"write /proc/sys/vm/overcommit_memory", "EROFS|EACCES"},
	{"write /proc/sys/net/ipv4/ip_forward", "EROFS|EACCES"},
	{"write /proc/irq/default_smp_affinity", "EROFS|ENOENT"},
	{"write /sys/kernel/mm/transparent_hugepage/enabled", "EROFS|EACCES|ENOENT"},
	{"write /sys/kernel/uevent_seqnum", "EROFS|EACCES"},
	{"write own oom_score_adj below", "EACCES"},
	{"make a control group", "EROFS"},
	{"open /dev/mem", "ENOENT"},
	{"open /dev/kmsg", "ENOENT"},
	{"make and open mem", "EPERM"},
	{"make and open port", "EPERM"},
	{"make and open kmsg", "EPERM"},
	{"make and open a disk", "EPERM"},
	{"make and open a loop", "EPERM"},
	{"make and open fuse", "EPERM"},
	{"make and open tun", "EPERM"},
	{"make and open kvm", "EPERM"},
	{"make and open a console", "EPERM"},
	{"open by handle", "EPERM"},
	{"see other processes", "only itself"},
	{"see other sockets", "ECONNREFUSED"},
	{"trace a process outside", "ESRCH"},
	{"signal a process outside", "ESRCH"},
	{"compare processes", "EPERM"},
	{"real-time scheduling", "EPERM"},
	{"higher priority", "EACCES"},
	{"raise a hard limit", "EPERM"},
	{"take every capability", "EPERM"},
	{"an ambient capability", "EPERM"},
	{"another personality", "EPERM"},
	{"unshare user", "EPERM"},
	{"unshare mount", "EPERM"},
	{"unshare cgroup", "EPERM"},
	{"unshare net", "EPERM"},
	{"clone a user namespace", "EPERM"},
	{"clone3", "ENOSYS"},
	{"setns", "EPERM"},
	{"mount", "EPERM"},
	{"remount /sys writable", "EPERM"},
	{"umount a mask", "EPERM"},
	{"pivot_root", "EPERM"},
	{"fsopen", "EPERM"},
	{"open_tree", "EPERM"},
	{"move_mount", "EPERM"},
	{"mount_setattr", "EPERM"},
	{"fspick", "EPERM"},
	{"init_module", "EPERM"},
	{"finit_module", "EPERM"},
	{"delete_module", "EPERM"},
	{"dmesg", "EPERM"},
	{"bpf", "EPERM"},
	{"perf_event_open", "EPERM"},
	{"userfaultfd", "EPERM"},
	{"kexec_load", "EPERM"},
	{"kexec_file_load", "EPERM"},
	{"reboot", "EPERM"},
	{"clock_settime", "EPERM"},
	{"settimeofday", "EPERM"},
	{"adjust the clock", "EPERM"},
	{"iopl", "EPERM"},
	{"ioperm", "EPERM"},
	{"swapon", "EPERM"},
	{"swapoff", "EPERM"},
	{"quotactl", "EPERM"},
	{"acct", "EPERM"},
	{"vhangup", "EPERM"},
	{"fanotify_init", "EPERM"},
	{"lookup_dcookie", "EPERM"},
	{"io_uring_setup", "EPERM"},
	{"move_pages of another", "EPERM"},
	{"set_mempolicy", "EPERM"},
	{"sethostname", "EPERM"},
	{"setdomainname", "EPERM"},
	{"keyctl", "EPERM"},
	{"add_key", "EPERM"},
	{"request_key", "EPERM"},
	{"set an interface down", "EPERM"},
	{"a socket to the hypervisor", "EPERM"},
	{"a socket of the kernel's ciphers", "EPERM"},
}

// laxer are acts that Docker 20.10 allows and we do not, and why.
var laxer = map[string]string{
	"read /proc/interrupts":            "newer Docker masks it (GHSA-6fw5-f8r9-fgfm)",
	"make and open tun":                "runc before 1.2 allowed /dev/net/tun by default; newer ones and ours do not",
	"io_uring_setup":                   "newer Docker's seccomp profile has no io_uring",
	"a socket to the hypervisor":       "newer Docker's seccomp profile has no AF_VSOCK",
	"a socket of the kernel's ciphers": "newer Docker's seccomp profile has no AF_ALG",
}

// TestADefaultContainerCannot lets a container that was asked for nothing
// special try what must not be possible. Docker on the same machine is no
// tighter anywhere.
func TestADefaultContainerCannot(t *testing.T) {
	e := newEngine(t)
	// What it must not see: a process, and a socket whose name is in no file.
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", "@orlop-escape")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e.Run("run", "-d", "--name", "neighbor", "busybox", "sleep", "1000")
	ours := answers(t, attempt(t, e, nil, "try"))
	for _, f := range forbidden {
		got := ours[f.act]
		if !slices.Contains(strings.Split(f.answer, "|"), got) {
			t.Errorf("%s: %q, not %s", f.act, got, f.answer)
		}
		delete(ours, f.act)
	}
	for act, got := range ours {
		t.Errorf("%s: %s: this test does not know what is right", act, got)
	}
}

// TestDockerIsNoTighter asks the same of Docker.
func TestDockerIsNoTighter(t *testing.T) {
	docker, ok := newPeer(t)
	if !ok {
		t.Skip("Docker's packages are not here")
	}
	e := newEngine(t)
	args := append(append([]string{"run", "--rm"}, withProbe(t)...), "busybox", "/probe", "try")
	ours, theirs := answers(t, e.Run(args...)), answers(t, docker.run(t, args...))
	for act, got := range ours {
		switch their := theirs[act]; {
		case their == got:
		case laxer[act] != "":
			t.Logf("%s: %s, Docker 20.10 %s: %s", act, got, their, laxer[act])
		default:
			t.Errorf("%s: %s, Docker 20.10 %s", act, got, their)
		}
	}
}

// TestPrivilegesAreWhatOpens: the same acts in a privileged container, so that a
// refusal above is not one of this machine.
func TestPrivilegesAreWhatOpens(t *testing.T) {
	e := newEngine(t)
	opened := answers(t, attempt(t, e, []string{"--privileged"}, "try"))
	for _, act := range []string{
		"write /proc/sys/kernel/core_pattern", "make and open kmsg", "unshare mount", "unshare net", "setns", "dmesg", "fsopen",
		"keyctl", "clock_settime", "fanotify_init", "sethostname", "set_mempolicy", "another personality", "make a control group",
	} {
		if got := opened[act]; got != "allowed" {
			t.Errorf("%s: %s even when privileged: its refusal elsewhere proves nothing", act, got)
		}
	}
}

func answers(t *testing.T, out string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(out) {
		act, answer, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			t.Fatalf("probe said %q", out)
		}
		found[act] = answer
	}
	return found
}
