package doctor

import (
	"os"
	"slices"
	"strings"

	workerapi "drover/worker/api"
)

// readCPU reads what this host's first processor offers; all of a host's processors offer the same.
func readCPU() workerapi.CPU {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return workerapi.CPU{}
	}
	return parseCPU(string(b))
}

func parseCPU(text string) (cpu workerapi.CPU) {
	first, _, _ := strings.Cut(text, "\n\n")
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id", "CPU implementer":
			cpu.Vendor = value
		case "model name", "CPU part":
			cpu.Model = value
		case "flags", "Features":
			cpu.Features = strings.Fields(value)
		}
	}
	slices.Sort(cpu.Features)
	return cpu
}

// harmless are features that programs cannot use, or whose lack costs nothing but time: a program that chose its code by them
// still runs. All others matter: what a program or its C library found at its start it goes on using.
var harmless = []string{
	"erms", "fsrm", "fzrm", "fsrs", "fsrc", // fast string instructions: the instructions exist everywhere
	"constant_tsc", "nonstop_tsc", "tsc_known_freq", "tsc_reliable", "tsc_adjust", "tsc_deadline_timer", "art", "rep_good", "nopl",
	"arch_perfmon", "pebs", "bts", "ds_cpl", "dtes64", "dtherm", "ida", "arat", "pln", "pts", "hwp", "hwp_notify", "hwp_act_window",
	"hwp_epp", "hwp_pkg_req", "hfi", "epb", "est", "tm", "tm2", "acpi", "aperfmperf", "cpuid", "cpuid_fault", "xtopology", "extapic",
	"hypervisor", "vmx", "svm", "vmmcall", "tpr_shadow", "flexpriority", "ept", "ept_ad", "vpid", "vnmi", "npt", "lbrv", "svm_lock",
	"nrip_save", "tsc_scale", "vmcb_clean", "flushbyasid", "decodeassists", "pausefilter", "pfthreshold", "avic", "v_vmsave_vmload",
	"vgif", "x2avic", "v_spec_ctrl", "smx", "xtpr", "pdcm", "pcid", "invpcid", "invpcid_single", "dca", "x2apic", "monitor", "mwaitx",
	"smep", "smap", "umip", "pti", "ibrs", "ibpb", "stibp", "ssbd", "ibrs_enhanced", "spec_ctrl", "arch_capabilities", "md_clear",
	"flush_l1d", "virt_ssbd", "amd_ppin", "intel_ppin", "cqm", "cqm_llc", "cqm_occup_llc", "cqm_mbm_total", "cqm_mbm_local", "rdt_a",
	"cat_l3", "cat_l2", "cdp_l3", "cdp_l2", "mba", "sme", "sev", "sev_es", "sev_snp", "tme", "pconfig", "intel_pt", "split_lock_detect",
	"bus_lock_detect", "user_shstk", "vme", "de", "pse", "pse36", "pge", "mce", "mca", "mtrr", "pat", "apic", "sep", "ss", "ht", "pbe",
	"nx", "pdpe1gb", "perfctr_core", "perfctr_nb", "perfctr_llc", "bpext", "ptsc", "topoext", "cmp_legacy", "cr8_legacy", "osvw", "ibs",
	"skinit", "wdt", "tce", "nodeid_msr", "hw_pstate", "proc_feedback", "cpb", "ssb_no", "irperf", "rdpru", "wbnoinvd", "amd_ibpb",
	"amd_stibp", "succor", "overflow_recov", "smca", "bhi_ctrl", "ibt", "la57", "arch_lbr", "debug_swap", "amd_lbr_v2", "amd_lbr_pmc_freeze",
	"dts", "cppc", "extd_apicid", "xsaves", "kaiser", "retpoline", "lam",
}

// missing splits what the source has and the target lacks into what matters and what does not.
func missing(source, target workerapi.CPU) (matter, not []string) {
	for _, f := range source.Features {
		switch {
		case slices.Contains(target.Features, f):
		case slices.Contains(harmless, f):
			not = append(not, f)
		default:
			matter = append(matter, f)
		}
	}
	return matter, not
}
