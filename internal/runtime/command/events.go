package command

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// event is a line of `events`.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func events(ctx context.Context, g *global, args []string) (int, error) {
	fs := g.options("events", "ID")
	once := fs.Bool("stats", false, "print the statistics once")
	interval := fs.Duration("interval", 5*time.Second, "time between statistics")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	out := json.NewEncoder(g.out)
	if *once {
		return 0, printStats(out, c)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	oom, err := c.Cgroup().OOMEvents(ctx)
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = c.Wait()
		close(ended)
	}()
	tick := time.NewTicker(*interval)
	defer tick.Stop()
	for {
		select {
		case _, ok := <-oom:
			if !ok {
				oom = nil
				continue
			}
			if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
				return 0, err
			}
		case <-tick.C:
			if err := printStats(out, c); err != nil {
				return 0, err
			}
		case <-ended:
			return 0, nil
		case <-ctx.Done():
			return 0, nil
		}
	}
}

func printStats(out *json.Encoder, c *lifecycle.Container) error {
	s, err := c.Stats()
	if err != nil {
		return err
	}
	return out.Encode(event{Type: "stats", ID: c.ID(), Data: runcForm(s)})
}
