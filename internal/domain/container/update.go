package container

import (
	"github.com/containerd/errdefs"
	containertypes "github.com/moby/moby/api/types/container"
)

// UpdateHostConfig returns h with what the request sets. ErrInvalidArgument or
// ErrConflict in Docker's words for what excludes each other.
func UpdateHostConfig(h containertypes.HostConfig, req containertypes.UpdateConfig) (containertypes.HostConfig, error) {
	r, have := req.Resources, &h.Resources
	for _, c := range []struct {
		clash bool
		text  string
	}{
		{r.NanoCPUs > 0 && have.CPUPeriod > 0, "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"},
		{r.NanoCPUs > 0 && have.CPUQuota > 0, "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"},
		{r.CPUPeriod > 0 && have.NanoCPUs > 0, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"},
		{r.CPUQuota > 0 && have.NanoCPUs > 0, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"},
		{r.Memory != 0 && r.Memory > have.MemorySwap && r.MemorySwap == 0 && have.MemorySwap > 0, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"},
		{req.RestartPolicy.Name != "" && h.AutoRemove && !req.RestartPolicy.IsNone(), "Restart policy cannot be updated because AutoRemove is enabled for the container"},
	} {
		if c.clash {
			return h, withText(errdefs.ErrConflict, c.text)
		}
	}
	for _, v := range []struct {
		from int64
		into *int64
	}{
		{r.CPUShares, &have.CPUShares}, {r.NanoCPUs, &have.NanoCPUs}, {r.CPUPeriod, &have.CPUPeriod}, {r.CPUQuota, &have.CPUQuota},
		{r.Memory, &have.Memory}, {r.MemorySwap, &have.MemorySwap}, {r.MemoryReservation, &have.MemoryReservation},
		{r.CPURealtimePeriod, &have.CPURealtimePeriod}, {r.CPURealtimeRuntime, &have.CPURealtimeRuntime},
	} {
		if v.from != 0 {
			*v.into = v.from
		}
	}
	if r.BlkioWeight != 0 {
		have.BlkioWeight = r.BlkioWeight
	}
	if r.BlkioWeightDevice != nil {
		have.BlkioWeightDevice = r.BlkioWeightDevice
	}
	if r.BlkioDeviceReadBps != nil {
		have.BlkioDeviceReadBps = r.BlkioDeviceReadBps
	}
	if r.BlkioDeviceWriteBps != nil {
		have.BlkioDeviceWriteBps = r.BlkioDeviceWriteBps
	}
	if r.BlkioDeviceReadIOps != nil {
		have.BlkioDeviceReadIOps = r.BlkioDeviceReadIOps
	}
	if r.BlkioDeviceWriteIOps != nil {
		have.BlkioDeviceWriteIOps = r.BlkioDeviceWriteIOps
	}
	if r.CpusetCpus != "" {
		have.CpusetCpus = r.CpusetCpus
	}
	if r.CpusetMems != "" {
		have.CpusetMems = r.CpusetMems
	}
	if r.PidsLimit != nil {
		have.PidsLimit = r.PidsLimit
	}
	if req.RestartPolicy.Name != "" {
		h.RestartPolicy = req.RestartPolicy
	}
	return h, nil
}
