package conform

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// veth makes a pair of devices in our network namespace, the first with an
// address, and returns its name.
func veth() (string, error) {
	name := fmt.Sprintf("cf%d", serial.Add(1))
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}); err != nil {
		return "", err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return "", err
	}
	addr, err := netlink.ParseAddr("10.99.7.6/24")
	if err != nil {
		return "", err
	}
	return name, netlink.AddrAdd(l, addr)
}

// networkCases are "Network Devices" of config-linux.md.
func networkCases() []Case {
	const section = "config-linux.md#network-devices"
	const alone = "netDevices is new in 1.3 of the specification"
	var cases []Case
	// A runtime that leaves the devices alone gives them back too.
	reasons := map[string]string{"a failed creation gives the device back": ""}
	with := func(name string, edit func(s *specs.Spec, dev string), do func(e *Env, dev string) error) {
		reason, same := reasons[name]
		if !same {
			reason = alone
		}
		cases = append(cases, Case{Section: section, Name: name, Alone: reason, Do: func(e *Env) error {
			dev, err := veth()
			if err != nil {
				return err
			}
			defer func() {
				if l, err := netlink.LinkByName(dev + "p"); err == nil {
					_ = netlink.LinkDel(l)
				}
			}()
			edit(e.spec, dev)
			if err := e.Write(); err != nil {
				return err
			}
			return do(e, dev)
		}})
	}
	move := func(name string) func(s *specs.Spec, dev string) {
		return func(s *specs.Spec, dev string) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{dev: {Name: name}}
			s.Process.Args = []string{"sh", "-c", "ls /sys/class/net; ip addr"}
		}
	}
	with("a device is moved under its own name", move(""), func(e *Env, dev string) error {
		if err := e.Says([]string{dev + "\n", "10.99.7.6/24"}, "run", e.ID); err != nil {
			return err
		}
		if _, err := os.Stat("/sys/class/net/" + dev); err == nil {
			return fmt.Errorf("the host still has %s", dev)
		}
		return nil
	})
	with("a device is moved under another name", move("inside0"), func(e *Env, _ string) error { return e.Says([]string{"inside0\n", "10.99.7.6/24"}, "run", e.ID) })
	with("a name is a pattern", move("eth%d"), func(e *Env, _ string) error { return e.Says([]string{"eth0\n"}, "run", e.ID) })
	with("the device is up", move("inside0"), func(e *Env, _ string) error {
		out, err := e.Must("run", e.ID)
		if err != nil {
			return err
		}
		_, line, _ := strings.Cut(out, ": inside0")
		line, _, _ = strings.Cut(line, "\n")
		if !strings.Contains(line, "UP") {
			return fmt.Errorf("it is not up: %s", out)
		}
		return nil
	})
	with("a name that is taken fails and leaves the device", move("lo"), func(e *Env, dev string) error {
		if err := e.MustFail("create", e.ID); err != nil {
			return err
		}
		_, err := netlink.LinkByName(dev)
		return err
	})
	with("a failed creation gives the device back", move("inside0"), func(e *Env, dev string) error {
		e.spec.Process.Args = []string{"nowhere"}
		if err := first(e.Write, func() error { return e.MustFail("create", e.ID) }); err != nil {
			return err
		}
		_, err := netlink.LinkByName(dev)
		return err
	})
	with("a device that is not there fails", func(s *specs.Spec, _ string) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"nowhere0": {}}
		s.Process.Args = []string{"true"}
	}, func(e *Env, _ string) error {
		return first(func() error { return e.MustFail("create", e.ID) }, func() error { return nothingLeft(e) })
	})
	with("in the host's network namespace they fail", func(s *specs.Spec, dev string) {
		move("")(s, dev)
		without(s, specs.NetworkNamespace)
		s.Mounts[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
	}, func(e *Env, _ string) error { return e.MustFail("create", e.ID) })
	with("a namespace joined by path gets them", move("inside0"), func(e *Env, _ string) error {
		ns, err := otherNetwork()
		if err != nil {
			return err
		}
		defer func() {
			_ = ns.Process.Kill()
			_ = ns.Wait()
		}()
		namespace(e.spec, specs.NetworkNamespace, fmt.Sprintf("/proc/%d/ns/net", ns.Process.Pid))
		return first(e.Write, func() error { return e.Says([]string{"inside0\n"}, "run", e.ID) })
	})
	return cases
}

// otherNetwork is a process in a new network namespace.
func otherNetwork() (*exec.Cmd, error) {
	cmd := exec.CommandContext(context.Background(), "sleep", "100")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return cmd, cmd.Start()
}
