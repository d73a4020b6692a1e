#include "textflag.h"

// func codeAddress() unsafe.Pointer
TEXT ·codeAddress(SB),NOSPLIT,$0-8
	LEAQ program<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// System calls (arch/x86/entry/syscalls/syscall_64.tbl).
#define SYS_write           1
#define SYS_rt_sigaction    13
#define SYS_rt_sigprocmask  14
#define SYS_ioctl           16
#define SYS_getpid          39
#define SYS_clone           56
#define SYS_execve          59
#define SYS_wait4           61
#define SYS_kill            62
#define SYS_setpgid         109
#define SYS_rt_sigtimedwait 128
#define SYS_exit_group      231

#define SIGCHLD     17
#define SIGTTIN     21
#define SIGTTOU     22
#define SIG_SETMASK 2
#define TIOCSPGRP   0x5410
#define WNOHANG     1

#define ENOENT  -2
#define ENOEXEC -8
#define EACCES  -13
#define ENOTDIR -20

// All signals but ILL, TRAP, ABRT, BUS, FPE, SEGV, TTIN, TTOU and SYS.
#define FORWARDED $0xffffffffbfcffb07

// The frame at R14: signal masks, three struct kernel_sigaction, a wait status
// or process group, "/bin/sh", messages, a path.
#define MASK     0(R14)
#define OLDMASK  8(R14)
#define IGNORE   16(R14)
#define OLDTTIN  48(R14)
#define OLDTTOU  80(R14)
#define STATUS   112(R14)
#define SHELL    120(R14)
#define MESSAGE  128(R14)
#define PATHNAME 256(R14)
#define PATHMAX  4096
#define FRAME    4608

// R12 the command's argv, R13 envp, BX the child, R15 its status or -1.
TEXT program<>(SB),NOSPLIT|NOFRAME,$0
	MOVQ 0(SP), AX          // argc
	LEAQ 16(SP), R12        // argv[1]
	LEAQ 16(SP)(AX*8), R13  // envp
	LEAQ -FRAME(SP), R14
	MOVQ R14, SP
	TESTQ AX, AX            // nobody's argv is empty since Linux 5.18
	JEQ  usage
	MOVQ 0(R12), SI
	TESTQ SI, SI
	JEQ  usage
	CMPW 0(SI), $0x2d2d     // "--"
	JNE  signals
	CMPB 2(SI), $0
	JNE  signals
	ADDQ $8, R12
	CMPQ 0(R12), $0
	JEQ  usage

signals:
	MOVQ FORWARDED, AX
	MOVQ AX, MASK
	MOVQ $SIG_SETMASK, DI
	LEAQ MASK, SI
	LEAQ OLDMASK, DX
	MOVQ $8, R10
	MOVQ $SYS_rt_sigprocmask, AX
	SYSCALL
	// The child gives itself the terminal from the background.
	MOVQ $1, IGNORE
	MOVQ $0, 24(R14)
	MOVQ $0, 32(R14)
	MOVQ $0, 40(R14)
	MOVQ $SIGTTIN, DI
	LEAQ IGNORE, SI
	LEAQ OLDTTIN, DX
	MOVQ $SYS_rt_sigaction, AX
	SYSCALL
	MOVQ $SIGTTOU, DI
	LEAQ OLDTTOU, DX
	MOVQ $SYS_rt_sigaction, AX
	SYSCALL

	MOVQ $SIGCHLD, DI
	XORQ SI, SI
	XORQ DX, DX
	XORQ R10, R10
	XORQ R8, R8
	MOVQ $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	JLT  usage              // out of processes or memory
	MOVQ AX, BX
	MOVQ $-1, R15

wait:
	LEAQ MASK, DI
	XORQ SI, SI
	XORQ DX, DX
	MOVQ $8, R10
	MOVQ $SYS_rt_sigtimedwait, AX
	SYSCALL
	TESTQ AX, AX
	JLE  wait
	CMPQ AX, $SIGCHLD
	JEQ  reap
	MOVQ BX, DI
	MOVQ AX, SI
	MOVQ $SYS_kill, AX
	SYSCALL
	JMP  wait

reap:
	MOVQ $-1, DI
	LEAQ STATUS, SI
	MOVQ $WNOHANG, DX
	XORQ R10, R10
	MOVQ $SYS_wait4, AX
	SYSCALL
	TESTQ AX, AX
	JLE  reaped
	CMPQ AX, BX
	JNE  reap
	MOVL STATUS, R15
	JMP  reap

reaped:
	CMPQ R15, $-1
	JEQ  wait
	MOVQ R15, DI
	ANDQ $0x7f, DI
	JEQ  exited
	ADDQ $128, DI
	JMP  exit

exited:
	MOVQ R15, DI
	SHRQ $8, DI
	ANDQ $0xff, DI

exit:
	MOVQ $SYS_exit_group, AX
	SYSCALL

usage:
	MOVQ $1, DI
	JMP  exit

child:
	XORQ DI, DI
	XORQ SI, SI
	MOVQ $SYS_setpgid, AX
	SYSCALL
	MOVQ $SYS_getpid, AX
	SYSCALL
	MOVL AX, STATUS
	XORQ DI, DI
	MOVQ $TIOCSPGRP, SI
	LEAQ STATUS, DX
	MOVQ $SYS_ioctl, AX     // fails without a terminal
	SYSCALL
	MOVQ $SIGTTIN, DI
	LEAQ OLDTTIN, SI
	XORQ DX, DX
	MOVQ $8, R10
	MOVQ $SYS_rt_sigaction, AX
	SYSCALL
	MOVQ $SIGTTOU, DI
	LEAQ OLDTTOU, SI
	MOVQ $SYS_rt_sigaction, AX
	SYSCALL
	MOVQ $SIG_SETMASK, DI
	LEAQ OLDMASK, SI
	MOVQ $SYS_rt_sigprocmask, AX
	SYSCALL

	// A name with a slash is a path. BX is what to execute, R15 the error so far.
	MOVQ $ENOENT, R15
	MOVQ 0(R12), BX
	CMPB 0(BX), $0
	JEQ  failed
	MOVQ BX, SI

slash:
	MOVB 0(SI), AX
	INCQ SI
	CMPB AX, $0x2f
	JEQ  execute
	TESTB AX, AX
	JNE  slash

	// R9 is PATH of the environment; the first one counts.
	MOVQ R13, SI

variable:
	MOVQ 0(SI), R9
	ADDQ $8, SI
	TESTQ R9, R9
	JEQ  failed
	CMPL 0(R9), $0x48544150 // "PATH"
	JNE  variable
	CMPB 4(R9), $0x3d
	JNE  variable
	ADDQ $5, R9

folder:
	LEAQ PATHNAME, DI
	LEAQ (PATHMAX-2)(DI), DX

folderByte:
	MOVB 0(R9), AX
	TESTB AX, AX
	JEQ  name
	CMPB AX, $0x3a
	JEQ  name
	INCQ R9
	CMPQ DI, DX
	JCC  folderByte         // too long to exist
	MOVB AX, 0(DI)
	INCQ DI
	JMP  folderByte

name:
	LEAQ PATHNAME, BX
	CMPQ DI, BX
	JEQ  file               // an empty entry is the working folder
	MOVB $0x2f, 0(DI)
	INCQ DI

file:
	MOVQ 0(R12), SI

fileByte:
	CMPQ DI, DX
	JHI  nextFolder
	MOVB 0(SI), AX
	INCQ SI
	MOVB AX, 0(DI)
	INCQ DI
	TESTB AX, AX
	JNE  fileByte

execute:
	MOVQ BX, DI
	MOVQ R12, SI
	MOVQ R13, DX
	MOVQ $SYS_execve, AX
	SYSCALL
	CMPQ AX, $ENOEXEC
	JEQ  script
	LEAQ PATHNAME, DI
	CMPQ BX, DI
	JNE  only               // it was a path
	CMPQ AX, $ENOENT
	JEQ  nextFolder
	CMPQ AX, $ENOTDIR
	JEQ  nextFolder
	CMPQ AX, $EACCES
	JNE  only
	MOVQ AX, R15             // unless another folder has it

nextFolder:
	CMPB 0(R9), $0
	JEQ  failed
	INCQ R9
	JMP  folder

	// argv[-1] is our own "--" or name, and ours to write.
script:
	MOVQ $0x0068732f6e69622f, AX // "/bin/sh"
	MOVQ AX, SHELL
	LEAQ SHELL, DI
	MOVQ BX, 0(R12)
	SUBQ $8, R12
	MOVQ DI, 0(R12)
	MOVQ R12, SI
	MOVQ R13, DX
	MOVQ $SYS_execve, AX
	SYSCALL
	ADDQ $8, R12

only:
	MOVQ AX, R15

	// "docker-init: exec NAME failed: CAUSE\n"
failed:
	MOVQ $2, DI
	MOVQ $0x692d72656b636f64, AX // "docker-i"
	MOVQ AX, 128(R14)
	MOVQ $0x657865203a74696e, AX // "nit: exe"
	MOVQ AX, 136(R14)
	MOVQ $0x0000000000002063, AX // "c "
	MOVQ AX, 144(R14)
	LEAQ MESSAGE, SI
	MOVQ $18, DX
	MOVQ $SYS_write, AX
	SYSCALL
	MOVQ 0(R12), SI
	MOVQ SI, DX

end:
	CMPB 0(DX), $0
	JEQ  ended
	INCQ DX
	JMP  end

ended:
	SUBQ SI, DX
	MOVQ $SYS_write, AX
	SYSCALL
	MOVQ $0x3a64656c69616620, AX // " failed:"
	MOVQ AX, 128(R14)
	MOVQ $0x0000000000000020, AX // " "
	MOVQ AX, 136(R14)
	LEAQ MESSAGE, SI
	MOVQ $9, DX
	MOVQ $SYS_write, AX
	SYSCALL
	CMPQ R15, $ENOENT
	JEQ  missing
	CMPQ R15, $EACCES
	JEQ  denied
	MOVQ $0x6220746f6e6e6163, AX // "cannot b"
	MOVQ AX, 128(R14)
	MOVQ $0x7475636578652065, AX // "e execut"
	MOVQ AX, 136(R14)
	MOVQ $0x00000000000a6465, AX // "ed\n"
	MOVQ AX, 144(R14)
	LEAQ MESSAGE, SI
	MOVQ $19, DX
	MOVQ $SYS_write, AX
	SYSCALL
	MOVQ $1, DI
	JMP  exit

missing:
	MOVQ $0x2068637573206f4e, AX // "No such "
	MOVQ AX, 128(R14)
	MOVQ $0x20726f20656c6966, AX // "file or "
	MOVQ AX, 136(R14)
	MOVQ $0x726f746365726964, AX // "director"
	MOVQ AX, 144(R14)
	MOVQ $0x0000000000000a79, AX // "y\n"
	MOVQ AX, 152(R14)
	LEAQ MESSAGE, SI
	MOVQ $26, DX
	MOVQ $SYS_write, AX
	SYSCALL
	MOVQ $127, DI
	JMP  exit

denied:
	MOVQ $0x697373696d726550, AX // "Permissi"
	MOVQ AX, 128(R14)
	MOVQ $0x65696e6564206e6f, AX // "on denie"
	MOVQ AX, 136(R14)
	MOVQ $0x0000000000000a64, AX // "d\n"
	MOVQ AX, 144(R14)
	LEAQ MESSAGE, SI
	MOVQ $18, DX
	MOVQ $SYS_write, AX
	SYSCALL
	MOVQ $126, DI
	JMP  exit

	// endMark
	BYTE $0x0f; BYTE $0x6f; BYTE $0x72; BYTE $0x6c; BYTE $0x6f; BYTE $0x70; BYTE $0x45; BYTE $0x4e; BYTE $0x44
