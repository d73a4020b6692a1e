package containers

import (
	"context"
	"io"
	"os"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/domain/network"
	"github.com/orlop/orlop/internal/engine/networks"
)

// Store keeps what must survive a reboot: records, names, the leases of the
// images in use and the folders of the writable layers. Every method is safe
// for concurrent use; none is called with a container's lock held for longer
// than one transaction takes.
type Store interface {
	// Create writes record, name and (for the first container of an image)
	// lease and view in one transaction, then makes the folders. It fails with
	// container.NameTaken (errdefs.ErrAlreadyExists) and changes nothing then.
	Create(ctx context.Context, rec container.Record, image container.ImageUse) error
	// Save replaces the state of a record. ErrNotFound when it is gone.
	Save(ctx context.Context, rec container.Record) error
	// Rename gives the container another name; container.NameTaken when it
	// belongs to another one. Renaming to its own name is a no-op.
	Rename(ctx context.Context, id, name string) error
	// Delete removes record, name, lease (when last) and folders. It may be
	// repeated; a container that is not there is not an error.
	Delete(ctx context.Context, id string) error
	// Load returns every record, in no order, and beside them one error per
	// record that cannot be read (they are kept, never deleted).
	Load(ctx context.Context) ([]container.Record, []error, error)
	// Rootfs returns the layers of the container. ErrNotFound.
	Rootfs(ctx context.Context, id string) (container.Rootfs, error)
	// Sizes in bytes: of the writable layer, and of everything.
	Sizes(ctx context.Context, id string) (rw, rootfs int64, err error)
	// Dir is the folder of the container below the data root.
	Dir(id string) string
}

// Launcher starts and finds monitors. A monitor runs one container once and
// outlives the daemon.
type Launcher interface {
	// Start returns when the application was exec'ed. It fails with
	// StartFailure when the container could not be started, in which case
	// nothing is left behind. The streams are those of opts.Attach, in order;
	// they are attached before the application can write a byte.
	Start(ctx context.Context, launch container.Launch, opts StartOptions) (Monitor, []Stream, error)
	// Adopt connects to the monitor of a container that was started by another
	// life of the daemon. ErrNotFound when no monitor answers: then LastExit
	// may know how it ended.
	Adopt(ctx context.Context, id string) (Monitor, error)
	// LastExit reads the exit that a monitor left behind. ErrNotFound.
	LastExit(id string) (container.Exit, error)
	// Leftovers lists the ids that have a folder in the exec root.
	Leftovers() ([]string, error)
	// Forget kills what runs in the container's cgroup and removes its folder
	// in the exec root. It may be repeated.
	Forget(ctx context.Context, id string) error
}

// StartOptions go beside a launch by descriptor or in memory.
type StartOptions struct {
	// NetNS is the sandbox that the container joins; nil for the host's or
	// for a path in the spec.
	NetNS container.Handle
	// Attach lists clients that are attached before the application starts.
	Attach []AttachStreams
}

// StartFailure is the error of a container (or exec) that could not be
// started: what the runtime said and the exit code that Docker records.
type StartFailure interface {
	error
	// ExitCode is 127 (command not found), 126 (not executable) or 128.
	ExitCode() int
}

// AttachStreams says which streams a client wants.
type AttachStreams struct {
	Stdin, Stdout, Stderr bool
}

// Stream is one attached client of a container or an exec.
type Stream interface {
	// Stdin is nil when it was not asked for. Close is a half close: the
	// output goes on.
	Stdin() io.WriteCloser
	// Next blocks for the next piece of output; kind is 1 (stdout) or 2
	// (stderr). io.EOF when the output has ended.
	Next() (kind byte, data []byte, err error)
	// Close detaches and unblocks Next. It may be repeated.
	Close() error
}

// Monitor is the running container as its monitor sees it. Calls fail with
// errdefs.ErrNotFound when the process has ended meanwhile.
type Monitor interface {
	Running() container.Running
	// Exited is closed when the container has ended or its monitor was lost;
	// Exit is valid from then on.
	Exited() <-chan struct{}
	Exit() container.Exit
	// OOM delivers one value for every OOM kill in the container's cgroup. It
	// may be nil and is closed at the latest with Exited.
	OOM() <-chan struct{}
	// LogDropped delivers how many bytes of the output are missing in the log,
	// whenever there are more; nil for never.
	LogDropped() <-chan uint64
	Attach(ctx context.Context, streams AttachStreams) (Stream, error)
	Resize(ctx context.Context, rows, cols uint16) error
	// Signal the init process, or every process of the container.
	Signal(ctx context.Context, sig int, all bool) error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(ctx context.Context, resources *specs.LinuxResources) error
	// Exec starts another process in the container. StartFailure.
	Exec(ctx context.Context, req ExecRequest) (Exec, error)
	// Execs lists those that run, for adoption.
	Execs(ctx context.Context) ([]Exec, error)
}

// ExecRequest is an additional process of a running container.
type ExecRequest struct {
	ID      string
	Process *specs.Process
	Streams AttachStreams
	// Detach: nobody reads the output; Stream of the Exec is nil.
	Detach bool
	// Note is JSON that the monitor gives back when the exec is adopted.
	Note []byte
}

// Exec is a process that was started by Monitor.Exec.
type Exec interface {
	ID() string
	Pid() int
	// Note of the ExecRequest; nil when the monitor is too old to keep it.
	Note() []byte
	// Stream is nil when detached or adopted.
	Stream() Stream
	Wait(ctx context.Context) (container.Exit, error)
	Resize(ctx context.Context, rows, cols uint16) error
	Signal(ctx context.Context, sig int) error
}

// Images answers what a container is made of.
type Images interface {
	// Resolve finds an image by name, digest or (short) id, for the platform
	// asked for or the best one of this host. ErrNotFound with Docker's text
	// `No such image: x:latest`.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error)
}

// Image is a resolved image.
type Image struct {
	// ID as `docker images --no-trunc` shows it.
	ID       digest.Digest
	Name     string
	Target   ocispec.Descriptor
	Manifest ocispec.Descriptor
	ChainID  digest.Digest
	Config   dockerspec.DockerOCIImage
}

// Networks gives running containers their place in the networks.
type Networks interface {
	// Check says whether a request could be opened, without changing anything
	// that another container can see (bad mode, unknown network, bad ports).
	Check(ctx context.Context, req SandboxRequest) error
	// Open makes the sandbox. On failure nothing is left of it, and the error
	// is in Docker's words ("failed to set up container networking: …").
	Open(ctx context.Context, req SandboxRequest) (*Sandbox, error)
	// Started tells that the container runs: names and port relays go live.
	Started(ctx context.Context, containerID string, pid int) error
	// Close takes the container out of its networks. It is fast (the kernel
	// tears down later) and may be repeated.
	Close(ctx context.Context, containerID string) error
	// Restore takes over the sandboxes of containers that run, and removes
	// everything of this engine's that belongs to none of them.
	Restore(ctx context.Context, live []LiveSandbox) error
	// Resolve returns the name of a network and whether a container of this mode
	// may have an endpoint on it as asked, beside those on others. ErrNotFound.
	Resolve(ctx context.Context, ref string, mode containertypes.NetworkMode, others []string, ask *networktypes.EndpointSettings) (string, error)
	// Connect gives a running container an endpoint on one more network;
	// Disconnect takes one away. On failure everything is as it was.
	Connect(ctx context.Context, req SandboxRequest, ref string, ask *networktypes.EndpointSettings) (network.Change, error)
	Disconnect(ctx context.Context, req SandboxRequest, ref string) (network.Change, error)
	// HandOver leads the published ports of one running container to another.
	HandOver(ctx context.Context, fromID, toID string) (from, to network.Attachment, err error)
	// Rename makes a running container known by the name of the request.
	Rename(ctx context.Context, req SandboxRequest) (network.Attachment, error)
	// Settings for inspect; nil when the container has no sandbox.
	Settings(containerID string) *containertypes.NetworkSettings
}

// What networks are asked and answer is theirs.
type (
	SandboxRequest = networks.SandboxRequest
	Sandbox        = networks.Sandbox
	LiveSandbox    = networks.LiveSandbox
)

// Logs reads what monitors wrote.
type Logs interface {
	// Open opens a log as it is now: its removal takes nothing from who has it.
	Open(ctx context.Context, log container.LogConfig, opts LogRead) LogEntries
}

// LogEntries are the entries of a log, oldest first. Next fails with io.EOF at
// their end, with ErrNotImplemented for driver "none"; what it returns is valid
// until the next call.
type LogEntries interface {
	Next() (LogEntry, error)
	Close()
}

// LogRead selects entries of a log.
type LogRead struct {
	// Tail is how many of the last entries to begin with; -1 is all.
	Tail int
	// Since and Until, when not zero, bound the time of entries, inclusive.
	Since, Until time.Time
	// Follow waits for further entries until Stop is closed; what was written
	// before that moment is still read.
	Follow bool
	Stop   <-chan struct{}
}

// LogEntry is one piece of output.
type LogEntry struct {
	Time time.Time
	// Stream is 1 (stdout) or 2 (stderr).
	Stream byte
	// Line with its newline, unless it is a partial one.
	Line []byte
	// Attrs are the labels and variables chosen by log options.
	Attrs map[string]string
}

// Publisher takes events; it never blocks for long and never fails.
type Publisher interface {
	Publish(events.Message)
}

// Host answers questions about this machine that a container's configuration
// depends on. Answers are read when asked: devices come and go.
type Host interface {
	// Facts about cgroups, security modules and namespaces; probed once.
	Facts() container.HostFacts
	// Hostname of the machine.
	Hostname() string
	// BootID of this boot.
	BootID() string
	// Device describes a device node (links followed). ErrInvalidArgument when
	// it is not one; a not-exist error of package os when it is not there.
	Device(path string) (specs.LinuxDevice, error)
	// Devices lists the device nodes below a folder; with every node of /dev
	// for a privileged container (pts, shm, mqueue, fd, console left out).
	Devices(dir string) ([]specs.LinuxDevice, error)
	// Weighs reports whether the I/O scheduler of a block device takes weights; also
	// of one that is not there, which the start refuses.
	Weighs(path string) bool
	// MountOf finds the mount that path is on and its propagation: "shared",
	// "slave" or "private".
	MountOf(path string) (mountpoint, propagation string, err error)
	// Processes lists the pids (of the host) in the cgroup of pid.
	Processes(pid int) ([]int, error)
	// PS runs ps(1) on the host.
	PS(ctx context.Context, args []string) ([]byte, error)
	// Stats samples the cgroup and the network namespace of pid.
	Stats(ctx context.Context, pid int) (*containertypes.StatsResponse, error)
}

// Views mounts root file systems for a moment, where no other process sees
// them: for copying an image's files into a volume, for export and for diff.
type Views interface {
	// View calls fn with a folder that shows rootfs.
	View(ctx context.Context, rootfs container.Rootfs, how ViewMode, fn func(dir string) error) error
}

// ViewMode is what may be done with a view.
type ViewMode int

// The modes.
const (
	// ViewExact is read-only, and a path with a link in it leads nowhere (ELOOP):
	// for walking through the files of a container that may run and exchange a
	// folder for a link to one of the host meanwhile.
	ViewExact ViewMode = iota
	// ViewLinks is read-only; its user resolves links beneath the view.
	ViewLinks
	// ViewWritable is for a container with a writable layer that does not run.
	ViewWritable
)

// Volumes keeps local volumes.
type Volumes interface {
	// Ensure makes the volume name ("" draws a name) and returns it. Created
	// tells that it is new (and therefore empty).
	Ensure(ctx context.Context, name string, labels map[string]string) (Volume, error)
	// Remove deletes a volume; ErrNotFound.
	Remove(ctx context.Context, name string) error
}

// Volume is a folder of the host that outlives containers.
type Volume struct {
	Name, Path string
	Created    bool
	// Anonymous volumes go with their container (rm -v, --rm).
	Anonymous bool
}

// RunDir writes files of a running container below the exec root (a tmpfs).
type RunDir interface {
	// Shm makes the /dev/shm of a shareable IPC namespace, size in bytes, and
	// returns its path. DropShm undoes it; both may be repeated.
	Shm(id string, size int64) (string, error)
	DropShm(id string) error
	// Pin binds an open file or folder to a path of the daemon's mount namespace
	// until drop; n tells several of a container apart. A start that is under way when
	// the daemon dies leaves nothing behind that the next one does not drop.
	Pin(id string, n int, f *os.File) (path string, drop func() error, err error)
	// Write replaces a file atomically; it is not synced.
	Write(id, name string, data []byte) error
	// Read fails with os.ErrNotExist.
	Read(id, name string) ([]byte, error)
}

// Storage describes where a container's files are, for inspect.
type Storage interface {
	// Driver is the name that `docker info` shows.
	Driver() string
	// Describe returns what inspect shows of a container's layers.
	Describe(rootfs container.Rootfs) (*storage.DriverData, *storage.Storage)
}

// LogStream is a log being read. Next fails with io.EOF at its end.
type LogStream interface {
	// TTY: the container has a terminal, its output is not split in two.
	TTY() bool
	Next() (LogEntry, error)
	// Close ends the reading. It may be repeated.
	Close() error
}

// Streams is the client's side of an attached connection.
type Streams struct {
	// In is closed by the engine when the session ends; nil without stdin.
	In io.ReadCloser
	// Out and Err take the container's output; with a terminal Err is unused.
	Out, Err io.Writer
}
