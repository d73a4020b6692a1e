//go:build faults

// Package fault is described in fault.go.
package fault

import "os"

// Variable of the environment that chooses a defect by its name.
const Variable = "ORLOP_FAULT"

// On reports whether the named defect is switched on.
func On(name string) bool { return os.Getenv(Variable) == name }

// Environ is what a child needs to have the same defect.
func Environ() []string { return []string{Variable + "=" + os.Getenv(Variable)} }
