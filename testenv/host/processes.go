package host

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Processes are the machine's pids of the host's processes whose command line, with spaces between the words, matches. A caller signals
// them from outside, with nothing started in the host.
func (h *Host) Processes(commandLine *regexp.Regexp) (pids []int) {
	for _, pid := range h.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && commandLine.MatchString(strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))) {
			pids = append(pids, pid)
		}
	}
	return pids
}
