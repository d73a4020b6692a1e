// Package image holds what is true about images and their references: how
// names are read and shown, which filters exist and what they match, what may
// be removed. It does no IO; the entry points are [Parse], [Filters] and
// [PlanRemoval].
package image
