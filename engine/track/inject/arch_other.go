//go:build !amd64

package inject

// The other machines: nothing can be injected yet. What arm64 needs: PTRACE_GETREGSET with NT_PRSTATUS and NT_ARM_SYSTEM_CALL, the
// instruction `svc #0` in the vdso, and registers that are restored as read, because its kernel rewinds an interrupted call before
// the stop.
//
// Supported says whether this package works on this machine.
const Supported = false

type registers struct{}

func (*registers) read(int) error                 { return ErrMachine }
func (*registers) write(int) error                { return ErrMachine }
func (*registers) native() bool                   { return false }
func (*registers) at() uint64                     { return 0 }
func (*registers) enter(uint64, uint64, []uint64) {}
func (*registers) skip()                          {}
func (*registers) result() int64                  { return 0 }
func (*registers) restart()                       {}

func indexEntry([]byte) int { return -1 }
