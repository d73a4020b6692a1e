package containers

import (
	"context"
	"errors"
)

// HandOverPorts leads the published ports of one running container to another:
// new connections go there, established ones stay until the first container
// ends. It lasts as long as the other one runs: what a container publishes when
// it is started is still what it was created with. ErrNotFound, ErrConflict.
func (s *Service) HandOverPorts(ctx context.Context, fromRef, toRef string) error {
	var both [2]*object
	for i, ref := range []string{fromRef, toRef} {
		o, err := s.find(ref)
		if err != nil {
			return err
		}
		if snap := o.snapshot(); !snap.state.Alive() {
			return conflict("container %s is not running", ref)
		}
		both[i] = o
	}
	from, to, err := s.cfg.Networks.HandOver(ctx, both[0].id, both[1].id)
	if err != nil {
		return err
	}
	return errors.Join(s.rewriteRun(both[0], from), s.rewriteRun(both[1], to))
}
