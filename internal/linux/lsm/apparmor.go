package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// DefaultProfile is the name of the AppArmor profile of containers that name
// none.
const DefaultProfile = "orlop-default"

// Unconfined is the profile name that stands for no confinement.
const Unconfined = "unconfined"

// securityFS is where AppArmor takes profiles.
const securityFS = "/sys/kernel/security/apparmor"

// AppArmorEnabled reports whether the kernel has AppArmor switched on
// (parameter apparmor.enabled).
func AppArmorEnabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

// AppArmorLoaded reports whether a profile of this name is in the kernel.
// Reading the list takes CAP_MAC_ADMIN.
func AppArmorLoaded(name string) (bool, error) {
	b, err := os.ReadFile(securityFS + "/profiles")
	if err != nil {
		return false, fmt.Errorf("list AppArmor profiles: %w", err)
	}
	return listed(string(b), name), nil
}

// listed finds a name in the kernel's list: "name (mode)" a line.
func listed(list, name string) bool {
	for line := range strings.Lines(list) {
		if i := strings.LastIndex(line, " ("); i > 0 && line[:i] == name {
			return true
		}
	}
	return false
}

// SetAppArmorExec makes the calling thread's next execve enter profile
// (apparmor(7), change_onexec). proc is a handle of a procfs that shows the
// thread; nil is /proc. NotImplemented without AppArmor, NotFound for a
// profile that is not loaded.
func SetAppArmorExec(proc *os.File, profile string) error {
	if strings.ContainsAny(profile, "\x00\n") || profile == "" {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("AppArmor profile name %q", profile))
	}
	if !AppArmorEnabled() {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("set AppArmor profile %s: the kernel has no AppArmor", profile))
	}
	// The first file is AppArmor's own (since Linux 5.8); the other belongs to
	// whichever module was first.
	err := writeAttr(proc, "exec "+profile, "apparmor/exec", "exec")
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("set AppArmor profile %s: it is not loaded: %w: %w", profile, errdefs.ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("set AppArmor profile %s: %w", profile, err)
	}
	return nil
}

// LoadDefaultAppArmor makes sure that the default profile is in the kernel
// under this name. One that is there is left alone: running containers are
// confined by it, and an administrator may have changed it. NotImplemented
// without AppArmor, Unavailable without the program apparmor_parser, which
// compiles profiles.
func LoadDefaultAppArmor(ctx context.Context, name string) error {
	if !AppArmorEnabled() {
		return errdefs.ErrNotImplemented.WithMessage("load AppArmor profile: the kernel has no AppArmor")
	}
	if ok, err := AppArmorLoaded(name); err == nil && ok {
		return nil
	}
	text, err := DefaultAppArmorText(name)
	if err != nil {
		return err
	}
	policy, err := CompileAppArmor(ctx, text)
	if err != nil {
		return err
	}
	return LoadAppArmor(policy)
}

// LoadAppArmor gives a compiled policy to the kernel, replacing profiles of
// the same name.
func LoadAppArmor(policy []byte) error {
	fd, err := unix.Open(securityFS+"/.replace", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("load AppArmor profile: open %s/.replace: %w", securityFS, err)
	}
	defer unix.Close(fd)
	// The kernel takes a policy in one write.
	if n, err := unix.Write(fd, policy); err != nil {
		return fmt.Errorf("load AppArmor profile: %w", err)
	} else if n != len(policy) {
		return fmt.Errorf("load AppArmor profile: %w", io.ErrShortWrite)
	}
	return nil
}

// CompileAppArmor turns a profile's text into the kernel's form, by running
// apparmor_parser. InvalidArgument with its message for a bad text.
func CompileAppArmor(ctx context.Context, text string) ([]byte, error) {
	parser := ""
	for _, p := range []string{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"} {
		if unix.Access(p, unix.X_OK) == nil {
			parser = p
			break
		}
	}
	if parser == "" {
		return nil, errdefs.ErrUnavailable.WithMessage("compile AppArmor profile: the program apparmor_parser is not installed (package apparmor)")
	}
	// The profile comes in by a file of memory, the policy leaves by another:
	// pipes would need someone to serve them.
	in, err := memfile("apparmor-profile", text)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := memfile("apparmor-policy", "")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	complaints, err := memfile("apparmor-messages", "")
	if err != nil {
		return nil, err
	}
	defer complaints.Close()
	// os.StartProcess and not os/exec, whose initialisation every start of a
	// runtime that links this package would pay.
	p, err := os.StartProcess(parser, []string{"apparmor_parser", "--skip-kernel-load", "--skip-cache", "--stdout", "--quiet"},
		&os.ProcAttr{Files: []*os.File{in, out, complaints}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}})
	if err != nil {
		return nil, fmt.Errorf("compile AppArmor profile: run %s: %w", parser, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() }) // one that has ended is as good
	state, err := p.Wait()
	stop()
	if err != nil {
		return nil, fmt.Errorf("compile AppArmor profile: wait for %s: %w", parser, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("compile AppArmor profile: %w", err)
	}
	said, err := contents(complaints)
	if err != nil {
		return nil, err
	}
	if !state.Success() {
		return nil, fmt.Errorf("compile AppArmor profile: %s: %s: %w", state, strings.TrimSpace(string(said)), errdefs.ErrInvalidArgument)
	}
	policy, err := contents(out)
	if err == nil && len(policy) == 0 {
		err = errors.New("apparmor_parser wrote nothing")
	}
	if err != nil {
		return nil, fmt.Errorf("compile AppArmor profile: %w", err)
	}
	return policy, nil
}

func memfile(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func contents(f *os.File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, 64<<20))
}

// DefaultAppArmorText is the default profile: what Docker's forbids, which is
// what the kernel offers below /proc and /sys beyond the container itself,
// mounting, and tracing or signaling what is outside. Everything else is left
// to namespaces, capabilities and seccomp.
func DefaultAppArmorText(name string) (string, error) {
	return appArmorText(name, "/etc/apparmor.d", func(path string) bool { return unix.Access(path, unix.R_OK) == nil })
}

func appArmorText(name, dir string, has func(path string) bool) (string, error) {
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c)) {
			return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("AppArmor profile name %q", name))
		}
	}
	if name == "" || name == Unconfined {
		return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("AppArmor profile name %q", name))
	}
	var b strings.Builder
	// Rules mean what they meant when they were written, also to a newer
	// parser whose default forbids more (user namespaces).
	if has(dir + "/abi/3.0") {
		b.WriteString("abi <abi/3.0>,\n")
	}
	if has(dir + "/tunables/global") {
		b.WriteString("#include <tunables/global>\n")
	} else {
		b.WriteString("@{PROC}=/proc/\n")
	}
	fmt.Fprintf(&b, "\nprofile %s flags=(attach_disconnected,mediate_deleted) {\n", name)
	if has(dir + "/abstractions/base") {
		b.WriteString("  #include <abstractions/base>\n")
	}
	b.WriteString(strings.ReplaceAll(defaultRules, "PROFILE", name))
	b.WriteString("}\n")
	return b.String(), nil
}

const defaultRules = `
  network,
  capability,
  file,
  umount,

  # The host stops a container by signals, whatever confines the sender.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (receive) peer=orlop*,
  # Processes of containers may signal each other; namespaces keep them apart.
  signal (send,receive) peer=PROFILE,

  # /proc: a process's own folder and kernel/shm* are writable, nothing else.
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,

  deny mount,

  # /sys: only fs/cgroup.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  # ps and debuggers among the container's own processes.
  ptrace (trace,read,tracedby,readby) peer=PROFILE,
`
