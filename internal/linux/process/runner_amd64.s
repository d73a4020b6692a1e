#include "textflag.h"

// The runner: all code of the small program that calls.go makes an executable
// of. It is position-independent, runs on a fresh stack that it does not use,
// and ends with the mark that tells where to stop copying. Keep the numbers
// equal to those in calls.go.

#define STEP_SIZE 80
#define MEM_BASE  $0x10000000
#define MEM_SIZE  $0x1000000

// func runnerCode() unsafe.Pointer
TEXT ·runnerCode(SB),NOSPLIT|NOFRAME,$0-8
	LEAQ ·runner(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func runner()
TEXT ·runner(SB),NOSPLIT|NOFRAME,$0-0
	// The first argument's two bytes hold the descriptor of the steps.
	MOVQ    8(SP), BX
	MOVBLZX 0(BX), R8
	ANDL    $0x7f, R8
	MOVBLZX 1(BX), AX
	ANDL    $0x7f, AX
	SHLL    $7, AX
	ORL     AX, R8
	MOVQ    MEM_BASE, R13
	MOVQ    R13, DI
	MOVQ    MEM_SIZE, SI
	MOVL    $3, DX        // PROT_READ|PROT_WRITE
	MOVL    $0x11, R10    // MAP_SHARED|MAP_FIXED
	XORL    R9, R9
	MOVL    $9, AX        // mmap
	SYSCALL
	MOVQ    $126, DI
	CMPQ    AX, R13
	JNE     exit
	LEAQ    64(R13), R12

loop:
	MOVQ  R12, 16(R13)    // how far we are
	MOVQ  0(R12), AX
	CMPQ  AX, $0x10000
	JEQ   skip
	MOVQ  8(R12), DI
	MOVQ  16(R12), SI
	MOVQ  24(R12), DX
	MOVQ  32(R12), R10
	MOVQ  40(R12), R8
	MOVQ  48(R12), R9
	MOVQ  72(R12), BX
	TESTQ BX, BX
	JEQ   call
	MOVQ  (BX), DI        // the result of an earlier step is the first argument

call:
	SYSCALL
	MOVQ  56(R12), BX
	TESTQ AX, AX
	JEQ   next            // 0 is there already; a fork's child must not hide its pid
	MOVQ  AX, 64(R12)
	CMPQ  AX, $0xfffffffffffff001
	JCC   failed
	TESTQ $2, BX
	JEQ   next
	XORQ  DI, DI          // a forking step leaves only its child
	JMP   exit

next:
	ADDQ $STEP_SIZE, R12
	JMP  loop

skip:
	// Word at the first argument, masked by the second, equal to the third:
	// skip as many steps as the fourth says.
	MOVQ 8(R12), BX
	MOVQ (BX), AX
	ANDQ 16(R12), AX
	CMPQ AX, 24(R12)
	JNE  next
	MOVQ 32(R12), AX
	IMUL3Q $STEP_SIZE, AX, AX
	ADDQ AX, R12
	JMP  next

failed:
	MOVQ  AX, 8(R13)
	TESTQ $1, BX
	JNE   next
	MOVQ  R12, 0(R13)
	MOVQ  $127, DI

exit:
	MOVQ $231, AX         // exit_group
	SYSCALL
	JMP  exit
	QUAD $0x646e65206e757265
