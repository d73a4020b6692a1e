package events

import (
	"slices"

	"github.com/distribution/reference"
	eventtypes "github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// Match reports whether an event passes the filters of `docker events`.
func Match(f container.Filters, m eventtypes.Message) bool {
	if len(f) == 0 {
		return true
	}
	action := string(m.Action)
	// These actions carry more text after a colon.
	prefixed := slices.ContainsFunc(f["event"], func(v string) bool {
		return v == "health_status" || v == "exec_create" || v == "exec_start"
	})
	if prefixed && !f.Prefix("event", action) || !prefixed && !f.Exact("event", action) {
		return false
	}
	if !f.Exact("type", string(m.Type)) || !f.Exact("scope", m.Scope) {
		return false
	}
	for _, t := range []eventtypes.Type{
		eventtypes.DaemonEventType, eventtypes.ContainerEventType, eventtypes.PluginEventType, eventtypes.VolumeEventType,
		eventtypes.NetworkEventType, eventtypes.NodeEventType, eventtypes.ServiceEventType, eventtypes.SecretEventType,
		eventtypes.ConfigEventType,
	} {
		if !f.Prefix(string(t), m.Actor.ID) && !f.Prefix(string(t), m.Actor.Attributes["name"]) {
			return false
		}
	}
	return matchImage(f, m) && f.Labels("label", m.Actor.Attributes)
}

// matchImage looks at the id and the name of an image, and at the image that a
// container was made from, with and without its tag.
func matchImage(f container.Filters, m eventtypes.Message) bool {
	if len(f["image"]) == 0 {
		return true
	}
	name := m.Actor.Attributes["image"]
	if m.Type == eventtypes.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return f.Exact("image", m.Actor.ID) || f.Exact("image", name) ||
		f.Exact("image", familiar(m.Actor.ID)) || f.Exact("image", familiar(name))
}

func familiar(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarName(ref)
}
