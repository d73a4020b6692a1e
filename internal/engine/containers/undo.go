package containers

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// undoTimeout bounds each step of an undo.
const undoTimeout = 30 * time.Second

// undoStack holds the undo of each step that was begun; every one works
// although its step may never have done anything.
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

// run undoes the steps, the last one first. What cannot be undone is logged;
// the next start of the daemon sweeps it.
func (u *undoStack) run(ctx context.Context, log *slog.Logger, id string) {
	for _, step := range slices.Backward(u.steps) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		if err := step.undo(ctx); err != nil {
			log.Error("undo", "step", step.name, "container", id, "error", err)
		}
		cancel()
	}
	u.steps = nil
}
