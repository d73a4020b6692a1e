package container

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SavedSchema is the number of the newest form of Saved. It is raised only
// for a change that an older release would misread; a new field is not one:
// it has an omitted zero value, and keys that a release does not know are kept.
const SavedSchema = 1

// Saved is what the engine itself has to remember about a container beside
// the request: Record.State.
type Saved struct {
	// State is never one of an act in progress, except removing.
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	Image   ImageUse  `json:"image"`
	// ImageManifest of the platform, for inspect.
	ImageManifest *ocispec.Descriptor `json:"imageManifest,omitempty"`
	Platform      ocispec.Platform    `json:"platform"`
	// Config and HostConfig are the request merged with the image and the
	// daemon's defaults of that day: what inspect shows.
	Config     *containertypes.Config     `json:"config"`
	HostConfig *containertypes.HostConfig `json:"hostConfig"`
	// Endpoints are the networks it is on, by their names; nil, in records of
	// older releases, is the network of its mode.
	Endpoints map[string]*network.EndpointSettings `json:"endpoints"`
	// Addresses that it had in its last run: it gets them again if they are free.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Mounts    []Mount      `json:"mounts,omitempty"`
	// Publish are labels of the request (not of the image, as those of Config may
	// be) that say how ports are published.
	Publish map[string]string `json:"publish,omitempty"`

	// StartedAt and FinishedAt are zero when that did not happen yet.
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int       `json:"exitCode,omitempty"`
	// Error of the last start, or the reason of an exit nobody saw.
	Error     string `json:"error,omitempty"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
	// LogDropped counts bytes of the last run's output that are missing in the log.
	LogDropped uint64 `json:"logDropped,omitempty"`
	// RestartCount by the policy since a user started it.
	RestartCount int `json:"restartCount,omitempty"`
	// ManuallyStopped by a user: unless-stopped does not start it at boot.
	ManuallyStopped bool `json:"manuallyStopped,omitempty"`

	// unknown keys, written by a newer release.
	unknown map[string]json.RawMessage
}

// savedFields is Saved without methods.
type savedFields Saved

// MarshalJSON writes the fields and the keys that were not understood.
func (s Saved) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(savedFields(s))
	if err != nil || len(s.unknown) == 0 {
		return known, err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	for k, v := range s.unknown {
		if _, ours := all[k]; !ours {
			all[k] = v
		}
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads the fields and keeps the keys it does not know.
func (s *Saved) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, (*savedFields)(s)); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, k := range savedKeys {
		delete(all, k)
	}
	s.unknown = nil
	if len(all) > 0 {
		s.unknown = all
	}
	return nil
}

// savedKeys are the keys of Saved; a test holds them against its tags.
var savedKeys = []string{
	"state", "created", "image", "imageManifest", "platform", "config", "hostConfig", "endpoints", "addresses", "mounts", "publish",
	"startedAt", "finishedAt", "exitCode", "error", "oomKilled", "logDropped", "restartCount", "manuallyStopped",
}

// ParseSaved reads the state of a record. It fails for a schema of the future,
// whose meaning this release cannot know.
func ParseSaved(rec Record) (Saved, error) {
	var s Saved
	if rec.Schema > SavedSchema {
		return s, fmt.Errorf("read container %s: schema %d is newer than %d, the newest this release knows", rec.ID, rec.Schema, SavedSchema)
	}
	if err := json.Unmarshal(rec.State, &s); err != nil {
		return s, fmt.Errorf("read state of container %s: %w", rec.ID, err)
	}
	if s.Config == nil || s.HostConfig == nil {
		return s, fmt.Errorf("read state of container %s: no configuration", rec.ID)
	}
	return s, nil
}
