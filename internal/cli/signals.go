package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/moby/moby/client"
	mobysignal "github.com/moby/sys/signal"
)

// settled is how long a container runs before the signals that people seldom send are caught too. Catching all 64 takes a
// Go process 400 switches between its threads (5 to 8 ms of CPU), which a short command should not pay.
const settled = 100 * time.Millisecond

// forwardSignals sends every signal this process gets to the container's process, until stop is called: the usual ones from
// now on, the others a little later. Signals that speak of this process (a child's end, a closed pipe, the Go runtime's
// own) stay here.
func forwardSignals(ctx context.Context, api *client.Client, container string) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch, usualSignals()...)
	done, ended := make(chan struct{}), make(chan struct{})
	rest := time.NewTimer(settled)
	// The caller's own end must not keep the last signal from arriving.
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer close(ended)
		select {
		case <-rest.C:
			signal.Notify(ch)
		case <-done:
		}
	}()
	go func() {
		for {
			select {
			case sig := <-ch:
				name := signalName(sig)
				if name == "" || stays(sig) {
					continue
				}
				if _, err := api.ContainerKill(ctx, container, client.ContainerKillOptions{Signal: name}); err != nil {
					slog.Debug("forward signal", "signal", name, "error", err)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		rest.Stop()
		signal.Stop(ch)
	}
}

// signalName is the name without SIG. Of two names for one number the longer, and of equally long ones the first, is
// taken: ABRT and CHLD, not IOT and CLD, and always the same.
func signalName(sig os.Signal) string {
	best := ""
	for name, number := range mobysignal.SignalMap {
		if number == sig && (best == "" || len(name) > len(best) || len(name) == len(best) && name < best) {
			best = name
		}
	}
	return best
}
