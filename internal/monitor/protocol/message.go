package protocol

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Operation is what a request asks for.
type Operation uint16

// The operations. The number is on the wire and is never used again for
// something else.
const (
	// OpLaunch starts the container: LaunchArgs → Started. Only on the control
	// connection and only once.
	OpLaunch Operation = 1
	// OpState waits until the container was started (or failed to) and tells
	// how it is: no arguments → State.
	OpState Operation = 2
	// OpAttach adds a client: AttachArgs and one descriptor → Empty.
	OpAttach Operation = 3
	// OpResize sets the size of a terminal: ResizeArgs → Empty.
	OpResize Operation = 4
	// OpSignal sends a signal: SignalArgs → Empty.
	OpSignal Operation = 5
	// OpPause freezes the container: → Empty.
	OpPause Operation = 6
	// OpResume thaws it: → Empty.
	OpResume Operation = 7
	// OpUpdate changes limits: UpdateArgs → Empty.
	OpUpdate Operation = 8
	// OpExec starts another process: ExecArgs and at most one descriptor (an
	// attached stream) → ExecStarted.
	OpExec Operation = 9
	// OpExecs lists the execs that run and those that ended lately: → Execs.
	OpExecs Operation = 10
)

// operations is the table of names and of the capabilities that a monitor
// lists when it knows an operation.
var operations = map[Operation]struct{ name, capability string }{
	OpLaunch: {"launch", "launch"},
	OpState:  {"state", "state"},
	OpAttach: {"attach", "attach"},
	OpResize: {"resize", "resize"},
	OpSignal: {"signal", "signal"},
	OpPause:  {"pause", "pause"},
	OpResume: {"resume", "pause"},
	OpUpdate: {"update", "update"},
	OpExec:   {"exec", "exec"},
	OpExecs:  {"list execs", "exec"},
}

// String is the name for messages.
func (o Operation) String() string {
	if e, ok := operations[o]; ok {
		return e.name
	}
	return "operation " + strconv.Itoa(int(o))
}

// Capability is the name that a monitor lists when it can do o; "" when this
// side does not know o.
func (o Operation) Capability() string { return operations[o].capability }

// Capabilities lists what a monitor of this release can do.
func Capabilities() []string {
	return []string{"launch", "state", "attach", "resize", "signal", "pause", "update", "exec", "oom", "gone", "log dropped"}
}

// Event is something that a monitor tells every connection unasked.
type Event uint16

// The events.
const (
	// EventExit: the container ended. Exit. It is sent after the exit file was
	// written and everything the container wrote was logged.
	EventExit Event = 1
	// EventExecExit: an exec ended. ExecState.
	EventExecExit Event = 2
	// EventOOM: the kernel's OOM killer took a process. OOM.
	EventOOM Event = 3
	// EventGone: cgroup and state of the ended container are removed; the
	// monitor is about to end. Empty.
	EventGone Event = 4
	// EventLogDropped: output could not be written to the log. LogDropped, at most
	// one a second while it goes on; Exit and State have the whole count.
	EventLogDropped Event = 5
)

// Hello opens a connection.
type Hello struct {
	// Version and MinVersion are the newest and the oldest one spoken.
	Version    int `json:"version"`
	MinVersion int `json:"minVersion"`
	// Capabilities of the sender; a daemon lists none.
	Capabilities []string `json:"capabilities,omitempty"`
	// Release is the version of the sender's program, for messages only.
	Release string `json:"release,omitempty"`
	// Pid of the sender in its own pid namespace.
	Pid int `json:"pid,omitempty"`
}

// Negotiate returns the version that both sides speak.
func (h Hello) Negotiate() (int, error) {
	v := min(h.Version, Version)
	if v < MinVersion || v < h.MinVersion {
		return 0, fmt.Errorf("the other side speaks versions %d to %d of the monitor protocol, this one %d to %d",
			h.MinVersion, h.Version, MinVersion, Version)
	}
	return v, nil
}

// Empty is the payload of messages that say everything by being sent.
type Empty struct{}

// LaunchArgs is everything of a launch but the OCI configuration, which each
// side keeps in its own type under the key "spec" of the same object.
type LaunchArgs struct {
	ID string `json:"id"`
	// RunDir is the container's folder in the exec root.
	RunDir        string   `json:"runDir"`
	Rootfs        *Rootfs  `json:"rootfs,omitempty"`
	Log           Log      `json:"log"`
	OpenStdin     bool     `json:"openStdin,omitempty"`
	StdinOnce     bool     `json:"stdinOnce,omitempty"`
	Tied          bool     `json:"tied,omitempty"`
	SystemdCgroup bool     `json:"systemdCgroup,omitempty"`
	Runtime       string   `json:"runtime,omitempty"`
	RuntimeArgs   []string `json:"runtimeArgs,omitempty"`
	// Files says what each descriptor beside the frame is: FileLock,
	// FileNetNS or FileAttach. An attached stream takes the next of Attach.
	Files  []string     `json:"files,omitempty"`
	Attach []AttachArgs `json:"attach,omitempty"`
}

// What a descriptor beside a launch is.
const (
	// FileLock is locked (flock) as long as the monitor holds it: nobody else
	// may start this container until it is closed.
	FileLock = "lock"
	// FileNetNS is the network namespace of the container.
	FileNetNS = "netns"
	// FileAttach is the monitor's end of an attached stream.
	FileAttach = "attach"
)

// Rootfs has the keys of the runtime's overlay description.
type Rootfs struct {
	Lower    []string    `json:"lower"`
	Upper    string      `json:"upper,omitempty"`
	Work     string      `json:"work,omitempty"`
	Volatile bool        `json:"volatile,omitempty"`
	UIDs     []IDMapping `json:"uids,omitempty"`
	GIDs     []IDMapping `json:"gids,omitempty"`
}

// IDMapping is a range of ids (OCI runtime-spec, linux.uidMappings).
type IDMapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
	Size        uint32 `json:"size"`
}

// Log says where the output goes; the keys are those of logfile.Config.
type Log struct {
	Driver   string            `json:"driver"`
	Path     string            `json:"path,omitempty"`
	MaxSize  int64             `json:"maxSize,omitempty"`
	MaxFiles int               `json:"maxFiles,omitempty"`
	Compress bool              `json:"compress,omitempty"`
	Attrs    map[string]string `json:"attrs,omitempty"`
	Buffer   int64             `json:"buffer,omitempty"`
}

// Started answers a launch.
type Started struct {
	// Pid of the container's process and its start time (field 22 of
	// /proc/<pid>/stat), both as the monitor sees them.
	Pid       int       `json:"pid"`
	StartTime uint64    `json:"startTime"`
	At        time.Time `json:"at"`
}

// State answers OpState.
type State struct {
	Started *Started `json:"started,omitempty"`
	// Failed is why it could not be started.
	Failed *Failure `json:"failed,omitempty"`
	Exit   *Exit    `json:"exit,omitempty"`
	// OOMKills counts processes the OOM killer took.
	OOMKills uint64 `json:"oomKills,omitempty"`
	// LogDropped counts bytes of output that could not be written to the log.
	LogDropped uint64 `json:"logDropped,omitempty"`
}

// Exit is how a container or an exec ended; it is also the content of the exit
// file, with BootID then.
type Exit struct {
	Code      int       `json:"code"`
	Time      time.Time `json:"time"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	BootID    string    `json:"bootId,omitempty"`
	// LogDropped counts bytes of output that are missing in the log.
	LogDropped uint64 `json:"logDropped,omitempty"`
}

// AttachArgs say what an attached client takes part in.
type AttachArgs struct {
	// Exec is the id of an exec; empty is the container's own process.
	Exec   string `json:"exec,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
}

// ResizeArgs set a terminal's size in characters.
type ResizeArgs struct {
	Exec string `json:"exec,omitempty"`
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// SignalArgs send a signal to a process.
type SignalArgs struct {
	Exec   string `json:"exec,omitempty"`
	Signal int    `json:"signal"`
	// All processes of the container; not with Exec.
	All bool `json:"all,omitempty"`
}

// UpdateArgs carry limits as the OCI runtime-spec's linux.resources.
type UpdateArgs struct {
	Resources json.RawMessage `json:"resources"`
}

// ExecArgs is everything of an exec but its process, which each side keeps in
// its own type under the key "process" of the same object.
type ExecArgs struct {
	ID     string `json:"id"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
	// Note is the daemon's own: ExecState has it again as it was. A monitor that
	// does not know it loses it.
	Note json.RawMessage `json:"note,omitempty"`
}

// ExecStarted answers OpExec.
type ExecStarted struct {
	Pid int       `json:"pid"`
	At  time.Time `json:"at"`
}

// ExecState is one exec.
type ExecState struct {
	ID   string `json:"id"`
	Pid  int    `json:"pid"`
	Exit *Exit  `json:"exit,omitempty"`
	// Note of the ExecArgs; only in the answer to OpExecs.
	Note json.RawMessage `json:"note,omitempty"`
}

// Execs answers OpExecs.
type Execs struct {
	Execs []ExecState `json:"execs"`
}

// OOM goes with EventOOM.
type OOM struct {
	// Kills is the number of processes taken since the start.
	Kills uint64 `json:"kills"`
}

// LogDropped goes with EventLogDropped.
type LogDropped struct {
	// Bytes of output that are missing in the log since the start.
	Bytes uint64 `json:"bytes"`
}

// Classes of failures; an unknown one counts as "internal".
const (
	ClassInternal      = "internal"
	ClassNotFound      = "not found"
	ClassInvalid       = "invalid"
	ClassConflict      = "conflict"
	ClassUnimplemented = "unimplemented"
	// ClassStart: a program could not be started; Code is its exit status.
	ClassStart = "start"
)

// Failure is an error on the wire.
type Failure struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	// Code is 127, 126 or 128 with ClassStart.
	Code int `json:"code,omitempty"`
}

// Error returns the message as it came.
func (f *Failure) Error() string { return f.Message }

// Reply is the payload of a reply frame: one of the two is set.
type Reply struct {
	Failure *Failure        `json:"failure,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
}
