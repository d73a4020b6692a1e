//go:build !undefended

package defense

// Dropped reports whether a defense is taken away: never.
func Dropped(Name) bool { return false }

// Environment is what a child has to be told: nothing.
func Environment() []string { return nil }
