package image

// Filters are the conditions of a list or prune request: for each key the
// values of which one must match (label: all).
type Filters map[string][]string
