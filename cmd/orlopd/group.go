package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// getentTimeout bounds the question to name services (LDAP and the like).
const getentTimeout = 2 * time.Second

// lookupGroup finds a group's id by name or number: in /etc/group, then with
// getent, because this program is static and does not load name services.
func lookupGroup(name string) (int, error) {
	if raw, err := os.ReadFile("/etc/group"); err == nil {
		if gid, ok := groupIn(string(raw), name); ok {
			return gid, nil
		}
	}
	if gid, err := strconv.Atoi(name); err == nil {
		return gid, nil
	}
	if name != "" {
		ctx, cancel := context.WithTimeout(context.Background(), getentTimeout)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "getent", "group", "--", name).Output(); err == nil {
			if gid, ok := groupIn(string(out), name); ok {
				return gid, nil
			}
		}
	}
	return -1, fmt.Errorf("group %s not found", name)
}

func groupIn(file, name string) (int, bool) {
	for line := range strings.Lines(file) {
		field := strings.Split(strings.TrimSpace(line), ":")
		if len(field) < 3 || field[0] != name || name == "" {
			continue
		}
		if gid, err := strconv.Atoi(field[2]); err == nil {
			return gid, true
		}
	}
	return 0, false
}
