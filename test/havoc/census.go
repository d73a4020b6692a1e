// Package havoc kills things and counts what is left: the daemon during every
// kind of work, monitors, netd, and a thousand containers one after the other.
//
// Entry point: Take, which counts what an engine holds of the kernel.
package havoc

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/orlop/orlop/internal/testkit"
)

// A Census counts what an engine holds. Keys are names for people.
type Census map[string]int

// Take counts mounts, namespaces, control groups, links, elements of rules,
// files, processes, and descriptors and threads of the daemon and of netd.
func Take(e *testkit.Engine) (Census, error) {
	c := Census{}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", e.Pid))
	if err != nil {
		return nil, err
	}
	c["mounts"] = strings.Count(string(mounts), "\n")
	if err := processes(e, c); err != nil {
		return nil, err
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + e.Cgroup)
	if err != nil {
		return nil, err
	}
	for _, g := range append(groups, "/sys/fs/cgroup/"+e.Cgroup) {
		n, err := count(g, func(d fs.DirEntry) bool { return d.IsDir() })
		if err != nil {
			return nil, err
		}
		c["control groups"] += n
	}
	files, err := count(e.Dir, func(d fs.DirEntry) bool { return true })
	if err != nil {
		return nil, err
	}
	c["files"] = files
	out, err := e.Command(context.Background(), "ip", "-o", "link").Output()
	if err != nil {
		return nil, fmt.Errorf("ip link: %w", err)
	}
	c["links"] = strings.Count(string(out), "\n")
	out, err = e.Command(context.Background(), "nft", "-j", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	var rules any
	if err := json.Unmarshal(out, &rules); err != nil {
		return nil, err
	}
	c["rules and elements"] = leaves(rules)
	return c, nil
}

// leaves counts the values of a JSON tree; handles and counters are values too,
// but their number does not change when nothing is added.
func leaves(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			n += leaves(x)
		}
	case []any:
		for _, x := range v {
			n += leaves(x)
		}
	default:
		n = 1
	}
	return n
}

func count(root string, want func(fs.DirEntry) bool) (int, error) {
	n := 0
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && want(d) {
			n++
		}
		return err
	})
	return n, err
}

// processes counts those of the sandbox, their namespaces, and what the daemon
// and netd hold.
func processes(e *testkit.Engine, c Census) error {
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", e.Pid))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	spaces := map[string]bool{}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		if link, err := os.Readlink(dir + "/ns/pid"); err != nil || link != home {
			continue
		}
		c["processes"]++
		for _, ns := range []string{"mnt", "net", "ipc", "uts", "pid_for_children"} {
			if link, err := os.Readlink(dir + "/ns/" + ns); err == nil {
				spaces[link] = true
			}
		}
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue
		}
		name := strings.TrimSpace(string(comm))
		if name != "orlopd" && name != "orlop-netd" {
			continue
		}
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		c[name+" descriptors"] += len(fds)
		for _, fd := range fds {
			if link, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(link, "net:") {
				c["held network namespaces"]++
			}
		}
	}
	c["namespaces"] = len(spaces)
	return nil
}

// Goroutines asks the daemon, started with --debug, how many it has.
func Goroutines(e *testkit.Engine) (int, error) {
	resp, err := e.Get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var n int
	if _, err := fmt.Fscanf(resp.Body, "goroutine profile: total %d\n", &n); err != nil {
		return 0, fmt.Errorf("goroutine profile: %w", err)
	}
	return n, nil
}

// Grown tells what a later census has more than slack above an earlier one;
// "" when nothing.
func (c Census) Grown(later Census, slack int) string {
	var all []string
	for key, n := range later {
		if n > c[key]+slack {
			all = append(all, fmt.Sprintf("%s: %d, then %d", key, c[key], n))
		}
	}
	sort.Strings(all)
	return strings.Join(all, "; ")
}

// look reports whether a command inside succeeded.
func look(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[len(cmd.Args)-1:], " "), err, out)
	}
	return nil
}
