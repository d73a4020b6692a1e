package flagvalue

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ReadPairs reads files of KEY=VALUE lines (--env-file, --label-file) and appends more, which override them in the
// daemon's reading. A line that is a bare KEY takes its value from lookup and is left out when lookup is nil or does
// not know it.
func ReadPairs(files, more []string, lookup func(string) (string, bool)) ([]string, error) {
	var pairs []string
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		read, err := parsePairs(content, lookup)
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
		}
		pairs = append(pairs, read...)
	}
	return append(pairs, more...), nil
}

// maxPairLine is the longest line a pair file may have.
const maxPairLine = bufio.MaxScanTokenSize

func parsePairs(content []byte, lookup func(string) (string, bool)) ([]string, error) {
	var pairs []string
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, maxPairLine)
	for n := 1; lines.Scan(); n++ {
		raw := lines.Bytes()
		if !utf8.Valid(raw) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %v", n, raw)
		}
		if n == 1 {
			raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
		}
		// Blanks before the key are layout; blanks after "=" are part of the value.
		line := strings.TrimLeftFunc(string(raw), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, hasValue := strings.Cut(line, "=")
		switch {
		case key == "":
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		case strings.ContainsAny(key, blanks):
			return nil, fmt.Errorf("variable '%s' contains whitespaces", key)
		case hasValue:
			pairs = append(pairs, line)
		case lookup != nil:
			if value, ok := lookup(line); ok {
				pairs = append(pairs, key+"="+value)
			}
		}
	}
	return pairs, lines.Err()
}

// PairsToMap splits KEY=VALUE strings; the last of a key wins, a missing value is empty. The map is never nil.
func PairsToMap(pairs []string) map[string]string {
	m := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		k, v, _ := strings.Cut(pair, "=")
		m[k] = v
	}
	return m
}

// PairsToOptionalMap is PairsToMap that tells KEY (nil) from KEY= (empty).
func PairsToOptionalMap(pairs []string) map[string]*string {
	m := make(map[string]*string, len(pairs))
	for _, pair := range pairs {
		k, v, ok := strings.Cut(pair, "=")
		if ok {
			m[k] = &v
		} else {
			m[k] = nil
		}
	}
	return m
}
