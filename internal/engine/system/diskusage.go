package system

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/build"
	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	systemtypes "github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
)

// DiskUsageOptions choose what is measured.
type DiskUsageOptions struct {
	Containers, Images, Volumes, BuildCache bool
	// Verbose lists the objects, too.
	Verbose bool
}

// DiskUsage measures what the engine keeps on the disk. That reads every
// folder: it is as slow as the disk.
func (s *Service) DiskUsage(ctx context.Context, opts DiskUsageOptions) (systemtypes.DiskUsage, error) {
	var du systemtypes.DiskUsage
	if opts.Images {
		list, layers, err := s.cfg.Images.Usage(ctx)
		if err != nil {
			return du, fmt.Errorf("measure images: %w", err)
		}
		du.ImageUsage = &imagetypes.DiskUsage{TotalCount: int64(len(list)), TotalSize: layers}
		for _, img := range list {
			switch {
			case img.Containers > 0:
				du.ImageUsage.ActiveCount++
			case img.Containers == 0 && img.Size != -1 && img.SharedSize != -1:
				du.ImageUsage.Reclaimable += img.Size - img.SharedSize
			}
		}
		if opts.Verbose {
			du.ImageUsage.Items = list
		}
	}
	if opts.Containers {
		list, err := s.cfg.Containers.Sizes(ctx)
		if err != nil {
			return du, fmt.Errorf("measure containers: %w", err)
		}
		du.ContainerUsage = &containertypes.DiskUsage{TotalCount: int64(len(list))}
		for i := range list {
			c := &list[i]
			c.ImageManifestDescriptor = nil // not part of this answer
			du.ContainerUsage.TotalSize += c.SizeRw
			switch c.State {
			case containertypes.StateRunning, containertypes.StatePaused, containertypes.StateRestarting:
				du.ContainerUsage.ActiveCount++
			default:
				du.ContainerUsage.Reclaimable += c.SizeRw
			}
		}
		if opts.Verbose {
			du.ContainerUsage.Items = list
		}
	}
	if opts.Volumes {
		du.VolumeUsage = &volumetypes.DiskUsage{}
		if s.cfg.Volumes != nil {
			list, err := s.cfg.Volumes.Usage(ctx)
			if err != nil {
				return du, fmt.Errorf("measure volumes: %w", err)
			}
			du.VolumeUsage.TotalCount = int64(len(list))
			for _, v := range list {
				if v.UsageData == nil || v.UsageData.Size < 0 {
					continue
				}
				du.VolumeUsage.TotalSize += v.UsageData.Size
				if v.UsageData.RefCount == 0 {
					du.VolumeUsage.Reclaimable += v.UsageData.Size
				} else {
					du.VolumeUsage.ActiveCount++
				}
			}
			if opts.Verbose {
				du.VolumeUsage.Items = list
			}
		}
	}
	if opts.BuildCache {
		du.BuildCacheUsage = &build.DiskUsage{} // there is no builder in this version
	}
	return du, nil
}
