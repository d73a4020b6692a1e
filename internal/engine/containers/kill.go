package containers

import (
	"context"
	"fmt"

	"github.com/orlop/orlop/internal/domain/container"
)

// Kill sends a signal to a container; SIGKILL (also the default) is waited
// for. ErrConflict when it does not run.
func (s *Service) Kill(ctx context.Context, ref, signal string) error {
	sig := container.SIGKILL
	if signal != "" {
		var err error
		if sig, err = container.ParseSignal(signal); err != nil {
			return err
		}
		if !container.ValidSignal(sig) {
			return invalid("the linux daemon does not support signal %d", sig)
		}
	}
	o, err := s.find(ref)
	if err != nil {
		return err
	}
	if err := o.ask(ctx, container.ActSignal); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	s.callOff(ctx, o, sig)
	if o.state == container.StateExited { // it waited for a restart
		s.endRestart(o)
		return nil
	}
	m, report := o.monitor, o.exit
	o.mu.Unlock()
	if sig == container.SIGKILL {
		return s.kill(ctx, o, m, report)
	}
	if err := s.signal(ctx, o, m, sig); err != nil {
		return fmt.Errorf("Cannot kill container %s: %w", o.id, err)
	}
	return nil
}
