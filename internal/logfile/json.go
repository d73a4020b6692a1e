package logfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// maxRecord bounds what is taken for one line of a file: sixteen KiB, each byte
// escaped, and attributes.
const maxRecord = 1 << 20

// jsonCodec is Docker's json-file.
type jsonCodec struct {
	// attrs is `,"attrs":{…}` or empty.
	attrs []byte
}

func newJSONCodec(attrs map[string]string) (jsonCodec, error) {
	if len(attrs) == 0 {
		return jsonCodec{}, nil
	}
	raw, err := json.Marshal(attrs)
	if err != nil {
		return jsonCodec{}, fmt.Errorf("encode log attributes: %w", err)
	}
	return jsonCodec{attrs: append([]byte(`,"attrs":`), raw...)}, nil
}

func (jsonCodec) header(map[string]string) ([]byte, error) { return nil, nil }

func (c jsonCodec) append(b []byte, stream byte, line []byte, partial bool, at stamp) []byte {
	b = append(b, '{')
	if len(line) > 0 || !partial {
		b = append(b, `"log":"`...)
		b = appendEscaped(b, line)
		if !partial {
			b = append(b, `\n`...)
		}
		b = append(b, `",`...)
	}
	if stream == Stderr {
		b = append(b, `"stream":"stderr"`...)
	} else {
		b = append(b, `"stream":"stdout"`...)
	}
	b = append(b, c.attrs...)
	b = append(b, `,"time":`...)
	b = append(b, at.text...)
	return append(b, '}', '\n')
}

const hexDigits = "0123456789abcdef"

// plainByte marks bytes that stand for themselves in a JSON string as Docker
// writes it (encoding/json's HTML-safe set of ASCII).
var plainByte = func() (t [256]bool) {
	for b := byte(0x20); b < utf8.RuneSelf; b++ {
		switch b {
		case '\\', '"', '<', '>', '&':
		default:
			t[b] = true
		}
	}
	return t
}()

// appendEscaped appends s as the inside of a JSON string.
func appendEscaped(b, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plainByte[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '\\', '"':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}

func (jsonCodec) start(readerAt) (int64, map[string]string, error) { return 0, nil, nil }

// sound ends behind the last newline.
func (jsonCodec) sound(f readerAt, size int64) (int64, error) {
	return lastNewlines(f, size, 0)
}

// tail counts lines from the end. An unfinished last line is not counted.
func (jsonCodec) tail(f readerAt, size int64, n int) (int64, int, error) {
	found := 0
	off, err := scanBack(f, size, func() bool {
		found++
		return found > n
	})
	if err != nil {
		return 0, 0, err
	}
	if found > n {
		return off, n, nil
	}
	return 0, found, nil
}

// lastNewlines returns the offset behind the newline that has n others behind
// it, or 0.
func lastNewlines(f readerAt, size int64, n int) (int64, error) {
	seen := 0
	return scanBack(f, size, func() bool {
		seen++
		return seen > n
	})
}

// scanBack visits newlines from the end on and returns the offset behind the
// one at which stop reports true, or 0.
func scanBack(f readerAt, size int64, stop func() bool) (int64, error) {
	buf := make([]byte, min(size, 32<<10))
	for end := size; end > 0; {
		n := min(int64(len(buf)), end)
		block := buf[:n]
		if err := readFull(f, block, end-n); err != nil {
			return 0, err
		}
		for i := bytes.LastIndexByte(block, '\n'); i >= 0; i = bytes.LastIndexByte(block[:i], '\n') {
			if stop() {
				return end - n + int64(i) + 1, nil
			}
		}
		end -= n
	}
	return 0, nil
}

// next decodes one line; anything that is not an entry is skipped.
func (jsonCodec) next(b []byte, e *Entry, s *scratch) (int, bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) >= maxRecord {
			return len(b), true
		}
		return 0, false
	}
	if decodeFast(b[:i], e, s) || decodeAny(b[:i], e, s) {
		return i + 1, false
	}
	return i + 1, true
}

// decodeFast reads the form that append writes.
func decodeFast(b []byte, e *Entry, s *scratch) bool {
	rest, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return false
	}
	rest, ok = s.unescape(rest)
	if !ok {
		return false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`)); !ok || len(rest) < 4 {
		return false
	}
	switch string(rest[:4]) {
	case `out"`:
		e.Stream = Stdout
	case `err"`:
		e.Stream = Stderr
	default:
		return false
	}
	rest = rest[4:]
	e.Attrs = nil
	if raw, ok := bytes.CutPrefix(rest, []byte(`,"attrs":`)); ok {
		// The time comes last, so the attributes end where it starts.
		i := bytes.LastIndex(raw, []byte(`,"time":"`))
		if i < 0 || !s.decodeAttrs(raw[:i]) {
			return false
		}
		e.Attrs = s.attrs
		rest = raw[i:]
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"time":"`)); !ok {
		return false
	}
	if rest, ok = bytes.CutSuffix(rest, []byte(`"}`)); !ok {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, string(rest))
	if err != nil {
		return false
	}
	e.Time = at
	e.Line = s.line
	e.Partial = len(s.line) == 0 || s.line[len(s.line)-1] != '\n'
	return true
}

// unescape decodes a JSON string up to its closing quote into s.line.
func (s *scratch) unescape(b []byte) (rest []byte, ok bool) {
	s.line = s.line[:0]
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return nil, false
		}
		j := bytes.IndexByte(b[:i], '\\')
		if j < 0 {
			s.line = append(s.line, b[:i]...)
			return b[i+1:], true
		}
		s.line = append(s.line, b[:j]...)
		b = b[j:]
		if len(b) < 2 {
			return nil, false
		}
		switch b[1] {
		case 'n':
			s.line = append(s.line, '\n')
		case 'r':
			s.line = append(s.line, '\r')
		case 't':
			s.line = append(s.line, '\t')
		case 'b':
			s.line = append(s.line, '\b')
		case 'f':
			s.line = append(s.line, '\f')
		case '"', '\\', '/':
			s.line = append(s.line, b[1])
		case 'u':
			r, ok := hex4(b)
			if !ok || (r >= 0xd800 && r < 0xe000) {
				return nil, false // surrogates: the general decoder
			}
			s.line = utf8.AppendRune(s.line, r)
			b = b[6:]
			continue
		default:
			return nil, false
		}
		b = b[2:]
	}
}

// hex4 reads \uXXXX.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// decodeAttrs keeps the attributes of the entry before when they are the same.
func (s *scratch) decodeAttrs(raw []byte) bool {
	if s.attrs != nil && bytes.Equal(raw, s.rawAttrs) {
		return true
	}
	var m map[string]string
	if err := json.Unmarshal(raw, &m); err != nil {
		return false
	}
	s.attrs = m
	s.rawAttrs = append(s.rawAttrs[:0], raw...)
	return true
}

// decodeAny reads any object with Docker's keys.
func decodeAny(b []byte, e *Entry, s *scratch) bool {
	var v struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Time.IsZero() {
		return false
	}
	e.Stream = Stdout
	if v.Stream == "stderr" {
		e.Stream = Stderr
	}
	s.line = append(s.line[:0], v.Log...)
	e.Line = s.line
	e.Partial = len(s.line) == 0 || s.line[len(s.line)-1] != '\n'
	e.Time, e.Attrs = v.Time, v.Attrs
	return true
}
