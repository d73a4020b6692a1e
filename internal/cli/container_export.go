package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func (a *app) exportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:                   "export [OPTIONS] CONTAINER",
		Short:                 "Export a container's filesystem as a tar archive",
		Args:                  exactArgs(1),
		Annotations:           map[string]string{annAliases: "container export, export"},
		ValidArgsFunction:     a.completeContainers(nil),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "" && a.stdout.terminal {
				return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			if err := checkOutputPath(output); err != nil {
				return fmt.Errorf("failed to export container: %w", err)
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			archive, err := api.ContainerExport(cmd.Context(), args[0], client.ContainerExportOptions{})
			if err != nil {
				return err
			}
			defer func() { _ = archive.Close() }()
			return a.saveTo(output, archive)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

// checkOutputPath refuses, before the daemon is asked for anything, a file that could not be written at the end. An
// empty path is stdout.
func checkOutputPath(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(filepath.Clean(path))); err != nil {
		return fmt.Errorf("invalid output path: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil // to be made
	}
	return checkOutputMode(info.Mode())
}

func checkOutputMode(mode os.FileMode) error {
	switch {
	case mode&os.ModeDevice != 0:
		return errors.New("got a device")
	case mode&os.ModeIrregular != 0:
		return errors.New("got an irregular file")
	}
	return nil
}

// saveTo copies a stream to a file, or to stdout when path is empty. The file appears complete or not at all, readable
// by its owner only.
func (a *app) saveTo(path string, from io.Reader) (err error) {
	if path == "" {
		_, err := io.Copy(a.stdout, from)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
