package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// resizer tells the daemon the size of a container's or an exec's terminal.
type resizer func(ctx context.Context, height, width uint) error

// follow sends the terminal's size now and whenever it changes, until stop is called. A process that is not yet up
// refuses the first one; it is repeated a few times in the background.
func (a *app) follow(ctx context.Context, resize resizer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	send := func() error {
		height, width := a.stdout.size()
		if height == 0 && width == 0 {
			return nil
		}
		err := resize(ctx, height, width)
		if err != nil {
			slog.Debug("resize terminal", "error", err)
		}
		return err
	}
	// Watched first: who sees the size it was given may change it at once.
	changes, stopWatching := watchSize(a.stdout)
	if send() != nil {
		go func() {
			for attempt := 1; attempt <= 10; attempt++ {
				select {
				case <-time.After(time.Duration(attempt) * 10 * time.Millisecond):
				case <-ctx.Done():
					return
				}
				if send() == nil {
					return
				}
			}
			fmt.Fprintln(a.stderr, "failed to resize tty, using default size")
		}()
	}
	go func() {
		for {
			select {
			case <-changes:
				_ = send()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { stopWatching(); cancel() }
}
