package networks

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// undoTimeout bounds the clean-up after a failed act.
const undoTimeout = 10 * time.Second

// undoStack takes back what was done, the last thing first.
type undoStack struct {
	steps []undoStep
}

type undoStep struct {
	name string
	undo func(context.Context) error
}

func (u *undoStack) add(name string, undo func(context.Context) error) {
	u.steps = append(u.steps, undoStep{name, undo})
}

// run performs every step, whatever the others return; failures are logged,
// because the caller has the error that mattered.
func (u *undoStack) run(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	for _, step := range slices.Backward(u.steps) {
		if err := step.undo(ctx); err != nil {
			log.Warn("undo of a failed sandbox", "step", step.name, "error", err)
		}
	}
}
