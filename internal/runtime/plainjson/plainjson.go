// Package plainjson reads and writes the JSON that programs usually write, without
// reflection, for processes that live too short to pay for encoding/json's
// first use of a type. A Reader gives up at whatever it does not know to mean the same
// to encoding/json (unknown or doubled keys, null, fractions); the caller then
// asks that. The entry points are New and AppendStr. No locks.
package plainjson

import (
	"encoding/json"
	"math"
)

// New makes a Reader of a text; strings read from it share its memory.
func New(text string) *Reader { return &Reader{s: text} }

// Done reports whether the whole text was read and understood.
func (r *Reader) Done() bool {
	r.space()
	return !r.bad && r.i == len(r.s)
}

// Rest is the text that was not read.
func (r *Reader) Rest() string { return r.s[min(r.i, len(r.s)):] }

// Fail gives up.
func (r *Reader) Fail() { r.bad = true }

// Text is what read reads, as it stands there.
func (r *Reader) Text(read func()) string {
	r.space()
	start := r.i
	read()
	return r.s[start:min(r.i, len(r.s))]
}

// AppendStr appends a string as json.Marshal writes it.
func AppendStr(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string cannot fail
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// Reader reads the JSON text s from i on, until it is bad.
type Reader struct {
	s   string
	i   int
	bad bool
}

func (r *Reader) space() {
	for r.i < len(r.s) {
		switch r.s[r.i] {
		case ' ', '\n', '\t', '\r':
			r.i++
		default:
			return
		}
	}
}

// next skips space and takes c if it is there.
func (r *Reader) next(c byte) bool {
	r.space()
	if r.bad || r.i >= len(r.s) || r.s[r.i] != c {
		return false
	}
	r.i++
	return true
}

func (r *Reader) want(c byte) {
	if !r.next(c) {
		r.bad = true
	}
}

// maxKeys is more than any object has whose keys have names.
const maxKeys = 24

// Object calls field for each key, which reads the value or returns false for a
// key it does not know.
func (r *Reader) Object(field func(key string) bool) {
	var seen [maxKeys]string
	n := 0
	r.want('{')
	if r.next('}') {
		return
	}
	for !r.bad {
		var key string
		Str(r, &key)
		r.want(':')
		for _, k := range seen[:n] {
			r.bad = r.bad || k == key
		}
		if r.bad || n == maxKeys || !field(key) {
			r.bad = true
			return
		}
		seen[n] = key
		n++
		if r.next('}') {
			return
		}
		r.want(',')
	}
}

// List reads an array; an empty one is not nil.
func List[T any](r *Reader, v *[]T, item func(*Reader, *T)) {
	*v = []T{}
	r.want('[')
	if r.next(']') {
		return
	}
	for !r.bad {
		var zero T
		*v = append(*v, zero)
		item(r, &(*v)[len(*v)-1])
		if r.next(']') {
			return
		}
		r.want(',')
	}
}

// Pointer reads into a new value.
func Pointer[T any](r *Reader, v **T, item func(*Reader, *T)) {
	*v = new(T)
	item(r, *v)
}

// StrMap reads an object of any keys.
func StrMap(r *Reader, v *map[string]string) {
	*v = map[string]string{}
	r.want('{')
	if r.next('}') {
		return
	}
	for !r.bad {
		var key, value string
		Str(r, &key)
		r.want(':')
		Str(r, &value)
		(*v)[key] = value
		if r.next('}') {
			return
		}
		r.want(',')
	}
}

// Str reads a string.
func Str[T ~string](r *Reader, v *T) {
	r.want('"')
	if r.bad {
		return
	}
	start := r.i
	for ; r.i < len(r.s); r.i++ {
		switch c := r.s[r.i]; {
		case c == '"':
			*v = T(r.s[start:r.i])
			r.i++
			return
		case c == '\\' || c < ' ' || c > '~':
			*v = T(r.escaped(start))
			return
		}
	}
	r.bad = true
}

// escaped reads a string that is not plain ASCII.
func (r *Reader) escaped(start int) (v string) {
	for ; r.i < len(r.s); r.i++ {
		switch r.s[r.i] {
		case '\\':
			r.i++
		case '"':
			r.i++
			r.bad = json.Unmarshal([]byte(r.s[start-1:r.i]), &v) != nil
			return v
		}
	}
	r.bad = true
	return ""
}

// Strs reads an array of strings.
func Strs(r *Reader, v *[]string) { List(r, v, Str) }

// Flag reads true or false.
func Flag(r *Reader, v *bool) {
	r.space()
	switch rest := r.s[r.i:]; {
	case len(rest) >= 4 && rest[:4] == "true":
		*v, r.i = true, r.i+4
	case len(rest) >= 5 && rest[:5] == "false":
		*v, r.i = false, r.i+5
	default:
		r.bad = true
	}
}

// digits reads a number without sign, fraction and exponent.
func (r *Reader) digits() (n uint64) {
	start := r.i
	for ; r.i < len(r.s) && r.s[r.i] >= '0' && r.s[r.i] <= '9'; r.i++ {
		d := uint64(r.s[r.i] - '0')
		if n > (math.MaxUint64-d)/10 {
			r.bad = true
			return 0
		}
		n = 10*n + d
	}
	if r.i == start || r.i > start+1 && r.s[start] == '0' || r.i < len(r.s) && (r.s[r.i] == '.' || r.s[r.i] == 'e' || r.s[r.i] == 'E') {
		r.bad = true
	}
	return n
}

// Unsigned reads a number that fits.
func Unsigned[T ~uint | ~uint16 | ~uint32 | ~uint64](r *Reader, v *T) {
	r.space()
	n := r.digits()
	*v = T(n)
	r.bad = r.bad || uint64(*v) != n
}

// Signed reads a number that may be negative.
func Signed[T ~int | ~int64](r *Reader, v *T) {
	negative := r.next('-')
	if !negative {
		r.space()
	}
	n := r.digits()
	if n > math.MaxInt64 {
		r.bad = true
		return
	}
	*v = T(n)
	if negative {
		*v = -*v
	}
}
