/*
 * Preloaded into criu inside test hosts, and only where the machine withholds CAP_SYS_RESOURCE. With the capability neither
 * case below can arise, and criu runs without this file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* Reading the limits of a task of another uid by prlimit64 needs the capability; /proc/PID/limits tells the same. */

static const char *limit_names[] = {
	"Max cpu time",      "Max file size",     "Max data size",       "Max stack size",
	"Max core file size", "Max resident set", "Max processes",       "Max open files",
	"Max locked memory", "Max address space", "Max file locks",      "Max pending signals",
	"Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
};
enum { LIMITS = sizeof limit_names / sizeof *limit_names, VALUE_COLUMN = 26 };

static unsigned long long limit_value(const char *text)
{
	return strncmp(text, "unlimited", 9) ? strtoull(text, NULL, 10) : ~0ULL;
}

static int limit_from_proc(long pid, long resource, unsigned long long out[2])
{
	char path[64], line[256], soft[32], hard[32];
	int found = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%ld/limits", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (!found && fgets(line, sizeof line, f)) {
		if (strncmp(line, limit_names[resource], strlen(limit_names[resource])))
			continue;
		if (sscanf(line + VALUE_COLUMN, "%31s %31s", soft, hard) == 2) {
			out[0] = limit_value(soft);
			out[1] = limit_value(hard);
			found = 1;
		}
	}
	fclose(f);
	return found;
}

long syscall(long number, ...)
{
	static long (*real)(long, ...);
	long arg[6], result;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	if (!real)
		real = dlsym(RTLD_NEXT, "syscall");
	result = real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (number != SYS_prlimit64 || result >= 0 || errno != EPERM)
		return result;
	int only_reads = !arg[2] && arg[3];
	if (only_reads && arg[1] >= 0 && arg[1] < LIMITS && limit_from_proc(arg[0], arg[1], (void *)arg[3]))
		return 0;
	errno = EPERM;
	return -1;
}

/*
 * A pipe larger than fs.pipe-max-size needs the capability. criu asks for several MiB, ignores the refusal and then fails; it
 * works with the largest size that is allowed. A pipe that was already enlarged is left alone.
 */
enum { FRESH_PIPE = 65536, LARGEST_PIPE = 1 << 20 };

static int resize_pipe(const char *symbol, int fd, int cmd, long arg)
{
	int (*real)(int, int, ...) = dlsym(RTLD_NEXT, symbol);
	int result = real(fd, cmd, arg);

	if (result < 0 && errno == EPERM && cmd == F_SETPIPE_SZ && arg > LARGEST_PIPE && real(fd, F_GETPIPE_SZ) == FRESH_PIPE)
		return real(fd, cmd, (long)LARGEST_PIPE);
	return result;
}

int fcntl64(int fd, int cmd, ...)
{
	va_list ap;

	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	return resize_pipe("fcntl64", fd, cmd, arg);
}

int fcntl(int fd, int cmd, ...)
{
	va_list ap;

	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	return resize_pipe("fcntl", fd, cmd, arg);
}
