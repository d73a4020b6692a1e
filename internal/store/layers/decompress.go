package layers

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// peekSize is how much of a stream is looked at to find its compression.
const peekSize = 262

// maxZstdWindow bounds the memory that a zstd frame may ask for. 128 MiB is
// what the zstd program itself takes without --long.
const maxZstdWindow = 128 << 20

// Decompress returns the tar inside r, which may be plain or compressed with
// gzip, zstd or bzip2; what the bytes say counts, not the media type, because
// registries and old builders label layers wrongly. The buffers it needs are
// bounded. The caller closes the result; r stays its own.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	// A large buffer: blobs are read from files, and the sequence of small
	// reads of a decompressor costs more than the decompression.
	buffered := bufio.NewReaderSize(r, 256<<10)
	head, err := buffered.Peek(peekSize)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("read gzip layer: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), skippableFrame(head):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("read zstd layer: %w", err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(buffered)), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("layer is compressed with xz: %w", errdefs.ErrNotImplemented)
	}
	return io.NopCloser(buffered), nil
}

// skippableFrame reports a zstd stream that begins with metadata (RFC 8878,
// section 3.1.2), as zstd:chunked layers may.
func skippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}
