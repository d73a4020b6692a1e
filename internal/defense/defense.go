// Package defense names what stops the published escapes from containers, so
// that test/escape can take one away and see its attack succeed: a test that
// passes with and without a defense proves nothing.
//
// In the programs people get, Dropped is the constant false and everything
// behind it is not compiled. Only a build with the tag "undefended", which
// exists for that test alone, reads the environment variable ORLOP_UNDEFENDED:
// names separated by commas. Neither locks nor state.
package defense

// Name of a defense.
type Name string

// The defenses and the attacks they are known for. Where several would stop
// an attack, each is named; test/escape drops them alone and together.
const (
	// SealedExecutable: what a container sees as /proc/self/exe of a stage is no
	// file that can be written (CVE-2019-5736).
	SealedExecutable Name = "sealed-executable"
	// UserFilesInside: names of users and groups are read beneath the container's
	// layers (of the kind of CVE-2019-14271, where a host process used the
	// container's files as its own).
	UserFilesInside Name = "user-files-inside"
	// VolumesInside: a subpath of a volume is opened once, beneath the volume,
	// and a volume in use is filled where no container sees it (both of the kind
	// of CVE-2021-30465 and CVE-2021-25741).
	VolumesInside Name = "volumes-inside"
	// PlacesInside: the place of a mount is made and opened beneath the root,
	// once (CVE-2021-30465, CVE-2024-45310).
	PlacesInside Name = "places-inside"
	// Capabilities are taken away (CVE-2022-0492, CVE-2022-29162).
	Capabilities Name = "capabilities"
	// Seccomp filters system calls (CVE-2022-0492).
	Seccomp Name = "seccomp"
	// HostDescriptors: no descriptor of a host folder is open in a stage, and
	// CwdInside: the current folder is below the root (both CVE-2024-21626).
	HostDescriptors Name = "host-descriptors"
	CwdInside       Name = "cwd-inside"
	// NullIsNull: what masks a file is the null device (CVE-2025-31133).
	NullIsNull Name = "null-is-null"
	// ConsoleByDescriptor: /dev/console is the terminal that was opened, not
	// what its path leads to (CVE-2025-52565).
	ConsoleByDescriptor Name = "console-by-descriptor"
	// ProcUncovered: nothing is mounted inside /proc (CVE-2019-16884), and
	// OwnProc: what init writes to procfs goes to one that is not the
	// container's (both CVE-2025-52881).
	ProcUncovered Name = "proc-uncovered"
	OwnProc       Name = "own-proc"
	// ProcOrdinary: procfs and sysfs are mounted on a folder, not through a link
	// (CVE-2019-19921, CVE-2023-27561).
	ProcOrdinary Name = "proc-ordinary"
)
