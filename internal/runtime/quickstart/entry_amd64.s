#include "textflag.h"

// func entry()
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0-0
	CMPB runtime·iscgo(SB), $0
	JNE  runtime          // a C library has this thread's memory
	// Calls of Go functions read the goroutine from thread-local memory.
	LEAQ ·threadMemory+64(SB), SI
	MOVQ $0x1002, DI      // ARCH_SET_FS
	MOVQ $158, AX         // arch_prctl
	SYSCALL
	MOVQ SP, BX
	SUBQ $32, SP
	MOVQ BX, 0(SP)
	CALL ·start(SB)
	MOVQ 8(SP), DI
	ADDQ $32, SP
	TESTQ DI, DI
	JLT  runtime
	MOVQ $231, AX         // exit_group
	SYSCALL

runtime:
	JMP _rt0_amd64_linux(SB)
