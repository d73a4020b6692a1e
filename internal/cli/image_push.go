package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/spf13/cobra"
)

func (a *app) pushCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:                   "push [OPTIONS] NAME[:TAG]",
		Short:                 "Upload an image to a registry",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annTop: "6", annAliases: "image push, push"},
		ValidArgsFunction:     a.completeImages(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.push(cmd.Context(), args[0], all, quiet, platform)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	f.Bool("disable-content-trust", true, "Skip image signing (deprecated)")
	f.Lookup("disable-content-trust").Deprecated = "support for docker content trust was removed"
	f.Lookup("disable-content-trust").Hidden = true
	f.StringVar(&platform, "platform", "", `Push a platform-specific manifest as a single-platform image to the registry.
Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.
'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)`)
	f.Lookup("platform").Annotations = map[string][]string{"version": {"1.46"}}
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	return cmd
}

func (a *app) push(ctx context.Context, name string, all, quiet bool, platform string) error {
	o := client.ImagePushOptions{All: all}
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return fmt.Errorf("invalid platform %s: %w", platform, err)
		}
		o.Platform = &p
		a.note(`Using --platform pushes only the specified platform manifest of a multi-platform image index.
Other components, like attestations, will not be included.
To push the complete multi-platform image, remove the --platform flag.`)
	}
	ref, err := a.tagged(name, all, quiet)
	if err != nil {
		return err
	}
	if o.RegistryAuth, err = a.registryAuth(ref.String()); err != nil {
		return err
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	progress, err := api.ImagePush(ctx, reference.FamiliarString(ref), o)
	if err != nil {
		return err
	}
	defer func() { _ = progress.Close() }()
	var notes []string
	collect := func(m jsonstream.Message) { notes = append(notes, pushNotes(m)...) }
	var out io.Writer = a.stdout
	terminal := a.stdout.terminal
	if quiet {
		out, terminal = io.Discard, false
	}
	err = jsonmessage.DisplayJSONMessagesStream(progress, out, a.stdout.fd, terminal, collect)
	if err == nil && quiet {
		fmt.Fprintln(a.stdout, ref.String())
	}
	for _, text := range notes {
		a.note(text)
	}
	return err
}

// note sets a remark apart from progress, on stderr.
func (a *app) note(text string) {
	head, indent := " Info -> ", 9
	if a.stderr.terminal {
		head, indent = "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m", 9
	}
	fmt.Fprintf(a.stderr, "\n%s%s\n", head, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", indent)))
}

// pushNotes words what the daemon says about a push that was not the whole image.
func pushNotes(m jsonstream.Message) []string {
	if m.Aux == nil {
		return nil
	}
	var notes []string
	var stripped auxprogress.ManifestPushedInsteadOfIndex
	if err := json.Unmarshal(*m.Aux, &stripped); err == nil && stripped.ManifestPushedInsteadOfIndex {
		notes = append(notes, fmt.Sprintf("Not all multiplatform-content is present and only the available single-platform image was pushed\n%s -> %s",
			stripped.OriginalIndex.Digest, stripped.SelectedManifest.Digest))
	}
	var missing auxprogress.ContentMissing
	if err := json.Unmarshal(*m.Aux, &missing); err == nil && missing.ContentMissing {
		notes = append(notes, "The image lists several platforms, and the content of some is neither here nor in the registry. "+
			"Pull the missing platforms first, or push one of them with --platform.")
	}
	return notes
}
