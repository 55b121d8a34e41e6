/* seccomp filters. libseccomp translates the lists to the kernel's programs, which threads then install themselves. */
#include "server/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What no thread of the process needs once it has started. Everything else stays: libraries that serve HTTP and read files are
 * free in what they use. */
static const int process_denied[] = {
    /* programs, processes, and looking into others */
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(process_madvise),
    SCMP_SYS(kcmp),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(personality),
    /* new sockets and connections; a descriptor that listens is there already */
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    /* files: open and openat are below */
    SCMP_SYS(creat),
    SCMP_SYS(truncate),
    SCMP_SYS(mknod),
    SCMP_SYS(mknodat),
    SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),
    SCMP_SYS(rmdir),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(link),
    SCMP_SYS(linkat),
    SCMP_SYS(symlink),
    SCMP_SYS(symlinkat),
    SCMP_SYS(chmod),
    SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat),
    SCMP_SYS(chown),
    SCMP_SYS(fchown),
    SCMP_SYS(lchown),
    SCMP_SYS(fchownat),
    SCMP_SYS(setxattr),
    SCMP_SYS(lsetxattr),
    SCMP_SYS(fsetxattr),
    SCMP_SYS(removexattr),
    SCMP_SYS(lremovexattr),
    SCMP_SYS(fremovexattr),
    SCMP_SYS(utimensat),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
    SCMP_SYS(memfd_create),
    SCMP_SYS(fanotify_init),
    /* mounts and namespaces */
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(open_tree),
    SCMP_SYS(move_mount),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    /* the kernel itself */
    SCMP_SYS(bpf),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    SCMP_SYS(syslog),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(keyctl),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    /* identities */
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(setreuid),
    SCMP_SYS(setregid),
    SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),
    SCMP_SYS(setfsuid),
    SCMP_SYS(setfsgid),
    SCMP_SYS(setgroups),
    SCMP_SYS(capset),
};

/* All that decoding, inference and handing over a reply need. mmap and mprotect are below. */
static const int worker_allowed[] = {
    SCMP_SYS(futex),
    SCMP_SYS(futex_time64),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getcpu),
    SCMP_SYS(membarrier),
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(restart_syscall),
    /* memory */
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    /* time, where the vDSO does not answer */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_gettime64),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_nanosleep_time64),
    /* the log, waking the I/O thread, asking whether a client is still there: all on descriptors that are open already */
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(ppoll_time64),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getrusage),
    /* ending, also by abort() */
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool deny_writing(scmp_filter_ctx context) {
  static const scmp_datum_t flags[] = {O_CREAT, O_TRUNC, O_APPEND};
  bool good = true;
  for (scmp_datum_t mode = O_WRONLY; mode <= O_ACCMODE; mode++) {
    good = good &&
           !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE, mode)) &&
           !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE, mode));
  }
  for (size_t i = 0; i < COUNT(flags); i++) {
    good =
        good &&
        !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, flags[i], flags[i])) &&
        !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, flags[i], flags[i]));
  }
  /* Its flags lie in memory, which a filter cannot see: the caller is to fall back to openat. */
  return good && !seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0);
}

/* Threads go on being made, processes not. clone3 has its flags in memory: C libraries fall back to clone. */
static bool deny_children(scmp_filter_ctx context) {
  return !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
#ifdef __s390__
                           SCMP_A1(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)
#else
                           SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)
#endif
                               ) &&
         !seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static bool allow_data_memory(scmp_filter_ctx context) {
  return !seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) &&
         !seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/* The kernel's program, through a file in memory: libseccomp writes it to descriptors only. */
static bool take_program(scmp_filter_ctx context, struct sandbox_program *program) {
  struct stat status;
  int fd = memfd_create("filter", MFD_CLOEXEC);
  bool good = fd >= 0 && !seccomp_export_bpf(context, fd) && !fstat(fd, &status);
  size_t size = good ? (size_t)status.st_size : 0, count = size / sizeof *program->code;
  good = good && count > 0 && count <= BPF_MAXINSNS && size % sizeof *program->code == 0;
  struct sock_filter *code = good ? malloc(size) : NULL;
  good = code && pread(fd, code, size, 0) == (ssize_t)size;
  if (fd >= 0) close(fd);
  if (!good) {
    free(code);
    return false;
  }
  *program = (struct sandbox_program){.code = code, .count = (unsigned short)count};
  return true;
}

static enum hwgq_status made(scmp_filter_ctx context, bool good, struct sandbox_program *program, struct hwgq_error *error) {
  good = good && take_program(context, program);
  if (context) seccomp_release(context);
  return good ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_IO, "sandbox: libseccomp could not make the filter");
}

enum hwgq_status filter_make_process(struct sandbox_program *program, struct hwgq_error *error) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
  bool good = context && deny_writing(context) && deny_children(context);
  for (size_t i = 0; good && i < COUNT(process_denied); i++) {
    good = !seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), process_denied[i], 0);
  }
  return made(context, good, program, error);
}

enum hwgq_status filter_make_worker(struct sandbox_program *program, struct hwgq_error *error) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  bool good = context && allow_data_memory(context);
  for (size_t i = 0; good && i < COUNT(worker_allowed); i++) {
    good = !seccomp_rule_add(context, SCMP_ACT_ALLOW, worker_allowed[i], 0);
  }
  return made(context, good, program, error);
}

bool filter_available(void) {
  uint32_t action = SECCOMP_RET_ERRNO;
  return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

bool filter_enter(const struct sandbox_program *program) {
  const struct sock_fprog code = {.len = program->count, .filter = program->code};
  /* Kernels before 5.16 slow a filtered thread down against Spectre 4, which matters for programs that run others' code. */
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &code) == 0;
}
