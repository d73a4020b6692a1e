package childinit

import "debug/elf"

const (
	machine  = elf.EM_X86_64
	pageSize = 4096
)
