/*
 * The oracle of oracle_test.go: builds a filter with libseccomp from a small
 * text form on standard input, the way runc drives the library, and writes
 * the BPF program to standard output.
 *
 *   default ACTION
 *   arch NAME                       SCMP_ARCH_NAME in lower case
 *   foreign                         without this machine's own architecture
 *   rule ACTION CALL [ARG OP A B]…  one rule; OP is 1 NE … 7 MASKED_EQ
 *   version                         answers a line "MAJOR.MINOR.MICRO" instead
 *   knows ARCH                      answers a line "ARCH yes" or "ARCH no"
 *   number ARCH CALL                answers a line "CALL NUMBER"
 *   name ARCH NUMBER                answers a line "NUMBER CALL", "NUMBER -" for none
 *
 * Calls the library does not know are listed on standard error.
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, int rc)
{
	fprintf(stdout, "oracle: %s: %s\n", what, strerror(-rc));
	exit(1);
}

static uint32_t arch_named(const char *name)
{
	uint32_t arch = seccomp_arch_resolve_name(name);

	if (!arch) /* would mean this machine's */
		die(name, -EINVAL);
	return arch;
}

int main(void)
{
	static char line[4096];
	scmp_filter_ctx ctx = NULL;
	int answers = 0, rc;

	while (fgets(line, sizeof line, stdin)) {
		char *word = strtok(line, " \n");
		if (!word)
			continue;
		if (!strcmp(word, "default")) {
			ctx = seccomp_init(strtoul(strtok(NULL, " \n"), NULL, 0));
			if (!ctx)
				die("init", -EINVAL);
		} else if (!strcmp(word, "arch")) {
			rc = seccomp_arch_add(ctx, arch_named(strtok(NULL, " \n")));
			if (rc && rc != -EEXIST)
				die("arch", rc);
		} else if (!strcmp(word, "foreign")) {
			rc = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
			if (rc)
				die("foreign", rc);
		} else if (!strcmp(word, "number")) {
			uint32_t arch = arch_named(strtok(NULL, " \n"));
			char *call = strtok(NULL, " \n");
			printf("%s %d\n", call, seccomp_syscall_resolve_name_arch(arch, call));
			answers = 1;
		} else if (!strcmp(word, "name")) {
			uint32_t arch = arch_named(strtok(NULL, " \n"));
			int nr = strtol(strtok(NULL, " \n"), NULL, 0);
			char *call = seccomp_syscall_resolve_num_arch(arch, nr);
			printf("%d %s\n", nr, call ? call : "-");
			free(call);
			answers = 1;
		} else if (!strcmp(word, "knows")) {
			char *name = strtok(NULL, " \n");
			printf("%s %s\n", name, seccomp_arch_resolve_name(name) ? "yes" : "no");
			answers = 1;
		} else if (!strcmp(word, "version")) {
			const struct scmp_version *v = seccomp_version();
			printf("%u.%u.%u\n", v->major, v->minor, v->micro);
			answers = 1;
		} else if (!strcmp(word, "rule")) {
			uint32_t action = strtoul(strtok(NULL, " \n"), NULL, 0);
			char *call = strtok(NULL, " \n"), *w;
			struct scmp_arg_cmp args[6];
			unsigned n = 0;
			int nr = seccomp_syscall_resolve_name(call);

			while ((w = strtok(NULL, " \n"))) {
				args[n].arg = strtoul(w, NULL, 0);
				args[n].op = strtoul(strtok(NULL, " \n"), NULL, 0);
				args[n].datum_a = strtoull(strtok(NULL, " \n"), NULL, 0);
				args[n].datum_b = strtoull(strtok(NULL, " \n"), NULL, 0);
				n++;
			}
			if (nr == __NR_SCMP_ERROR) {
				fprintf(stderr, "%s\n", call);
				continue;
			}
			rc = seccomp_rule_add_array(ctx, action, nr, n, args);
			if (rc)
				die(call, rc);
		}
	}
	if (answers)
		return 0;
	rc = seccomp_export_bpf(ctx, STDOUT_FILENO);
	if (rc)
		die("export", rc);
	return 0;
}
