package logfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// localMagic starts every file of the format.
const localMagic = "orlop-log 1\n"

const (
	// localFixed is the length of flags and time.
	localFixed = 9
	// localMax is the longest record body.
	localMax    = maxLine + localFixed
	partialFlag = 0x80
)

// errHeader: the file does not begin as one of this format does, e.g. because
// the machine went down when it had just been made.
var errHeader = errors.New("not a file of the local log driver")

// localCodec is our compact format.
type localCodec struct{}

func (localCodec) header(attrs map[string]string) ([]byte, error) {
	if attrs == nil {
		attrs = map[string]string{}
	}
	raw, err := json.Marshal(attrs)
	if err != nil {
		return nil, fmt.Errorf("encode log attributes: %w", err)
	}
	b := append([]byte(nil), localMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(raw)))
	return append(b, raw...), nil
}

func (localCodec) append(b []byte, stream byte, line []byte, partial bool, at stamp) []byte {
	if partial {
		stream |= partialFlag
	}
	n := uint32(len(line) + localFixed)
	b = binary.BigEndian.AppendUint32(b, n)
	b = append(b, stream)
	b = binary.BigEndian.AppendUint64(b, uint64(at.nanos))
	b = append(b, line...)
	return binary.BigEndian.AppendUint32(b, n)
}

func (localCodec) start(f readerAt) (int64, map[string]string, error) {
	head := make([]byte, len(localMagic)+4)
	if err := readFull(f, head, 0); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[len(localMagic):])
	if string(head[:len(localMagic)]) != localMagic || n > maxRecord {
		return 0, nil, errHeader
	}
	raw := make([]byte, n)
	if err := readFull(f, raw, int64(len(head))); err != nil {
		return 0, nil, err
	}
	var attrs map[string]string
	if err := json.Unmarshal(raw, &attrs); err != nil {
		return 0, nil, errHeader
	}
	if len(attrs) == 0 {
		attrs = nil
	}
	return int64(len(head)) + int64(n), attrs, nil
}

// before returns where the record that ends at end starts, or -1.
func (localCodec) before(f readerAt, first, end int64) (int64, error) {
	var word [4]byte
	if end-first < 8+localFixed {
		return -1, nil
	}
	if err := readFull(f, word[:], end-4); err != nil {
		return -1, err
	}
	n := int64(binary.BigEndian.Uint32(word[:]))
	at := end - 8 - n
	if n < localFixed || n > localMax || at < first {
		return -1, nil
	}
	if err := readFull(f, word[:], at); err != nil {
		return -1, err
	}
	if int64(binary.BigEndian.Uint32(word[:])) != n {
		return -1, nil
	}
	return at, nil
}

// sound trusts a file that ends with a record, else it looks at each. Nothing
// can be found behind a damaged header: such a file begins anew.
func (c localCodec) sound(f readerAt, size int64) (int64, error) {
	first, _, err := c.start(f)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errHeader) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if size == first {
		return size, nil
	}
	at, err := c.before(f, first, size)
	if err != nil {
		return 0, err
	}
	if at >= 0 {
		return size, nil
	}
	var word [4]byte
	for off := first; ; {
		if size-off < 8+localFixed {
			return off, nil
		}
		if err := readFull(f, word[:], off); err != nil {
			return 0, err
		}
		n := int64(binary.BigEndian.Uint32(word[:]))
		if n < localFixed || n > localMax || off+n+8 > size {
			return off, nil
		}
		if err := readFull(f, word[:], off+4+n); err != nil {
			return 0, err
		}
		if int64(binary.BigEndian.Uint32(word[:])) != n {
			return off, nil
		}
		off += n + 8
	}
}

func (c localCodec) tail(f readerAt, size int64, n int) (int64, int, error) {
	first, _, err := c.start(f)
	if err != nil {
		return 0, 0, err
	}
	if size, err = c.sound(f, size); err != nil {
		return 0, 0, err
	}
	off, found := size, 0
	for found < n {
		at, err := c.before(f, first, off)
		if err != nil {
			return 0, 0, err
		}
		if at < 0 {
			break
		}
		off = at
		found++
	}
	return off, found, nil
}

func (localCodec) next(b []byte, e *Entry, s *scratch) (int, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n := int(binary.BigEndian.Uint32(b))
	if n < localFixed || n > localMax {
		return len(b), true // damaged; what follows cannot be found
	}
	if len(b) < n+8 {
		return 0, false
	}
	body := b[4 : 4+n]
	e.Stream = body[0] &^ partialFlag
	e.Partial = body[0]&partialFlag != 0
	e.Time = time.Unix(0, int64(binary.BigEndian.Uint64(body[1:]))).UTC()
	s.line = append(s.line[:0], body[localFixed:]...)
	if !e.Partial {
		s.line = append(s.line, '\n')
	}
	e.Line = s.line
	e.Attrs = s.attrs
	if e.Stream != Stdout && e.Stream != Stderr || int(binary.BigEndian.Uint32(b[4+n:])) != n {
		return len(b), true
	}
	return n + 8, false
}

// readFull reads all of b or fails.
func readFull(f readerAt, b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
