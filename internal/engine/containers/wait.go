package containers

import (
	"context"

	containertypes "github.com/moby/moby/api/types/container"

	"github.com/orlop/orlop/internal/domain/container"
)

// Wait delivers one answer when the condition is met, or none (the channel is
// closed) when ctx ends first. What happens after Wait has returned is not
// missed. The exit of a container that removed itself can be asked for by its
// full id for a minute more.
func (s *Service) Wait(ctx context.Context, ref string, condition containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
	answer := make(chan containertypes.WaitResponse, 1)
	o, err := s.find(ref)
	if err != nil {
		if d, ok := s.exitOfDeparted(ref); ok {
			answer <- waitResponse(d.code, d.err)
			close(answer)
			return answer, nil
		}
		return nil, err
	}
	o.mu.Lock()
	exit, gone := o.exit, o.gone
	running := o.state.WireRunning()
	if o.reporting != nil && !running && condition != containertypes.WaitConditionNextExit {
		exit, running = o.reporting, true
	}
	code, text := o.saved.ExitCode, o.saved.Error
	o.mu.Unlock()
	if condition != containertypes.WaitConditionNextExit && condition != containertypes.WaitConditionRemoved && !running {
		answer <- waitResponse(code, text)
		close(answer)
		return answer, nil
	}
	ended := exit.done
	if condition == containertypes.WaitConditionRemoved {
		ended = nil
	}
	s.spawn(func() {
		defer close(answer)
		select {
		case <-ended:
			answer <- waitResponse(exit.code, exit.err)
		case <-gone.done:
			answer <- waitResponse(gone.code, gone.err)
		case <-ctx.Done():
		case <-s.leaving:
		}
	})
	return answer, nil
}

func waitResponse(code int, text string) containertypes.WaitResponse {
	resp := containertypes.WaitResponse{StatusCode: int64(code)}
	if text != "" && text != container.ReasonMonitorLost {
		resp.Error = &containertypes.WaitExitError{Message: text}
	}
	return resp
}
