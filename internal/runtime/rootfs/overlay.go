// Package rootfs puts a container's file tree together: the plan is computed
// from the OCI configuration first (Plan, a value that prints as text) and then
// performed by the container's init inside its own mount namespace (Perform).
//
// Every path of the container is opened beneath a handle of its root and
// every mount goes from descriptor to descriptor, so that a link or a race
// inside the container never reaches a file of the host. No locks.
package rootfs

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/linux/mount"
	"github.com/orlop/orlop/internal/linux/process"
	"github.com/orlop/orlop/internal/linux/safepath"
)

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
	// UIDs and GIDs translate the owners of all layers by idmapped mounts
	// (kernel 5.19), so that the ids on disk are those inside the container;
	// both empty means as stored. Upper and Work are then in one folder.
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}

// translated mounts the layers with translated owners.
func (o *Overlay) translated(options []string) (safepath.FD, error) {
	user, err := process.NewUserNamespace(idMap(o.UIDs), idMap(o.GIDs))
	if err != nil {
		return safepath.None, err
	}
	defer user.Close()
	return mount.Translated{
		Lower: o.Lower, Upper: o.Upper, Work: o.Work, Options: options,
		UserNS: user.Fd(), UID: hostID(o.UIDs), GID: hostID(o.GIDs),
	}.Overlay()
}

// hostID is what id 0 is on the host.
func hostID(list []specs.LinuxIDMapping) int {
	for _, m := range list {
		if m.ContainerID == 0 {
			return int(m.HostID)
		}
	}
	return 0
}

func idMap(list []specs.LinuxIDMapping) []process.IDMap {
	out := make([]process.IDMap, len(list))
	for i, m := range list {
		out[i] = process.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size}
	}
	return out
}
