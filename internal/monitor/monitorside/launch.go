package monitorside

import (
	"encoding/json"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orlop/orlop/internal/monitor/protocol"
	"github.com/orlop/orlop/internal/runtime/bundle"
	"github.com/orlop/orlop/internal/runtime/plainjson"
)

// launch is a decoded launch request.
type launch struct {
	protocol.LaunchArgs
	Spec *specs.Spec `json:"spec"`
	// config is the text that Spec was read from; nil when it is not known.
	config []byte
	netNS  *os.File
}

// decode is json.Unmarshal into l. What a daemon usually sends is read without it:
// every monitor is a new process, and reads one launch.
func (l *launch) decode(body []byte) error {
	r := plainjson.New(string(body))
	r.Object(func(key string) bool { return l.field(r, key) })
	if r.Done() {
		return nil
	}
	*l = launch{}
	return json.Unmarshal(body, l)
}

func (l *launch) field(r *plainjson.Reader, key string) bool {
	switch key {
	case "id":
		plainjson.Str(r, &l.ID)
	case "runDir":
		plainjson.Str(r, &l.RunDir)
	case "rootfs":
		plainjson.Pointer(r, &l.Rootfs, rootfsFrom)
	case "log":
		logFrom(r, &l.Log)
	case "openStdin":
		plainjson.Flag(r, &l.OpenStdin)
	case "stdinOnce":
		plainjson.Flag(r, &l.StdinOnce)
	case "tied":
		plainjson.Flag(r, &l.Tied)
	case "systemdCgroup":
		plainjson.Flag(r, &l.SystemdCgroup)
	case "runtime":
		plainjson.Str(r, &l.Runtime)
	case "runtimeArgs":
		plainjson.Strs(r, &l.RuntimeArgs)
	case "files":
		plainjson.Strs(r, &l.Files)
	case "attach":
		plainjson.List(r, &l.Attach, attachFrom)
	case "spec":
		l.config = []byte(r.Text(func() { plainjson.Pointer(r, &l.Spec, bundle.Spec) }))
	default:
		return false
	}
	return true
}

func rootfsFrom(r *plainjson.Reader, v *protocol.Rootfs) {
	r.Object(func(key string) bool {
		switch key {
		case "lower":
			plainjson.Strs(r, &v.Lower)
		case "upper":
			plainjson.Str(r, &v.Upper)
		case "work":
			plainjson.Str(r, &v.Work)
		case "volatile":
			plainjson.Flag(r, &v.Volatile)
		case "uids":
			plainjson.List(r, &v.UIDs, mappingFrom)
		case "gids":
			plainjson.List(r, &v.GIDs, mappingFrom)
		default:
			return false
		}
		return true
	})
}

func mappingFrom(r *plainjson.Reader, v *protocol.IDMapping) {
	bundle.IDMapping(r, (*specs.LinuxIDMapping)(v))
}

func logFrom(r *plainjson.Reader, v *protocol.Log) {
	r.Object(func(key string) bool {
		switch key {
		case "driver":
			plainjson.Str(r, &v.Driver)
		case "path":
			plainjson.Str(r, &v.Path)
		case "maxSize":
			plainjson.Signed(r, &v.MaxSize)
		case "maxFiles":
			plainjson.Signed(r, &v.MaxFiles)
		case "compress":
			plainjson.Flag(r, &v.Compress)
		case "attrs":
			plainjson.StrMap(r, &v.Attrs)
		case "buffer":
			plainjson.Signed(r, &v.Buffer)
		default:
			return false
		}
		return true
	})
}

func attachFrom(r *plainjson.Reader, v *protocol.AttachArgs) {
	r.Object(func(key string) bool {
		switch key {
		case "exec":
			plainjson.Str(r, &v.Exec)
		case "stdin":
			plainjson.Flag(r, &v.Stdin)
		case "stdout":
			plainjson.Flag(r, &v.Stdout)
		case "stderr":
			plainjson.Flag(r, &v.Stderr)
		default:
			return false
		}
		return true
	})
}
