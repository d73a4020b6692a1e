package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/safepath"
)

// Builder performs a plan. It runs on a locked thread of the container's init,
// which is in the container's new mount namespace and still sees the host's files.
type Builder struct {
	// Root is the container's root, attached to the mount namespace.
	Root safepath.FD
	// Prepared holds detached clones of bind sources by index of Spec.Mounts,
	// made by the parent when init could not reach or translate them, or by
	// CloneHost. A step takes its own; Close closes what is left.
	Prepared map[int]safepath.FD
	// Cgroups maps a controller to its folder; the key "" is cgroup v2.
	Cgroups map[string]string
	// CgroupNS: init is in a cgroup namespace of its own.
	CgroupNS bool
	// UserNS: init is in a user namespace of its own, so device nodes are bound.
	UserNS bool
	// MountLabel is the SELinux label of new file systems, or "".
	MountLabel string

	// Proc is a procfs of the container's pid namespace that nothing covers;
	// Perform opens it when the plan mounts one.
	Proc safepath.FD
	// GivenProc is the mount for the one step of type proc, made by a process of the
	// pid namespace for a Builder that is not in it; None makes it like others.
	GivenProc safepath.FD

	null    safepath.FD // attached mask of files
	noEntry safepath.FD // attached mask of directories
}

// Perform does every step; the error names the one that failed.
func (b *Builder) Perform(p Plan) error {
	for i := range p {
		if err := b.step(&p[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) step(s *Step) error {
	var err error
	switch s.Kind {
	case Bind:
		err = b.bind(s)
	case FileSystem:
		err = b.fileSystem(s)
	case Cgroup:
		err = b.cgroup(s)
	case Remount:
		err = b.remount(s)
	case Device:
		if err = b.device(s); err != nil {
			return fmt.Errorf("error creating device node %q: %w", s.Dest, err)
		}
	case Link:
		err = b.link(s)
	case Mask:
		if err = b.mask(s); err != nil {
			return fmt.Errorf("mask path %s: %w", s.Dest, err)
		}
	case Readonly:
		if err = b.readonly(s); err != nil {
			return fmt.Errorf("make path %s read-only: %w", s.Dest, err)
		}
	}
	if err != nil {
		from := s.Source
		if from == "" {
			from = s.Type
		}
		return fmt.Errorf("error mounting %q to rootfs at %q: %w", from, s.Dest, err)
	}
	return nil
}

// CloneHost clones, ahead of a plan, bind sources that are "/" with all that is
// mounted below it: once the container's root is attached on top of "/", a clone
// would have that on top, too, and show the container its own files.
func (b *Builder) CloneHost(p Plan) error {
	var top unix.Stat_t
	if err := unix.Stat("/", &top); err != nil {
		return &os.PathError{Op: "stat", Path: "/", Err: err}
	}
	for i := range p {
		s := &p[i]
		if _, ok := b.Prepared[s.Mount]; ok || s.Kind != Bind || !s.Options.Recursive {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(s.Source, &st); err != nil || st.Dev != top.Dev || st.Ino != top.Ino {
			continue // what is not there is the step's error
		}
		m, err := mount.Clone(unix.AT_FDCWD, s.Source, true)
		if err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", s.Source, s.Dest, err)
		}
		if b.Prepared == nil {
			b.Prepared = map[int]safepath.FD{}
		}
		b.Prepared[s.Mount] = m
	}
	return nil
}

func (b *Builder) bind(s *Step) error {
	m, ok := b.Prepared[s.Mount]
	delete(b.Prepared, s.Mount)
	if !ok {
		var err error
		if m, err = mount.Clone(unix.AT_FDCWD, s.Source, s.Options.Recursive); err != nil {
			return &os.PathError{Op: "stat", Path: s.Source, Err: err}
		}
	}
	defer m.Close()
	at, err := b.place(m, s)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := s.Options.Apply(m); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	return b.attach(m, at, s)
}

// place opens where the mount m goes and makes it when it is not there: a
// directory for a directory, an empty file for anything else.
func (b *Builder) place(m safepath.FD, s *Step) (safepath.FD, error) {
	dir, err := m.IsDir()
	if err != nil {
		return safepath.None, err
	}
	var at safepath.FD
	switch {
	case defense.Dropped(defense.PlacesInside):
		at, err = placeByPath(b.Root, s.Dest, dir)
	case dir:
		at, err = b.Root.MkdirAll(s.Dest, 0o755)
	default:
		at, err = b.Root.Touch(s.Dest, 0o755)
	}
	if err != nil {
		return safepath.None, fmt.Errorf("create mountpoint: %w", err)
	}
	if err := b.guardProc(at, s); err != nil {
		_ = at.Close()
		return safepath.None, err
	}
	return at, nil
}

// procCovers are files of procfs that other runtimes let a mount cover: they
// tell about resources (LXCFS) and give no power.
var procCovers = map[string]bool{
	"/proc/cpuinfo": true, "/proc/diskstats": true, "/proc/meminfo": true, "/proc/stat": true, "/proc/swaps": true,
	"/proc/uptime": true, "/proc/loadavg": true, "/proc/slabinfo": true, "/proc/sys/kernel/ns_last_pid": true,
	"/proc/sys/crypto/fips_enabled": true,
}

// guardProc refuses a mount onto procfs that could make /proc/self lie to us
// or to a security tool (CVE-2019-16884, CVE-2025-52881). What was opened
// counts, not what the path looked like.
func (b *Builder) guardProc(at safepath.FD, s *Step) error {
	if defense.Dropped(defense.ProcUncovered) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(at), &fs); err != nil {
		return err
	}
	inProc := fs.Type == unix.PROC_SUPER_MAGIC
	if !inProc && s.Dest != "/proc" {
		return nil
	}
	if s.Dest == "/proc" {
		// Binding another procfs over /proc, e.g. the host's, is what
		// `--pid=host` users do; any other file system there is refused.
		if s.Kind == Bind && !strings.HasPrefix(s.Source, "/proc") {
			var src unix.Statfs_t
			if err := unix.Statfs(s.Source, &src); err != nil || src.Type != unix.PROC_SUPER_MAGIC {
				return fmt.Errorf("%q cannot be mounted because it is not of type proc", s.Dest)
			}
		}
		return nil
	}
	if procCovers[s.Dest] || strings.HasPrefix(s.Dest, "/proc/") && s.Kind == FileSystem && s.Type == "binfmt_misc" {
		return nil
	}
	return fmt.Errorf("%q cannot be mounted because it is inside /proc", s.Dest)
}

func (b *Builder) attach(m, at safepath.FD, s *Step) error {
	if err := mount.Attach(m, at); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	for _, p := range s.Options.Propagation {
		if err := mount.SetPropagation(m, p); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	return nil
}

func (b *Builder) fileSystem(s *Step) error {
	o := s.Options
	if b.MountLabel != "" && s.Type != "proc" && s.Type != "sysfs" && s.Type != "mqueue" {
		o.Data = append(append([]string{}, o.Data...), "context="+b.MountLabel)
	}
	switch s.Type {
	case "proc", "sysfs":
		// Must be an ordinary directory: through a link the kernel's files
		// would appear elsewhere (CVE-2019-19921).
		if err := b.ordinary(s.Dest); err != nil {
			return fmt.Errorf("filesystem %q must be mounted on ordinary directory: %w", s.Type, err)
		}
	}
	m, err := b.made(s, o)
	if err != nil && s.Type == "mqueue" && b.MountLabel != "" {
		m, err = mount.New(s.Type, s.Source, s.Options)
	}
	if err != nil {
		return err
	}
	defer m.Close()
	if o.Clear != 0 || o.TreeSet|o.TreeClear != 0 {
		if err := o.Apply(m); err != nil {
			return fmt.Errorf("set attributes: %w", err)
		}
	}
	existed := false
	if s.Type == "tmpfs" {
		if dir, err := b.Root.Open(s.Dest, unix.O_PATH, 0); err == nil {
			existed = true
			_ = dir.Close()
		}
	}
	at, err := b.place(m, s)
	if err != nil {
		return err
	}
	defer at.Close()
	if existed {
		if err := newTmpfs(m, at, s); err != nil {
			return err
		}
	}
	if s.Type == "proc" && s.Dest == "/proc" && b.Proc == safepath.None {
		fd, err := unix.FcntlInt(uintptr(m), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.Proc = safepath.FD(fd)
	}
	return b.attach(m, at, s)
}

// made is a new mount of the step's file system.
func (b *Builder) made(s *Step, o mount.Options) (safepath.FD, error) {
	if s.Type != "proc" || b.GivenProc == safepath.None {
		return mount.New(s.Type, s.Source, o)
	}
	m := b.GivenProc
	b.GivenProc = safepath.None
	// Kernels since 6.8 list mounts in the order in which they were made, and
	// people expect the root to be the first: a copy is made now. Those that cannot
	// copy what is attached nowhere (before 6.15) show it first.
	if later, err := mount.Clone(int(m), "", false); err == nil {
		_ = m.Close()
		m = later
	}
	if err := o.Apply(m); err != nil {
		_ = m.Close()
		return safepath.None, err
	}
	return m, nil
}

// ordinary makes sure that dest, if it is there, is a directory and no link.
func (b *Builder) ordinary(dest string) error {
	if defense.Dropped(defense.ProcOrdinary) {
		return nil
	}
	dir, base, err := b.Root.Parent(dest, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	return err
}

// newTmpfs gives a new tmpfs the mode of the directory it covers when the
// options name none, as runc does, and its content when asked to.
func newTmpfs(m, at safepath.FD, s *Step) error {
	named := slices.ContainsFunc(s.Options.Data, func(d string) bool { return strings.HasPrefix(d, "mode=") })
	if !named {
		st, err := at.Stat()
		if err != nil {
			return err
		}
		if err := unix.Fchmodat(int(m), ".", st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if s.Options.CopyUp {
		if err := copyTree(at, m); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
	}
	return nil
}

func (b *Builder) remount(s *Step) error {
	at, err := b.Root.Open(s.Dest, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	if !s.Options.Bind && (len(s.Options.Data) > 0 || len(s.Options.Super) > 0) {
		if err := mount.Reconfigure(at, s.Options); err != nil {
			return err
		}
	}
	if err := s.Options.Apply(at); err != nil {
		return err
	}
	for _, p := range s.Options.Propagation {
		if err := mount.SetPropagation(at, p); err != nil {
			return err
		}
	}
	return nil
}

// cgroup shows the control groups as Docker does: on v2 one cgroup2, on v1 a
// tmpfs with a folder per hierarchy that shows the container's own group.
func (b *Builder) cgroup(s *Step) error {
	if _, v2 := b.Cgroups[""]; v2 && len(b.Cgroups) == 1 || len(b.Cgroups) == 0 {
		return b.cgroup2(s)
	}
	dirs := make(map[string][]string) // folder → controllers
	for controller, dir := range b.Cgroups {
		if controller != "" {
			dirs[dir] = append(dirs[dir], controller)
		}
	}
	order := make([]string, 0, len(dirs))
	for dir := range dirs {
		sort.Strings(dirs[dir])
		order = append(order, dir)
	}
	sort.Strings(order)
	tmpfs := *s
	tmpfs.Kind, tmpfs.Type, tmpfs.Source = FileSystem, "tmpfs", "tmpfs"
	tmpfs.Options = mount.Options{Set: s.Options.Set &^ unix.MOUNT_ATTR_RDONLY, Data: []string{"mode=755"}, Propagation: s.Options.Propagation}
	if err := b.fileSystem(&tmpfs); err != nil {
		return err
	}
	top, err := b.Root.Open(s.Dest, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, dir := range order {
		name := hierarchyName(dir, dirs[dir])
		if err := b.hierarchy(s, top, name, dir, dirs[dir]); err != nil {
			return fmt.Errorf("hierarchy %s: %w", name, err)
		}
		for _, controller := range dirs[dir] {
			if controller != name && !strings.HasPrefix(controller, "name=") {
				if err := unix.Symlinkat(name, int(top), controller); err != nil && !errors.Is(err, unix.EEXIST) {
					return err
				}
			}
		}
	}
	if s.Options.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		return mount.SetAttrs(top, false, unix.MOUNT_ATTR_RDONLY, 0)
	}
	return nil
}

// hierarchyName is the folder below /sys/fs/cgroup that the hierarchy has on
// the host, else its controllers' names.
func hierarchyName(dir string, controllers []string) string {
	if rest, ok := strings.CutPrefix(dir, "/sys/fs/cgroup/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	return strings.TrimPrefix(strings.Join(controllers, ","), "name=")
}

func (b *Builder) hierarchy(s *Step, top safepath.FD, name, dir string, controllers []string) error {
	var m safepath.FD
	var err error
	if b.CgroupNS {
		m, err = mount.New("cgroup", "cgroup", mount.Options{Set: s.Options.Set, Data: controllers})
	} else {
		if m, err = mount.Clone(unix.AT_FDCWD, dir, true); err == nil {
			err = s.Options.Apply(m)
		}
	}
	if err != nil {
		return err
	}
	defer m.Close()
	at, err := top.MkdirAll(name, 0o755)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := mount.Attach(m, at); err != nil {
		return err
	}
	for _, p := range s.Options.Propagation {
		if err := mount.SetPropagation(m, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) cgroup2(s *Step) error {
	m, err := mount.New("cgroup2", "cgroup", mount.Options{Set: s.Options.Set, Data: s.Options.Data})
	if err != nil && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY)) {
		// A user namespace without a cgroup namespace may not mount it; the
		// host's is then shown, from the container's group down.
		dir := b.Cgroups[""]
		if dir == "" || !b.UserNS {
			dir = "/sys/fs/cgroup"
		}
		if m, err = mount.Clone(unix.AT_FDCWD, dir, true); err == nil {
			err = s.Options.Apply(m)
		}
	}
	if err != nil {
		return err
	}
	defer m.Close()
	at, err := b.place(m, s)
	if err != nil {
		return err
	}
	defer at.Close()
	return b.attach(m, at, s)
}

// deviceType are the S_IF* bits of a device's type letter ("u" is an
// unbuffered character device: the same to Linux).
var deviceType = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

func (b *Builder) device(s *Step) error {
	dir, base, err := b.Root.Parent(s.Dest, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	if b.UserNS {
		return b.bindDevice(dir, base, s)
	}
	mode := uint32(0o666)
	if s.Node.FileMode != nil {
		mode = uint32(s.Node.FileMode.Perm())
	}
	kind, ok := deviceType[s.Node.Type]
	if !ok {
		return fmt.Errorf("unknown type %q", s.Node.Type)
	}
	dev := unix.Mkdev(uint32(s.Node.Major), uint32(s.Node.Minor))
	err = unix.Mknodat(int(dir), base, kind|mode, int(dev))
	if errors.Is(err, unix.EEXIST) {
		return b.sameDevice(dir, base, kind, dev)
	}
	if errors.Is(err, unix.EPERM) {
		return b.bindDevice(dir, base, s)
	}
	if err != nil {
		return err
	}
	if s.Node.UID != nil || s.Node.GID != nil {
		uid, gid := 0, 0
		if s.Node.UID != nil {
			uid = int(*s.Node.UID)
		}
		if s.Node.GID != nil {
			gid = int(*s.Node.GID)
		}
		return unix.Fchownat(int(dir), base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// sameDevice accepts a node that is there when it is the one wanted; a root
// without a /dev of its own brings its nodes with it.
func (b *Builder) sameDevice(dir safepath.FD, base string, kind uint32, dev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == kind && (kind == unix.S_IFIFO || st.Rdev == dev) {
		return nil
	}
	return fmt.Errorf("another file is there: %w", unix.EEXIST)
}

// bindDevice shows the host's node, where nodes cannot be made.
func (b *Builder) bindDevice(dir safepath.FD, base string, s *Step) error {
	src, err := unix.Open(s.Dest, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	st, err := safepath.FD(src).Stat()
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != deviceType[s.Node.Type] || st.Rdev != unix.Mkdev(uint32(s.Node.Major), uint32(s.Node.Minor)) {
		return fmt.Errorf("the host's %s is another device", s.Dest)
	}
	m, err := mount.Clone(src, "", false)
	if err != nil {
		return err
	}
	defer m.Close()
	return AttachFile(m, dir, base)
}

// AttachFile attaches m on the file base in dir, made when missing; a link
// there is not followed.
func AttachFile(m, dir safepath.FD, base string) error {
	fd, err := unix.Openat(int(dir), base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err == nil {
		_ = unix.Close(fd)
	} else if !errors.Is(err, unix.EEXIST) {
		return err
	}
	at, err := unix.Openat(int(dir), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	st, err := safepath.FD(at).Stat()
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return mount.Attach(m, safepath.FD(at))
}

func (b *Builder) link(s *Step) error {
	if s.Dest == "/dev/core" && unix.Access(s.Source, unix.F_OK) != nil {
		return nil // a kernel without it: the link would lead nowhere
	}
	dir, base, err := b.Root.Parent(s.Dest, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Symlinkat(s.Source, int(dir), base)
	if errors.Is(err, unix.EEXIST) && s.Dest == "/dev/ptmx" {
		// An image's own node would be the host's devpts.
		if err := unix.Unlinkat(int(dir), base, 0); err != nil {
			return err
		}
		return unix.Symlinkat(s.Source, int(dir), base)
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// gone reports errors that mean: there is nothing to hide or protect.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

func (b *Builder) readonly(s *Step) error {
	at, err := b.Root.Open(s.Dest, unix.O_PATH, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	m, err := mount.Clone(int(at), "", true)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := mount.SetAttrs(m, true, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
		return err
	}
	return mount.Attach(m, at)
}

// mask covers a file with a null device, verified to be that (CVE-2025-31133),
// and a directory with an empty read-only one.
func (b *Builder) mask(s *Step) error {
	at, err := b.Root.Open(s.Dest, unix.O_PATH, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	dir, err := at.IsDir()
	if err != nil {
		return err
	}
	cover, source := &b.null, b.openNull
	if dir {
		cover, source = &b.noEntry, emptyDir
	}
	var m safepath.FD
	if *cover == safepath.None {
		m, err = source()
	} else {
		m, err = mount.Clone(int(*cover), "", false)
	}
	if err != nil {
		return err
	}
	if err := mount.Attach(m, at); err != nil {
		_ = m.Close()
		return err
	}
	if *cover == safepath.None {
		*cover = m // cloned for the next one: cheaper than a new file system
		return nil
	}
	return m.Close()
}

// openNull clones the container's own /dev/null when it is one, as its users know
// from other runtimes, else the host's. What was opened is what is checked.
func (b *Builder) openNull() (safepath.FD, error) {
	if defense.Dropped(defense.NullIsNull) {
		return nullByPath(b.Root)
	}
	if own, err := b.Root.Open("/dev/null", unix.O_PATH|unix.O_NOFOLLOW, 0); err == nil {
		defer own.Close()
		if isNull(own) == nil {
			return mount.Clone(int(own), "", false)
		}
	}
	m, err := mount.Clone(unix.AT_FDCWD, "/dev/null", false)
	if err != nil {
		return safepath.None, err
	}
	if err := isNull(m); err != nil {
		_ = m.Close()
		return safepath.None, err
	}
	return m, nil
}

func isNull(fd safepath.FD) error {
	st, err := fd.Stat()
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3)) {
		err = errors.New("/dev/null is not the null device")
	}
	return err
}

func emptyDir() (safepath.FD, error) {
	return mount.New("tmpfs", "tmpfs", mount.Options{Set: unix.MOUNT_ATTR_RDONLY, Super: []string{"ro"}, Data: []string{"nr_blocks=1", "nr_inodes=1"}})
}

// NewBuilder returns a builder for an attached root.
func NewBuilder(root safepath.FD) *Builder {
	return &Builder{Root: root, Proc: safepath.None, GivenProc: safepath.None, null: safepath.None, noEntry: safepath.None}
}

// Close releases what the builder kept open; not Root and Proc.
func (b *Builder) Close() {
	_ = b.null.Close()
	_ = b.noEntry.Close()
	for _, m := range b.Prepared {
		_ = m.Close()
	}
}

// MountRoot makes the detached mount of a container's root: its layers, or the
// folder dir with everything mounted below it. Layers with translated owners
// need a thread with a mount namespace of its own (mount.Translated).
func MountRoot(o *Overlay, dir string) (safepath.FD, error) {
	if o != nil {
		return o.mount()
	}
	m, err := mount.Clone(unix.AT_FDCWD, dir, true)
	if err != nil {
		return safepath.None, &os.PathError{Op: "mount rootfs", Path: dir, Err: err}
	}
	return m, nil
}

func (o *Overlay) mount() (safepath.FD, error) {
	options := []string{}
	if o.Upper != "" {
		options = append(options, "index=off")
		if o.Volatile {
			options = append(options, "volatile")
		}
	}
	var m safepath.FD
	var err error
	if len(o.UIDs) > 0 {
		m, err = o.translated(options)
	} else {
		m, err = mount.Overlay(o.Lower, o.Upper, o.Work, options)
	}
	if err != nil {
		return safepath.None, fmt.Errorf("mount rootfs: %w", err)
	}
	return m, nil
}

// HostPath is where the root of a configuration lies on the host.
func HostPath(s *specs.Spec, bundle string) string {
	if filepath.IsAbs(s.Root.Path) {
		return filepath.Clean(s.Root.Path)
	}
	return filepath.Join(bundle, s.Root.Path)
}
