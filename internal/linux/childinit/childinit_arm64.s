#include "textflag.h"

// func codeAddress() unsafe.Pointer
TEXT ·codeAddress(SB),NOSPLIT,$0-8
	MOVD $program<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

// System calls (include/uapi/asm-generic/unistd.h).
#define SYS_ioctl           29
#define SYS_write           64
#define SYS_exit_group      94
#define SYS_kill            129
#define SYS_rt_sigaction    134
#define SYS_rt_sigprocmask  135
#define SYS_rt_sigtimedwait 137
#define SYS_setpgid         154
#define SYS_getpid          172
#define SYS_clone           220
#define SYS_execve          221
#define SYS_wait4           260

#define SIGCHLD     17
#define SIGTTIN     21
#define SIGTTOU     22
#define SIG_SETMASK 2
#define TIOCSPGRP   0x5410
#define WNOHANG     1

#define ENOENT  2
#define ENOEXEC 8
#define EACCES  13
#define ENOTDIR 20

// All signals but ILL, TRAP, ABRT, BUS, FPE, SEGV, TTIN, TTOU and SYS.
#define FORWARDED $0xffffffffbfcffb07

// The frame at R23: signal masks (0, 8), three struct kernel_sigaction (16, 48,
// 80), a wait status or process group (112), "/bin/sh" (120), messages (128), a
// path (256).
#define PATHNAME 256
#define PATHMAX  4096
#define FRAME    4608

// R19 the command's argv, R20 envp, R21 the child, R22 its status or -1. The
// assembler uses R27 for itself.
TEXT program<>(SB),NOSPLIT|NOFRAME,$0
	MOVD 0(RSP), R0         // argc
	ADD  $16, RSP, R19      // argv[1]
	ADD  R0<<3, R19, R20    // envp
	MOVD RSP, R23
	SUB  $FRAME, R23
	MOVD R23, RSP
	CBZ  R0, usage          // nobody's argv is empty since Linux 5.18
	MOVD 0(R19), R1
	CBZ  R1, usage
	MOVBU 0(R1), R2
	CMP  $0x2d, R2
	BNE  signals
	MOVBU 1(R1), R2
	CMP  $0x2d, R2
	BNE  signals
	MOVBU 2(R1), R2
	CBNZ R2, signals
	ADD  $8, R19
	MOVD 0(R19), R1
	CBZ  R1, usage

signals:
	MOVD FORWARDED, R9
	MOVD R9, 0(R23)
	MOVD $SIG_SETMASK, R0
	MOVD R23, R1
	ADD  $8, R23, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC
	// The child gives itself the terminal from the background.
	MOVD $1, R9
	MOVD R9, 16(R23)
	MOVD ZR, 24(R23)
	MOVD ZR, 32(R23)
	MOVD ZR, 40(R23)
	MOVD $SIGTTIN, R0
	ADD  $16, R23, R1
	ADD  $48, R23, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigaction, R8
	SVC
	MOVD $SIGTTOU, R0
	ADD  $16, R23, R1
	ADD  $80, R23, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigaction, R8
	SVC

	MOVD $SIGCHLD, R0
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD $SYS_clone, R8
	SVC
	CBZ  R0, child
	CMP  $0, R0
	BLT  usage              // out of processes or memory
	MOVD R0, R21
	MOVD $-1, R22

wait:
	MOVD R23, R0
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigtimedwait, R8
	SVC
	CMP  $0, R0
	BLE  wait
	CMP  $SIGCHLD, R0
	BEQ  reap
	MOVD R0, R1
	MOVD R21, R0
	MOVD $SYS_kill, R8
	SVC
	B    wait

reap:
	MOVD $-1, R0
	ADD  $112, R23, R1
	MOVD $WNOHANG, R2
	MOVD ZR, R3
	MOVD $SYS_wait4, R8
	SVC
	CMP  $0, R0
	BLE  reaped
	CMP  R21, R0
	BNE  reap
	MOVWU 112(R23), R22
	B    reap

reaped:
	CMP  $-1, R22
	BEQ  wait
	AND  $0x7f, R22, R0
	CBZ  R0, exited
	ADD  $128, R0
	B    exit

exited:
	LSR  $8, R22, R0
	AND  $0xff, R0

exit:
	MOVD $SYS_exit_group, R8
	SVC

usage:
	MOVD $1, R0
	B    exit

child:
	MOVD ZR, R0
	MOVD ZR, R1
	MOVD $SYS_setpgid, R8
	SVC
	MOVD $SYS_getpid, R8
	SVC
	MOVW R0, 112(R23)
	MOVD ZR, R0
	MOVD $TIOCSPGRP, R1
	ADD  $112, R23, R2
	MOVD $SYS_ioctl, R8     // fails without a terminal
	SVC
	MOVD $SIGTTIN, R0
	ADD  $48, R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigaction, R8
	SVC
	MOVD $SIGTTOU, R0
	ADD  $80, R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigaction, R8
	SVC
	MOVD $SIG_SETMASK, R0
	ADD  $8, R23, R1
	MOVD ZR, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC

	// A name with a slash is a path. R21 is what to execute, R22 the error so
	// far.
	MOVD $ENOENT, R22
	MOVD 0(R19), R21
	MOVBU 0(R21), R2
	CBZ  R2, failed
	MOVD R21, R1

slash:
	MOVBU 0(R1), R2
	ADD  $1, R1
	CMP  $0x2f, R2
	BEQ  execute
	CBNZ R2, slash

	// R11 is PATH of the environment; the first one counts.
	MOVD R20, R1

variable:
	MOVD 0(R1), R11
	ADD  $8, R1
	CBZ  R11, failed
	MOVBU 0(R11), R2
	CMP  $0x50, R2
	BNE  variable
	MOVBU 1(R11), R2
	CMP  $0x41, R2
	BNE  variable
	MOVBU 2(R11), R2
	CMP  $0x54, R2
	BNE  variable
	MOVBU 3(R11), R2
	CMP  $0x48, R2
	BNE  variable
	MOVBU 4(R11), R2
	CMP  $0x3d, R2
	BNE  variable
	ADD  $5, R11

folder:
	ADD  $PATHNAME, R23, R12
	ADD  $(PATHMAX-2), R12, R13

folderByte:
	MOVBU 0(R11), R2
	CBZ  R2, name
	CMP  $0x3a, R2
	BEQ  name
	ADD  $1, R11
	CMP  R13, R12
	BHS  folderByte         // too long to exist
	MOVB R2, 0(R12)
	ADD  $1, R12
	B    folderByte

name:
	ADD  $PATHNAME, R23, R21
	CMP  R21, R12
	BEQ  file               // an empty entry is the working folder
	MOVD $0x2f, R2
	MOVB R2, 0(R12)
	ADD  $1, R12

file:
	MOVD 0(R19), R1

fileByte:
	CMP  R13, R12
	BHI  nextFolder
	MOVBU 0(R1), R2
	ADD  $1, R1
	MOVB R2, 0(R12)
	ADD  $1, R12
	CBNZ R2, fileByte

execute:
	MOVD R21, R0
	MOVD R19, R1
	MOVD R20, R2
	MOVD $SYS_execve, R8
	SVC
	NEG  R0, R0
	CMP  $ENOEXEC, R0
	BEQ  script
	ADD  $PATHNAME, R23, R1
	CMP  R1, R21
	BNE  only               // it was a path
	CMP  $ENOENT, R0
	BEQ  nextFolder
	CMP  $ENOTDIR, R0
	BEQ  nextFolder
	CMP  $EACCES, R0
	BNE  only
	MOVD R0, R22            // unless another folder has it

nextFolder:
	MOVBU 0(R11), R2
	CBZ  R2, failed
	ADD  $1, R11
	B    folder

	// argv[-1] is our own "--" or name, and ours to write.
script:
	MOVD $0x0068732f6e69622f, R9 // "/bin/sh"
	MOVD R9, 120(R23)
	ADD  $120, R23, R0
	MOVD R21, 0(R19)
	SUB  $8, R19
	MOVD R0, 0(R19)
	MOVD R19, R1
	MOVD R20, R2
	MOVD $SYS_execve, R8
	SVC
	NEG  R0, R0
	ADD  $8, R19

only:
	MOVD R0, R22

	// "docker-init: exec NAME failed: CAUSE\n"
failed:
	MOVD $0x692d72656b636f64, R9 // "docker-i"
	MOVD R9, 128(R23)
	MOVD $0x657865203a74696e, R9 // "nit: exe"
	MOVD R9, 136(R23)
	MOVD $0x0000000000002063, R9 // "c "
	MOVD R9, 144(R23)
	MOVD $2, R0
	ADD  $128, R23, R1
	MOVD $18, R2
	MOVD $SYS_write, R8
	SVC
	MOVD 0(R19), R1
	MOVD R1, R2

end:
	MOVBU 0(R2), R3
	CBZ  R3, ended
	ADD  $1, R2
	B    end

ended:
	SUB  R1, R2
	MOVD $2, R0
	SVC
	MOVD $0x3a64656c69616620, R9 // " failed:"
	MOVD R9, 128(R23)
	MOVD $0x0000000000000020, R9 // " "
	MOVD R9, 136(R23)
	MOVD $2, R0
	ADD  $128, R23, R1
	MOVD $9, R2
	MOVD $SYS_write, R8
	SVC
	CMP  $ENOENT, R22
	BEQ  missing
	CMP  $EACCES, R22
	BEQ  denied
	MOVD $0x6220746f6e6e6163, R9 // "cannot b"
	MOVD R9, 128(R23)
	MOVD $0x7475636578652065, R9 // "e execut"
	MOVD R9, 136(R23)
	MOVD $0x00000000000a6465, R9 // "ed\n"
	MOVD R9, 144(R23)
	MOVD $2, R0
	ADD  $128, R23, R1
	MOVD $19, R2
	MOVD $SYS_write, R8
	SVC
	MOVD $1, R0
	B    exit

missing:
	MOVD $0x2068637573206f4e, R9 // "No such "
	MOVD R9, 128(R23)
	MOVD $0x20726f20656c6966, R9 // "file or "
	MOVD R9, 136(R23)
	MOVD $0x726f746365726964, R9 // "director"
	MOVD R9, 144(R23)
	MOVD $0x0000000000000a79, R9 // "y\n"
	MOVD R9, 152(R23)
	MOVD $2, R0
	ADD  $128, R23, R1
	MOVD $26, R2
	MOVD $SYS_write, R8
	SVC
	MOVD $127, R0
	B    exit

denied:
	MOVD $0x697373696d726550, R9 // "Permissi"
	MOVD R9, 128(R23)
	MOVD $0x65696e6564206e6f, R9 // "on denie"
	MOVD R9, 136(R23)
	MOVD $0x0000000000000a64, R9 // "d\n"
	MOVD R9, 144(R23)
	MOVD $2, R0
	ADD  $128, R23, R1
	MOVD $18, R2
	MOVD $SYS_write, R8
	SVC
	MOVD $126, R0
	B    exit

	// endMark
	WORD $0x6c726f0f
	WORD $0x4e45706f
	WORD $0x00000044
