package container

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	containertypes "github.com/moby/moby/api/types/container"
)

// Status is the sentence of `docker ps` about a container.
func Status(state State, s Saved, health *containertypes.Health, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch state.Wire(!s.StartedAt.IsZero()) {
	case containertypes.StatePaused:
		return "Up " + ago(s.StartedAt) + " (Paused)"
	case containertypes.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case containertypes.StateRunning:
		up := "Up " + ago(s.StartedAt)
		switch {
		case health == nil || health.Status == containertypes.NoHealthcheck || health.Status == "":
			return up
		case health.Status == containertypes.Starting:
			return up + " (health: starting)"
		}
		return up + " (" + string(health.Status) + ")"
	case containertypes.StateRemoving:
		return "Removal In Progress"
	case containertypes.StateDead:
		return "Dead"
	case containertypes.StateCreated:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
}
