#include "textflag.h"

// See program.go for the layout of a program. The child keeps everything in
// registers: it shares the parent's stack and must neither read nor write it.

#define OP_SIZE 80

// func cloneRun(args unsafe.Pointer, size uintptr, prog unsafe.Pointer) int64
TEXT ·cloneRun(SB),NOSPLIT|NOFRAME,$0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD prog+16(FP), R19
	MOVD $435, R8 // clone3
	SVC
	CBZ  R0, child
	MOVD R0, ret+24(FP)
	RET

child:
	ADD $64, R19, R20

loop:
	MOVD 0(R20), R8
	MOVD 8(R20), R0
	MOVD 16(R20), R1
	MOVD 24(R20), R2
	MOVD 32(R20), R3
	MOVD 40(R20), R4
	MOVD 48(R20), R5
	MOVD 72(R20), R9
	CBZ  R9, call
	MOVD (R9), R0 // the result of an earlier step is the first argument

call:
	SVC
	MOVD 56(R20), R9
	CBZ  R0, next // 0 is there already; a fork's child must not hide its pid
	MOVD R0, 64(R20)
	CMN  $4095, R0
	BHS  failed
	TBZ  $1, R9, next
	MOVD ZR, R0 // a forking step leaves only its child
	B    exit

next:
	ADD $OP_SIZE, R20
	B   loop

failed:
	TBNZ $0, R9, next
	MOVD R0, 8(R19)
	MOVD R20, 0(R19)
	MOVD $127, R0

exit:
	MOVD $94, R8 // exit_group
	SVC
	B    exit
