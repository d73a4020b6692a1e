// Command mkimage writes a container image as a tar that holds both an OCI
// image layout and Docker's manifest.json, so every engine and skopeo can load
// it. It needs no engine, no root and no network: the tests' images come from
// files that other tools made.
//
//	mkimage -o web.tar -t web:1 -layer base.tar.gz -diff lower:upper -cmd '["/web"]'
//
// A layer is a tar ("-layer file"), a folder ("-layer dir"), or the difference
// between two folders ("-diff lower:upper"). They are stacked in the order
// given. Times inside are those of the sources; the image's own time is
// SOURCE_DATE_EPOCH (seconds), 0 by default, so the same input gives the same
// digest.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	_ "crypto/sha256" // go-digest finds it by name
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type source struct{ kind, value string }

type listFlag struct {
	kind string
	into *[]source
}

func (l listFlag) String() string { return "" }
func (l listFlag) Set(v string) error {
	*l.into = append(*l.into, source{l.kind, v})
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var sources, settings []source
	out := flag.String("o", "", "tar to write")
	tags := flag.String("t", "", "comma-separated names")
	flag.Var(listFlag{"layer", &sources}, "layer", "tar or folder to add as a layer")
	flag.Var(listFlag{"diff", &sources}, "diff", "lower:upper, a layer of what differs")
	for _, s := range []string{"env", "expose", "volume", "label"} {
		flag.Var(listFlag{s, &settings}, s, "image "+s+"; may be repeated")
	}
	entrypoint := flag.String("entrypoint", "", "JSON array")
	cmd := flag.String("cmd", "", "JSON array")
	user := flag.String("user", "", "user[:group]")
	workdir := flag.String("workdir", "", "working directory")
	stop := flag.String("stopsignal", "", "signal name")
	flag.Parse()
	if *out == "" || len(sources) == 0 {
		return errors.New("-o and at least one -layer or -diff are needed")
	}
	created, err := epoch()
	if err != nil {
		return err
	}
	image := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers"},
		Config:   ocispec.ImageConfig{User: *user, WorkingDir: *workdir, StopSignal: *stop},
	}
	if err := configure(&image.Config, settings, *entrypoint, *cmd); err != nil {
		return err
	}

	tmp := *out + ".tmp"
	file, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	defer file.Close()
	w := &layout{tar: tar.NewWriter(file), created: created, have: map[digest.Digest]bool{}}

	var layers []ocispec.Descriptor
	for _, s := range sources {
		desc, diffID, err := w.layer(s)
		if err != nil {
			return fmt.Errorf("layer %s: %w", s.value, err)
		}
		layers = append(layers, desc)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, diffID)
		image.History = append(image.History, ocispec.History{Created: &created, CreatedBy: "mkimage " + s.kind + " " + filepath.Base(s.value)})
	}
	config, err := w.json(ocispec.MediaTypeImageConfig, image)
	if err != nil {
		return err
	}
	manifest, err := w.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
	if err != nil {
		return err
	}
	var names []string
	if *tags != "" {
		names = strings.Split(*tags, ",")
	}
	if err := w.finish(manifest, config, layers, names, image.Platform); err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Rename(tmp, *out))
}

func epoch() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}

func configure(c *ocispec.ImageConfig, settings []source, entrypoint, cmd string) error {
	for _, s := range settings {
		switch s.kind {
		case "env":
			c.Env = append(c.Env, s.value)
		case "expose":
			c.ExposedPorts = set(c.ExposedPorts, s.value)
		case "volume":
			c.Volumes = set(c.Volumes, s.value)
		case "label":
			k, v, _ := strings.Cut(s.value, "=")
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		}
	}
	for _, list := range []struct {
		text string
		into *[]string
	}{{entrypoint, &c.Entrypoint}, {cmd, &c.Cmd}} {
		if list.text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(list.text), list.into); err != nil {
			return fmt.Errorf("%s is not a JSON array: %w", list.text, err)
		}
	}
	return nil
}

func set(m map[string]struct{}, key string) map[string]struct{} {
	if m == nil {
		m = map[string]struct{}{}
	}
	m[key] = struct{}{}
	return m
}

// layout writes an OCI image layout into a tar, one blob after the other.
type layout struct {
	tar     *tar.Writer
	created time.Time
	have    map[digest.Digest]bool
}

// layer compresses one source into a blob and returns its descriptor and the
// digest of the tar inside.
func (l *layout) layer(s source) (ocispec.Descriptor, digest.Digest, error) {
	spool, err := os.CreateTemp("", "mkimage-*")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer func() { _ = os.Remove(spool.Name()) }()
	defer spool.Close()
	outer, inner := digest.Canonical.Digester(), digest.Canonical.Digester()
	zip := gzip.NewWriter(io.MultiWriter(spool, outer.Hash()))
	if err := writeSource(io.MultiWriter(zip, inner.Hash()), s); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := zip.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	size, err := spool.Seek(0, io.SeekEnd)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: outer.Digest(), Size: size}
	return desc, inner.Digest(), l.blob(desc, spool)
}

func writeSource(w io.Writer, s source) error {
	if s.kind == "diff" {
		lower, upper, ok := strings.Cut(s.value, ":")
		if !ok {
			return errors.New("want lower:upper")
		}
		return archive.WriteDiff(context.Background(), w, lower, upper)
	}
	info, err := os.Stat(s.value)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return archive.WriteDiff(context.Background(), w, "", s.value)
	}
	file, err := os.Open(s.value)
	if err != nil {
		return err
	}
	defer file.Close()
	var in io.Reader = file
	if strings.HasSuffix(s.value, ".gz") {
		if in, err = gzip.NewReader(file); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, in)
	return err
}

func (l *layout) blob(desc ocispec.Descriptor, content io.Reader) error {
	if l.have[desc.Digest] {
		return nil
	}
	l.have[desc.Digest] = true
	return l.file("blobs/"+desc.Digest.Algorithm().String()+"/"+desc.Digest.Encoded(), desc.Size, content)
}

func (l *layout) file(name string, size int64, content io.Reader) error {
	header := &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: l.created, Typeflag: tar.TypeReg}
	if err := l.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(l.tar, content)
	return err
}

func (l *layout) json(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, l.blob(desc, bytes.NewReader(data))
}

func (l *layout) finish(manifest, config ocispec.Descriptor, layers []ocispec.Descriptor, names []string, platform ocispec.Platform) error {
	path := func(d ocispec.Descriptor) string { return "blobs/sha256/" + d.Digest.Encoded() }
	legacy := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: path(config), RepoTags: names}
	for _, layer := range layers {
		legacy.Layers = append(legacy.Layers, path(layer))
	}
	manifest.Platform = &platform
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range names {
		d := manifest
		full := name
		if !strings.Contains(strings.SplitN(name, "/", 2)[0], ".") && !strings.Contains(strings.SplitN(name, "/", 2)[0], ":") || !strings.Contains(name, "/") {
			full = "docker.io/library/" + name
		}
		d.Annotations = map[string]string{"io.containerd.image.name": full, ocispec.AnnotationRefName: name[strings.LastIndex(name, ":")+1:]}
		index.Manifests = append(index.Manifests, d)
	}
	if len(names) == 0 {
		index.Manifests = []ocispec.Descriptor{manifest}
	}
	for _, f := range []struct {
		name string
		v    any
	}{
		{"manifest.json", []any{legacy}},
		{ocispec.ImageIndexFile, index},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := l.file(f.name, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return l.tar.Close()
}
