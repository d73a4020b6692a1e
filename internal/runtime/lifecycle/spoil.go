//go:build !faults

package lifecycle

import "github.com/orlop/orlop/internal/runtime/initproc"

// spoil is where a build with the tag "faults" puts defects into what a stage
// is told (spoil_faults.go); here it does nothing.
func spoil(*initproc.Config) {}
