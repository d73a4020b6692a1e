package system_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/system"
)

type containers struct{}

func (containers) Counts() (all, running, paused, stopped int) { return 6, 3, 1, 2 }
func (containers) Sizes(context.Context) ([]containertypes.Summary, error) {
	return []containertypes.Summary{{ID: "a", State: "running", SizeRw: 10}, {ID: "b", State: "exited", SizeRw: 5}}, nil
}

type images struct{ err error }

func (i images) Count(context.Context) (int, error) { return 4, i.err }
func (i images) Usage(context.Context) ([]imagetypes.Summary, int64, error) {
	return []imagetypes.Summary{{ID: "used", Containers: 1, Size: 100}, {ID: "free", Size: 70, SharedSize: 20}}, 150, i.err
}

func newService(t *testing.T, change func(*system.Config)) *system.Service {
	t.Helper()
	cfg := system.Config{
		ID: "engine", DataRoot: "/data", Driver: "overlay2", Containers: containers{}, Images: images{},
		Machine:  system.Machine{Kernel: "6.1", Facts: container.HostFacts{CgroupVersion: 1, MemoryLimit: true, Seccomp: true}},
		Build:    system.Build{Product: "Orlop", Version: "1.2.3"},
		Hostname: func() string { return "machine" }, OpenFiles: func() int { return 9 }, Listeners: func() int { return 2 },
		Login:  func(context.Context, registry.AuthConfig) (string, error) { return "token", nil },
		MinAPI: "1.24", MaxAPI: "1.56", Now: func() time.Time { return time.Unix(0, 0).UTC() },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := system.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInfoTellsWhatTheKernelLacks(t *testing.T) {
	s := newService(t, nil)
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Containers != 6 || info.ContainersRunning != 3 || info.ContainersPaused != 1 || info.ContainersStopped != 2 || info.Images != 4 {
		t.Errorf("counts %+v", info)
	}
	if info.CgroupVersion != "1" || info.CgroupDriver != "cgroupfs" || info.NEventsListener != 2 || info.NFd != 9 {
		t.Errorf("cgroup %s %s, %d listeners, %d files", info.CgroupVersion, info.CgroupDriver, info.NEventsListener, info.NFd)
	}
	if slices.Contains(info.Warnings, "WARNING: No memory limit support") || !slices.Contains(info.Warnings, "WARNING: No swap limit support") {
		t.Errorf("warnings %q", info.Warnings)
	}
	if !slices.Equal(info.SecurityOptions, []string{"name=seccomp,profile=builtin"}) {
		t.Errorf("security options %q", info.SecurityOptions)
	}
}

func TestInfoTellsThatContainersAreNotConfined(t *testing.T) {
	for _, c := range []struct {
		missing, option string
		warned          bool
	}{
		{"", "name=apparmor,profile=default", false},
		{"apparmor_parser is not installed", "name=apparmor,profile=unconfined", true},
	} {
		s := newService(t, func(cfg *system.Config) {
			cfg.Machine.Facts.AppArmor, cfg.Machine.Facts.AppArmorMissing = true, c.missing
		})
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		warned := slices.Contains(info.Warnings, "WARNING: containers are not confined by AppArmor: "+c.missing)
		if warned != c.warned || !slices.Contains(info.SecurityOptions, c.option) {
			t.Errorf("missing %q: options %q, warnings %q", c.missing, info.SecurityOptions, info.Warnings)
		}
	}
}

func TestInfoSurvivesAnImageStoreThatFails(t *testing.T) {
	s := newService(t, func(c *system.Config) { c.Images = images{errors.New("disk")} })
	if info, err := s.Info(t.Context()); err != nil || info.Images != 0 {
		t.Errorf("%d images, %v", info.Images, err)
	}
	if _, err := s.DiskUsage(t.Context(), system.DiskUsageOptions{Images: true}); err == nil {
		t.Error("disk usage hides the failure")
	}
}

func TestAReloadIsSeen(t *testing.T) {
	s := newService(t, nil)
	s.Reload(system.Settings{Labels: []string{"a=b"}, Debug: true, Hosts: []string{"tcp://0.0.0.0:2375"}, Runtimes: map[string]systemtypes.Runtime{"runsc": {Path: "/runsc"}}})
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := slices.ContainsFunc(info.Warnings, func(w string) bool {
		return strings.Contains(w, "API is accessible on http://0.0.0.0:2375 without encryption")
	})
	if !info.Debug || info.Labels[0] != "a=b" || info.Runtimes["runsc"].Path != "/runsc" || !open {
		t.Errorf("%+v", info)
	}
}

func TestDiskUsageCountsWhatCanBeFreed(t *testing.T) {
	s := newService(t, nil)
	du, err := s.DiskUsage(t.Context(), system.DiskUsageOptions{Containers: true, Images: true, Volumes: true, BuildCache: true})
	if err != nil {
		t.Fatal(err)
	}
	if c := du.ContainerUsage; c.TotalSize != 15 || c.Reclaimable != 5 || c.ActiveCount != 1 || c.TotalCount != 2 || c.Items != nil {
		t.Errorf("containers %+v", c)
	}
	if i := du.ImageUsage; i.TotalSize != 150 || i.Reclaimable != 50 || i.ActiveCount != 1 || i.TotalCount != 2 {
		t.Errorf("images %+v", i)
	}
	if du.VolumeUsage == nil || du.BuildCacheUsage == nil {
		t.Error("what was asked for is left out")
	}
	du, err = s.DiskUsage(t.Context(), system.DiskUsageOptions{Containers: true, Verbose: true})
	if err != nil || len(du.ContainerUsage.Items) != 2 || du.ImageUsage != nil {
		t.Errorf("verbose containers: %+v, %v", du, err)
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	v, err := newService(t, nil).Version(t.Context())
	if err != nil || v.Version != "1.2.3" || v.APIVersion != "1.56" || v.MinAPIVersion != "1.24" || v.Components[0].Name != "Engine" || v.KernelVersion != "6.1" {
		t.Errorf("%+v, %v", v, err)
	}
}
