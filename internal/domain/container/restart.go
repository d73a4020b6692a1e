package container

import (
	"time"

	containertypes "github.com/moby/moby/api/types/container"
)

// The delays between restarts, as Docker has them: 100 ms, doubled each time
// up to a minute, and back to the beginning after a run of 10 seconds.
const (
	firstRestartDelay = 100 * time.Millisecond
	maxRestartDelay   = time.Minute
	goodRun           = 10 * time.Second
)

// RestartHistory is what a restart policy has to remember between runs.
type RestartHistory struct {
	// Count of restarts by the policy since the last start by a user.
	Count int
	// Delay before the last restart; 0 when there was none.
	Delay time.Duration
}

// RestartDecision says whether the policy restarts a container that ended
// with code after having run for ran, and after which delay. manual tells that
// a user stopped it. The returned history replaces the given one.
func RestartDecision(policy containertypes.RestartPolicy, h RestartHistory, code int, manual bool, ran time.Duration) (bool, RestartHistory) {
	if policy.IsNone() {
		return false, h
	}
	next := h
	if ran >= goodRun {
		next.Delay = 0
	}
	if next.Delay == 0 {
		next.Delay = firstRestartDelay
	} else {
		next.Delay = min(next.Delay*2, maxRestartDelay)
	}
	restart := false
	switch {
	case policy.IsAlways():
		restart = true
	case policy.IsUnlessStopped():
		restart = !manual
	case policy.IsOnFailure():
		// A maximum of 0 is no maximum.
		restart = code != 0 && (policy.MaximumRetryCount == 0 || h.Count < policy.MaximumRetryCount)
	}
	if !restart {
		return false, RestartHistory{Count: h.Count, Delay: next.Delay}
	}
	next.Count++
	return true, next
}
