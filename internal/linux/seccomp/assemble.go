package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Instructions of classic BPF that a filter needs. The kernel's cache of
// always-allowed calls understands all of them but loads of arguments
// (kernel/seccomp.c, seccomp_is_const_allow).
const (
	loadAbs = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	andK    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	jumpA   = unix.BPF_JMP | unix.BPF_JA
	jumpEQ  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpGT  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	jumpGE  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	retK    = unix.BPF_RET | unix.BPF_K
)

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// maxProgram is the kernel's BPF_MAXINSNS.
const maxProgram = 4096

// assembler writes a program from its end to its start, because a jump goes
// forward only: when it is written, its target is already in place. A
// position is an index into rev; the last instruction is 0.
type assembler struct {
	// big: arguments lie in memory with the upper half first.
	big bool
	rev []unix.SockFilter
	// rets remembers where each return value was last written.
	rets []retAt
	// shared remembers the code of clauses that several calls have.
	shared []clausesAt
}

type clausesAt struct {
	first *clause
	n     int
	wide  bool
	at    int
}

type retAt struct {
	act uint32
	at  int
}

func (a *assembler) emit(code uint16, k uint32) int {
	if a.rev == nil {
		a.rev = make([]unix.SockFilter, 0, 512)
	}
	a.rev = append(a.rev, unix.SockFilter{Code: code, K: k})
	return len(a.rev) - 1
}

func (a *assembler) emitRet(act uint32) int {
	at := a.emit(retK, act)
	for i := range a.rets {
		if a.rets[i].act == act {
			a.rets[i].at = at
			return at
		}
	}
	a.rets = append(a.rets, retAt{act, at})
	return at
}

// reach is how far a conditional jump goes (8 bits). Two are kept back for
// what near may have to write between the decision and the jump.
const reach = 255 - 2

// ret is a position in reach that returns act.
func (a *assembler) ret(act uint32) int {
	for _, r := range a.rets {
		if r.act == act && len(a.rev)-r.at-1 <= reach {
			return r.at
		}
	}
	return a.emitRet(act)
}

// near is target, or a position in reach that goes there.
func (a *assembler) near(target int) int {
	if len(a.rev)-target-1 <= reach {
		return target
	}
	if t := a.rev[target]; t.Code == retK {
		return a.ret(t.K)
	}
	return a.emit(jumpA, uint32(len(a.rev)-target-1))
}

// jump writes a conditional jump.
func (a *assembler) jump(code uint16, k uint32, yes, no int) int {
	yes = a.near(yes)
	no = a.near(no)
	at := len(a.rev)
	a.rev = append(a.rev, unix.SockFilter{Code: code, K: k, Jt: uint8(at - yes - 1), Jf: uint8(at - no - 1)})
	return at
}

// tree writes a binary search of the call's number, which the instruction
// before it has loaded, and makes it the position that is written next.
func (a *assembler) tree(segs []segment, def uint32) {
	start := a.subtree(segs, def)
	if start != len(a.rev)-1 {
		a.emit(jumpA, uint32(len(a.rev)-start-1))
	}
}

func (a *assembler) subtree(segs []segment, def uint32) int {
	if len(segs) == 1 {
		if segs[0].clauses != nil {
			return a.clauses(&segs[0], def)
		}
		return a.ret(segs[0].act)
	}
	mid := len(segs) / 2
	right := a.subtree(segs[mid:], def)
	left := a.subtree(segs[:mid], def)
	return a.jump(jumpGE, segs[mid].first, right, left)
}

// clauses writes the conditional rules of a segment, tried in order.
func (a *assembler) clauses(s *segment, def uint32) int {
	cs := s.clauses
	for _, k := range a.shared {
		if k.first == &cs[0] && k.n == len(cs) && k.wide == s.wide {
			return k.at
		}
	}
	no := a.ret(def)
	for i := len(cs) - 1; i >= 0; i-- {
		yes := a.ret(cs[i].act)
		for j := len(cs[i].conds) - 1; j >= 0; j-- {
			yes = a.cond(&cs[i].conds[j], s.wide, yes, no)
		}
		no = yes
	}
	a.shared = append(a.shared, clausesAt{&cs[0], len(cs), s.wide, no})
	return no
}

// cond writes one comparison: the lower half of the argument, and before it
// the upper half when it counts.
func (a *assembler) cond(c *cond, wide bool, yes, no int) int {
	if c.not {
		yes, no = no, yes
	}
	lower := offArgs + 8*uint32(c.arg)
	upper := lower + 4
	if a.big {
		lower, upper = upper, lower
	}
	lowMask, lowValue := uint32(c.mask), uint32(c.value)
	highMask, highValue := uint32(c.mask>>32), uint32(c.value>>32)

	code := uint16(jumpEQ)
	switch c.op {
	case opGT:
		code = jumpGT
	case opGE:
		code = jumpGE
	}
	a.jump(code, lowValue, yes, no)
	if lowMask != ^uint32(0) {
		a.emit(andK, lowMask)
	}
	low := a.emit(loadAbs, lower)
	if !wide || (c.op == opEQ && highMask == 0) {
		return low
	}
	if c.op == opEQ {
		a.jump(jumpEQ, highValue, low, no)
		if highMask != ^uint32(0) {
			a.emit(andK, highMask)
		}
	} else {
		equal := a.jump(jumpEQ, highValue, low, no)
		a.jump(jumpGT, highValue, yes, equal)
	}
	return a.emit(loadAbs, upper)
}

// program is the finished program in the kernel's order.
func (a *assembler) program() ([]unix.SockFilter, error) {
	if len(a.rev) > maxProgram {
		return nil, invalid("it needs %d instructions, the kernel takes %d", len(a.rev), maxProgram)
	}
	slices.Reverse(a.rev)
	return slices.Clip(a.rev), nil
}
