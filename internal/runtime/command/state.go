package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/orlop/orlop/internal/runtime/lifecycle"
)

// stateView is what `state` and `list` print: the specification's state and a
// few of runc's additions that its users read.
type stateView struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func viewOf(c *lifecycle.Container) (*stateView, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	d := c.Details()
	v := &stateView{
		Version: s.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status), Bundle: s.Bundle, Rootfs: d.Rootfs,
		Created: d.Created, Annotations: s.Annotations, Owner: "#" + strconv.Itoa(d.Owner),
	}
	if u, err := user.LookupId(strconv.Itoa(d.Owner)); err == nil && u.Username != "" {
		v.Owner = u.Username
	}
	return v, nil
}

func state(_ context.Context, g *global, args []string) (int, error) {
	fs := g.options("state", "ID")
	if err := parse(fs, args, 1, 1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	v, err := viewOf(c)
	if err != nil {
		return 0, err
	}
	v.Owner = ""
	return 0, printJSON(g.out, v)
}

func list(_ context.Context, g *global, args []string) (int, error) {
	fs := g.options("list", "")
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	quiet := fs.Bool("quiet", false, "only ids")
	fs.BoolVar(quiet, "q", false, "short for --quiet")
	if err := parse(fs, args, 0, 0); err != nil {
		return 0, err
	}
	ids, err := lifecycle.List(g.root)
	if err != nil {
		return 0, err
	}
	views := []*stateView{}
	for _, id := range ids {
		v, err := g.view(id)
		if err != nil {
			g.log.Warn("container is left out of the list: " + err.Error())
			continue
		}
		views = append(views, v)
	}
	switch {
	case *quiet:
		for _, v := range views {
			fmt.Fprintln(g.out, v.ID)
		}
		return 0, nil
	case *format == "json":
		return 0, json.NewEncoder(g.out).Encode(views)
	case *format != "table":
		return 0, errors.New("invalid format option")
	}
	w := tabwriter.NewWriter(g.out, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, v := range views {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", v.ID, v.Pid, v.Status, v.Bundle, v.Created.Format(time.RFC3339Nano), v.Owner)
	}
	return 0, w.Flush()
}

func (g *global) view(id string) (*stateView, error) {
	c, err := g.open(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return viewOf(c)
}

func ps(ctx context.Context, g *global, args []string) (int, error) {
	fs := g.options("ps", "ID [PS OPTION...]")
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	if err := parse(fs, args, 1, -1); err != nil {
		return 0, err
	}
	c, err := g.open(fs.Arg(0))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	pids, err := c.Pids()
	if err != nil {
		return 0, err
	}
	switch *format {
	case "json":
		return 0, json.NewEncoder(g.out).Encode(pids)
	case "table":
	default:
		return 0, errors.New("invalid format option")
	}
	opts := fs.Args()[1:]
	if len(opts) > 0 && opts[0] == "--" {
		opts = opts[1:]
	}
	if len(opts) == 0 {
		opts = []string{"-ef"}
	}
	cmd := exec.CommandContext(ctx, "ps", opts...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("run ps: %w", err)
	}
	return 0, filterPS(g, string(out), pids)
}

// filterPS prints the heading and the lines whose PID column is one of pids.
func filterPS(g *global, out string, pids []int) error {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	column := -1
	for i, name := range strings.Fields(lines[0]) {
		if name == "PID" {
			column = i
		}
	}
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	want := map[string]bool{}
	for _, pid := range pids {
		want[strconv.Itoa(pid)] = true
	}
	fmt.Fprintln(g.out, lines[0])
	for _, line := range lines[1:] {
		if f := strings.Fields(line); len(f) > column && want[f[column]] {
			fmt.Fprintln(g.out, line)
		}
	}
	return nil
}
