// Package inject makes a userfaultfd inside another process and takes it out.
//
// A userfaultfd watches the memory of the process that called userfaultfd(2), whoever holds the descriptor. So that is the one
// call that has to be made in there: one thread is stopped with ptrace for some ten microseconds, makes it, closes its descriptor
// again when this process has a copy (pidfd_getfd), and goes on as if it had been stopped and continued: same registers, same
// signal mask, a system call that was interrupted is restarted by the kernel. Nothing is mapped, no memory of the process written, no stack used.
//
// Everything else about the descriptor (registering, scanning) is the caller's, from outside. Start with Userfaultfd; what differs
// by machine is in the arch files.
package inject
