package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/defense"
	"github.com/orlop/orlop/internal/linux/pidfd"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/fault"
	"github.com/orlop/orlop/internal/runtime/initproc"
	"github.com/orlop/orlop/internal/runtime/rootfs"
)

// The talk between us and a child without a stage, over a socket whose end is
// the child's too, so that it dies with us:
//
//	child                               parent
//	mounts a procfs, sends it ──▶
//	                                    with cgroup namespaces of v1: adds the steps that join groups
//	◀── go on ──
//	is in its cgroup namespace ──▶      (only then)
//	                                    builds the root around it on a thread of its own
//	                                    adds the steps that give rights away
//	◀── go on ──
//	only with a gate: closes what is not the application's, says so ──▶
//	closes this socket, waits there ──▶
//	execve

// v1Groups is where the groups of v1 are mounted.
const v1Groups = "/sys/fs/cgroup"

// direct makes the container's process without a stage. Whatever it fails with,
// the application was not executed and the child is gone: a stage is to be
// tried then, which can do everything and says best what was wrong.
func (k *creation) direct(ctx context.Context) (err error) {
	if len(defense.Environment()) > 0 {
		return initproc.ErrStage // which has the defenses to take away
	}
	k.config.Gate, k.config.Root = -1, -1
	k.describe()
	if k.Spec.Process == nil || !k.config.CanBuild() || notifies(k.Spec.Linux.Seccomp) ||
		len(k.Spec.Linux.NetDevices) > 0 || k.NoPivot || // chroot(2) is of a process: the child would keep the host's root
		fault.Environ() != nil { // the faults are in the stage
		return initproc.ErrStage
	}
	d := &directCreation{creation: k}
	defer d.close()
	if err := d.start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Signal(d.p.PidFD, int(unix.SIGKILL)) })
	defer stop()
	defer func() {
		if err != nil {
			_ = pidfd.Signal(d.p.PidFD, int(unix.SIGKILL))
			if d.p.Started() == nil { // else it is reaped
				_, _ = pidfd.Wait(d.p.PidFD)
				_ = d.p.PidFD.Close()
			}
			k.proc, k.c.pidfd = nil, nil
		}
	}()
	k.proc = d.p
	// What the child does not wait for yet is done beside it, and beside the making
	// of the root if that needs no groups.
	var beside chan error
	if d.groupsFirst() {
		err = d.beside(ctx)
	} else {
		beside = make(chan error, 1)
		go func() { beside <- d.beside(ctx) }()
	}
	root := safepath.None
	if err == nil {
		root, err = d.build()
	}
	if beside != nil {
		err = errors.Join(err, <-beside)
	}
	if root != safepath.None {
		defer root.Close()
	}
	if err != nil {
		return err
	}
	warnings, err := k.config.BecomeCalls(d.l, initproc.Place{
		Root: root, Proc: func() uintptr { return d.procFD }, Join: d.join, Talk: d.socket, Waiting: d.tell,
	})
	if err != nil {
		return err
	}
	if err := d.goOn(); err != nil {
		return err
	}
	if k.StartNow {
		err = d.p.Started()
	} else {
		err = d.held()
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	warn(k.Logger, warnings, d.p)
	return nil
}

// directCreation is a direct creation under way.
type directCreation struct {
	*creation
	p      *process.Process
	l      *process.Calls
	conv   *conversation
	closes []func()
	// Descriptors in the child.
	socket, procFD, groupsFD uintptr
	joined                   bool
}

func (d *directCreation) closeLater(f *os.File) {
	d.closes = append(d.closes, func() { _ = f.Close() })
}

func (d *directCreation) close() {
	for _, f := range d.closes {
		f()
	}
}

// start makes the child in its namespaces, where it mounts a procfs: only a
// process of a pid namespace can.
func (d *directCreation) start() error {
	k := d.creation
	cmd := &process.Command{}
	if err := k.namespaces(cmd); err != nil {
		return err
	}
	translated := k.Rootfs != nil && len(k.Rootfs.UIDs) > 0
	for i := range k.plan {
		translated = translated || k.plan[i].Kind == rootfs.Bind && k.plan[i].Options.IDMap
	}
	if k.user || translated {
		return initproc.ErrStage
	}
	if cmd.New&(unix.CLONE_NEWNS|unix.CLONE_NEWPID) != unix.CLONE_NEWNS|unix.CLONE_NEWPID || cmd.New&unix.CLONE_NEWTIME != 0 {
		return initproc.ErrStage
	}
	for _, j := range cmd.Join {
		if j.Type&(unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWTIME) != 0 {
			return initproc.ErrStage
		}
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	d.conv = ours
	d.closes = append(d.closes, ours.close)
	d.closeLater(theirs)
	if cmd.Files, err = stdio(false, k.Stdin, k.Stdout, k.Stderr, d.closeLater); err != nil {
		return err
	}
	cmd.Files = append(cmd.Files, k.ExtraFiles...)
	k.config.Extra = len(k.ExtraFiles)
	proc, err := procfs()
	if err != nil {
		return err
	}
	d.closeLater(proc)
	l := process.NewCalls(len(cmd.Files))
	d.l, cmd.Calls = l, l
	d.socket, d.procFD = l.File(theirs), l.File(proc)
	if k.v2 {
		dir, err := k.c.cgroup.DirFD()
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		d.closeLater(dir)
		cmd.Cgroup = dir
	} else {
		groups, err := os.OpenFile(v1Groups, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		d.closeLater(groups)
		d.groupsFD = l.File(groups)
	}
	if !k.StartNow {
		gate, err := k.openGate()
		if err != nil {
			return err
		}
		k.config.Gate = int(l.File(gate))
	}
	d.mountProc(len(cmd.Files))
	if d.p, err = cmd.Start(); err != nil {
		return err
	}
	return theirs.Close()
}

// mountProc are the child's first steps, up to where it waits.
func (d *directCreation) mountProc(files int) {
	l := d.l
	// Whoever changes the root of this namespace changes ours with it.
	l.Add("chdir /", unix.SYS_CHDIR, l.Str("/"))
	fs := l.Add("open procfs", unix.SYS_FSOPEN, l.Str("proc"), unix.FSOPEN_CLOEXEC)
	l.Add("name procfs", unix.SYS_FSCONFIG, 0, unix.FSCONFIG_SET_STRING, l.Str("source"), l.Str("proc"), 0).Of(fs)
	l.Add("make procfs", unix.SYS_FSCONFIG, 0, unix.FSCONFIG_CMD_CREATE, 0, 0, 0).Of(fs)
	m := l.Add("mount procfs", unix.SYS_FSMOUNT, 0, unix.FSMOUNT_CLOEXEC, 0).Of(fs)
	// A number that nothing else has, because the message must name one.
	number := uintptr(files + 64)
	l.Add("place procfs", unix.SYS_DUP3, 0, number, unix.O_CLOEXEC).Of(m)
	const scmRights = unix.SCM_RIGHTS
	control := make([]byte, unix.CmsgSpace(4))
	put := func(at int, v uint64, n int) {
		for i := range n {
			control[at+i] = byte(v >> (8 * i))
		}
	}
	put(0, uint64(unix.CmsgLen(4)), 8)
	put(8, unix.SOL_SOCKET, 4)
	put(12, scmRights, 4)
	put(16, uint64(number), 4)
	vec := l.Words(l.Bytes([]byte{1}), 1)
	// struct msghdr: no name, one vector, the descriptor.
	msg := l.Words(0, 0, vec, 1, l.Bytes(control), uintptr(len(control)), 0)
	l.Add("send procfs", unix.SYS_SENDMSG, d.socket, msg, unix.MSG_NOSIGNAL)
	d.waitStep()
}

// tell adds the step that makes hear return.
func (d *directCreation) tell() {
	d.l.Add("tell the parent", unix.SYS_WRITE, d.socket, d.l.Bytes([]byte{1}), 1)
}

// held returns when the child waits at its gate and holds nothing else any more.
func (d *directCreation) held() error {
	if _, err := d.hear(); err != nil {
		return err
	}
	_, err := d.hear()
	if err == nil {
		return errors.New("talk to init: a word too many")
	}
	if errors.Is(err, errGone) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// waitStep lets the child wait until goOn.
func (d *directCreation) waitStep() {
	l := d.l
	got := l.Add("wait for the parent", unix.SYS_READ, d.socket, l.Bytes(make([]byte, 8)), 1)
	l.SkipIfResult(got, ^uintptr(0), 1, 1)
	none := -1
	l.Add("the parent is gone", unix.SYS_CLOSE, uintptr(none))
}

// goOn lets the child do what was added since it waits.
func (d *directCreation) goOn() error {
	if err := d.p.Extend(); err != nil {
		return err
	}
	return unix.Sendto(d.conv.fd, []byte{1}, unix.MSG_NOSIGNAL, nil)
}

// hear receives a byte, and the descriptor beside it if there is one.
func (d *directCreation) hear() (fd int, err error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(d.conv.fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, err
		}
		if n == 0 {
			return -1, errGone
		}
		if oobn == 0 {
			return -1, nil
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(msgs) != 1 {
			return -1, errGone
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			return -1, errGone
		}
		return fds[0], nil
	}
}

// beside does what the child does not wait for at first: state, filter, groups.
func (d *directCreation) beside(ctx context.Context) error {
	k := d.creation
	if err := k.record(ctx); err != nil {
		return err
	}
	if !k.v2 {
		if err := k.makeGroup(ctx); err != nil {
			return err
		}
		if k.needsGroups() {
			k.config.Cgroups = k.c.cgroup.Paths()
		}
	}
	if err := k.filter(); err != nil {
		return err
	}
	return k.remember(ctx)
}

// build makes the root around the waiting child.
func (d *directCreation) build() (safepath.FD, error) {
	k := d.creation
	fd, err := d.hear()
	if err != nil {
		return safepath.None, err
	}
	if fd < 0 {
		return safepath.None, errGone
	}
	proc := safepath.FD(fd)
	if k.config.CgroupNS {
		if err := d.enterCgroupNS(); err != nil {
			_ = proc.Close()
			return safepath.None, err
		}
	}
	var flags uintptr
	for _, ns := range k.Spec.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			flag, _ := bundle.CloneFlag(ns.Type)
			flags |= flag
		}
	}
	return k.config.Build(d.p.PidFD, flags, proc)
}

// groupsFirst reports whether the root can be made only when the container is in
// its groups.
func (d *directCreation) groupsFirst() bool {
	return !d.v2 && (d.config.CgroupNS || d.needsGroups())
}

// needsGroups reports whether the root shows the container's groups.
func (k *creation) needsGroups() bool {
	for i := range k.plan {
		if k.plan[i].Kind == rootfs.Cgroup {
			return true
		}
	}
	return false
}

// enterCgroupNS lets the child make its cgroup namespace, whose root is the
// groups it is in.
func (d *directCreation) enterCgroupNS() error {
	if err := d.addJoin(); err != nil {
		return err
	}
	l := d.l
	l.Add("unshare cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	d.tell()
	d.waitStep()
	if err := d.goOn(); err != nil {
		return err
	}
	_, err := d.hear()
	return err
}

// join adds the steps that join v1 groups, unless that is done.
func (d *directCreation) join() {
	if d.v2 || d.joined {
		return
	}
	if err := d.addJoin(); err != nil {
		none := -1
		d.l.Add(err.Error(), unix.SYS_CLOSE, uintptr(none))
	}
}

// addJoin: the child, which is the thread that executes the application, writes
// itself into its groups (see stage.joinCgroups). It opens their files below a
// descriptor, because they are not in its root any more.
func (d *directCreation) addJoin() error {
	d.joined = true
	l := d.l
	zero := l.Str("0")
	for _, f := range d.c.cgroup.JoinPaths() {
		name, below := strings.CutPrefix(f, v1Groups+"/")
		if !below {
			return initproc.ErrStage
		}
		open := l.Add("open "+f, unix.SYS_OPENAT, d.groupsFD, l.Str(name), unix.O_WRONLY|unix.O_CLOEXEC)
		l.Add("join cgroup "+f, unix.SYS_WRITE, 0, zero, 1).Of(open)
	}
	// A folder of the host: no path of the configuration may lead through it.
	l.Add("close cgroups", unix.SYS_CLOSE, d.groupsFD)
	return nil
}
