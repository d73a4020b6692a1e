// Command runtimes times orlop-runtime beside Debian's crun and runc in one run
// and in turns, with the bundle that Docker makes for a default container: six
// namespaces, its mounts, masks, devices, capabilities and seccomp profile,
// limits and a user of its own. It prints wall and CPU time (user and system,
// of the runtime, its children and the container's process) and asserts
// nothing.
//
//	runtimes -bin bin -cache ~/.cache/orlop [-n 50] [-names orlop,crun,runc]
//	runtimes -cache ~/.cache/orlop -bundle DIR   only writes the bundle, for a profiler
//
// It runs inside test/sandbox, whose cgroup folders it uses (-cgroup).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/v2/daemon/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/seccomp"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "runtimes:", err)
		os.Exit(1)
	}
}

type config struct {
	bin, cache, cgroup, names string
	n                         int
}

// runtime is one that is measured.
type runtime struct {
	name string
	path string
	env  []string
	root string
	took map[string][]cost
}

// cost is what one act took.
type cost struct{ wall, cpu time.Duration }

func run() error {
	var c config
	flag.StringVar(&c.bin, "bin", "bin", "folder of our programs")
	flag.StringVar(&c.cache, "cache", "", "cache folder with the peers")
	flag.StringVar(&c.cgroup, "cgroup", "orlop-bench-runtimes", "parent of the containers' control groups")
	flag.StringVar(&c.names, "names", "orlop,crun,runc", "which runtimes")
	flag.IntVar(&c.n, "n", 50, "measured rounds")
	only := flag.String("bundle", "", "write the bundle to this folder and end")
	flag.Parse()
	box := filepath.Join(c.cache, "deb/busybox-static/bin/busybox")
	if *only != "" {
		return makeBundle(*only, box, c.cgroup+"/run", "true")
	}
	// Debian's crun refuses a hybrid host; without the empty v2 side it is a v1 one.
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	// Containers made by `create` become our children, so that their time is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/run", "runtimes")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bundle, idle := filepath.Join(dir, "bundle"), filepath.Join(dir, "idle")
	if err := makeBundle(bundle, box, c.cgroup+"/run", "true"); err != nil {
		return err
	}
	list, err := runtimes(c, dir)
	if err != nil {
		return err
	}
	for _, r := range list {
		b := idle + r.name
		if err := makeBundle(b, box, c.cgroup+"/"+r.name, "sleep", "100000"); err != nil {
			return err
		}
		if _, err := r.call("run", "-d", "-b", b, "idle"); err != nil {
			return err
		}
	}
	for _, r := range list {
		defer func() { _, _ = r.call("delete", "-f", "idle") }()
	}
	if err := measure(c, list, bundle); err != nil {
		return err
	}
	report(c, list)
	return nil
}

func runtimes(c config, dir string) ([]*runtime, error) {
	var list []*runtime
	peers := filepath.Join(c.cache, "peers/runtimes")
	for _, name := range strings.Split(c.names, ",") {
		r := &runtime{name: name, root: filepath.Join(dir, "state-"+name), took: map[string][]cost{}}
		switch name {
		case "orlop":
			r.path = filepath.Join(c.bin, "orlop-runtime")
		case "crun":
			r.path = filepath.Join(peers, "usr/bin/crun")
		case "runc":
			r.path = filepath.Join(peers, "usr/sbin/runc")
		default: // a path, for two builds beside each other
			r.path, r.name, r.root = name, filepath.Base(filepath.Dir(name)), filepath.Join(dir, "state-"+strconv.Itoa(len(list)))
		}
		path, err := filepath.Abs(r.path)
		if err != nil {
			return nil, err
		}
		r.path = path
		r.env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(peers, "usr/lib/x86_64-linux-gnu")+":"+filepath.Join(peers, "lib/x86_64-linux-gnu"))
		list = append(list, r)
	}
	return list, nil
}

// makeBundle writes a folder with the configuration Docker makes.
func makeBundle(dir, busybox, cgroup string, args ...string) error {
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	body, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), body, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"true", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	etc := filepath.Join(dir, "rootfs", "etc")
	for _, d := range []string{"proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			return err
		}
	}
	s := oci.DefaultLinuxSpec()
	s.Version = "1.0.2" // crun 1.8 reads no newer one
	s.Root = &specs.Root{Path: "rootfs"}
	s.Hostname = "bench"
	s.Linux.CgroupsPath = "/" + cgroup
	s.Process.Args, s.Process.Cwd = args, "/"
	s.Process.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=bench"}
	s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000}}
	s.Process.NoNewPrivileges = true
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 4096, Soft: 1024}}
	caps := s.Process.Capabilities
	// As Docker gives them to a user that is not root: none in force.
	caps.Effective, caps.Permitted = nil, nil
	if s.Linux.Seccomp, err = seccomp.DefaultProfile(caps.Bounding); err != nil {
		return err
	}
	s.Linux.Namespaces = nil
	for _, t := range []specs.LinuxNamespaceType{
		specs.MountNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.CgroupNamespace,
	} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	memory, pids, quota, period := int64(256<<20), int64(100), int64(100000), uint64(100000)
	shares := uint64(512)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		src := filepath.Join(dir, name)
		if err := os.WriteFile(src, []byte("bench\n"), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(etc, name), nil, 0o644); err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: src, Options: []string{"rbind", "rprivate"}})
	}
	body, err = json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), body, 0o644)
}

// call runs the runtime once; output only counts when it fails.
func (r *runtime) call(args ...string) (*exec.Cmd, error) {
	log, err := os.CreateTemp("/run", "log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(log.Name()) }()
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), r.path, append([]string{"--root", r.root}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = r.env, log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return cmd, fmt.Errorf("%s %s: %w: %s", r.name, strings.Join(args, " "), err, text)
	}
	return cmd, nil
}

// act times what happens until every process made by it has been reaped.
func act(f func() error) (cost, error) {
	before, start := children(), time.Now()
	err := f()
	return cost{wall: time.Since(start), cpu: children() - before}, err
}

func children() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The acts, in the order of the report.
var acts = []string{"start of the program", "run", "create + start + exit", "exec"}

func (r *runtime) acts(bundle string, round int) []func() error {
	id := "c" + strconv.Itoa(round)
	return []func() error{
		func() error { _, err := r.call("--version"); return err },
		func() error { _, err := r.call("run", "-b", bundle, id); return err },
		func() error { return r.apart(bundle, id) },
		func() error { _, err := r.call("exec", "idle", "true"); return err },
	}
}

// apart is create, start, the end of the process, in three steps as an engine
// does it. The time of delete belongs to nobody who waits.
func (r *runtime) apart(bundle, id string) error {
	pidFile := filepath.Join(bundle, "pid")
	if _, err := r.call("create", "--pid-file", pidFile, "-b", bundle, id); err != nil {
		return err
	}
	if _, err := r.call("start", id); err != nil {
		return err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil && ws.ExitStatus() != 0 {
		err = fmt.Errorf("%s: the container ended with %d", r.name, ws.ExitStatus())
	}
	return err
}

func measure(c config, list []*runtime, bundle string) error {
	const warm = 3
	for round := range c.n + warm {
		for i := range list {
			r := list[(i+round)%len(list)] // nobody is always first
			for i, f := range r.acts(bundle, round) {
				took, err := act(f)
				if err != nil {
					return err
				}
				if acts[i] == "create + start + exit" {
					if _, err := r.call("delete", "-f", "c"+strconv.Itoa(round)); err != nil {
						return err
					}
				}
				if round >= warm {
					r.took[acts[i]] = append(r.took[acts[i]], took)
				}
			}
		}
	}
	return nil
}

func report(c config, list []*runtime) {
	fmt.Printf("%d rounds, in turns, %d cores, Docker's default bundle, times in ms\n\n", c.n, goruntime.NumCPU())
	fmt.Printf("%-24s %-8s %8s %8s %8s %10s %8s %10s %8s\n", "what", "runtime", "wall min", "p50", "p99", "p50 × ours", "CPU min", "p50", "p50 × ours")
	for _, what := range acts {
		ours := list[0].took[what]
		for _, r := range list {
			wall, cpu := split(r.took[what])
			ourWall, ourCPU := split(ours)
			fmt.Printf("%-24s %-8s %8s %8s %8s %10.2f %8s %10s %8.2f\n", what, r.name,
				ms(at(wall, 0)), ms(at(wall, 0.5)), ms(at(wall, 0.99)), ratio(at(wall, 0.5), at(ourWall, 0.5)),
				ms(at(cpu, 0)), ms(at(cpu, 0.5)), ratio(at(cpu, 0.5), at(ourCPU, 0.5)))
		}
	}
}

func split(list []cost) (wall, cpu []time.Duration) {
	for _, c := range list {
		wall, cpu = append(wall, c.wall), append(cpu, c.cpu)
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	return wall, cpu
}

func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/1e6) }
