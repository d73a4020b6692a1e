// Package arch holds the import table of the project: which ring may import
// which. The table is enforced by the package's test, which reads the source
// of the whole module, so a forbidden import fails the build's tests and names
// the line of the table that forbids it.
//
// The table is the one of docs/architecture.md; change both together.
package arch

import "strings"

// module is the path every import of ours starts with.
const module = "github.com/orlop/orlop/"

// A Rule says what the packages below one folder may import. Everything of
// ours that is not listed in May is forbidden, and so is everything listed in
// Never, whoever it belongs to.
type Rule struct {
	// Ring is the folder the rule is about, relative to the module's root. The
	// longest ring that contains a package is the one that counts.
	Ring string
	// May lists folders of ours; a package may always import its own ring.
	May []string
	// Never lists import paths, ours or foreign; "x/..." includes what is
	// below. It holds for every ring inside this one too.
	Never []string
	// Only, when not nil, lists the only foreign modules (beside the standard
	// library) that may be imported.
	Only []string
}

// Rules is the table.
var Rules = []Rule{
	{
		Ring: "internal/domain",
		Never: []string{
			"os", "os/...", "net", "net/http", "net/http/...", "syscall", "golang.org/x/sys/...",
		},
		Only: []string{
			"github.com/containerd/errdefs", "github.com/moby/moby/api", "github.com/distribution/reference",
			"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "github.com/opencontainers/runtime-spec",
			"github.com/docker/go-units", "github.com/moby/docker-image-spec", "github.com/containerd/platforms",
			"github.com/moby/profiles",
		},
	},
	{
		Ring: "internal/engine",
		May:  []string{"internal/domain"},
		Never: []string{
			"net/http", "github.com/vishvananda/...", "github.com/google/nftables/...", "go.etcd.io/...",
			"golang.org/x/sys/unix",
		},
	},
	// The objects of the engine are acyclic: containers use the others, never
	// the other way round.
	{
		Ring: "internal/engine/containers",
		May:  []string{"internal/defense", "internal/domain", "internal/engine/images", "internal/engine/networks", "internal/engine/events"},
	},
	{Ring: "internal/engine/images", May: []string{"internal/domain"}},
	{Ring: "internal/engine/networks", May: []string{"internal/domain"}},
	{Ring: "internal/engine/events", May: []string{"internal/domain"}},
	{Ring: "internal/store", May: []string{"internal/domain", "internal/linux"}},
	{Ring: "internal/netdriver", May: []string{"internal/domain", "internal/linux", "internal/nameserver/table"}},
	{Ring: "internal/plugin", May: []string{"internal/domain", "internal/linux"}},
	{Ring: "internal/registry", May: []string{"internal/domain", "internal/linux"}},
	{Ring: "internal/nameserver", May: []string{"internal/linux"}},
	{Ring: "internal/nameserver/table", Only: []string{}},
	{Ring: "internal/logfile", May: []string{"internal/linux"}},
	{Ring: "internal/monitor/protocol", Only: []string{}},
	{
		Ring: "internal/monitor/daemonside",
		May:  []string{"internal/monitor/protocol", "internal/defense", "internal/domain", "internal/linux"},
	},
	{
		Ring:  "internal/monitor/monitorside",
		May:   []string{"internal/monitor/protocol", "internal/runtime", "internal/logfile", "internal/linux"},
		Never: []string{"github.com/moby/moby/...", "net/http"},
	},
	{
		Ring:  "internal/runtime",
		May:   []string{"internal/linux", "internal/defense"},
		Never: []string{"net/http", "github.com/spf13/...", "github.com/moby/moby/..."},
	},
	{Ring: "internal/linux", May: []string{"internal/defense"}, Never: []string{"net/http"}},
	{Ring: "internal/defense", Only: []string{}},
	{
		Ring:  "internal/httpapi",
		May:   []string{"internal/engine", "internal/domain"},
		Never: []string{"github.com/vishvananda/...", "go.etcd.io/...", "golang.org/x/sys/unix"},
	},
	{
		Ring: "internal/cli",
		May:  []string{"internal/domain"},
		Never: []string{
			"github.com/moby/buildkit/...", "github.com/compose-spec/...", "github.com/containerd/containerd/...",
			"github.com/moby/moby/v2/...",
		},
	},
	{Ring: "internal/arch", Only: []string{}},
	{Ring: "cmd/orlop", May: []string{"internal/cli", "internal/domain/version"}},
	{Ring: "cmd/orlop-runtime", May: []string{"internal/runtime", "internal/monitor/monitorside", "internal/linux"}},
	{Ring: "cmd/orlop-netd", May: []string{"internal/nameserver", "internal/linux"}},
	{Ring: "cmd/orlopd", May: []string{"internal"}},
	{Ring: "internal/testkit", May: []string{"internal"}},
	{Ring: "test", May: []string{"internal", "test"}},
	{Ring: "bench", May: []string{"internal", "test"}},
}

// ruleFor returns the rule with the longest ring that contains dir.
func ruleFor(dir string) (Rule, bool) {
	var best Rule
	found := false
	for _, r := range Rules {
		if within(dir, r.Ring) && (!found || len(r.Ring) > len(best.Ring)) {
			best, found = r, true
		}
	}
	return best, found
}

// Violation tells why the package in dir (relative to the module's root) must
// not import path, or "" when it may.
func Violation(dir, path string) string {
	r, ok := ruleFor(dir)
	if !ok {
		return "folder " + dir + " has no rule in internal/arch"
	}
	for _, outer := range Rules {
		if !within(dir, outer.Ring) {
			continue
		}
		for _, never := range outer.Never {
			if matches(path, never) {
				return outer.Ring + " never imports " + never
			}
		}
	}
	if own, ours := strings.CutPrefix(path, module); ours {
		if within(own, r.Ring) || within(own, "internal/domain") && within(dir, "internal/domain") {
			return ""
		}
		for _, may := range r.May {
			if within(own, may) {
				return ""
			}
		}
		return r.Ring + " may not import " + own
	}
	if r.Only != nil && strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
		for _, only := range r.Only {
			if within(path, only) {
				return ""
			}
		}
		return r.Ring + " may not import " + path
	}
	return ""
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func matches(path, pattern string) bool {
	if folder, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(path, folder)
	}
	return path == pattern
}
