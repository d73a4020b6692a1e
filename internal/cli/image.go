package cli

import (
	"fmt"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// imageGroup is `image`: every image verb under its full name.
func (a *app) imageGroup() *cobra.Command {
	return a.group("image", "Manage images", []entry{
		{"build", nil, (*app).buildCommand},
		{"history", nil, (*app).historyCommand},
		{"import", nil, (*app).importCommand},
		{"inspect", nil, (*app).imageInspectCommand},
		{"load", nil, (*app).loadCommand},
		{"ls", []string{"list"}, (*app).imageListCommand},
		{"prune", nil, (*app).imagePruneCommand},
		{"pull", nil, (*app).pullCommand},
		{"push", nil, (*app).pushCommand},
		{"rm", []string{"remove"}, (*app).imageRemoveCommand},
		{"save", nil, (*app).saveCommand},
		{"tag", nil, (*app).tagCommand},
	})
}

// parsePlatforms reads OS[/ARCH[/VARIANT]] texts.
func parsePlatforms(texts []string) ([]ocispec.Platform, error) {
	var list []ocispec.Platform
	for _, text := range texts {
		p, err := platforms.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("invalid platform: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// optional is a list of the text, empty when the text is.
func optional(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}
