package network

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
)

// Input says who decides about connections to a published port. The empty one
// leaves that to somebody else: a container to its network, a network to the
// daemon.
type Input string

const (
	// InputBypass: the kernel translates a packet's destination before the
	// host's input rules see it, so the port is open whatever they say. It is
	// what Docker does, and the default.
	InputBypass Input = "bypass"
	// InputObey: connections are accepted on the host and carried to the
	// container, so the host's input rules see them with the published port as
	// destination, and decide. The container sees the host as its client.
	InputObey Input = "obey"
)

// OptPublishInput is the option of bridge networks, and the label of
// containers, that sets Input for all of their ports. The label
// "orlop.publish.PORT[-PORT][/PROTO].input" sets it for some ports of the
// container, tcp where no protocol is named.
const OptPublishInput = publishPrefix + "input"

const publishPrefix = "orlop.publish."

// ParseInput reads a value; "" is not one. ErrInvalidArgument names it.
func ParseInput(name, value string) (Input, error) {
	switch i := Input(value); i {
	case InputBypass, InputObey:
		return i, nil
	}
	return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid value of %s: %q is neither %s nor %s", name, value, InputObey, InputBypass))
}

// PublishLabels are those of labels that say how ports are published; nil for
// none. Only labels that a container was created with may be asked: an image
// must not open its ports to the world.
func PublishLabels(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	maps.DeleteFunc(out, func(name, _ string) bool { return !strings.HasPrefix(name, publishPrefix) })
	if len(out) == 0 {
		return nil
	}
	return out
}

// PublishRules are such labels as values.
type PublishRules struct {
	all Input
	// some are about ranges of ports, the narrowest first.
	some []publishRule
}

type publishRule struct {
	label       string
	proto       string
	first, last uint16
	input       Input
}

// ParsePublish reads labels. ErrInvalidArgument for one that is not understood,
// or that contradicts another one.
func ParsePublish(labels map[string]string) (PublishRules, error) {
	var rules PublishRules
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !strings.HasPrefix(name, publishPrefix) {
			continue
		}
		input, err := ParseInput("label "+name, labels[name])
		if err != nil {
			return PublishRules{}, err
		}
		if name == OptPublishInput {
			rules.all = input
			continue
		}
		ports, ok := strings.CutSuffix(strings.TrimPrefix(name, publishPrefix), ".input")
		r, err := networktypes.ParsePortRange(ports)
		if !ok || err != nil || r.Start() == 0 {
			return PublishRules{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("label %s is not known: it is %s, or %sPORT/PROTO.input", name, OptPublishInput, publishPrefix))
		}
		rules.some = append(rules.some, publishRule{label: name, proto: string(r.Proto()), first: r.Start(), last: r.End(), input: input})
	}
	width := func(r publishRule) int { return int(r.last) - int(r.first) }
	slices.SortStableFunc(rules.some, func(a, b publishRule) int { return cmp.Compare(width(a), width(b)) })
	for i, a := range rules.some {
		for _, b := range rules.some[:i] {
			if a.proto == b.proto && width(a) == width(b) && a.first <= b.last && b.first <= a.last && a.input != b.input {
				return PublishRules{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("labels %s and %s contradict each other", b.label, a.label))
			}
		}
	}
	return rules, nil
}

// Of is what the labels say about a port of the container; "" for nothing.
func (r PublishRules) Of(proto string, port uint16) Input {
	for _, one := range r.some {
		if one.proto == proto && one.first <= port && port <= one.last {
			return one.input
		}
	}
	return r.all
}

// Check finds a label about ports that are not published: who meant another
// port would find it open. ErrInvalidArgument.
func (r PublishRules) Check(wanted []WantedPort) error {
	for _, one := range r.some {
		if !slices.ContainsFunc(wanted, func(w WantedPort) bool {
			return w.Proto == one.proto && one.first <= w.ContainerPort && w.ContainerPort <= one.last
		}) {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("label %s: the container publishes no such port of its own", one.label))
		}
	}
	return nil
}

// DecideInput says whether a port obeys the host's input rules: label, the
// network's option and the daemon's default are asked in this order. reserved
// is false where the port is not one of the host but of the container's own
// address (gateway mode routed); there the host's input rules have no say, so
// a port that is asked to obey them must not be published. ErrInvalidArgument
// in that case, and for SCTP, which nobody carries.
func DecideInput(w WantedPort, option, daemon Input, reserved bool) (obeys bool, err error) {
	refuse := func(why string) error {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("port %d/%s cannot obey the host's input rules: %s", w.ContainerPort, w.Proto, why))
	}
	asked := cmp.Or(w.Input, option)
	switch {
	case cmp.Or(asked, daemon) != InputObey:
		return false, nil
	case !reserved && asked == InputObey:
		return false, refuse("the network's gateway mode is routed, there is no port of the host")
	case !reserved:
		return false, nil
	case w.Proto == string(networktypes.SCTP):
		return false, refuse(fmt.Sprintf("SCTP is not relayed (the label %s%d/%s.input=%s publishes it regardless of them)", publishPrefix, w.ContainerPort, w.Proto, InputBypass))
	}
	return true, nil
}
