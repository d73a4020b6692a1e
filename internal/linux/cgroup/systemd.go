package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orlop/orlop/internal/linux/cgroup/dbus"
)

// scope is a transient unit of systemd that is a container's group.
//
// systemd makes the directory (all of them on v2, its own hierarchy and those
// it accounts in on v1) and is told the limits that it has properties for:
// it writes its own idea of them again when it reloads. What it has no
// property for is written to the files, as without systemd.
type scope struct {
	slice, unit string
	// bus is the socket of the system bus.
	bus string

	mu sync.Mutex
	// placeholder is the process that keeps a new scope alive, 0 for none.
	placeholder int
}

// parseScope reads "slice:prefix:name".
func parseScope(s string) (*scope, error) {
	f := strings.Split(s, ":")
	if len(f) != 3 || f[2] == "" {
		return nil, invalid("cgroup path %q is not of the form slice:prefix:name", s)
	}
	c := &scope{slice: f[0], unit: f[2] + ".scope", bus: dbus.SystemBus}
	if c.slice == "" {
		c.slice = "system.slice"
	}
	if f[1] != "" {
		c.unit = f[1] + "-" + c.unit
	}
	if strings.HasSuffix(f[2], ".slice") || strings.Contains(c.unit, "/") {
		return nil, invalid("cgroup path %q does not name a scope", s)
	}
	if _, err := slicePath(c.slice); err != nil {
		return nil, err
	}
	return c, nil
}

// slicePath is the directory of a slice: "a-b.slice" is in "a.slice"
// (systemd.slice(5)).
func slicePath(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", invalid("%q is not a slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", invalid("%q is not a slice", slice)
		}
		dir = path.Join(dir, prefix+part+".slice")
		prefix += part + "-"
	}
	return dir, nil
}

// group is the scope's path below the hierarchies' roots.
func (s *scope) group() string {
	dir, err := slicePath(s.slice)
	if err != nil {
		dir = "/" // parseScope has checked it
	}
	return path.Join(dir, s.unit)
}

const (
	systemdName  = "org.freedesktop.systemd1"
	systemdPath  = "/org/freedesktop/systemd1"
	systemdIface = "org.freedesktop.systemd1.Manager"
)

// systemdPatience bounds a job when the caller's context has no end.
const systemdPatience = 30 * time.Second

// dial connects and subscribes to the ends of jobs.
func (s *scope) dial(ctx context.Context) (*dbus.Conn, error) {
	c, err := dbus.Dial(ctx, s.bus)
	if err != nil {
		return nil, err
	}
	rule := new(dbus.Args).Text("type='signal',sender='" + systemdName + "',interface='" + systemdIface + "',member='JobRemoved'")
	if _, err = c.Call(ctx, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", rule); err == nil {
		_, err = c.Call(ctx, systemdName, systemdPath, systemdIface, "Subscribe", nil)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// job runs a call that answers with a job, and waits for its end.
func job(ctx context.Context, c *dbus.Conn, member string, args *dbus.Args) error {
	reply, err := c.Call(ctx, systemdName, systemdPath, systemdIface, member, args)
	if err != nil {
		return err
	}
	want := reply.Body().Text()
	var result string
	err = c.Signal(ctx, func(m *dbus.Message) bool {
		if m.Interface != systemdIface || m.Member != "JobRemoved" {
			return false
		}
		b := m.Body() // id, job, unit, result
		b.Uint32()
		if b.Text() != want {
			return false
		}
		b.Text()
		result = b.Text()
		return true
	})
	if err != nil {
		return err
	}
	if result != "done" {
		return fmt.Errorf("%s: systemd says %q", member, result)
	}
	return nil
}

func (s *scope) start(ctx context.Context, g *group, r *specs.LinuxResources) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	fail := func(err error) error { return fmt.Errorf("start unit %s: %w", s.unit, err) }
	p, err := g.plan(r, false)
	if err != nil {
		return fail(err)
	}
	c, err := s.dial(ctx)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	pid, err := startPlaceholder()
	if err != nil {
		return fail(err)
	}
	s.mu.Lock()
	s.placeholder = pid
	s.mu.Unlock()
	props := append([]dbus.Property{
		{Name: "Description", Value: "orlop container " + strings.TrimSuffix(s.unit, ".scope")},
		{Name: "Slice", Value: s.slice},
		{Name: "Delegate", Value: true},
		{Name: "PIDs", Value: []uint32{uint32(pid)}},
		{Name: "DefaultDependencies", Value: false},
		{Name: "MemoryAccounting", Value: true},
		{Name: "CPUAccounting", Value: true},
		{Name: "TasksAccounting", Value: true},
	}, properties(p)...)
	if g.pure {
		props = append(props, dbus.Property{Name: "IOAccounting", Value: true})
	} else {
		props = append(props, dbus.Property{Name: "BlockIOAccounting", Value: true})
	}
	transient := func() error {
		return job(ctx, c, "StartTransientUnit", new(dbus.Args).Text(s.unit).Text("replace").Properties(props).NoUnits())
	}
	err = transient()
	var answer *dbus.Error
	if errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.UnitExists" {
		// A failed scope of an earlier container of this name.
		if _, e := c.Call(ctx, systemdName, systemdPath, systemdIface, "ResetFailedUnit", new(dbus.Args).Text(s.unit)); e == nil {
			err = transient()
		}
	}
	if err != nil {
		s.joined()
		return fail(err)
	}
	return nil
}

// set tells systemd new limits.
func (s *scope) set(ctx context.Context, g *group, r *specs.LinuxResources) error {
	p, err := g.plan(r, true)
	if err != nil {
		return err
	}
	props := properties(p)
	if len(props) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	c, err := dbus.Dial(ctx, s.bus)
	if err == nil {
		defer c.Close()
		_, err = c.Call(ctx, systemdName, systemdPath, systemdIface, "SetUnitProperties", new(dbus.Args).Text(s.unit).Bool(true).Properties(props))
	}
	if err != nil {
		return fmt.Errorf("limit unit %s: %w", s.unit, err)
	}
	return nil
}

// stop ends the unit; one that is gone is no error.
func (s *scope) stop(ctx context.Context) error {
	s.joined()
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	c, err := s.dial(ctx)
	if err == nil {
		defer c.Close()
		err = job(ctx, c, "StopUnit", new(dbus.Args).Text(s.unit).Text("replace"))
		if noSuchUnit(err) {
			err = nil
		}
		// A scope whose processes were killed by the OOM killer stays as failed.
		if _, e := c.Call(ctx, systemdName, systemdPath, systemdIface, "ResetFailedUnit", new(dbus.Args).Text(s.unit)); err == nil && e != nil && !noSuchUnit(e) {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", s.unit, err)
	}
	return nil
}

func noSuchUnit(err error) bool {
	var e *dbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.NoSuchUnit"
}

// properties turns the writes that systemd has a property for into those
// (systemd.resource-control(5), and its D-Bus API's units).
func properties(p plan) []dbus.Property {
	var out []dbus.Property
	add := func(name string, v any) { out = append(out, dbus.Property{Name: name, Value: v}) }
	number := func(name, s string) {
		if s == "max" || strings.HasPrefix(s, "-") {
			add(name, uint64(math.MaxUint64))
		} else if v, err := strconv.ParseUint(s, 10, 64); err == nil {
			add(name, v)
		}
	}
	var quota, period string
	for _, w := range p.writes {
		switch w.file {
		case "memory.max":
			number("MemoryMax", w.value)
		case "memory.high":
			number("MemoryHigh", w.value)
		case "memory.low":
			number("MemoryLow", w.value)
		case "memory.min":
			number("MemoryMin", w.value)
		case "memory.swap.max":
			number("MemorySwapMax", w.value)
		case "memory.limit_in_bytes":
			number("MemoryLimit", w.value)
		case "cpu.weight":
			number("CPUWeight", w.value)
		case "cpu.shares":
			number("CPUShares", w.value)
		case "blkio.weight":
			number("BlockIOWeight", w.value)
		case "pids.max":
			number("TasksMax", w.value)
		case "cpu.max":
			quota, period, _ = strings.Cut(w.value, " ")
		case "cpu.cfs_quota_us":
			quota = w.value
		case "cpu.cfs_period_us":
			period = w.value
		case "cpuset.cpus":
			if b, ok := bitmap(w.value); ok {
				add("AllowedCPUs", b)
			}
		case "cpuset.mems":
			if b, ok := bitmap(w.value); ok {
				add("AllowedMemoryNodes", b)
			}
		}
	}
	if quota == "" && period == "" {
		return out
	}
	us := uint64(100000)
	if v, err := strconv.ParseUint(period, 10, 64); err == nil && v > 0 {
		us = v
		add("CPUQuotaPeriodUSec", v)
	}
	perSecond := uint64(math.MaxUint64)
	if q, err := strconv.ParseUint(quota, 10, 64); err == nil && q > 0 {
		// systemd rounds a percentage: keep to a multiple of 1 % upwards, as
		// it would refuse 0.
		perSecond = q * 1000000 / us
		if perSecond%10000 != 0 {
			perSecond = (perSecond/10000 + 1) * 10000
		}
	}
	add("CPUQuotaPerSecUSec", perSecond)
	return out
}

// bitmap turns "0-2,5" into bytes, bit n of the whole for number n.
func bitmap(list string) ([]byte, bool) {
	var out []byte
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ranged := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(lo, 10, 14)
		if err != nil {
			return nil, false
		}
		b := a
		if ranged {
			if b, err = strconv.ParseUint(hi, 10, 14); err != nil || b < a {
				return nil, false
			}
		}
		for ; a <= b; a++ {
			for uint64(len(out)) <= a/8 {
				out = append(out, 0)
			}
			out[a/8] |= 1 << (a % 8)
		}
	}
	return out, true
}

// joined ends the placeholder.
func (s *scope) joined() {
	s.mu.Lock()
	pid := s.placeholder
	s.placeholder = 0
	s.mu.Unlock()
	if pid == 0 {
		return
	}
	_ = unix.Kill(pid, unix.SIGKILL) // one that is gone is as good
	for {
		// ECHILD: someone of this process reaps every child; that is as good.
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

func (g *group) Joined() error {
	if g.scope != nil {
		g.scope.joined()
	}
	return nil
}
