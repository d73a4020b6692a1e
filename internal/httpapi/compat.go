package httpapi

import (
	"bytes"
	"encoding/json"
)

// A reshaped value is written as JSON with fields added and removed, for
// versions of the API whose answers had another shape than today's types.
type reshaped struct {
	base any
	add  map[string]any
	omit []string
}

// with adds fields to v's JSON. An existing field that is not null is kept, and
// objects are merged. Later calls of the same value do not override earlier.
func with(v any, add map[string]any) *reshaped {
	if r, ok := v.(*reshaped); ok {
		merge(r.add, add)
		return r
	}
	r := &reshaped{base: v, add: map[string]any{}}
	merge(r.add, add)
	return r
}

// MarshalJSON implements json.Marshaler.
func (r *reshaped) MarshalJSON() ([]byte, error) {
	raw, err := marshal(r.base)
	if err != nil {
		return nil, err
	}
	fields, err := fieldsOf(raw)
	if err != nil {
		return nil, err
	}
	for _, key := range r.omit {
		delete(fields, key)
	}
	merge(fields, r.add)
	return marshal(fields)
}

// merge adds what dst does not have.
func merge(dst, src map[string]any) {
	for key, value := range src {
		old, there := dst[key]
		if from, ok := value.(map[string]any); ok {
			if into, ok := old.(map[string]any); ok {
				merge(into, from)
				continue
			}
		}
		if !there || old == nil {
			dst[key] = value
		}
	}
}

// fieldsOf decodes a JSON object without losing digits of large numbers.
func fieldsOf(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var fields map[string]any
	err := dec.Decode(&fields)
	return fields, err
}
