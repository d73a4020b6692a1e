package bundle

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/runtime/plainjson"
)

// Decode reads a configuration (config.json) as encoding/json does.
//
// What engines usually write is read by package plainjson: the types of a
// configuration cost encoding/json 1.5 ms and 100 pages in a new process before
// it has read anything. Where that gives up, encoding/json decides from the
// beginning, its errors included.
func Decode(body []byte) (*specs.Spec, error) { return decode(body, Spec) }

// decodeProcess is Decode of a process object.
func decodeProcess(body []byte) (*specs.Process, error) { return decode(body, process) }

func decode[T any](body []byte, read func(*plainjson.Reader, *T)) (*T, error) {
	v := new(T)
	r := plainjson.New(string(body))
	if read(r, v); r.Done() {
		return v, nil
	}
	v = new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Spec reads a configuration that is a part of another text. When r is not Done,
// encoding/json has to read that from the beginning.
func Spec(r *plainjson.Reader, v *specs.Spec) {
	r.Object(func(key string) bool {
		switch key {
		case "ociVersion":
			plainjson.Str(r, &v.Version)
		case "process":
			plainjson.Pointer(r, &v.Process, process)
		case "root":
			plainjson.Pointer(r, &v.Root, root)
		case "hostname":
			plainjson.Str(r, &v.Hostname)
		case "domainname":
			plainjson.Str(r, &v.Domainname)
		case "mounts":
			plainjson.List(r, &v.Mounts, mount)
		case "hooks":
			plainjson.Pointer(r, &v.Hooks, hooks)
		case "annotations":
			plainjson.StrMap(r, &v.Annotations)
		case "linux":
			plainjson.Pointer(r, &v.Linux, linux)
		default:
			return false
		}
		return true
	})
}

func process(r *plainjson.Reader, v *specs.Process) {
	r.Object(func(key string) bool {
		switch key {
		case "terminal":
			plainjson.Flag(r, &v.Terminal)
		case "consoleSize":
			plainjson.Pointer(r, &v.ConsoleSize, box)
		case "user":
			user(r, &v.User)
		case "args":
			plainjson.Strs(r, &v.Args)
		case "env":
			plainjson.Strs(r, &v.Env)
		case "cwd":
			plainjson.Str(r, &v.Cwd)
		case "capabilities":
			plainjson.Pointer(r, &v.Capabilities, capabilities)
		case "rlimits":
			plainjson.List(r, &v.Rlimits, rlimit)
		case "noNewPrivileges":
			plainjson.Flag(r, &v.NoNewPrivileges)
		case "apparmorProfile":
			plainjson.Str(r, &v.ApparmorProfile)
		case "oomScoreAdj":
			plainjson.Pointer(r, &v.OOMScoreAdj, plainjson.Signed)
		case "selinuxLabel":
			plainjson.Str(r, &v.SelinuxLabel)
		default:
			return false
		}
		return true
	})
}

func box(r *plainjson.Reader, v *specs.Box) {
	r.Object(func(key string) bool {
		switch key {
		case "height":
			plainjson.Unsigned(r, &v.Height)
		case "width":
			plainjson.Unsigned(r, &v.Width)
		default:
			return false
		}
		return true
	})
}

func user(r *plainjson.Reader, v *specs.User) {
	r.Object(func(key string) bool {
		switch key {
		case "uid":
			plainjson.Unsigned(r, &v.UID)
		case "gid":
			plainjson.Unsigned(r, &v.GID)
		case "umask":
			plainjson.Pointer(r, &v.Umask, plainjson.Unsigned)
		case "additionalGids":
			plainjson.List(r, &v.AdditionalGids, plainjson.Unsigned)
		default:
			return false
		}
		return true
	})
}

func capabilities(r *plainjson.Reader, v *specs.LinuxCapabilities) {
	r.Object(func(key string) bool {
		switch key {
		case "bounding":
			plainjson.Strs(r, &v.Bounding)
		case "effective":
			plainjson.Strs(r, &v.Effective)
		case "inheritable":
			plainjson.Strs(r, &v.Inheritable)
		case "permitted":
			plainjson.Strs(r, &v.Permitted)
		case "ambient":
			plainjson.Strs(r, &v.Ambient)
		default:
			return false
		}
		return true
	})
}

func rlimit(r *plainjson.Reader, v *specs.POSIXRlimit) {
	r.Object(func(key string) bool {
		switch key {
		case "type":
			plainjson.Str(r, &v.Type)
		case "hard":
			plainjson.Unsigned(r, &v.Hard)
		case "soft":
			plainjson.Unsigned(r, &v.Soft)
		default:
			return false
		}
		return true
	})
}

func root(r *plainjson.Reader, v *specs.Root) {
	r.Object(func(key string) bool {
		switch key {
		case "path":
			plainjson.Str(r, &v.Path)
		case "readonly":
			plainjson.Flag(r, &v.Readonly)
		default:
			return false
		}
		return true
	})
}

func mount(r *plainjson.Reader, v *specs.Mount) {
	r.Object(func(key string) bool {
		switch key {
		case "destination":
			plainjson.Str(r, &v.Destination)
		case "type":
			plainjson.Str(r, &v.Type)
		case "source":
			plainjson.Str(r, &v.Source)
		case "options":
			plainjson.Strs(r, &v.Options)
		case "uidMappings":
			plainjson.List(r, &v.UIDMappings, IDMapping)
		case "gidMappings":
			plainjson.List(r, &v.GIDMappings, IDMapping)
		default:
			return false
		}
		return true
	})
}

// IDMapping reads a range of ids, as Spec does.
func IDMapping(r *plainjson.Reader, v *specs.LinuxIDMapping) {
	r.Object(func(key string) bool {
		switch key {
		case "containerID":
			plainjson.Unsigned(r, &v.ContainerID)
		case "hostID":
			plainjson.Unsigned(r, &v.HostID)
		case "size":
			plainjson.Unsigned(r, &v.Size)
		default:
			return false
		}
		return true
	})
}

func hooks(r *plainjson.Reader, v *specs.Hooks) {
	r.Object(func(key string) bool {
		switch key {
		case "prestart":
			plainjson.List(r, &v.Prestart, hook) //nolint:staticcheck // deprecated and still to be run
		case "createRuntime":
			plainjson.List(r, &v.CreateRuntime, hook)
		case "createContainer":
			plainjson.List(r, &v.CreateContainer, hook)
		case "startContainer":
			plainjson.List(r, &v.StartContainer, hook)
		case "poststart":
			plainjson.List(r, &v.Poststart, hook)
		case "poststop":
			plainjson.List(r, &v.Poststop, hook)
		default:
			return false
		}
		return true
	})
}

func hook(r *plainjson.Reader, v *specs.Hook) {
	r.Object(func(key string) bool {
		switch key {
		case "path":
			plainjson.Str(r, &v.Path)
		case "args":
			plainjson.Strs(r, &v.Args)
		case "env":
			plainjson.Strs(r, &v.Env)
		case "timeout":
			plainjson.Pointer(r, &v.Timeout, plainjson.Signed)
		default:
			return false
		}
		return true
	})
}

func linux(r *plainjson.Reader, v *specs.Linux) {
	r.Object(func(key string) bool {
		switch key {
		case "uidMappings":
			plainjson.List(r, &v.UIDMappings, IDMapping)
		case "gidMappings":
			plainjson.List(r, &v.GIDMappings, IDMapping)
		case "sysctl":
			plainjson.StrMap(r, &v.Sysctl)
		case "resources":
			plainjson.Pointer(r, &v.Resources, resources)
		case "cgroupsPath":
			plainjson.Str(r, &v.CgroupsPath)
		case "namespaces":
			plainjson.List(r, &v.Namespaces, namespace)
		case "devices":
			plainjson.List(r, &v.Devices, device)
		case "seccomp":
			plainjson.Pointer(r, &v.Seccomp, filter)
		case "rootfsPropagation":
			plainjson.Str(r, &v.RootfsPropagation)
		case "maskedPaths":
			plainjson.Strs(r, &v.MaskedPaths)
		case "readonlyPaths":
			plainjson.Strs(r, &v.ReadonlyPaths)
		case "mountLabel":
			plainjson.Str(r, &v.MountLabel)
		default:
			return false
		}
		return true
	})
}

func namespace(r *plainjson.Reader, v *specs.LinuxNamespace) {
	r.Object(func(key string) bool {
		switch key {
		case "type":
			plainjson.Str(r, &v.Type)
		case "path":
			plainjson.Str(r, &v.Path)
		default:
			return false
		}
		return true
	})
}

func device(r *plainjson.Reader, v *specs.LinuxDevice) {
	r.Object(func(key string) bool {
		switch key {
		case "path":
			plainjson.Str(r, &v.Path)
		case "type":
			plainjson.Str(r, &v.Type)
		case "major":
			plainjson.Signed(r, &v.Major)
		case "minor":
			plainjson.Signed(r, &v.Minor)
		case "fileMode":
			plainjson.Pointer(r, &v.FileMode, plainjson.Unsigned)
		case "uid":
			plainjson.Pointer(r, &v.UID, plainjson.Unsigned)
		case "gid":
			plainjson.Pointer(r, &v.GID, plainjson.Unsigned)
		default:
			return false
		}
		return true
	})
}

func resources(r *plainjson.Reader, v *specs.LinuxResources) {
	r.Object(func(key string) bool {
		switch key {
		case "devices":
			plainjson.List(r, &v.Devices, deviceRule)
		case "memory":
			plainjson.Pointer(r, &v.Memory, memory)
		case "cpu":
			plainjson.Pointer(r, &v.CPU, cpu)
		case "pids":
			plainjson.Pointer(r, &v.Pids, pids)
		case "blockIO":
			plainjson.Pointer(r, &v.BlockIO, blockIO)
		case "unified":
			plainjson.StrMap(r, &v.Unified)
		default:
			return false
		}
		return true
	})
}

func deviceRule(r *plainjson.Reader, v *specs.LinuxDeviceCgroup) {
	r.Object(func(key string) bool {
		switch key {
		case "allow":
			plainjson.Flag(r, &v.Allow)
		case "type":
			plainjson.Str(r, &v.Type)
		case "major":
			plainjson.Pointer(r, &v.Major, plainjson.Signed)
		case "minor":
			plainjson.Pointer(r, &v.Minor, plainjson.Signed)
		case "access":
			plainjson.Str(r, &v.Access)
		default:
			return false
		}
		return true
	})
}

func memory(r *plainjson.Reader, v *specs.LinuxMemory) {
	r.Object(func(key string) bool {
		switch key {
		case "limit":
			plainjson.Pointer(r, &v.Limit, plainjson.Signed)
		case "reservation":
			plainjson.Pointer(r, &v.Reservation, plainjson.Signed)
		case "swap":
			plainjson.Pointer(r, &v.Swap, plainjson.Signed)
		case "swappiness":
			plainjson.Pointer(r, &v.Swappiness, plainjson.Unsigned)
		case "disableOOMKiller":
			plainjson.Pointer(r, &v.DisableOOMKiller, plainjson.Flag)
		default:
			return false
		}
		return true
	})
}

func cpu(r *plainjson.Reader, v *specs.LinuxCPU) {
	r.Object(func(key string) bool {
		switch key {
		case "shares":
			plainjson.Pointer(r, &v.Shares, plainjson.Unsigned)
		case "quota":
			plainjson.Pointer(r, &v.Quota, plainjson.Signed)
		case "burst":
			plainjson.Pointer(r, &v.Burst, plainjson.Unsigned)
		case "period":
			plainjson.Pointer(r, &v.Period, plainjson.Unsigned)
		case "realtimeRuntime":
			plainjson.Pointer(r, &v.RealtimeRuntime, plainjson.Signed)
		case "realtimePeriod":
			plainjson.Pointer(r, &v.RealtimePeriod, plainjson.Unsigned)
		case "cpus":
			plainjson.Str(r, &v.Cpus)
		case "mems":
			plainjson.Str(r, &v.Mems)
		case "idle":
			plainjson.Pointer(r, &v.Idle, plainjson.Signed)
		default:
			return false
		}
		return true
	})
}

func pids(r *plainjson.Reader, v *specs.LinuxPids) {
	r.Object(func(key string) bool {
		if key != "limit" {
			return false
		}
		plainjson.Pointer(r, &v.Limit, plainjson.Signed)
		return true
	})
}

// blockIO knows what is not about one device.
func blockIO(r *plainjson.Reader, v *specs.LinuxBlockIO) {
	r.Object(func(key string) bool {
		switch key {
		case "weight":
			plainjson.Pointer(r, &v.Weight, plainjson.Unsigned)
		case "leafWeight":
			plainjson.Pointer(r, &v.LeafWeight, plainjson.Unsigned)
		default:
			return false
		}
		return true
	})
}

func filter(r *plainjson.Reader, v *specs.LinuxSeccomp) {
	r.Object(func(key string) bool {
		switch key {
		case "defaultAction":
			plainjson.Str(r, &v.DefaultAction)
		case "defaultErrnoRet":
			plainjson.Pointer(r, &v.DefaultErrnoRet, plainjson.Unsigned)
		case "architectures":
			plainjson.List(r, &v.Architectures, plainjson.Str)
		case "flags":
			plainjson.List(r, &v.Flags, plainjson.Str)
		case "syscalls":
			plainjson.List(r, &v.Syscalls, systemCall)
		default:
			return false
		}
		return true
	})
}

func systemCall(r *plainjson.Reader, v *specs.LinuxSyscall) {
	r.Object(func(key string) bool {
		switch key {
		case "names":
			plainjson.Strs(r, &v.Names)
		case "action":
			plainjson.Str(r, &v.Action)
		case "errnoRet":
			plainjson.Pointer(r, &v.ErrnoRet, plainjson.Unsigned)
		case "args":
			plainjson.List(r, &v.Args, condition)
		default:
			return false
		}
		return true
	})
}

func condition(r *plainjson.Reader, v *specs.LinuxSeccompArg) {
	r.Object(func(key string) bool {
		switch key {
		case "index":
			plainjson.Unsigned(r, &v.Index)
		case "value":
			plainjson.Unsigned(r, &v.Value)
		case "valueTwo":
			plainjson.Unsigned(r, &v.ValueTwo)
		case "op":
			plainjson.Str(r, &v.Op)
		default:
			return false
		}
		return true
	})
}
