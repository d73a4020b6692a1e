// Package container holds what is true about one container, without touching
// anything: the lifecycle table, restart decisions, the checks and merges of a
// create request, mounts and limits derived from it, and the OCI configuration
// that a runtime runs. It does no IO, reads no clock and starts no goroutine;
// what it must know about the machine comes in as HostFacts or a function.
//
// Entry points: Merge and Validate (create), State.On (every verb),
// RestartDecision (an exit), BuildSpec (start).
//
// There are no locks: values are immutable or owned by the caller.
package container
