#include "textflag.h"

// func entry()
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0-0
	MOVBU runtime·iscgo(SB), R0
	CBNZ  R0, runtime     // a C library has this thread's memory
	MOVD  RSP, R0
	SUB   $48, RSP
	MOVD  R0, 8(RSP)
	CALL  ·start(SB)
	MOVD  16(RSP), R0
	ADD   $48, RSP
	TBNZ  $63, R0, runtime
	MOVD  $94, R8         // exit_group
	SVC

runtime:
	JMP _rt0_arm64_linux(SB)
