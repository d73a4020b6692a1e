package lifecycle

import (
	"fmt"
	"time"

	"github.com/orlop/orlop/internal/linux/cgroup"
)

// Details is what the state of the specification leaves out.
type Details struct {
	// Rootfs is the root's folder on the host, "" for layers.
	Rootfs  string
	Created time.Time
	// Owner is the uid that created the container.
	Owner int
}

// Details returns what was recorded at creation.
func (c *Container) Details() Details {
	return Details{Rootfs: c.saved.Rootfs, Created: c.saved.Created, Owner: c.saved.Owner}
}

// Stats reads the container's resource usage.
func (c *Container) Stats() (*cgroup.Stats, error) {
	s, err := c.cgroup.Stats()
	if err != nil {
		return nil, fmt.Errorf("statistics of container %s: %w", c.saved.ID, err)
	}
	return s, nil
}
