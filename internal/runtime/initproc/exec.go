package initproc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/safepath"
	"github.com/orlop/orlop/internal/runtime/limits"
)

// exec becomes a further process of a running container; the parent's program
// has joined its namespaces already.
func (s *stage) exec() error {
	if a := s.Rare.ExecCPUAffinity; a != nil {
		if err := limits.Affinity(a.Initial); err != nil {
			return err
		}
	}
	if s.Process.Terminal {
		pts, err := safepath.OpenRoot("/dev/pts")
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		if err := isDevpts(pts); err != nil {
			return fmt.Errorf("console: %w", err)
		}
		slave, err := s.openConsole(int(pts), s.Process)
		_ = pts.Close()
		if err != nil {
			return err
		}
		err = takeTerminal(slave)
		_ = unix.Close(slave)
		if err != nil {
			return err
		}
	}
	return s.become()
}
