// Package inject makes a userfaultfd inside another process and takes it out.
//
// A userfaultfd watches the memory of the process that called userfaultfd(2), whoever holds the descriptor. So that is the one
// call that has to be made in there: one thread is stopped with ptrace for some ten microseconds, makes it, closes its descriptor
// again when the tracer has a copy (pidfd_getfd), unless another thread has put a file of its own there meanwhile (ErrTaken), and goes
// on as if it had been stopped and continued: same registers, same signal mask, a system call that was interrupted is restarted by the
// kernel. Nothing is mapped, no memory of the process written, no stack used.
//
// If the tracer were killed in between, the kernel would let the thread go with our registers in it. So the tracer is a process of its
// own, which whoever asks (Injector) does not take along when it dies, and which goes on until every thread is as it was (Serve).
//
// Everything else about the descriptor (registering, scanning) is the caller's, from outside. Start with Injector (injector.go), then
// serve.go, userfaultfd.go and thread.go; what differs by machine is in the arch files.
package inject
