package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/go-archive"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// copyFlags are the flags of cp.
type copyFlags struct{ followLink, archive, quiet bool }

func (a *app) copyCommand() *cobra.Command {
	var o copyFlags
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t" + a.name + " cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`,
		Args:                  exactArgs(2),
		Annotations:           map[string]string{annAliases: "container cp, cp"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return errors.New("source can not be empty")
			}
			if args[1] == "" {
				return errors.New("destination can not be empty")
			}
			if !cmd.Flags().Changed("quiet") {
				o.quiet = !a.stdout.terminal
			}
			from, source := splitCopyArg(args[0])
			to, target := splitCopyArg(args[1])
			switch {
			case from != "" && to != "":
				return errors.New("copying between containers is not supported")
			case from != "":
				return a.copyOut(cmd.Context(), o, from, source, target)
			case to != "":
				return a.copyIn(cmd.Context(), o, to, source, target)
			}
			return errors.New("must specify at least one container source")
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&o.followLink, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

// splitCopyArg tells CONTAINER:PATH from a local path; one with a colon in it must start with . or /, as for scp.
func splitCopyArg(arg string) (container, path string) {
	if isAbs(arg) {
		return "", arg
	}
	container, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, path
}

// isAbs also takes \path on Windows, which names no drive.
func isAbs(path string) bool {
	return filepath.IsAbs(path) || strings.HasPrefix(path, string(os.PathSeparator))
}

// localPath makes a path absolute and keeps a trailing separator or dot, which say something about the copy.
func localPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return archive.PreserveTrailingDotOrSeparator(abs, path), nil
}

// stat looks at a path in a container, through one symbolic link; at is where the link leads.
func statThrough(ctx context.Context, api *client.Client, container, path string) (at string, mode os.FileMode, err error) {
	info, err := api.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: path})
	if err != nil || info.Stat.Mode&os.ModeSymlink == 0 {
		return path, info.Stat.Mode, err
	}
	target := info.Stat.LinkTarget
	if !isAbs(target) {
		parent, _ := archive.SplitPathDirEntry(path)
		target = filepath.Join(parent, target)
	}
	info, err = api.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: target})
	return target, info.Stat.Mode, err
}

func (a *app) copyOut(ctx context.Context, o copyFlags, container, source, target string) error {
	if target != "-" {
		var err error
		if target, err = localPath(target); err != nil {
			return err
		}
		if err := checkOutputPath(target); err != nil {
			return err
		}
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	rebase := ""
	if o.followLink {
		if at, _, err := statThrough(ctx, api, container, source); err == nil && at != source {
			source, rebase = archive.GetRebaseName(source, at)
		}
	}
	answer, err := api.CopyFromContainer(ctx, container, client.CopyFromContainerOptions{SourcePath: source})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Content.Close() }()
	if target == "-" {
		_, err := io.Copy(a.stdout, answer.Content)
		return err
	}
	counted := &counter{from: answer.Content}
	var content io.Reader = counted
	if rebase != "" {
		_, base := archive.SplitPathDirEntry(source)
		rebased := archive.RebaseArchiveEntries(counted, base, rebase)
		defer func() { _ = rebased.Close() }()
		content = rebased
	}
	info := archive.CopyInfo{Path: source, Exists: true, IsDir: answer.Stat.Mode.IsDir(), RebaseName: rebase}
	return a.copying(o.quiet, "Copying from container - ", counted, target, func() error {
		return archive.CopyTo(content, info, target)
	})
}

func (a *app) copyIn(ctx context.Context, o copyFlags, container, source, target string) error {
	if source != "-" {
		var err error
		if source, err = localPath(source); err != nil {
			return err
		}
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	// A target that is not there yet is made by the copy, if its parent is there.
	info := archive.CopyInfo{Path: target}
	if at, mode, err := statThrough(ctx, api, container, target); err == nil {
		if err := checkOutputMode(mode); err != nil {
			return fmt.Errorf(`destination "%s:%s" must be a directory or a regular file: %w`, container, target, err)
		}
		info = archive.CopyInfo{Path: at, Exists: true, IsDir: mode.IsDir()}
	}
	options := client.CopyToContainerOptions{DestinationPath: info.Path, CopyUIDGID: o.archive}
	counted := &counter{}
	if source == "-" {
		if !info.IsDir {
			return fmt.Errorf(`destination "%s:%s" must be a directory`, container, target)
		}
		counted.from = a.stdin
	} else {
		from, err := archive.CopyInfoSourcePath(source, o.followLink)
		if err != nil {
			return err
		}
		content, err := archive.TarResource(from)
		if err != nil {
			return err
		}
		defer func() { _ = content.Close() }()
		// What the archive is to be called inside, and in which folder it is unpacked, depends on what both ends are.
		dir, prepared, err := archive.PrepareArchiveCopy(content, from, info)
		if err != nil {
			return err
		}
		defer func() { _ = prepared.Close() }()
		options.DestinationPath, counted.from = dir, prepared
	}
	options.Content = counted
	return a.copying(o.quiet, "Copying to container - ", counted, container+":"+info.Path, func() error {
		_, err := api.CopyToContainer(ctx, container, options)
		return err
	})
}

// counter counts what is read through it; read by the progress display at the same time.
type counter struct {
	from io.Reader
	n    atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// copying performs a copy and shows on stderr how far it is and what it came to, unless quiet.
func (a *app) copying(quiet bool, title string, counted *counter, target string, act func() error) error {
	if quiet {
		return act()
	}
	size := func() string { return units.HumanSizeWithPrecision(float64(counted.n.Load()), 3) }
	done, shown := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(shown)
		if !a.stderr.terminal {
			return
		}
		const hideCursor, showCursor, eraseLine = "\x1b[?25l", "\x1b[?25h", "\r\x1b[2K"
		fmt.Fprint(a.stderr, hideCursor+title+size())
		defer fmt.Fprint(a.stderr, eraseLine+showCursor)
		tick := time.NewTicker(75 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprint(a.stderr, eraseLine+title+size())
			}
		}
	}()
	err := act()
	close(done)
	<-shown
	if err == nil {
		fmt.Fprintf(a.stderr, "Successfully copied %s to %s\n", size(), target)
	}
	return err
}
