package seccomp

import (
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// flagTsync is accepted although the OCI constants do not name it: runc does.
const flagTsync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// Compile translates a profile for the kernel this process runs on.
//
// What the specification leaves open is decided as runc with libseccomp does:
//   - A call that no table knows is ignored (Filter.Ignored).
//   - A rule without conditions beats conditional rules of the same call; of
//     two of them the first counts. Conditional rules are tried in the order
//     of the profile.
//   - All conditions of a rule must hold; but when two of them name the same
//     argument, each is a rule of its own.
//   - A filter always covers the native ABI. Calls of an ABI that is not
//     listed kill the thread. Listed architectures of other machines can never
//     occur and are left out.
//   - Without flags the filter is attached with SPEC_ALLOW.
//   - Calls numbered above the newest one the profile names answer ENOSYS
//     rather than a forbidding default action, because C libraries only try
//     the older call on that answer.
//
// The class of every error is InvalidArgument, except NotImplemented on a
// processor without table.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	m, ok := hostMachine()
	if !ok {
		return nil, errdefs.ErrNotImplemented.WithMessage("compile seccomp profile: no table of system calls for " + runtime.GOARCH)
	}
	return compile(p, m)
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage("compile seccomp profile: " + fmt.Sprintf(format, args...))
}

// op is a comparison the program can make; others are its negation.
type op uint8

const (
	opEQ op = iota // argument & mask == value
	opGT
	opGE
)

// cond is one comparison of one argument.
type cond struct {
	arg         uint8
	op          op
	not         bool
	mask, value uint64
}

// clause is a conditional rule: all conds hold → act.
type clause struct {
	conds []cond
	act   uint32
}

// outcome is what happens to a call.
type outcome struct {
	named, always bool
	act           uint32 // when always
	clauses       []clause
}

// segment is a range of call numbers, up to the next segment's first, with
// one outcome: a constant action, or clauses.
type segment struct {
	first   uint32
	act     uint32
	clauses []clause
	// wide: the clauses look at all 64 bits of arguments.
	wide bool
}

func compile(p *specs.LinuxSeccomp, m machine) (*Filter, error) {
	if p == nil {
		return nil, invalid("there is none")
	}
	f := &Filter{}
	var err error
	if f.flags, err = flagBits(p.Flags); err != nil {
		return nil, err
	}
	def, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if def == unix.SECCOMP_RET_USER_NOTIF {
		// The init could not even hand the listener over.
		return nil, invalid("%s cannot be the default action", specs.ActNotify)
	}
	use, err := coveredABIs(p.Architectures, &m)
	if err != nil {
		return nil, err
	}
	calls, err := f.resolve(p.Syscalls, def, &m)
	if err != nil {
		return nil, err
	}

	newer := unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	switch p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		// Permissive; a tracer answers ENOSYS itself.
		newer = def
	}

	// One tree per AUDIT_ARCH: x32 shares x86_64's.
	type tree struct {
		audit uint32
		segs  []segment
	}
	var trees []tree
	for i, a := range m.abis {
		if !use[i] {
			continue
		}
		segs := segments(calls, &m, i, def, newer)
		if k := slices.IndexFunc(trees, func(t tree) bool { return t.audit == a.audit }); k >= 0 {
			trees[k].segs = append(trees[k].segs, segs...)
			continue
		}
		trees = append(trees, tree{a.audit, segs})
	}
	for i := range trees {
		t := &trees[i]
		if t.audit == unix.AUDIT_ARCH_X86_64 {
			if t.segs[len(t.segs)-1].first < x32Bit {
				t.segs = append(t.segs, segment{first: x32Bit, act: unix.SECCOMP_RET_KILL_THREAD})
			}
			if t.segs[0].first >= x32Bit {
				t.segs = append([]segment{{first: 0, act: unix.SECCOMP_RET_KILL_THREAD}}, t.segs...)
			}
		}
		if l := t.segs[len(t.segs)-1]; l.act != def || l.clauses != nil {
			t.segs = append(t.segs, segment{first: noCall, act: def})
		}
	}

	asm := assembler{big: m.big}
	starts := make([]int, len(trees))
	for i := len(trees) - 1; i >= 0; i-- {
		asm.tree(trees[i].segs, def)
		starts[i] = asm.emit(loadAbs, offNr)
	}
	next := asm.emitRet(unix.SECCOMP_RET_KILL_THREAD)
	for i := len(trees) - 1; i >= 0; i-- {
		next = asm.jump(jumpEQ, trees[i].audit, starts[i], next)
	}
	asm.emit(loadAbs, offArch)
	if f.prog, err = asm.program(); err != nil {
		return nil, err
	}
	return f, nil
}

func flagBits(flags []specs.LinuxSeccompFlag) (uint32, error) {
	if flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var bits uint32
	for _, fl := range flags {
		switch fl {
		case flagTsync:
			bits |= unix.SECCOMP_FILTER_FLAG_TSYNC
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, invalid("unknown flag %q", fl)
		}
	}
	return bits, nil
}

// actionOf is the filter's return value for an action. errno is 1 (EPERM)
// when not given.
func actionOf(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if a != specs.ActErrno && a != specs.ActTrace {
			return 0, invalid("action %s takes no errno", a)
		}
		if *errno > unix.SECCOMP_RET_DATA {
			return 0, invalid("errno %d is above %d", *errno, unix.SECCOMP_RET_DATA)
		}
		data = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, invalid("unknown action %q", a)
}

func coveredABIs(archs []specs.Arch, m *machine) ([maxABIs]bool, error) {
	var use [maxABIs]bool
	use[m.native] = true
	for _, a := range archs {
		if !knownArch(a) {
			return use, invalid("unknown architecture %q", a)
		}
		for i := range m.abis {
			if m.abis[i].arch == a {
				use[i] = true
			}
		}
	}
	return use, nil
}

// resolve reads the rules into one outcome per row of the machine's table.
func (f *Filter) resolve(rules []specs.LinuxSyscall, def uint32, m *machine) ([]outcome, error) {
	calls := make([]outcome, len(m.table))
	mux := slices.ContainsFunc(m.abis, func(a abi) bool { return a.mux })
	for i := range rules {
		r := &rules[i]
		if len(r.Names) == 0 {
			return nil, invalid("rule %d names no system call", i)
		}
		act, err := actionOf(r.Action, r.ErrnoRet)
		if err != nil {
			return nil, err
		}
		clauses, err := clausesOf(r.Args, act)
		if err != nil {
			return nil, err
		}
		for _, name := range r.Names {
			if name == "" {
				return nil, invalid("rule %d names an empty system call", i)
			}
			k := m.lookup(name)
			through, number := "", uint32(0)
			if mux {
				through, number = muxed(name)
			}
			if k < 0 && through == "" {
				f.ignored = append(f.ignored, name)
				continue
			}
			if k >= 0 {
				calls[k].named = true
			}
			if act == def {
				continue
			}
			f.notify = f.notify || act == unix.SECCOMP_RET_USER_NOTIF
			if k >= 0 {
				calls[k].add(clauses, act)
			}
			if through != "" {
				if t := m.lookup(through); t >= 0 {
					calls[t].named = true
					calls[t].add(muxClauses(clauses, act, number), act)
				}
			}
		}
	}
	return calls, nil
}

func (o *outcome) add(clauses []clause, act uint32) {
	switch {
	case o.always:
	case len(clauses) == 0:
		*o = outcome{named: true, always: true, act: act}
	case len(o.clauses) == 0:
		// Calls of one rule share its clauses, and so the code for them.
		o.clauses = slices.Clip(clauses)
	default:
		o.clauses = append(o.clauses, clauses...)
	}
}

// muxClauses are the clauses of a call as seen through socketcall or ipc:
// the first argument is the call's number instead of what it was. It is an int
// to the kernel on all machines, so its upper half does not count.
func muxClauses(in []clause, act uint32, number uint32) []clause {
	sel := cond{arg: 0, op: opEQ, mask: math.MaxUint32, value: uint64(number)}
	if len(in) == 0 {
		return []clause{{conds: []cond{sel}, act: act}}
	}
	out := make([]clause, 0, len(in))
	for _, c := range in {
		conds := []cond{sel}
		for _, k := range c.conds {
			if k.arg != 0 {
				conds = append(conds, k)
			}
		}
		out = append(out, clause{conds: conds, act: act})
	}
	return out
}

func clausesOf(args []specs.LinuxSeccompArg, act uint32) ([]clause, error) {
	if len(args) == 0 {
		return nil, nil
	}
	conds := make([]cond, 0, len(args))
	var seen uint8
	twice := false
	for i := range args {
		a := &args[i]
		if a.Index > 5 {
			return nil, invalid("argument %d: a system call has six, 0 to 5", a.Index)
		}
		twice = twice || seen&(1<<a.Index) != 0
		seen |= 1 << a.Index
		c := cond{arg: uint8(a.Index), mask: ^uint64(0), value: a.Value}
		switch a.Op {
		case specs.OpEqualTo:
		case specs.OpNotEqual:
			c.not = true
		case specs.OpGreaterThan:
			c.op = opGT
		case specs.OpGreaterEqual:
			c.op = opGE
		case specs.OpLessThan:
			c.op, c.not = opGE, true
		case specs.OpLessEqual:
			c.op, c.not = opGT, true
		case specs.OpMaskedEqual:
			// Bits of the value outside the mask do not count (libseccomp).
			c.mask, c.value = a.Value, a.ValueTwo&a.Value
		default:
			return nil, invalid("unknown operator %q", a.Op)
		}
		conds = append(conds, c)
	}
	if !twice {
		return []clause{{conds: conds, act: act}}, nil
	}
	out := make([]clause, len(conds))
	for i := range conds {
		out[i] = clause{conds: conds[i : i+1 : i+1], act: act}
	}
	return out, nil
}

// segments lays the outcomes out over the numbers of an ABI.
func segments(calls []outcome, m *machine, abiIndex int, def, newer uint32) []segment {
	a := &m.abis[abiIndex]
	// Numbers are dense from the base, but for arm's private calls.
	const dense = 1024
	var byNr [dense]int16 // row + 1
	type private struct {
		nr  uint32
		row int
	}
	var privates []private
	last := -1
	for r := range m.table {
		nr := m.table[r].nr[abiIndex]
		if nr < 0 || !calls[r].named {
			continue
		}
		off := int(uint32(nr) - a.base)
		if off >= dense {
			privates = append(privates, private{uint32(nr), r})
			continue
		}
		last = max(last, off)
		byNr[off] = int16(r + 1)
	}
	segs := make([]segment, 0, 192)
	push := func(first, act uint32, clauses []clause) {
		if n := len(segs); n > 0 {
			l := &segs[n-1]
			if clauses == nil && l.clauses == nil && l.act == act {
				return
			}
			if l.first == first {
				segs = segs[:n-1]
			}
		}
		segs = append(segs, segment{first, act, clauses, a.wide})
	}
	pushRow := func(first uint32, o *outcome) {
		switch {
		case o.always:
			push(first, o.act, nil)
		case len(o.clauses) > 0:
			push(first, 0, o.clauses)
		default:
			push(first, def, nil)
		}
	}
	if a.base != x32Bit { // the numbers below it are x86_64's
		push(0, def, nil)
	}
	push(a.base, def, nil)
	for off := 0; off <= last; off++ {
		first := a.base + uint32(off)
		if byNr[off] == 0 {
			push(first, def, nil)
			continue
		}
		pushRow(first, &calls[byNr[off]-1])
	}
	if last >= 0 {
		// A profile that names no call of this ABI says nothing about its age.
		push(a.base+uint32(last)+1, newer, nil)
	}
	if a.private != 0 {
		push(a.private, def, nil)
		slices.SortFunc(privates, func(x, y private) int { return int(x.nr) - int(y.nr) })
		for i, p := range privates {
			pushRow(p.nr, &calls[p.row])
			if i+1 == len(privates) || privates[i+1].nr != p.nr+1 {
				push(p.nr+1, def, nil)
			}
		}
	}
	return segs
}
