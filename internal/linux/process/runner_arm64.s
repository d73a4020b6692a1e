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
	MOVD $·runner(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func runner()
TEXT ·runner(SB),NOSPLIT|NOFRAME,$0-0
	// The first argument's two bytes hold the descriptor of the steps.
	MOVD  8(RSP), R9
	MOVBU 0(R9), R4
	AND   $0x7f, R4
	MOVBU 1(R9), R5
	AND   $0x7f, R5
	LSL   $7, R5
	ORR   R5, R4
	MOVD  MEM_BASE, R19
	MOVD  R19, R0
	MOVD  MEM_SIZE, R1
	MOVD  $3, R2         // PROT_READ|PROT_WRITE
	MOVD  $0x11, R3      // MAP_SHARED|MAP_FIXED
	MOVD  ZR, R5
	MOVD  $222, R8       // mmap
	SVC
	MOVD  R0, R9
	MOVD  $126, R0
	CMP   R19, R9
	BNE   exit
	ADD   $64, R19, R20

loop:
	MOVD R20, 16(R19)    // how far we are
	MOVD 0(R20), R8
	MOVD $0x10000, R9
	CMP  R9, R8
	BEQ  skip
	MOVD 8(R20), R0
	MOVD 16(R20), R1
	MOVD 24(R20), R2
	MOVD 32(R20), R3
	MOVD 40(R20), R4
	MOVD 48(R20), R5
	MOVD 72(R20), R9
	CBZ  R9, call
	MOVD (R9), R0        // the result of an earlier step is the first argument

call:
	SVC
	MOVD 56(R20), R9
	CBZ  R0, next        // 0 is there already; a fork's child must not hide its pid
	MOVD R0, 64(R20)
	CMN  $4095, R0
	BHS  failed
	TBZ  $1, R9, next
	MOVD ZR, R0          // a forking step leaves only its child
	B    exit

next:
	ADD $STEP_SIZE, R20
	B   loop

skip:
	// Word at the first argument, masked by the second, equal to the third:
	// skip as many steps as the fourth says.
	MOVD 8(R20), R9
	MOVD (R9), R10
	MOVD 16(R20), R11
	AND  R11, R10
	MOVD 24(R20), R11
	CMP  R11, R10
	BNE  next
	MOVD 32(R20), R10
	MOVD $STEP_SIZE, R11
	MUL  R11, R10
	ADD  R10, R20
	B    next

failed:
	MOVD R0, 8(R19)
	TBNZ $0, R9, next
	MOVD R20, 0(R19)
	MOVD $127, R0

exit:
	MOVD $94, R8         // exit_group
	SVC
	B    exit
	WORD $0x6e757265
	WORD $0x646e6520
