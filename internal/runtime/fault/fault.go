//go:build !faults

// Package fault holds deliberate defects of the runtime, one per plausible
// slip, so that test/conform can show that each of them is noticed. They exist
// only in a program built with the tag "faults", where the variable Variable of
// the environment chooses one. In every other build On is false at compile time
// and the compiler leaves out what it guards, names included: a test of
// test/conform looks for them in the finished program. No locks.
package fault

// On reports whether the named defect is switched on.
func On(string) bool { return false }

// Environ is what a child needs to have the same defect.
func Environ() []string { return nil }
