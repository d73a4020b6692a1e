// Package mutation changes Go values as a fuzzer's bytes say: where mutating the
// text of a large JSON document mostly breaks its syntax, this keeps the shape
// and shakes the content. The entry point is Apply.
package mutation

import (
	"encoding/binary"
	"math"
	"reflect"
)

// maxDepth ends the descent into types that contain themselves.
const maxDepth = 12

// maxChanges bounds the work for one input.
const maxChanges = 64

// Apply changes what value (a non-nil pointer) points to, a few bytes of data
// a change. The same data makes the same changes. Strings come from words or
// from data itself, numbers from data and the edges of their type.
func Apply(value any, data []byte, words []string) {
	s := &source{data: data, words: words}
	v := reflect.ValueOf(value).Elem()
	for n := 0; len(s.data) > 0 && n < maxChanges; n++ {
		s.change(v, 0)
	}
}

// source is the fuzzer's input; at its end it yields zeros.
type source struct {
	data  []byte
	words []string
}

func (s *source) next() int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b)
}

func (s *source) number() uint64 {
	edges := [...]uint64{
		0, 1, 2, 3, 5, 6, 7, 255, 256, 1000, 4095, 4096, 4097, 65535, 65536, math.MaxInt32, 1 << 31, math.MaxUint32, 1 << 32, 1 << 40,
		math.MaxInt64, 1 << 63, math.MaxUint64, math.MaxUint64 - 1,
	}
	n := s.next()
	if n < 2*len(edges) {
		return edges[n/2] + uint64(n&1)*^uint64(0) // the edge, or one below it
	}
	var b [8]byte
	copy(b[:], s.data)
	k := min(len(s.data), 1+n&7)
	clear(b[k:])
	s.data = s.data[k:]
	return binary.LittleEndian.Uint64(b[:])
}

func (s *source) text() string {
	n := s.next()
	if n < 208 && len(s.words) > 0 {
		return s.words[(n<<8|s.next())%len(s.words)]
	}
	k := min(len(s.data), n&15)
	t := string(s.data[:k])
	s.data = s.data[k:]
	return t
}

// change changes one thing somewhere in v.
func (s *source) change(v reflect.Value, depth int) {
	if depth > maxDepth || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if v.NumField() > 0 {
			s.change(v.Field(s.next()%v.NumField()), depth+1)
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else if s.next()%8 == 0 {
			v.SetZero()
			return
		}
		s.change(v.Elem(), depth+1)
	case reflect.Slice:
		s.changeSlice(v, depth)
	case reflect.Map:
		s.changeMap(v, depth)
	case reflect.Array:
		if v.Len() > 0 {
			s.change(v.Index(s.next()%v.Len()), depth+1)
		}
	case reflect.String:
		v.SetString(s.text())
	case reflect.Bool:
		v.SetBool(s.next()&1 == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(s.number()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(s.number())
	case reflect.Float32, reflect.Float64:
		v.SetFloat(math.Float64frombits(s.number()))
	}
}

// changeSlice adds, removes, doubles or changes an element.
func (s *source) changeSlice(v reflect.Value, depth int) {
	act := s.next() % 8
	switch {
	case v.Len() == 0 || act == 0:
		if v.Len() < 64 {
			v.Set(reflect.Append(copyOf(v), reflect.Zero(v.Type().Elem())))
			s.change(v.Index(v.Len()-1), depth+1)
		}
	case act == 1:
		i := s.next() % v.Len()
		c := copyOf(v)
		v.Set(reflect.AppendSlice(c.Slice(0, i), c.Slice(i+1, c.Len())))
	case act == 2:
		if v.Len() < 64 {
			v.Set(reflect.Append(copyOf(v), v.Index(s.next()%v.Len())))
		}
	case act == 3:
		v.SetZero()
	default:
		i := s.next() % v.Len()
		v.Set(copyOf(v))
		s.change(v.Index(i), depth+1)
	}
}

// copyOf keeps values apart that shared an array.
func copyOf(v reflect.Value) reflect.Value {
	return reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()+1), v)
}

func (s *source) changeMap(v reflect.Value, depth int) {
	if s.next()%8 == 0 {
		v.SetZero()
		return
	}
	key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
	s.change(key, depth+1)
	s.change(value, depth+1)
	m := reflect.MakeMap(v.Type())
	for _, k := range v.MapKeys() {
		m.SetMapIndex(k, v.MapIndex(k))
	}
	m.SetMapIndex(key, value)
	v.Set(m)
}
