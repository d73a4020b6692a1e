package cli

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) portCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short:                 "List port mappings or a specific mapping for the container",
		Args:                  rangeArgs(1, 2),
		Annotations:           map[string]string{annAliases: "container port, port"},
		ValidArgsFunction:     a.completeContainers(running),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.api()
			if err != nil {
				return err
			}
			c, err := api.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			var published network.PortMap
			if c.Container.NetworkSettings != nil {
				published = c.Container.NetworkSettings.Ports
			}
			lines, err := portLines(published, args)
			if err != nil {
				return err
			}
			for _, line := range lines {
				fmt.Fprintln(a.stdout, line)
			}
			return nil
		},
	}
}

// portLines lists where ports are published: of the one that args ask for the addresses, else all with their port.
func portLines(published network.PortMap, args []string) ([]string, error) {
	var lines []string
	if len(args) > 1 && args[1] != "" {
		port, err := network.ParsePort(args[1])
		if err != nil {
			return nil, fmt.Errorf("Error: %w", err)
		}
		if len(published[port]) == 0 {
			return nil, fmt.Errorf("Error: No public port '%s' published for %s", args[1], args[0])
		}
		for _, b := range published[port] {
			lines = append(lines, net.JoinHostPort(b.HostIP.String(), b.HostPort))
		}
	} else {
		for port, bindings := range published {
			for _, b := range bindings {
				lines = append(lines, port.String()+" -> "+net.JoinHostPort(b.HostIP.String(), b.HostPort))
			}
		}
	}
	slices.SortFunc(lines, naturally)
	return lines, nil
}

// naturally compares as people count: digits by their value, everything else by its bytes.
func naturally(x, y string) int {
	for x != "" && y != "" {
		if isDigit(x[0]) && isDigit(y[0]) {
			nx, restX := leadingNumber(x)
			ny, restY := leadingNumber(y)
			sx, sy := strings.TrimLeft(nx, "0"), strings.TrimLeft(ny, "0")
			switch {
			case len(sx) != len(sy):
				return len(sx) - len(sy)
			case sx != sy:
				return strings.Compare(sx, sy)
			case len(nx) != len(ny):
				return len(nx) - len(ny)
			}
			x, y = restX, restY
			continue
		}
		if x[0] != y[0] {
			return int(x[0]) - int(y[0])
		}
		x, y = x[1:], y[1:]
	}
	return len(x) - len(y)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func leadingNumber(s string) (number, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return s[:n], s[n:]
}
