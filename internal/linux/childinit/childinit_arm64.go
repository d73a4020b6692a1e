package childinit

import "debug/elf"

const (
	machine = elf.EM_AARCH64
	// pageSize is the largest that kernels for this architecture have.
	pageSize = 65536
)
