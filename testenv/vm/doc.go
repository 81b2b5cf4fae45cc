// Package vm boots small virtual machines whose kernel has what the development machines' kernels may lack: soft-dirty page
// tracking, and with it CRIU's own pre-dump.
//
// A machine runs Debian's cloud kernel under QEMU's software emulation, on a throw-away copy of the test hosts' root file system.
// It has no network. Its pid 1 is the guest program, which carries out what comes through a virtio port. Emulation makes it some
// ten times slower than the machine it runs on: times measured in it say nothing about hardware, only how ways of doing the same
// compare (BenchmarkCompareEmulated, `make bench-report-vm`).
// The test bed runs in it too: a cluster on namespaces of one machine.
//
// It never needs KVM and never touches the machine's network. Start with Boot.
package vm
