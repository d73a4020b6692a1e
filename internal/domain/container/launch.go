package container

import (
	"encoding/json"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Handle is an open kernel object that is handed over by descriptor, for
// example a network namespace. The owner keeps it open until the call that
// takes it has returned.
type Handle interface {
	Fd() uintptr
}

// IDMap translates ids of a container to ids of the host. Both lists empty is
// the identity, i.e. the host's user namespace.
type IDMap struct {
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}

// Empty reports whether ids are not translated.
func (m IDMap) Empty() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// RootPair is the host's owner of what root of the container owns.
func (m IDMap) RootPair() (uid, gid int) {
	return hostID(m.UIDs), hostID(m.GIDs)
}

// hostID translates id 0.
func hostID(list []specs.LinuxIDMapping) int {
	for _, r := range list {
		if r.ContainerID == 0 && r.Size > 0 {
			return int(r.HostID)
		}
	}
	return 0
}

// Rootfs says how a container's root file system is put together. It is
// mounted by the container's init inside its own mount namespace, so the host
// never sees the mount and nothing has to be unmounted.
type Rootfs struct {
	// Lower lists the read-only layers, the topmost first. Absolute paths.
	Lower []string `json:"lower"`
	// Upper and Work are the writable layer; both empty means read-only.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Volatile skips syncs of the upper file system (overlay mount option
	// "volatile"): for containers that are removed when they exit.
	Volatile bool `json:"volatile,omitempty"`
	// IDMap is applied to all layers by idmapped mounts: the ids on disk are
	// those inside the container. Upper and Work are then in one folder.
	IDMap IDMap `json:"idMap"`
}

// LogConfig says where a monitor writes a container's output.
type LogConfig struct {
	// Driver is "json-file", "local" or "none".
	Driver string `json:"driver"`
	// Path of the current file; rotated ones get ".1", ".2", … (".gz" when
	// compressed) behind it.
	Path string `json:"path,omitempty"`
	// MaxSize in bytes of one file; 0 is unlimited (only when asked for).
	MaxSize int64 `json:"maxSize,omitempty"`
	// MaxFiles counts the current file too; at least 1.
	MaxFiles int `json:"maxFiles,omitempty"`
	// Compress rotated files with gzip.
	Compress bool `json:"compress,omitempty"`
	// Attrs are written into every line (Docker's labels/env log options).
	Attrs map[string]string `json:"attrs,omitempty"`
	// Buffer in bytes of mode=non-blocking: the container never waits for the
	// disk, and what exceeds it is dropped, the oldest first; 0 is blocking.
	Buffer int64 `json:"buffer,omitempty"`
}

// Launch is everything a monitor needs to run a container once.
type Launch struct {
	ID string `json:"id"`
	// Spec is the complete OCI configuration. Root.Path is ignored when
	// Rootfs has layers. A network namespace without a path is replaced by
	// the handle given beside the launch, if there is one.
	Spec   *specs.Spec `json:"spec"`
	Rootfs *Rootfs     `json:"rootfs,omitempty"`
	Log    LogConfig   `json:"log"`
	// OpenStdin keeps the standard input open for clients that attach;
	// StdinOnce closes it when the first of them goes.
	OpenStdin bool `json:"openStdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
	// Tied kills the container when the connection to its starter closes
	// (build steps); otherwise it outlives the daemon.
	Tied bool `json:"tied,omitempty"`
	// SystemdCgroup reads Spec.Linux.CgroupsPath as slice:prefix:name.
	SystemdCgroup bool `json:"systemdCgroup,omitempty"`
	// Runtime is the path of a foreign OCI runtime; empty is our own.
	Runtime     string   `json:"runtime,omitempty"`
	RuntimeArgs []string `json:"runtimeArgs,omitempty"`
}

// Exit is how a container or an exec ended.
type Exit struct {
	// Code is the exit status, or 128+n after signal n.
	Code int       `json:"code"`
	Time time.Time `json:"time"`
	// OOMKilled: the kernel's OOM killer took a process of its cgroup.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// Reason is empty for an ordinary exit, "monitor lost" when the monitor
	// died first (Code is 137 then), or what else ended it.
	Reason string `json:"reason,omitempty"`
	// LogDropped counts bytes of the run's output that are missing in the log.
	LogDropped uint64 `json:"logDropped,omitempty"`
}

// ReasonMonitorLost is the reason of an exit nobody could observe because the
// monitor died before its container.
const ReasonMonitorLost = "monitor lost"

// Running identifies a started container: pids can be reused, a pid with its
// start time cannot.
type Running struct {
	// MonitorPid and InitPid are pids of the host's pid namespace.
	MonitorPid int `json:"monitorPid"`
	InitPid    int `json:"initPid"`
	// InitStart is field 22 of /proc/<pid>/stat (clock ticks after boot).
	InitStart uint64    `json:"initStart"`
	StartedAt time.Time `json:"startedAt"`
	// BootID is /proc/sys/kernel/random/boot_id of the boot it runs in.
	BootID string `json:"bootId"`
}

// Record is the stored truth about a container that must survive a reboot.
// The request is kept as the bytes that came, so unknown keys survive; State
// is our own, versioned by Schema.
type Record struct {
	// Schema is the number of the newest migration applied to State.
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	// Name without the leading slash; unique per engine.
	Name string `json:"name"`
	// Request is the body of POST /containers/create, unchanged.
	Request json.RawMessage `json:"request"`
	// State is the engine's own state as JSON (engine-owned type Saved).
	State json.RawMessage `json:"state"`
}
