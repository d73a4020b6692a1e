package httpapi

import (
	"time"

	imagetypes "github.com/moby/moby/api/types/image"
)

// compatImageList shapes a list of images for the client's version.
func compatImageList(r *request, list []imagetypes.Summary) any {
	for i := range list {
		img := &list[i]
		if r.before(43) {
			if len(img.RepoTags) == 0 && len(img.RepoDigests) == 0 {
				img.RepoTags, img.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
			}
		} else {
			img.RepoTags, img.RepoDigests = emptyNotNull(img.RepoTags), emptyNotNull(img.RepoDigests)
		}
		if r.before(48) {
			img.Descriptor = nil
		}
		if r.before(51) {
			img.Containers = -1
		}
	}
	if r.before(44) {
		return virtualSizes(list)
	}
	return emptyNotNull(list)
}

// virtualSizes adds the field that Size replaced in API 1.44.
func virtualSizes(list []imagetypes.Summary) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = with(list[i], map[string]any{"VirtualSize": list[i].Size})
	}
	return out
}

// compatImageInspect shapes an image for the client's version.
func compatImageInspect(r *request, img imagetypes.InspectResponse) any {
	img.RepoTags, img.RepoDigests = emptyNotNull(img.RepoTags), emptyNotNull(img.RepoDigests)
	if r.before(53) {
		img.Identity = nil
	}
	if r.before(48) {
		img.Descriptor = nil
	}
	if !r.before(52) {
		return img
	}
	add := map[string]any{"Parent": "", "Comment": img.Comment, "DockerVersion": "", "Author": img.Author}
	config := map[string]any{
		"Cmd": nil, "Entrypoint": nil, "Env": nil, "Labels": nil, "OnBuild": nil,
		"User": "", "Volumes": nil, "WorkingDir": "",
	}
	if r.before(50) {
		for _, key := range []string{"AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty"} {
			config[key] = false
		}
		for _, key := range []string{"Domainname", "Hostname", "Image"} {
			config[key] = ""
		}
	}
	add["Config"] = config
	if r.before(45) {
		add["Container"], add["ContainerConfig"] = "", nil
	}
	if r.before(44) {
		add["VirtualSize"] = img.Size
		if img.Created == "" {
			img.Created = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	return with(img, add)
}
