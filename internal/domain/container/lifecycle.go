package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
)

// State is where a container is in its life: one value, moved only by On.
// States ending in -ing mark an act in progress.
type State string

// The states.
const (
	StateCreated     State = "created"     // made, never started
	StateStarting    State = "starting"    // a start is in progress
	StateRunning     State = "running"     // its process runs
	StatePausing     State = "pausing"     // being frozen
	StatePaused      State = "paused"      // frozen
	StateUnpausing   State = "unpausing"   // being thawed
	StateStopping    State = "stopping"    // told to end; still runs
	StateRestarting  State = "restarting"  // ended; waits for its restart policy's delay
	StateRelaunching State = "relaunching" // a start by the restart policy is in progress
	StateExited      State = "exited"      // ended
	StateRemoving    State = "removing"    // being removed; may still run until killed
	StateDead        State = "dead"        // its removal failed; only removal is left
)

// Act is what moves a state: an act that somebody asks for, or its outcome.
type Act string

// Acts that are asked for.
const (
	ActStart       Act = "start"        // by a user
	ActRelaunch    Act = "relaunch"     // by the restart policy, after its delay
	ActPause       Act = "pause"        //
	ActUnpause     Act = "unpause"      //
	ActStop        Act = "stop"         // stop signal, later kill
	ActSignal      Act = "signal"       // one signal, whatever it does
	ActRemove      Act = "remove"       // only when it does not run
	ActForceRemove Act = "force-remove" // kills it first
	ActExec        Act = "exec"         // another process in it
)

// Outcomes of acts.
const (
	ActStarted       Act = "started"
	ActStartFailed   Act = "start-failed"
	ActPauseDone     Act = "pause-done"
	ActPauseFailed   Act = "pause-failed"
	ActUnpauseDone   Act = "unpause-done"
	ActUnpauseFailed Act = "unpause-failed"
	ActStopFailed    Act = "stop-failed" // it still runs
	ActEnded         Act = "ended"       // the process has ended
	ActEndedAgain    Act = "ended-again" // it has ended and the policy restarts it
	ActGaveUp        Act = "gave-up"     // the restart was called off
	ActKillFailed    Act = "kill-failed" // a forced removal could not end it
	ActRemoveFailed  Act = "remove-failed"
)

// A move is one cell of the table: where an act leads, or why it does not.
type move struct {
	to State
	// wait: the act has to wait until the act in progress is over.
	wait bool
	// refuse is the class of a refusal, text its Docker wording, in which %s
	// is the container's id.
	refuse error
	text   string
}

func to(s State) move                       { return move{to: s} }
func refused(class error, text string) move { return move{refuse: class, text: text} }

// table holds one row per state. An act without a cell is a fault of the
// engine (an outcome that cannot happen there) and is refused as one.
var table = map[State]map[Act]move{
	StateCreated: {
		ActStart:       to(StateStarting),
		ActStop:        refused(errdefs.ErrNotModified, "container is already stopped"),
		ActSignal:      refused(errdefs.ErrConflict, "container %s is not running"),
		ActPause:       refused(errdefs.ErrConflict, "container %s is not running"),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        refused(errdefs.ErrConflict, "container %s is not running"),
		ActRemove:      to(StateRemoving),
		ActForceRemove: to(StateRemoving),
	},
	StateStarting: {
		ActStart: {wait: true}, ActStop: {wait: true}, ActSignal: {wait: true}, ActPause: {wait: true},
		ActUnpause: {wait: true}, ActExec: {wait: true}, ActRemove: {wait: true}, ActForceRemove: {wait: true},
		ActStarted:     to(StateRunning),
		ActStartFailed: to(StateExited),
	},
	StateRunning: {
		ActStart:       refused(errdefs.ErrNotModified, "container is already running"),
		ActStop:        to(StateStopping),
		ActSignal:      to(StateRunning),
		ActPause:       to(StatePausing),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        to(StateRunning),
		ActRemove:      refused(errdefs.ErrConflict, "container is running: stop the container before removing or force remove"),
		ActForceRemove: to(StateRemoving),
		ActEnded:       to(StateExited),
		ActEndedAgain:  to(StateRestarting),
	},
	StatePausing: {
		ActStart: {wait: true}, ActStop: {wait: true}, ActSignal: {wait: true}, ActPause: {wait: true},
		ActUnpause: {wait: true}, ActExec: {wait: true}, ActRemove: {wait: true}, ActForceRemove: {wait: true},
		ActPauseDone:   to(StatePaused),
		ActPauseFailed: to(StateRunning),
		ActEnded:       to(StateExited),
		ActEndedAgain:  to(StateRestarting),
	},
	StatePaused: {
		ActStart:       refused(errdefs.ErrConflict, "cannot start a paused container, try unpause instead"),
		ActStop:        to(StateStopping),
		ActSignal:      to(StatePaused),
		ActPause:       refused(errdefs.ErrConflict, "container %s is already paused"),
		ActUnpause:     to(StateUnpausing),
		ActUnpauseDone: to(StateRunning), // thawed by the signal that ends it
		ActExec:        refused(errdefs.ErrConflict, "Container %s is paused, unpause the container before exec"),
		ActRemove:      refused(errdefs.ErrConflict, "container is paused and must be unpaused first"),
		ActForceRemove: to(StateRemoving),
		ActEnded:       to(StateExited),
		ActEndedAgain:  to(StateRestarting),
	},
	StateUnpausing: {
		ActStart: {wait: true}, ActStop: {wait: true}, ActSignal: {wait: true}, ActPause: {wait: true},
		ActUnpause: {wait: true}, ActExec: {wait: true}, ActRemove: {wait: true}, ActForceRemove: {wait: true},
		ActUnpauseDone:   to(StateRunning),
		ActUnpauseFailed: to(StatePaused),
		ActEnded:         to(StateExited),
		ActEndedAgain:    to(StateRestarting),
	},
	StateStopping: {
		ActStart:       refused(errdefs.ErrNotModified, "container is already running"),
		ActStop:        to(StateStopping), // joins the stop in progress
		ActSignal:      to(StateStopping),
		ActPause:       refused(errdefs.ErrConflict, "container %s is being stopped"),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        to(StateStopping),
		ActRemove:      refused(errdefs.ErrConflict, "container is running: stop the container before removing or force remove"),
		ActForceRemove: to(StateRemoving),
		ActStopFailed:  to(StateRunning),
		ActUnpauseDone: to(StateStopping),
		ActEnded:       to(StateExited),
		ActEndedAgain:  to(StateRestarting),
	},
	StateRestarting: {
		ActStart:       refused(errdefs.ErrNotModified, "container is already running"),
		ActRelaunch:    to(StateRelaunching),
		ActGaveUp:      to(StateExited),
		ActStop:        to(StateExited),
		ActSignal:      to(StateExited),
		ActPause:       refused(errdefs.ErrConflict, "Container %s is restarting, wait until the container is running"),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        refused(errdefs.ErrConflict, "Container %s is restarting, wait until the container is running"),
		ActRemove:      refused(errdefs.ErrConflict, "container is restarting: stop the container before removing or force remove"),
		ActForceRemove: to(StateRemoving),
	},
	StateRelaunching: {
		ActStart: {wait: true}, ActStop: {wait: true}, ActSignal: {wait: true}, ActPause: {wait: true},
		ActUnpause: {wait: true}, ActExec: {wait: true}, ActRemove: {wait: true}, ActForceRemove: {wait: true},
		ActStarted:     to(StateRunning),
		ActStartFailed: to(StateExited),
	},
	StateExited: {
		ActStart:       to(StateStarting),
		ActStop:        refused(errdefs.ErrNotModified, "container is already stopped"),
		ActSignal:      refused(errdefs.ErrConflict, "container %s is not running"),
		ActPause:       refused(errdefs.ErrConflict, "container %s is not running"),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        refused(errdefs.ErrConflict, "container %s is not running"),
		ActRemove:      to(StateRemoving),
		ActForceRemove: to(StateRemoving),
		ActRelaunch:    to(StateRelaunching), // by the restart policy after a boot
	},
	StateRemoving: {
		ActStart:        refused(errdefs.ErrConflict, "container is marked for removal and cannot be started"),
		ActStop:         refused(errdefs.ErrNotModified, "container is already stopped"),
		ActSignal:       refused(errdefs.ErrConflict, "container %s is not running"),
		ActPause:        refused(errdefs.ErrConflict, "container %s is not running"),
		ActUnpause:      refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:         refused(errdefs.ErrConflict, "container %s is not running"),
		ActRemove:       refused(errdefs.ErrConflict, "removal of container %s is already in progress"),
		ActForceRemove:  refused(errdefs.ErrConflict, "removal of container %s is already in progress"),
		ActEnded:        to(StateRemoving),
		ActEndedAgain:   to(StateRemoving),
		ActKillFailed:   to(StateRunning),
		ActRemoveFailed: to(StateDead),
	},
	StateDead: {
		ActStart:       refused(errdefs.ErrConflict, "container is marked for removal and cannot be started"),
		ActStop:        refused(errdefs.ErrNotModified, "container is already stopped"),
		ActSignal:      refused(errdefs.ErrConflict, "container %s is not running"),
		ActPause:       refused(errdefs.ErrConflict, "container %s is not running"),
		ActUnpause:     refused(errdefs.ErrInternal, "Container %s is not paused"),
		ActExec:        refused(errdefs.ErrConflict, "container %s is not running"),
		ActRemove:      to(StateRemoving),
		ActForceRemove: to(StateRemoving),
	},
}

// MustWait is the answer of On when the act has to wait for the end of the act
// in progress and ask again.
type MustWait struct {
	For State
}

func (e MustWait) Error() string { return "container is " + string(e.For) }

// Unwrap gives the error its class, for callers that cannot wait.
func (MustWait) Unwrap() error { return errdefs.ErrConflict }

// On returns the state that act leads to. It fails with MustWait, with a
// refusal in Docker's words (errdefs.ErrConflict or ErrNotModified), or with
// errdefs.ErrFailedPrecondition for an outcome that cannot arrive in s.
func (s State) On(act Act, id string) (State, error) {
	m, ok := table[s][act]
	switch {
	case !ok:
		return s, fmt.Errorf("move container %s: %s does not happen in state %s: %w", id, act, s, errdefs.ErrFailedPrecondition)
	case m.wait:
		return s, MustWait{For: s}
	case m.refuse != nil:
		text := m.text
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, id)
		}
		return s, withText(m.refuse, text)
	}
	return m.to, nil
}

// Alive reports whether a process may exist in this state.
func (s State) Alive() bool {
	switch s {
	case StateRunning, StatePausing, StatePaused, StateUnpausing, StateStopping:
		return true
	}
	return false
}

// Busy reports whether an act is in progress that ends by itself.
func (s State) Busy() bool {
	switch s {
	case StateStarting, StateRelaunching, StatePausing, StateUnpausing:
		return true
	}
	return false
}

// Wire is the state as the API spells it. started tells whether the container
// was ever started.
func (s State) Wire(started bool) containertypes.ContainerState {
	switch s {
	case StateCreated:
		return containertypes.StateCreated
	case StateStarting, StateExited:
		if !started {
			return containertypes.StateCreated
		}
		return containertypes.StateExited
	case StateRunning, StatePausing, StateStopping:
		return containertypes.StateRunning
	case StatePaused, StateUnpausing:
		return containertypes.StatePaused
	case StateRestarting, StateRelaunching:
		return containertypes.StateRestarting
	case StateRemoving:
		return containertypes.StateRemoving
	}
	return containertypes.StateDead
}

// WireRunning is the API's State.Running: true also while it is paused or
// waits for a restart.
func (s State) WireRunning() bool {
	return s.Alive() || s == StateRestarting || s == StateRelaunching
}

// States lists every state in the order of a life.
func States() []State {
	return []State{StateCreated, StateStarting, StateRunning, StatePausing, StatePaused, StateUnpausing, StateStopping, StateRestarting, StateRelaunching, StateExited, StateRemoving, StateDead}
}

// Acts lists every act, those asked for first.
func Acts() []Act {
	return []Act{
		ActStart, ActRelaunch, ActPause, ActUnpause, ActStop, ActSignal, ActRemove, ActForceRemove, ActExec,
		ActStarted, ActStartFailed, ActPauseDone, ActPauseFailed, ActUnpauseDone, ActUnpauseFailed, ActStopFailed,
		ActEnded, ActEndedAgain, ActGaveUp, ActKillFailed, ActRemoveFailed,
	}
}

// Diagram prints the table as the documentation shows it: one line per move,
// then what waits and what is refused.
func Diagram() string {
	var b strings.Builder
	for _, s := range States() {
		fmt.Fprintf(&b, "%s\n", s)
		byTarget := map[State][]string{}
		var targets []State
		var waits, refusals []string
		for _, a := range Acts() {
			m, ok := table[s][a]
			switch {
			case !ok:
			case m.wait:
				waits = append(waits, string(a))
			case m.refuse != nil:
				refusals = append(refusals, string(a))
			default:
				if !slices.Contains(targets, m.to) {
					targets = append(targets, m.to)
				}
				byTarget[m.to] = append(byTarget[m.to], string(a))
			}
		}
		for _, t := range targets {
			fmt.Fprintf(&b, "  --%s--> %s\n", strings.Join(byTarget[t], ", "), t)
		}
		if len(waits) > 0 {
			fmt.Fprintf(&b, "  waits: %s\n", strings.Join(waits, ", "))
		}
		if len(refusals) > 0 {
			fmt.Fprintf(&b, "  refuses: %s\n", strings.Join(refusals, ", "))
		}
	}
	return b.String()
}
