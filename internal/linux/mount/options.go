package mount

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options is what the option list of an OCI mount means.
type Options struct {
	// Set and Clear are mount attributes (MOUNT_ATTR_*) of the mount itself,
	// TreeSet and TreeClear of it and everything below (the "r…" options).
	Set, Clear         uint64
	TreeSet, TreeClear uint64
	// Super are flags of the file system: "ro", "sync", "dirsync", …
	Super []string
	// Data are the file system's own options, "key=value" or "key".
	Data []string
	// Propagation holds MS_* propagation types in the order given.
	Propagation []uint64
	// Bind: the source is a file or directory; Recursive takes what is
	// mounted below it too.
	Bind, Recursive bool
	// Remount changes the mount that is there.
	Remount bool
	// CopyUp fills a new tmpfs with what it covers.
	CopyUp bool
	// IDMap and TreeIDMap ask for the id translation of the mount.
	IDMap, TreeIDMap bool
}

// attr is one option that sets or clears mount attributes.
type attr struct {
	set, clear uint64
	super      string
}

// attrs are the options of mount(8) that are attributes of a mount. "ro" is
// also a flag of a new file system; atime's four states exclude each other, so
// setting one clears the field.
var attrs = map[string]attr{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY, super: "ro"},
	"rw":            {clear: unix.MOUNT_ATTR_RDONLY, super: "rw"},
	"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"dev":           {clear: unix.MOUNT_ATTR_NODEV},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"defaults":      {},
}

// supers are options that are flags of the file system only; the empty ones
// state the default or have no effect any more (mount(8)).
var supers = map[string]string{
	"sync": "sync", "async": "async", "dirsync": "dirsync",
	"lazytime": "lazytime", "nolazytime": "nolazytime",
	"mand": "mand", "nomand": "nomand", "silent": "", "loud": "", // fsopen(2) has no MS_SILENT
	"iversion": "", "noiversion": "",
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// Propagation returns the MS_* bits of a propagation type's name.
func Propagation(name string) (uint64, bool) {
	flags, ok := propagations[name]
	return flags, ok
}

// ParseOptions reads the options of a mount (runtime-spec config.md, "Linux
// mount options"). What it does not know is an option of the file system.
func ParseOptions(list []string) (Options, error) {
	var o Options
	for _, name := range list {
		switch name {
		case "bind":
			o.Bind = true
			continue
		case "rbind":
			o.Bind, o.Recursive = true, true
			continue
		case "remount":
			o.Remount = true
			continue
		case "tmpcopyup":
			o.CopyUp = true
			continue
		case "idmap":
			o.IDMap = true
			continue
		case "ridmap":
			o.IDMap, o.TreeIDMap = true, true
			continue
		case "":
			continue
		}
		if p, ok := propagations[name]; ok {
			o.Propagation = append(o.Propagation, p)
			continue
		}
		if a, ok := attrs[name]; ok {
			o.Set, o.Clear = combine(o.Set, o.Clear, a)
			if a.super != "" {
				o.Super = append(o.Super, a.super)
			}
			continue
		}
		if flag, ok := supers[name]; ok {
			if flag != "" {
				o.Super = append(o.Super, flag)
			}
			continue
		}
		if a, ok := attrs[strings.TrimPrefix(name, "r")]; ok && strings.HasPrefix(name, "r") && name != "rdefaults" {
			o.TreeSet, o.TreeClear = combine(o.TreeSet, o.TreeClear, a)
			continue
		}
		if strings.IndexByte(name, 0) >= 0 {
			return Options{}, fmt.Errorf("mount option %q holds a NUL byte", name)
		}
		o.Data = append(o.Data, name)
	}
	return o, nil
}

// combine applies a after what is set and cleared already: the last one wins.
func combine(set, cleared uint64, a attr) (uint64, uint64) {
	return set&^a.clear | a.set, cleared&^a.set | a.clear
}

// OptionNames lists, sorted, every option that ParseOptions knows itself.
func OptionNames() []string {
	names := []string{"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"}
	for name := range attrs {
		names = append(names, name)
		if name != "defaults" {
			names = append(names, "r"+name)
		}
	}
	for name := range supers {
		names = append(names, name)
	}
	for name := range propagations {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
