package containers

import (
	"context"
	"math"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
)

// Resize sets the size of a container's terminal. ErrConflict when it does not
// run.
func (s *Service) Resize(ctx context.Context, ref string, height, width uint) error {
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	rows, cols, err := terminalSize(height, width)
	if err != nil {
		return err
	}
	o.mu.Lock()
	m := o.monitor
	o.mu.Unlock()
	if m == nil {
		return conflict("container %s is not running", o.id)
	}
	if err := m.Resize(ctx, rows, cols); err != nil {
		if errdefs.IsNotFound(err) {
			return conflict("container %s is not running", o.id)
		}
		return err
	}
	s.tell(o.snapshot(), events.ActionResize, map[string]string{
		"height": strconv.FormatUint(uint64(height), 10),
		"width":  strconv.FormatUint(uint64(width), 10),
	})
	return nil
}

// terminalSize checks a size for what the kernel can hold.
func terminalSize(height, width uint) (rows, cols uint16, err error) {
	if height > math.MaxUint16 || width > math.MaxUint16 {
		return 0, 0, invalid("invalid terminal size %dx%d", width, height)
	}
	return uint16(height), uint16(width), nil
}
