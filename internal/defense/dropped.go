//go:build undefended

package defense

import (
	"os"
	"slices"
	"strings"
)

const variable = "ORLOP_UNDEFENDED"

// Dropped reports whether a defense is taken away.
func Dropped(n Name) bool {
	return slices.Contains(strings.Split(os.Getenv(variable), ","), string(n))
}

// Environment is what a child has to be told.
func Environment() []string { return []string{variable + "=" + os.Getenv(variable)} }
