// Package rootfs puts a container's file tree together: the plan is computed
// from the OCI configuration first (Plan, a value that prints as text) and then
// performed by the container's init inside its own mount namespace (Perform).
//
// Every path of the container is opened beneath a handle of its root and
// every mount goes from descriptor to descriptor, so that a link or a race
// inside the container never reaches a file of the host. No locks.
package rootfs

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Overlay is a root file system made of layers. The container's init mounts
// it, so no other process ever sees that mount.
type Overlay struct {
	// Lower lists the read-only layers, the topmost first. Absolute paths.
	Lower []string `json:"lower"`
	// Upper and Work are the writable layer on one file system; both empty
	// means a read-only root.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Volatile skips syncs of the upper layer (mount option "volatile",
	// kernel 5.10). Such an upper layer is lost after a crash of the machine.
	Volatile bool `json:"volatile,omitempty"`
	// UIDs and GIDs translate the owners of the lower layers by an idmapped
	// mount; both empty means as stored.
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}
