package networks

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/network"
)

// HandOver leads the published ports of one running container to another one:
// new connections go there at once, those that are established stay where they
// are until the first container ends. There is no moment at which a port is
// free, or leads nowhere: the reservations move in one change of netd, the
// translations in one transaction. UDP has no connections: its flows move too.
//
// A port keeps its number inside. It returns both attachments as they are now.
// ErrNotFound for a container without a sandbox; ErrConflict when there is
// nothing to hand over; ErrInvalidArgument when the other one has no address
// that the ports could lead to.
func (s *Service) HandOver(ctx context.Context, fromID, toID string) (from, to network.Attachment, err error) {
	if fromID == toID {
		return from, to, errdefs.ErrInvalidArgument.WithMessage("a container cannot hand its ports over to itself")
	}
	// Both turns, always in the same order.
	ids := []string{fromID, toID}
	slices.Sort(ids)
	found := map[string]*sandbox{}
	for _, id := range ids {
		sb, done, err := s.live(ctx, id)
		if err != nil {
			return from, to, err
		}
		defer done()
		found[id] = sb
	}
	pids := map[string]int{}
	for _, id := range ids {
		_, pid, ok := s.current(found[id])
		if !ok || pid == 0 {
			return from, to, notFound(id)
		}
		pids[id] = pid
	}
	fromBefore, _, _ := s.current(found[fromID])
	toBefore, _, _ := s.current(found[toID])
	if len(fromBefore.Ports) == 0 {
		return from, to, errdefs.ErrConflict.WithMessage("container " + fromBefore.Name + " has no published ports")
	}
	moved, err := s.redirect(fromBefore.Ports, toBefore)
	if err != nil {
		return from, to, err
	}
	from, to = fromBefore, toBefore
	from.Ports, to.Ports = nil, slices.Concat(toBefore.Ports, moved)

	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(context.WithoutCancel(ctx), s.cfg.Logger)
		}
	}()
	ctx = context.WithoutCancel(ctx)
	undo.add("names and reservations", func(ctx context.Context) error {
		return s.cfg.Nameserver.Move(ctx, s.names(toBefore, pids[toID]), s.names(fromBefore, pids[fromID]))
	})
	if err := s.cfg.Nameserver.Move(ctx, s.names(from, pids[fromID]), s.names(to, pids[toID])); err != nil {
		return from, to, fmt.Errorf("hand over published ports: %w", err)
	}
	undo.add("translations", func(ctx context.Context) error { return s.cfg.Firewall.Redirect(ctx, moved, fromBefore.Ports) })
	if err := s.cfg.Firewall.Redirect(ctx, fromBefore.Ports, moved); err != nil {
		return from, to, fmt.Errorf("hand over published ports: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.sandboxes[id] != found[id] {
			err = notFound(id) // it has ended meanwhile
			return from, to, err
		}
	}
	found[fromID].att, found[toID].att = from, to
	return from, to, nil
}

// redirect is what bindings become that lead to another sandbox.
func (s *Service) redirect(ports []network.Binding, to network.Attachment) ([]network.Binding, error) {
	lead, ok := s.leadOf(to.Endpoints)
	if !ok {
		return nil, errdefs.ErrInvalidArgument.WithMessage("container " + to.Name + " has no address that published ports could lead to")
	}
	out := slices.Clone(ports)
	for i := range out {
		b := &out[i]
		var reserved bool
		if b.ContainerIP, b.Direct, reserved = lead.target(b.HostIP); !b.ContainerIP.IsValid() || !reserved {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("container %s has no address that port %s could lead to", to.Name, b))
		}
	}
	return out, nil
}
