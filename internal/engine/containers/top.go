package containers

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/orlop/orlop/internal/domain/container"
)

// renamedPID finds ps formats that give the PID column to something else.
var renamedPID = regexp.MustCompile(`\s+([^\s]*)=\s*(PID[^\s]*)`)

// Top runs ps on the host and shows the lines of a container's processes.
func (s *Service) Top(ctx context.Context, ref, psArgs string) (containertypes.TopResponse, error) {
	if psArgs == "" {
		psArgs = "-ef"
	}
	for _, group := range renamedPID.FindAllStringSubmatch(psArgs, -1) {
		if group[1] != "pid" {
			return containertypes.TopResponse{}, fmt.Errorf("specifying \"%s=%s\" is not allowed", group[1], group[2])
		}
	}
	o, err := s.find(ref)
	if err != nil {
		return containertypes.TopResponse{}, err
	}
	snap := o.snapshot()
	switch {
	case snap.state == container.StateRestarting || snap.state == container.StateRelaunching:
		return containertypes.TopResponse{}, conflict("Container %s is restarting, wait until the container is running", o.id)
	case !snap.state.Alive() || snap.pid == 0:
		return containertypes.TopResponse{}, conflict("container %s is not running", o.id)
	}
	pids, err := s.cfg.Host.Processes(snap.pid)
	if err != nil {
		return containertypes.TopResponse{}, fmt.Errorf("list processes of container %s: %w", snap.name, err)
	}
	args := strings.Split(psArgs, " ")
	// Asking for the pids is faster, but not every option goes with it.
	list := make([]string, len(pids))
	for i, p := range pids {
		list[i] = strconv.Itoa(p)
	}
	out, err := s.cfg.Host.PS(ctx, append(slices.Clone(args), "-q"+strings.Join(list, ",")))
	if err != nil {
		if out, err = s.cfg.Host.PS(ctx, args); err != nil {
			return containertypes.TopResponse{}, fmt.Errorf("ps: %w", err)
		}
	}
	resp, err := parsePS(string(out), pids)
	if err != nil {
		return containertypes.TopResponse{}, err
	}
	s.tell(snap, events.ActionTop, nil)
	return resp, nil
}

// parsePS picks the lines of pids out of what ps printed; lines of threads
// ("-" for a pid) belong to the line before them.
func parsePS(out string, pids []int) (containertypes.TopResponse, error) {
	lines := strings.Split(out, "\n")
	resp := containertypes.TopResponse{Titles: fields(lines[0])}
	column := slices.Index(resp.Titles, "PID")
	if column < 0 {
		return resp, fmt.Errorf("Couldn't find PID field in ps output")
	}
	last := len(resp.Titles) - 1
	ours := false
	for _, line := range lines[1:] {
		if line == "" {
			continue
		}
		f := fields(line)
		if len(f) <= max(column, last) {
			continue
		}
		if f[column] != "-" {
			pid, err := strconv.Atoi(f[column])
			if err != nil {
				return resp, fmt.Errorf("Unexpected pid '%s': %w", f[column], err)
			}
			ours = slices.Contains(pids, pid)
		}
		if ours {
			resp.Processes = append(resp.Processes, append(slices.Clone(f[:last]), strings.Join(f[last:], " ")))
		}
	}
	return resp, nil
}

// fields splits at ASCII spaces only: a command line may hold others.
func fields(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("\t\n\f\r ", r) })
}
