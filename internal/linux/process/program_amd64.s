#include "textflag.h"

// See program.go for the layout of a program. The child keeps everything in
// registers: it shares the parent's stack and must neither read nor write it.

#define OP_SIZE 80

// func cloneRun(args unsafe.Pointer, size uintptr, prog unsafe.Pointer) int64
TEXT ·cloneRun(SB),NOSPLIT|NOFRAME,$0-32
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ prog+16(FP), R13
	MOVQ $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, ret+24(FP)
	RET

child:
	LEAQ 64(R13), R12

loop:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	MOVQ 72(R12), BX
	TESTQ BX, BX
	JEQ  call
	MOVQ (BX), DI // the result of an earlier step is the first argument

call:
	SYSCALL
	MOVQ 56(R12), BX
	TESTQ AX, AX
	JEQ  next // 0 is there already; a fork's child must not hide its pid
	MOVQ AX, 64(R12)
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	TESTQ $2, BX
	JEQ  next
	XORQ DI, DI // a forking step leaves only its child
	JMP  exit

next:
	ADDQ $OP_SIZE, R12
	JMP  loop

failed:
	TESTQ $1, BX
	JNE  next
	MOVQ AX, 8(R13)
	MOVQ R12, 0(R13)
	MOVQ $127, DI

exit:
	MOVQ $231, AX // exit_group
	SYSCALL
	JMP  exit
