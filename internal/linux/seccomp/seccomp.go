// Package seccomp turns an OCI seccomp profile into a kernel filter and
// attaches it.
//
// Compile is the entry point. It needs no C library: system call numbers come
// from tables that are constant data (no start-up cost for programs that only
// link this package), and the program it writes finds a call by a binary tree
// over ranges of numbers, so that neither attaching it (the kernel runs it once
// per call number to learn which are always allowed) nor a call that must be
// looked at costs much.
//
// A filter travels between processes as bytes (Filter.MarshalBinary,
// UnmarshalFilter): whoever prepares a container compiles, and its init only
// attaches. Cache keeps compiled profiles, also on disk.
//
// Locks: Cache.mu is the only one; it is never held while compiling or reading
// a file.
package seccomp
