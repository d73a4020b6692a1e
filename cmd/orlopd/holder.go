package main

import "sync/atomic"

// holder is a value that a reload replaces as a whole.
type holder[T any] struct{ v atomic.Pointer[T] }

func hold[T any](v T) *holder[T] {
	h := &holder[T]{}
	h.set(v)
	return h
}

func (h *holder[T]) get() T  { return *h.v.Load() }
func (h *holder[T]) set(v T) { h.v.Store(&v) }
