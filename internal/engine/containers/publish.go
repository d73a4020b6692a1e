package containers

import (
	"maps"

	"github.com/moby/moby/api/types/events"
)

// tell publishes an event about a container, with its labels, image and name
// as attributes, and more of the caller's.
func (s *Service) tell(snap *snapshot, action events.Action, more map[string]string) {
	attributes := maps.Clone(more)
	if attributes == nil {
		attributes = map[string]string{}
	}
	maps.Copy(attributes, snap.saved.Config.Labels)
	if image := snap.saved.Config.Image; image != "" {
		attributes["image"] = image
	}
	attributes["name"] = snap.name
	now := s.cfg.Now().UTC()
	s.cfg.Events.Publish(events.Message{
		Type: events.ContainerEventType, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{ID: snap.id, Attributes: attributes},
	})
}
