// Package initproc is the stage of our program that becomes a container's
// process: it runs inside the new namespaces and ends with execve.
package initproc

// Main runs the stage named by args[0] (os.Args[1:]) and does not return when
// the stage succeeds; otherwise it returns the exit status.
func Main(args []string) int { return 1 }
